"""Who means harm: a peer that has valid keys and misuses them, and an outsider who saw packets pass by."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from simkernel import is_stun
from simnet import Cable, Host, Packet
from simtrace import Meter

from meshctl.core.agent import events as ev
from meshctl.core.agent import signal
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import TYPE_OF, Body, MessageType, Offer, Offered, RelayAsk, SignalError
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.relayserver import STALE_NONCE, TOO_EARLY
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError
from meshctl.core.wire.stun_attributes import (
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    StunError,
)

if TYPE_CHECKING:
    from simworld import World

OUTSIDER_IP, VICTIM_IP = "83.66.0.1", "84.66.0.1"
# How often there is harm: first, and after so many times.
_EVERY_S, _OFTEN, _LATER_S = 1.0, 30, 15.0
_FLOOD = 40
_KEPT = 64
# Offers in a row that name a victim, at so many ports.
_INCITEMENTS, _CROWD = 16, 32
# STUN that is made up: how often it has each of its attributes, has a fingerprint, and has a bit turned.
_HAS, _FINGERPRINTED, _BROKEN = 0.4, 0.5, 0.2


class Victim:
    """Somebody on the internet who has nothing to do with it. `struck` counts what arrives."""

    def __init__(self, world: World) -> None:
        self.struck = Meter()
        world.internet.attach(VICTIM_IP, Cable(), lambda _packet: self.struck.add(None, world.clock.now))


class Misuse:
    """A core whose owner sends more than it wants, and other things than it wants. In front it is a core."""

    def __init__(self, core: Any, config: AgentConfig, world: World, dice: random.Random) -> None:
        self._core, self._world, self._dice = core, world, dice
        self._peers = {p.id: p for i in config.networks for p in i.peers}
        self._names = sorted(p.mesh_addresses[0] for p in self._peers.values())
        self._queue: deque[ev.Action] = deque()
        self._said: deque[ev.SendSignal] = deque(maxlen=_KEPT)
        self._asked: deque[ev.SendProbe] = deque(maxlen=_KEPT)
        self._heard: deque[bytes] = deque(maxlen=_KEPT)  # STUN that came
        self._offers: dict[str, ev.SendSignal] = {}  # the newest to each peer
        self._incited = 0
        self._places: list[Address] = []
        self._times = 0
        self._next_s = 3.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, event: ev.Event, now: float) -> None:
        """The core's, and now and then something of its own."""
        if isinstance(event, ev.WgStatus):
            self._places = [p.endpoint for p in event.peers if p.endpoint is not None]
        elif isinstance(event, ev.Datagram):
            self._heard.append(event.data)
        due = self._core.poll_timeout()
        if not isinstance(event, ev.Wake) or (due is not None and due[0] <= now):
            self._core.handle(event, now)
        if now >= self._next_s:
            self._times += 1
            pause = _EVERY_S if self._times < _OFTEN else _LATER_S
            self._next_s = now + pause if self._world.clock.now < self._world.spec.quiet_at else inf
            self._dice.choice((self._noise, self._replay, self._babble, self._flood, self._incite))()

    def poll_timeout(self) -> tuple[float, str] | None:
        """The core's, or when harm is due."""
        due = self._core.poll_timeout()
        mine = (self._next_s, "harm") if self._next_s < inf else None
        return min((d for d in (due, mine) if d is not None), default=None)

    def poll_action(self) -> ev.Action | None:
        """The core's, changed at times, then its own."""
        action = self._core.poll_action()
        if action is None:
            return self._queue.popleft() if self._queue else None
        if isinstance(action, ev.SendSignal):
            self._said.append(action)
            if action.data[3] == MessageType.OFFER and action.data[14:22] in self._peers:
                self._offers[action.mesh_ip] = action
            return self._changed(action) if self._dice.random() < 0.2 else action
        if isinstance(action, ev.SendProbe):
            self._asked.append(action)
        return action

    # What it does

    def _noise(self) -> None:
        """STUN that it makes up, to wherever peers are and to relays' ports."""
        known = [*self._heard, *(probe.data for probe in self._asked)]
        for place in self._places if known else ():
            port = self._dice.choice((place.port, self._dice.randrange(40000, 50000)))
            try:
                like = stun.decode(self._dice.choice(known)).message
            except WireError:
                continue  # another's harm
            data = made_up(like, self._dice)
            self._queue.append(ev.SendProbe(Address("", 51820), Address(place.ip, port), data))

    def _replay(self) -> None:
        """Its own old checks and messages again, to whom they were not meant for."""
        for probe in self._asked:
            if self._places:
                self._queue.append(replace(probe, remote=self._dice.choice(self._places)))
        for said in self._said:
            self._queue.append(replace(said, mesh_ip=self._dice.choice(self._names)))

    def _babble(self) -> None:
        """Messages with a bit turned."""
        for said in list(self._said)[-8:]:
            data = bytearray(said.data)
            data[self._dice.randrange(len(data))] ^= 1 << self._dice.randrange(8)
            self._queue.append(replace(said, data=bytes(data)))

    def _flood(self) -> None:
        """As many messages as it can."""
        self._queue.extend([self._dice.choice(list(self._said))] * _FLOOD if self._said else [])

    def _incite(self) -> None:
        """Offers that have peers try all pairs anew, which are the victim's."""
        for said in self._offers.values():
            for _ in range(_INCITEMENTS):
                self._incited += 1
                offer = _inciting(self._dice, self._incited)
                self._queue.append(replace(said, data=self._rewritten(said.data, self._incited, offer)))

    def _rewritten(self, data: bytes, later: int, body: Body) -> bytes:
        header = signal.peek(data)
        changed = header._replace(sequence=header.sequence + later)
        return signal.encode(changed, body, self._peers[header.destination].pair_key)

    def _changed(self, action: ev.SendSignal) -> ev.SendSignal:
        """The same message with another body, authentic all the same."""
        try:
            header = signal.peek(action.data)
            key = self._peers[header.destination].pair_key
            body = self._body(signal.decode(action.data, key).body)
            changed = signal.encode(header._replace(kind=TYPE_OF[type(body)]), body, key)
        except (SignalError, KeyError):
            return action  # it hands on another's
        return replace(action, data=changed)

    def _body(self, body: Body) -> Body:
        dice = self._dice
        if isinstance(body, Offer) and dice.random() < 0.7:
            ips = ["10.42.0.9", "127.0.0.1", "0.0.0.0", "224.0.0.1", VICTIM_IP, "80.0.0.1", "82.1.0.1"]  # noqa: S104
            ips += [f"{dice.randrange(1, 224)}.{dice.randrange(256)}.1.1" for _ in range(8)]
            places = [Address(dice.choice(ips), dice.randrange(65536)) for _ in range(32)]
            kinds = ("host", "srflx", "mapped", "relay")
            crowd = tuple(Offered(dice.choice(kinds), p, "00000000", dice.randrange(2**31)) for p in places)
            return replace(body, candidates=crowd, generation=dice.choice((0, body.generation, 2**31)))
        if isinstance(body, RelayAsk):
            return RelayAsk(dice.choice(sorted(self._peers)))
        return body


