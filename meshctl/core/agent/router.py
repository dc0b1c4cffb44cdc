"""Which peer carries a signalling message on its way, and which messages this agent carries for others.

A message goes to its receiver's own tunnel, by way of an anchor, or by way of a peer that both have. Who sends one
tries these ways in turn, for no answer comes where one is dead. Who hands one on hears of no answer, and has one try:
into the receiver's tunnel if that is up. If it is not, an anchor that has it from a node gives it to all others, for it
cannot know which of them the receiver comes to; one that has it from an anchor, to the receiver alone.

WireGuard vouches for the last hop; the source is what the header claims until the receiver checks the tag. So only an
anchor's word is taken for it where messages are handed on: any other peer has its own handed on, and nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Union

from meshctl.core.agent import signal
from meshctl.core.agent.bodies import SignalError
from meshctl.core.agent.config import InterfaceConfig, PeerConfig

# Of one source, at the least.
RATE_PER_S = 50.0
BURST = 100.0
# And at an anchor, for each peer that it reaches. An agent that starts tells each of them, mostly by the same anchor,
# what there is to tell, in its first second: 7.5 messages each were counted behind a hard NAT (sessions, offers and
# acknowledgements, both ways). In the long run it has next to nothing to say.
RATE_PER_S_AND_PEER = 1.0
BURST_PER_PEER = 8.0


@dataclass(frozen=True)
class Local:
    """A message for this node; `source` is who its header says has sent it."""

    source: PeerConfig


@dataclass(frozen=True)
class Onward:
    """A message for another: what to hand on, and to whom."""

    hops: tuple[PeerConfig, ...]
    data: bytes


class Refusal(Enum):
    """Why a message is neither."""

    UNREADABLE = "not a signalling message"
    STRANGER = "the last hop is no agent among this node's peers"
    UNKNOWN = "source or destination is not a peer of this node"
    NOT_SOURCE = "another's message from a peer that is no anchor"
    NOT_PERMITTED = "policy does not permit the pair"
    RATE = "too many from this source"
    TTL = "handed on often enough"
    NO_ROUTE = "no tunnel leads on"


Routed = Union[Local, Onward, Refusal]


class TokenBucket:
    """At most `burst` at once, and `rate_per_s` in the long run."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._filled_at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more may pass."""
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + gained)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """The last one that has passed does not count."""
        self._tokens = min(self._burst, self._tokens + 1.0)


