"""One pair's relay at an anchor: its port, and where each of the two ends has shown that it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from meshctl.core.agent.address import Address
from meshctl.core.agent.allowance import Allowance
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.state import KeptEnd, KeptRelay

# Binds of one end that are answered: it may ask by the addresses of others, who would have the answers. At its quickest
# it binds six times in the first second, in each family, and once more each where it wants to move.
BINDS_PER_S, BINDS_BURST = 10.0, 50.0
# How often one end may have the other one told of the relay. It asks when a relay is new or in doubt, and then a few
# times each second, and 2 s, 4 s … later (`relaylease.ASK_AGAIN_S`).
TOLD_PER_S, TOLD_BURST = 1.0, 20.0
# An end that has bound so often in one family alone is not in the other one any more.
STALE_BINDS = 4
# Ends bind in all families that they have, at once. A bind may come later than another, and later still if it is to
# show that it was made just now. A relay between two families is not made so soon after both ends are there: a change
# to the family that both have costs what is under way, a handshake perhaps, and that 5 s. While nothing says that there
# is such a family, it is not awaited for longer than binds of one moment are apart.
MEET_S, TOGETHER_S = 1.0, 0.1


@dataclass
class End:
    """One end of a pair. `places` are where its packets to the port come from, by family, each with how often it has
    bound from elsewhere since; `moves` is how often they have changed; `asks` are those of which the other end
    hears. `since`: when it bound first; `asked`: in which families it has tried to."""

    peer: PeerConfig
    token: bytes
    places: dict[int, tuple[Address, int]] = field(default_factory=dict)
    released: bool = False
    moves: int = 0
    since: float = inf
    asked: set[int] = field(default_factory=set)
    binds: Allowance = field(default_factory=lambda: Allowance(BINDS_PER_S, BINDS_BURST))
    asks: TokenBucket = field(default_factory=lambda: TokenBucket(TOLD_PER_S, TOLD_BURST))

    def bound(self, address: Address, used: int, now: float, *, fresh: bool) -> bool:
        """It has shown that it is there. What it has not shown for some time in another family does not count.

        Whether this is accepted: from its first bind on, it may not bring a new place, nor take the one in the family
        that is used, unless it was made just now.
        """
        self.asked.add(address.family)
        aged = {family: (place, others + 1) for family, (place, others) in self.places.items()}
        aged[address.family] = address, 0
        places = {family: (place, others) for family, (place, others) in aged.items() if others < STALE_BINDS}
        if self.places.get(address.family, (None, 0))[0] != address or (used in self.places and used not in places):
            if self.places and not fresh:
                return False
            self.moves += 1
        self.places, self.since = places, min(self.since, now)
        return True


@dataclass
class Allocation:
    """`expires_at` is when it ends unless it is refreshed; `installed`: the kernel forwards between these two, those of
    the ends in their order."""

    port: int
    ends: tuple[End, End]
    expires_at: float
    installed: tuple[Address, Address] | None = None

    def family(self, end: End) -> int:
        """The one in which is forwarded to that end, 0 for none."""
        return self.installed[self.ends.index(end)].family if self.installed else 0

    def end(self, peer: PeerConfig) -> End:
        """That peer's end."""
        return next(end for end in self.ends if end.peer is peer)

    def other(self, end: End) -> End:
        """The one with whom that end has the relay."""
        return next(e for e in self.ends if e is not end)

    def wanted(self, now: float) -> tuple[Address, Address] | None:
        """What should be installed, when both ends have bound: addresses of one family if there is one, which stays
        while both are there; else of two. While one of one family may come soon, what is installed: each bind asks
        again, and ends bind until they are told that they are forwarded."""
        a, b = (end.places for end in self.ends)
        used = self.family(self.ends[0])
        family = min(a.keys() & b.keys(), key=lambda family: (family != used, family), default=None)
        if family is None and self._may_meet(now):
            return self.installed
        return (a[family or min(a)][0], b[family or min(b)][0]) if a and b else None

    def _may_meet(self, now: float) -> bool:
        a, b = self.ends
        waited_s = now - max(a.since, b.since)
        return waited_s < (MEET_S if a.asked & b.asked else TOGETHER_S)

    def kept(self, network: str) -> KeptRelay | None:
        """To be known after a restart, None where nothing is installed."""
        if self.installed is None:
            return None
        ends = (KeptEnd(end.peer.public_key, end.token, place) for end, place in zip(self.ends, self.installed))
        return KeptRelay(network, self.port, *ends)


def restored(peer: PeerConfig, kept: KeptEnd) -> End:
    """The peer's end as it was before a restart: all that is known is where the kernel forwards to."""
    return End(peer, kept.token, {kept.place.family: (kept.place, 0)}, since=-inf)
