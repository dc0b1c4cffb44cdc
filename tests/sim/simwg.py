"""WireGuard as the kernel has it, without the cryptography: handshakes, timers, roaming, AllowedIPs, counters.

Names and values are those of Linux's drivers/net/wireguard (timers.c, messages.h). A packet is authentic when it
carries the pair's secret, which nobody else has; what is recorded and sent again is refused as it is there: by the
initiation's timestamp and the data's counter.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from simclock import Clock
from simnat import Place
from simnet import Host, Packet
from simwgtimers import WgTimers

REKEY_TIMEOUT_S = 5.0
REKEY_AFTER_S = 120.0
REJECT_AFTER_S = 180.0
KEEPALIVE_TIMEOUT_S = 10.0
MAX_HANDSHAKES = 90 // 5
MAX_STAGED = 128 + 1  # device.c drops one when there are more than MAX_STAGED_PACKETS, and then adds one
_INITIATION, _RESPONSE, _DATA = 1, 2, 4
# Type and three zero bytes, the sender, the pair's secret, a timestamp, the answerer's index or a counter, and the
# initiator's index or the session.
_HEAD = struct.Struct("<B3x16s16sQI")
# IPv4 and UDP; here an inner packet has its source as text instead, after a byte with its length.
_INNER_HEADERS = 28


def counted_size(message: bytes) -> int:
    """Bytes that the kernel's message has, and its counters grow by: here a message has another size."""
    if message[0] != _DATA:
        return {_INITIATION: 148, _RESPONSE: 92}[message[0]]
    inner = len(message) - _HEAD.size
    if inner:
        inner += _INNER_HEADERS - 1 - message[_HEAD.size]
    return 32 + -(-inner // 16) * 16


def sender_of(message: bytes) -> bytes:
    """The key of who has sent it."""
    return bytes(_HEAD.unpack_from(message)[1]) if len(message) >= _HEAD.size else b""


def handshake_of(message: bytes) -> bytes | None:
    """The secret of the pair, of a message that is one of a handshake's. The first packet by new keys is the third: who
    has only answered uses those from then on."""
    if len(message) < _HEAD.size or message[1:4] != bytes(3):
        return None
    kind, _, secret, number, _ = _HEAD.unpack_from(message)
    return bytes(secret) if kind in (_INITIATION, _RESPONSE) or (kind == _DATA and number == 1) else None


def _session(initiator: int, answerer: int) -> int:
    """What both ends of a handshake have drawn goes into its keys: one that is recorded and sent again makes others."""
    return (initiator ^ answerer << 16) & 0xFFFFFFFF


@dataclass
class _Keypair:
    """One session key. `heard` is what was received under it."""

    session: int
    initiator: bool
    born: float
    sent: int = 0
    heard: set[int] = field(default_factory=set)


@dataclass
class Peer:
    """One peer as `wg show dump` has it, and what the timers know."""

    key: bytes  # 16 bytes here
    secret: bytes
    allowed: frozenset[str]
    endpoint: Place | None = None
    source: str = ""  # the own address that its last packet came to, which answers leave from (`endpoint.src`)
    keepalive_s: float = 0.0
    handshake_at: float | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    staged: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_STAGED))
    current: _Keypair | None = None
    previous: _Keypair | None = None
    following: _Keypair | None = None
    offered: int | None = None
    newest_initiation: int = -1
    initiated_at: float = -REKEY_TIMEOUT_S  # or answered
    attempts: int = 0
    last_minute: bool = False
    crossed: list[float] = field(default_factory=list)  # when handshakes of both ends had met on their way, and failed
    due: dict[str, float] = field(default_factory=dict)  # timers by name
    wound: dict[str, float] = field(default_factory=dict)  # when each of them rings next, if only to be wound again

    def __hash__(self) -> int:
        return hash(self.key)


