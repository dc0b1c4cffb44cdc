"""Pairs of candidates: which are worth a check, and in which order (RFC 8445 section 6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import IntEnum
from typing import NamedTuple

from meshctl.core.agent.address import Address, LocalAddress, is_private, shared_prefix
from meshctl.core.agent.bodies import CandidatePriority
from meshctl.core.agent.candidate import Candidate, prflx_priority, public_ips
from meshctl.core.agent.check import Rank
from meshctl.core.agent.checklist import MAX_PAIRS
from meshctl.core.agent.nat import same_nat

# Above any pair priority: 2^32 (2^31 - 1) + 2 (2^31 - 1) + 1 is less than 2^63.
_TIER_BITS = 63

Key = tuple[Address, Address]  # local and remote address: what makes two pairs the same


class Tier(IntEnum):
    """What a pair's surroundings say of it; a lower tier is checked first."""

    LAN = 0  # on one link: no router in between
    ORDINARY = 1
    DOUBTFUL = 2  # a private address of who knows which network: an answer may come from a foreign host


class CandidatePair(NamedTuple):  # many are made with each offer, which a dataclass takes twice as long for
    """An own base and an address of the peer. `priority` is the pair's (RFC 8445 section 6.1.2.3), `prflx_priority`
    what a check of it carries as PRIORITY."""

    local: Address
    remote: Address
    tier: Tier
    priority: int
    prflx_priority: CandidatePriority

    @property
    def key(self) -> Key:
        """Local and remote address."""
        return self.local, self.remote

    @property
    def rank(self) -> Rank:
        """By tier and then by priority."""
        return Rank(((Tier.DOUBTFUL - self.tier) << _TIER_BITS) + self.priority)


def pair_priority(controlling: CandidatePriority, controlled: CandidatePriority) -> int:
    """RFC 8445 section 6.1.2.3, of the priorities of the two sides' candidates; the same number on both sides."""
    low, high = sorted((controlling, controlled))
    return (low << 32) + 2 * high + (controlling > controlled)


def pair_up(
    local: Iterable[Candidate],
    remote: Iterable[Candidate],
    hosts: Iterable[LocalAddress],
    *,
    controlling: bool,
    keep: AbstractSet[Key] = frozenset(),
) -> tuple[CandidatePair, ...]:
    """At most `checklist.MAX_PAIRS`, the highest rank first. `hosts` are this host's addresses with their prefixes.

    What is in `keep` (in use, or known to work) stays in when there are too many, then the best pair of each remote
    address, and the best from a base that servers' answers come to, so that no crowd of candidates of one sort, nor of
    bridges, keeps the others out.
    """
    ours, theirs, here = sorted(local, key=_best_first), sorted(remote, key=_best_first), sorted(hosts)
    place = _Place(here, public_ips(ours), public_ips(theirs))
    leads_out = {mine.base for mine in ours if mine.kind in ("srflx", "told")}
    own_ips = {a.ip for a in here}
    found: dict[Key, CandidatePair] = {}
    for r in theirs:
        if r.address.ip in own_ips:  # both networks use the same private addresses: what is sent there ends here
            continue
        for mine in ours:
            if mine.kind == "relay" or mine.base.family != r.address.family or (mine.base, r.address) in found:
                continue  # candidates come best first, and so do pairs
            value = pair_priority(*((mine.priority, r.priority) if controlling else (r.priority, mine.priority)))
            found[mine.base, r.address] = CandidatePair(
                mine.base, r.address, place.tier(mine.base, r), value, prflx_priority(mine.priority),
            )  # fmt: skip
    pairs = sorted(found.values(), key=_order)
    return tuple(pairs) if len(pairs) <= MAX_PAIRS else _limited(pairs, keep, leads_out)


def _best_first(candidate: Candidate) -> tuple[tuple[int, Address, Address], str]:
    return candidate.order, candidate.foundation


def _order(pair: CandidatePair) -> tuple[int, Key]:
    return -pair.rank, pair.key


def _limited(
    pairs: list[CandidatePair], keep: AbstractSet[Key], leads_out: AbstractSet[Address]
) -> tuple[CandidatePair, ...]:
    first: dict[Address, Key] = {}
    leading: dict[Address, Key] = {}
    for pair in pairs:
        first.setdefault(pair.remote, pair.key)
        if pair.local in leads_out:
            leading.setdefault(pair.remote, pair.key)
    groups = keep, set(first.values()), set(leading.values())
    wanted = sorted(pairs, key=lambda p: (*(p.key not in group for group in groups), _order(p)))
    return tuple(sorted(wanted[:MAX_PAIRS], key=_order))


class _Place:
    """Where the two nodes stand to each other, as far as their addresses tell."""

    def __init__(self, hosts: list[LocalAddress], ours: frozenset[str], theirs: frozenset[str]) -> None:
        self._hosts = {a.ip: a for a in hosts}
        self._one_site = same_nat(ours, theirs)
        self._two_sites = {family: _apart(ours, theirs, family) for family in (4, 6)}

    def tier(self, base: Address, remote: Candidate) -> Tier:
        ip, host = remote.address.ip, self._hosts.get(base.ip)
        private = is_private(ip)
        if host is not None and shared_prefix(ip, [host]) and not (private and self._two_sites[base.family]):
            return Tier.LAN
        return Tier.DOUBTFUL if private and not self._one_site else Tier.ORDINARY


def _apart(ours: frozenset[str], theirs: frozenset[str], family: int) -> bool:
    """Whether both are seen under public addresses of the family, and none is the same: then two private networks that
    look the same are two."""
    mine, yours = ({ip for ip in ips if (":" in ip) == (family == 6)} for ips in (ours, theirs))
    return bool(mine and yours and not mine & yours)