class Router:
    """Signalling in one network. `up` is always the set of names of the peers whose tunnels are up."""

    def __init__(self, config: InterfaceConfig) -> None:
        self._id = config.id
        self._is_anchor = config.is_anchor
        self._by_id = {p.id: p for p in config.peers if p.kind != "client"}  # a client has no agent to signal with
        self._by_ip = {ip: p for p in self._by_id.values() for ip in p.mesh_addresses}
        self._anchors = sorted((p for p in self._by_id.values() if p.is_anchor), key=lambda p: p.name)
        self._nodes = sorted((p for p in self._by_id.values() if not p.is_anchor), key=lambda p: p.name)
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def owner(self, mesh_ip: str) -> PeerConfig | None:
        """The peer with this mesh address, if it has an agent."""
        return self._by_ip.get(mesh_ip)

    def hops(self, destination: PeerConfig, up: AbstractSet[str]) -> Iterator[PeerConfig]:
        """Who may carry a message of this node's there, best first: itself, the anchors, then nodes that both reach.

        An anchor, which all come to, tries a tunnel that seems to be down too, as the last: it may have come up since.
        Found one by one: of 300 peers, the first or second is mostly all that is wanted.
        """
        anchors = (p for p in self._anchors if p.name != destination.name)
        # Who is no anchor hands on to the receiver alone, which an anchor can do as well.
        common = (p for p in self._nodes if p.name in up and not self._is_anchor and permitted(p, destination))
        last = (destination,) if self._is_anchor and destination.name not in up else ()
        return chain((p for p in chain((destination,), anchors) if p.name in up), common, last)

    def route(self, destination: PeerConfig, attempt: int, up: AbstractSet[str]) -> PeerConfig | None:
        """The next hop of sending number `attempt` (from 0): each tries another way, a tunnel may be dead unnoticed."""
        hops: list[PeerConfig] = []
        for hop in self.hops(destination, up):
            hops.append(hop)
            if len(hops) > attempt:
                return hop
        return hops[attempt % len(hops)] if hops else None

    def receive(self, data: bytes, from_mesh_ip: str, up: AbstractSet[str], now: float) -> Routed:
        """What to do with a message that the owner of that mesh address handed over."""
        last_hop = self._by_ip.get(from_mesh_ip)
        if last_hop is None:
            return Refusal.STRANGER
        try:
            header = signal.peek(data)
        except SignalError:
            return Refusal.UNREADABLE
        source = self._by_id.get(header.source)
        if source is None:
            return Refusal.UNKNOWN
        if not self._bucket(last_hop, source).take(now):
            return Refusal.RATE
        if header.destination == self._id:
            return Local(source)
        return self._forward(data, header, source, last_hop, up)

    def _bucket(self, last_hop: PeerConfig, source: PeerConfig) -> TokenBucket:
        # The last hop is certain, the source only claimed. An anchor speaks for many, each with a share of its own; any
        # other peer has one share, whomever it claims to speak for, and cannot use up the share of another.
        speaker = source if last_hop.is_anchor else last_hop
        key = (last_hop.name, speaker.name)
        if key not in self._buckets:
            self._buckets[key] = TokenBucket(*share(self._reached(speaker)))
        return self._buckets[key]

    def _reached(self, speaker: PeerConfig) -> int:
        """Of how many peers it may have something to say here at once: an anchor, for itself, of each of this node's;
        a node, at an anchor, of each that it reaches; a node, at a node, of itself alone."""
        if speaker.is_anchor:
            return len(self._by_id)
        return len(speaker.reaches) if self._is_anchor else 1

    def _forward(
        self, data: bytes, header: signal.Header, source: PeerConfig, last_hop: PeerConfig, up: AbstractSet[str]
    ) -> Routed:
        destination = self._by_id.get(header.destination)
        if destination is None:
            return Refusal.UNKNOWN
        if last_hop.name != source.name and not last_hop.is_anchor:
            return Refusal.NOT_SOURCE
        if not permitted(source, destination):
            return Refusal.NOT_PERMITTED
        if header.ttl <= 1:
            return Refusal.TTL
        hops = self._onward(destination, last_hop, up)
        if not hops:
            return Refusal.NO_ROUTE
        return Onward(hops, signal.with_ttl(data, min(header.ttl, signal.TTL) - 1))

    def _onward(self, destination: PeerConfig, last_hop: PeerConfig, up: AbstractSet[str]) -> tuple[PeerConfig, ...]:
        """To whom to hand a message on. Tunnels of anchors that seem to be down are tried, too: those between anchors
        are mostly idle, and the receiver's may have come up since."""
        if destination.name == last_hop.name:
            return ()
        if destination.name in up:
            return (destination,)
        if not self._is_anchor:
            return ()
        if last_hop.is_anchor:
            return (destination,)
        return (*(p for p in self._anchors if p.name not in (last_hop.name, destination.name)), destination)


def share(peers: int) -> tuple[float, float]:
    """What a source has that reaches so many peers: messages a second, and at once."""
    return max(RATE_PER_S, RATE_PER_S_AND_PEER * peers), max(BURST, BURST_PER_PEER * peers)


def permitted(a: PeerConfig, b: PeerConfig) -> bool:
    """Whether two peers of this node may signal each other: policy permits it both ways, or one is an anchor, which
    every node may ask for introduction and relay."""
    if a.name == b.name:
        return False
    return a.is_anchor or b.is_anchor or (b.name in a.reaches and a.name in b.reaches)