class WireGuard:
    """One interface. `deliver(inner source, data)` gets what arrives. `userspace`: packets for a peer without endpoint
    wait, and a handshake is tried for them, as wireguard-go does it; the kernel drops them (device.c)."""

    def __init__(
        self, clock: Clock, host: Host, port: int, key: bytes, dice: random.Random,
        deliver: Callable[[str, bytes], None], *, userspace: bool = False,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._host = host
        self.port = port
        self.key = key
        self.userspace = userspace
        self._deliver = deliver
        self._peers: dict[bytes, Peer] = {}  # sorted
        self._by_address: dict[str, Peer] = {}
        self._index = dice.getrandbits(16)
        rings = {
            "retransmit": self._retransmit,
            "new-handshake": self._stopped_hearing,
            "keepalive": self._passive_keepalive,
            "persistent": self._persistent_keepalive,
        }
        self.timers = WgTimers(clock, dice, rings, lambda peer: self._peers.get(peer.key) is peer)

    def add(self, key: bytes, secret: bytes, allowed: Iterable[str], endpoint: Place | None = None) -> None:
        """Configure a peer; inner addresses are single ones."""
        peer = Peer(key, secret, frozenset(allowed), endpoint)
        self._peers = dict(sorted({**self._peers, key: peer}.items()))
        self._by_address.update(dict.fromkeys(peer.allowed, peer))

    def remove(self, key: bytes) -> None:
        """Take a peer away with all that is known of it."""
        peer = self._peers.pop(key)
        peer.due.clear()
        for address in peer.allowed:
            self._by_address.pop(address, None)

    def slept(self, seconds: float) -> None:
        """The host was suspended for so long: keys are gone (device.c, wg_pm_notification); timers have stood still."""
        for peer in self.peers():
            peer.initiated_at -= seconds
            peer.current = peer.previous = peer.following = peer.offered = None
            if peer.handshake_at is not None:
                peer.handshake_at -= seconds

    def stop(self) -> None:
        """The interface goes, with its timers."""
        for peer in self.peers():
            self.remove(peer.key)

    def peers(self) -> tuple[Peer, ...]:
        """All of them, by key: what a dump shows. Not to be changed."""
        return tuple(self._peers.values())

    def has(self, key: bytes) -> bool:
        """Whether it is one of them."""
        return key in self._peers

    def set_endpoint(self, key: bytes, endpoint: Place) -> None:
        """As `wg set … endpoint`: sends nothing by itself, but for what waits."""
        peer = self._peers[key]
        peer.endpoint, peer.source = endpoint, ""
        if peer.staged:
            self._send_data(peer, [])

    def set_keepalive(self, key: bytes, interval_s: float) -> None:
        """As `wg set … persistent-keepalive`: turned on, it sends one at once."""
        peer = self._peers[key]
        begins = interval_s > 0 and peer.keepalive_s == 0
        peer.keepalive_s = interval_s
        if begins:
            self._send_keepalive(peer)

    def send(self, destination: str, data: bytes, source: str = "") -> bool:
        """Send an inner packet; False when no peer has that address (`ENOKEY`), or none knows where it is.

        "" is an inner source that the other end allows, whichever it is.
        """
        peer = self._by_address.get(destination)
        if peer is None or (peer.endpoint is None and not self.userspace):
            return False
        self._send_data(peer, [struct.pack("<B", len(source)) + source.encode() + data])
        return True

    def receive(self, packet: Packet) -> None:
        """A packet to the port. What is not authentic is dropped without a word."""
        if len(packet.data) < _HEAD.size:
            return
        kind, sender, secret, number, index = _HEAD.unpack_from(packet.data)
        peer = self._peers.get(sender)
        if peer is None or secret != peer.secret:
            return
        handle = {_INITIATION: self._initiation, _RESPONSE: self._response}.get(kind)
        if handle is not None:
            handle(peer, packet, number, index)
        elif kind == _DATA:
            self._data(peer, packet, number, index)

    # Sending

    def _send_keepalive(self, peer: Peer) -> None:
        """An empty packet, unless others wait, which do as well."""
        self._send_data(peer, [] if peer.staged else [b""])

    def _send_data(self, peer: Peer, inner: list[bytes]) -> None:
        """Inner packets, an empty one is a keepalive; staged while there is no key."""
        peer.staged.extend(inner)
        pair = peer.current
        if pair is None or self._clock.now - pair.born >= REJECT_AFTER_S:
            self._initiate(peer, retry=False)
            return
        waiting = list(peer.staged)
        peer.staged.clear()
        for one in waiting:
            pair.sent += 1
            if self._transmit(peer, _DATA, pair.sent, pair.session, one) and one:
                self.timers.arm(peer, "new-handshake", KEEPALIVE_TIMEOUT_S + REKEY_TIMEOUT_S, again=False)
        if pair.initiator and self._clock.now - pair.born >= REKEY_AFTER_S:
            self._initiate(peer, retry=False)

    def _transmit(self, peer: Peer, kind: int, number: int, index: int, body: bytes = b"") -> bool:
        """Send, and count it; False when it cannot leave the host, which is not counted."""
        peer.due.pop("keepalive", None)
        self._traversed(peer)
        source = self._host.source_for(peer.endpoint, peer.source) if peer.endpoint else None
        if peer.endpoint is None or source is None:
            return False
        data = _HEAD.pack(kind, self.key, peer.secret, number, index) + body
        peer.tx_bytes += counted_size(data)
        self._host.send((source, self.port), peer.endpoint, data)
        return True

    def _initiate(self, peer: Peer, *, retry: bool) -> None:
        if not retry:
            peer.attempts = 0
        if self._clock.now - peer.initiated_at < REKEY_TIMEOUT_S:
            return
        peer.initiated_at = self._clock.now
        self._index += 1
        peer.offered = self._index
        self.timers.arm(peer, "retransmit", REKEY_TIMEOUT_S)
        self._transmit(peer, _INITIATION, int(self._clock.now * 1e6), self._index)

    # Receiving

    def _initiation(self, peer: Peer, packet: Packet, number: int, index: int) -> None:
        if number <= peer.newest_initiation:
            return
        peer.newest_initiation = number
        self._authentic(peer, packet)
        peer.rx_bytes += counted_size(packet.data)
        peer.offered = None  # one handshake at a time: what we began ourselves is gone (noise.c)
        peer.initiated_at = self._clock.now  # who answers one does not begin another for as long (send.c)
        self._index += 1
        session = _session(index, self._index)
        peer.previous, peer.following = None, _Keypair(session, initiator=False, born=self._clock.now)
        self._transmit(peer, _RESPONSE, self._index, index)

    def _response(self, peer: Peer, packet: Packet, number: int, index: int) -> None:
        if peer.offered != index:
            if peer.following is not None:
                peer.crossed.append(self._clock.now)
            return
        peer.offered = None
        self._authentic(peer, packet)
        peer.rx_bytes += counted_size(packet.data)
        peer.previous = peer.following or peer.current
        peer.current, peer.following = _Keypair(_session(index, number), initiator=True, born=self._clock.now), None
        self._complete(peer)
        self._send_keepalive(peer)

    def _data(self, peer: Peer, packet: Packet, number: int, session: int) -> None:
        pair = peer.current
        if pair is None or pair.session != session:
            pair = next((p for p in (peer.previous, peer.following) if p and p.session == session), None)
        if pair is None or number in pair.heard or self._clock.now - pair.born >= REJECT_AFTER_S:
            return
        pair.heard.add(number)
        self._authentic(peer, packet)
        if pair is peer.following:  # the initiator has shown that it has the key
            peer.previous, peer.current, peer.following = peer.current, pair, None
            self._complete(peer)
            if peer.staged:
                self._send_data(peer, [])
        self._keep_fresh(peer, pair)
        body = packet.data[_HEAD.size :]
        source = body[1 : 1 + body[0]].decode() if body else ""
        if body:
            self.timers.arm(peer, "keepalive", KEEPALIVE_TIMEOUT_S, again=False)
        if source and self._by_address.get(source) is not peer:
            return  # it counts for all but rx_bytes
        peer.rx_bytes += counted_size(packet.data)
        if body:
            self._deliver(source or min(peer.allowed, default=""), body[1 + body[0] :])

    def _authentic(self, peer: Peer, packet: Packet) -> None:
        """Any authentic packet: the peer is where it came from."""
        peer.endpoint, peer.source = packet.source, packet.destination[0]
        peer.due.pop("new-handshake", None)
        self._traversed(peer)

    def _complete(self, peer: Peer) -> None:
        peer.due.pop("retransmit", None)
        peer.attempts = 0
        peer.last_minute = False
        peer.handshake_at = self._clock.now

    def _keep_fresh(self, peer: Peer, pair: _Keypair) -> None:
        age = self._clock.now - pair.born
        limit = REJECT_AFTER_S - KEEPALIVE_TIMEOUT_S - REKEY_TIMEOUT_S
        if pair is peer.current and pair.initiator and age >= limit and not peer.last_minute:
            peer.last_minute = True
            self._initiate(peer, retry=False)

    # Timers

    def _traversed(self, peer: Peer) -> None:
        if peer.keepalive_s > 0:
            self.timers.arm(peer, "persistent", peer.keepalive_s)

    def _retransmit(self, peer: Peer) -> None:
        if peer.attempts > MAX_HANDSHAKES:
            peer.due.pop("keepalive", None)
            peer.staged.clear()
            return
        peer.attempts += 1
        peer.source = ""  # it may be the cause of the trouble
        self._initiate(peer, retry=True)

    def _stopped_hearing(self, peer: Peer) -> None:
        peer.source = ""
        self._initiate(peer, retry=False)

    def _passive_keepalive(self, peer: Peer) -> None:
        # timers.c sets the timer again when more was heard meanwhile; but what sends the keepalive, a moment later,
        # takes it off again, in the kernel and in wireguard-go.
        self._send_keepalive(peer)

    def _persistent_keepalive(self, peer: Peer) -> None:
        if peer.keepalive_s > 0:
            self._send_keepalive(peer)
