"""An anchor's relays: which pair has which port, who has shown where it is, and what the kernel is told to forward.

A pair gets a port, and each of its ends a token, by signalling. Each end then binds: it sends a STUN Binding request
that is signed with its token to the port, from the very socket that its tunnel will use, and so shows where its packets
come from. Once both have, the kernel forwards between the two addresses and nothing else; the anchor reads nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Union

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import (
    TOKEN_BYTES,
    RefuseReason,
    RelayAsk,
    RelayGrant,
    RelayRefresh,
    RelayRefuse,
    RelayRelease,
)
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import Action, InstallRelay, RemoveRelay, SendProbe
from meshctl.core.agent.probes import signed
from meshctl.core.agent.relayallocation import Allocation, End, restored
from meshctl.core.agent.relaybinds import bind_name, read_bind
from meshctl.core.agent.router import permitted
from meshctl.core.agent.state import KeptRelay
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError
from meshctl.core.wire.stun_attributes import StunError

# The ports that an anchor's firewall opens (templates/firewall.nft.j2, relay_ports): as many relays as there can be at
# all. A node has one to each peer that policy permits at the most, and may need as many: behind a hard NAT, to all that
# are behind one too.
PORTS = range(40000, 50000)
# Long, because a relay that is in use is not touched otherwise; both ends renew it at half of it.
LIFETIME_S = 600
# An end that cannot have a relay now may ask again after this.
RETRY_S = 30
# The answer to who has bound first: the other end has not yet. No code of STUN says this; HTTP's 425 does.
TOO_EARLY = 425
# The answer to a bind that would change something and does not show that it was made just now (RFC 8489 section 14.8):
# recorded ones are worth nothing.
STALE_NONCE = 438
NONCE_BYTES = 16


# A peer's session with this anchor, by the peer's id, as far as it is known.
SessionOf = Callable[[bytes], bytes]
# What is to be said to a peer by signalling.
Say = tuple[PeerConfig, Union[RelayGrant, RelayRefuse]]


class RelayServer:
    """The relays of one interface. `taken` are the ports that the anchor's interfaces have given out, which this one
    adds its own to."""

    def __init__(
        self, config: InterfaceConfig, dice: random.Random, taken: set[int], their_session: SessionOf
    ) -> None:
        self._network = config.network
        self._peers = _ends(config)
        self._addresses: tuple[str, ...] = ()
        self._dice, self._taken, self._their_session = dice, taken, their_session
        self._secret = dice.getrandbits(256).to_bytes(32, "big")
        self._by_pair: dict[tuple[bytes, bytes], Allocation] = {}
        self._by_port: dict[int, Allocation] = {}  # those that end first before the others
        self._kept: tuple[KeptRelay, ...] | None = None  # None: to be worked out
        self._actions: list[Action] = []

    def configure(self, config: InterfaceConfig) -> None:
        """The peers are these: relays of pairs that may not have one any more end."""
        self._peers = _ends(config)
        for key, allocation in sorted(self._by_pair.items()):
            a, b = (self._peers.get(peer) for peer in key)
            if a is None or b is None or not permitted(a, b):
                self._remove(allocation)
            else:
                for end in allocation.ends:
                    end.peer = self._peers[end.peer.id]

    def kept(self) -> tuple[KeptRelay, ...]:
        """What is forwarded, to be known after a restart."""
        if self._kept is None:
            found = (allocation.kept(self._network) for _, allocation in sorted(self._by_port.items()))
            self._kept = tuple(relay for relay in found if relay is not None)
        return self._kept

    def restore(self, relays: Iterable[KeptRelay], now: float) -> None:
        """The kernel still forwards these: they go on, or end where the pair may not have one any more."""
        of_key = {peer.public_key: peer for peer in self._peers.values()}
        for relay in relays:
            a, b = of_key.get(relay.a.peer), of_key.get(relay.b.peer)
            if relay.port not in PORTS or relay.port in self._taken:
                continue
            if a is None or b is None or a is b or not permitted(a, b) or _pair(a, b) in self._by_pair:
                self._actions.append(RemoveRelay(relay.port, relay.a.place, relay.b.place))
                continue
            allocation = self._allocate(relay.port, (restored(a, relay.a), restored(b, relay.b)))
            self._extend(allocation, now)
            self._install(allocation, now)

    def stop(self) -> None:
        """Its ports are free: this interface is no anchor's any more, or another one takes its relays over."""
        self._taken.difference_update(self._by_port)

    def set_addresses(self, addresses: tuple[Address, ...]) -> None:
        """The anchor's own addresses are these now, one of a family, and the relay ports are on them; the next grants
        say so."""
        self._addresses = tuple(address.ip for address in addresses)

    def actions(self) -> Iterator[Action]:
        """What is to be done, once."""
        actions, self._actions = self._actions, []
        return iter(actions)

    def due(self) -> float | None:
        """When the next relay ends unless it is refreshed."""
        return next((a.expires_at for a in self._by_port.values()), None)

    def expire(self, now: float) -> None:
        """End what was not refreshed."""
        for allocation in list(takewhile(lambda a: a.expires_at <= now, self._by_port.values())):
            self._remove(allocation)

    def ask(self, asking: PeerConfig, body: RelayAsk, now: float) -> list[Say]:
        """A port for the pair: both ends are told, or the asking one why not. Asking again changes nothing, and the
        other end does not hear of it each time."""
        other = self._peers.get(body.peer)
        if other is None or other is asking or asking.id not in self._peers or not permitted(asking, other):
            return [(asking, RelayRefuse(body.peer, RefuseReason.NOT_PERMITTED))]
        key = _pair(asking, other)
        allocation = self._by_pair.get(key)
        if allocation is None:
            port = self._free_port()
            if port is None:
                return [(asking, RelayRefuse(body.peer, RefuseReason.FULL, RETRY_S))]
            allocation = self._allocate(port, (End(asking, self._token()), End(other, self._token())))
        self._extend(allocation, now)
        for end in allocation.ends:
            end.released = False
        both = allocation.end(asking).asks.take(now)
        return [(e.peer, self._grant(allocation, e)) for e in allocation.ends if both or e.peer is asking]

    def grants(self, peer: PeerConfig) -> list[Say]:
        """What was granted to this peer, for its agent that has not heard of it."""
        found = (a for _, a in sorted(self._by_pair.items()) if peer.id in {end.peer.id for end in a.ends})
        return [(peer, self._grant(allocation, allocation.end(peer))) for allocation in found]

    def failed(self, port: int) -> list[Say]:
        """The driver cannot forward at that port: both ends are told that there is no room here for now."""
        allocation = self._by_port.get(port)
        if allocation is None:
            return []
        allocation.installed, self._kept = None, None
        self._remove(allocation)
        one, other = allocation.ends
        pairs = ((one.peer, other.peer), (other.peer, one.peer))
        return [(peer, RelayRefuse(to.id, RefuseReason.FULL, RETRY_S)) for peer, to in pairs]

    def refresh(self, asking: PeerConfig, body: RelayRefresh, now: float) -> list[Say]:
        """The whole lifetime again, to who has the token. Not when the other end has released it: who still needs it
        asks anew, and the other one hears of that."""
        end, allocation = self._held(asking, body.peer, body.token)
        if end is None or allocation is None or allocation.other(end).released:
            return [(asking, RelayRefuse(body.peer, RefuseReason.UNKNOWN))]
        self._extend(allocation, now)
        return [(asking, self._grant(allocation, end))]

    def release(self, asking: PeerConfig, body: RelayRelease) -> None:
        """One end needs it no more; it is gone when the other does not either, or lets it expire."""
        end, allocation = self._held(asking, body.peer, body.token)
        if end is not None and allocation is not None:
            end.released = True
            if all(e.released for e in allocation.ends):
                self._remove(allocation)

    def bind(self, port: int, remote: Address, data: bytes, now: float) -> SendProbe | None:
        """A datagram came to a relay port: the answer to a bind of one of its ends; None for anything else."""
        allocation = self._by_port.get(port)
        if allocation is None:
            return None
        try:
            received = stun.decode(data)
        except WireError:
            return None
        message = received.message
        name, made_in = read_bind(message.username or "")
        end = next((e for e in allocation.ends if bind_name(e.token) == name), None)
        if message.message_class is not stun.Class.REQUEST or end is None or not received.is_authentic(end.token):
            return None
        if not end.binds.take(message, made_in, self._their_session(end.peer.id), now):
            return None
        nonce = self._nonce(end, remote)
        fresh = hmac.compare_digest((message.nonce or "").encode(), nonce.encode())
        if not end.bound(remote, allocation.family(end), now, fresh=fresh):
            stale = StunError(STALE_NONCE, "Stale Nonce")
            answer = stun.Message(stun.Class.ERROR, message.transaction, error=stale, nonce=nonce)
            return self._answer(port, remote, end, answer)
        self._install(allocation, now)
        if remote not in (allocation.installed or ()):
            answer = stun.Message(stun.Class.ERROR, message.transaction, error=StunError(TOO_EARLY, "Too Early"))
        else:
            answer = stun.success_response(message, TransportAddress(*remote))
        return self._answer(port, remote, end, answer)

    # Inside

    def _allocate(self, port: int, ends: tuple[End, End]) -> Allocation:
        key = _pair(ends[0].peer, ends[1].peer)
        allocation = self._by_pair[key] = self._by_port[port] = Allocation(port, ends, 0.0)
        self._taken.add(port)
        return allocation

    def _extend(self, allocation: Allocation, now: float) -> None:
        allocation.expires_at = now + LIFETIME_S
        self._by_port[allocation.port] = self._by_port.pop(allocation.port)

    def _nonce(self, end: End, remote: Address) -> str:
        """What only who receives at that address can know, until the end moves."""
        what = end.token + end.moves.to_bytes(8, "big") + str(remote).encode()
        return hmac.new(self._secret, what, hashlib.sha256).digest()[:NONCE_BYTES].hex()

    def _answer(self, port: int, remote: Address, end: End, answer: stun.Message) -> SendProbe:
        local = Address(next((ip for ip in self._addresses if (":" in ip) == (":" in remote.ip)), ""), port)
        return SendProbe(local, remote, signed(answer, end.token))

    def _install(self, allocation: Allocation, now: float) -> None:
        """Tell the driver the two addresses, when both are known and it has others."""
        wanted = allocation.wanted(now)
        if wanted == allocation.installed:
            return
        self._uninstall(allocation)
        if wanted is not None:
            self._actions.append(InstallRelay(allocation.port, *wanted))
            allocation.installed, self._kept = wanted, None

    def _uninstall(self, allocation: Allocation) -> None:
        if allocation.installed is not None:
            self._actions.append(RemoveRelay(allocation.port, *allocation.installed))
            allocation.installed, self._kept = None, None

    def _remove(self, allocation: Allocation) -> None:
        self._uninstall(allocation)
        key = _pair(*(end.peer for end in allocation.ends))
        del self._by_port[allocation.port]
        del self._by_pair[key]
        self._taken.discard(allocation.port)

    def _held(self, asking: PeerConfig, other: bytes, token: bytes) -> tuple[End | None, Allocation | None]:
        peer = self._peers.get(other)
        allocation = self._by_pair.get(_pair(asking, peer)) if peer is not None and peer is not asking else None
        if allocation is None:
            return None, None
        end = allocation.end(asking)
        return (end, allocation) if hmac.compare_digest(end.token, token) else (None, None)

    def _grant(self, allocation: Allocation, end: End) -> RelayGrant:
        other = allocation.other(end)
        relay = tuple(Address(ip, allocation.port) for ip in self._addresses)
        return RelayGrant(other.peer.id, relay, end.token, LIFETIME_S)

    def _free_port(self) -> int | None:
        """A port at random, so that a restarted anchor does not give a port to another pair than it had at once."""
        start = self._dice.randrange(len(PORTS))
        ports = (PORTS[(start + step) % len(PORTS)] for step in range(len(PORTS)))
        return next((port for port in ports if port not in self._taken), None)

    def _token(self) -> bytes:
        return self._dice.getrandbits(8 * TOKEN_BYTES).to_bytes(TOKEN_BYTES, "big")


def _ends(config: InterfaceConfig) -> dict[bytes, PeerConfig]:
    """Who can have relays, by id: a stock client has no agent that would bind, and an anchor is reached as it is."""
    return {peer.id: peer for peer in config.peers if peer.kind == "node"}


def _pair(one: PeerConfig, other: PeerConfig) -> tuple[bytes, bytes]:
    return (one.id, other.id) if one.id < other.id else (other.id, one.id)