def _inciting(dice: random.Random, number: int) -> Offer:
    first = dice.randrange(1, 2**16 - _CROWD)
    crowd = tuple(Offered("srflx", Address(VICTIM_IP, first + n), "00000000", n + 1) for n in range(_CROWD))
    return Offer(2**31 + number, crowd, restart=dice.getrandbits(32))


def made_up(like: stun.Message, dice: random.Random) -> bytes:
    """STUN of any class, often with the transaction and USERNAME of a message that is known; the key is its own, or
    what can be read in that message."""
    attributes = {
        "username": like.username, "nonce": f"{dice.getrandbits(128):032x}", "priority": dice.getrandbits(31),
        "use_candidate": True, "ice_controlling": dice.getrandbits(64), "ice_controlled": dice.getrandbits(64),
        "xor_mapped_address": TransportAddress(VICTIM_IP, dice.randrange(65536)),
        "error": StunError(dice.choice((400, TOO_EARLY, STALE_NONCE, 487))),
        "response_port": dice.randrange(65536),
    }  # fmt: skip
    transaction = dice.choice((like.transaction, dice.getrandbits(96).to_bytes(12, "big")))
    message = stun.Message(dice.choice(tuple(stun.Class)), transaction)
    message = message._replace(**{name: value for name, value in attributes.items() if dice.random() < _HAS})
    key = dice.choice((None, b"", b"its own", *_readable(like.username or "")))
    integrity = (dice.choice((MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256)),)
    data = bytearray(stun.encode(message, key, integrity=integrity, fingerprint=dice.random() < _FINGERPRINTED))
    if dice.random() < _BROKEN:
        data[dice.choice((2, 3, *range(8, len(data))))] ^= 1 << dice.randrange(8)  # not what makes it STUN
    return bytes(data)


def _readable(name: str) -> tuple[bytes, ...]:
    """A USERNAME as keys: it and each part as they stand, and what they spell."""
    parts = sorted({name, *name.split(":")} - {""})
    spelled = [bytes.fromhex(part) for part in parts if len(part) % 2 == 0 and not part.strip("0123456789abcdef")]
    return (*(part.encode() for part in parts), *spelled)


class Outsider:
    """Replays and forges what passed by on the internet. It has no key, and cannot stop a packet.

    Only what also arrived is sent again: who keeps a packet from its way and sends it on is a router, and WireGuard
    takes that for roaming.
    """

    def __init__(self, world: World) -> None:
        self._world, self._dice = world, world.dice("outsider")
        self._host, self._cable = Host(), Cable()
        self._host.join(world.internet, OUTSIDER_IP, self._cable)
        self._seen: deque[Packet] = deque(maxlen=_KEPT * 4)
        self._arrived: dict[bytes, None] = {}  # the newest last
        world.internet.tap = self._tap
        world.clock.at(5.0, self._act)

    def arrived(self, data: bytes) -> None:
        """A host got this."""
        self._arrived[data] = None
        if len(self._arrived) > _KEPT * 16:
            del self._arrived[next(iter(self._arrived))]

    def _tap(self, packet: Packet) -> None:
        if packet.source[0] != OUTSIDER_IP and self._dice.random() < 0.2:
            self._seen.append(packet)

    def _act(self) -> None:
        if self._world.clock.now >= self._world.spec.quiet_at:
            return
        known = [p for p in self._seen if p.data in self._arrived]
        for packet in self._dice.sample(known, min(3, len(known))):
            source = self._dice.choice((packet.source, (OUTSIDER_IP, 51820), (OUTSIDER_IP, 51820)))
            target = self._dice.choice((packet.destination, packet.destination, self._dice.choice(known).destination))
            data = bytearray(packet.data)
            if self._dice.random() < 0.3:  # of a tunnel's packet what makes it authentic, for the model checks no more
                at = self._dice.randrange(len(data)) if is_stun(packet.data) else 20 + self._dice.randrange(16)
                data[at] ^= 1 << self._dice.randrange(8)
            self._world.internet.send(Packet(source, target, bytes(data)), self._cable)
        self._world.clock.after(0.25, self._act)
