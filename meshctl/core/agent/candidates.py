"""The candidates that there are: this node's own in a network, and those of one peer. Both forget what has expired."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from meshctl.core.agent.address import Address, LocalAddress, refusal, ways_out
from meshctl.core.agent.bodies import MAX_OFFERED, CandidatePriority, Offer, Offered
from meshctl.core.agent.candidate import MAX_CANDIDATES, Candidate, foundation, local_preferences, priority

# How long an address counts from which a peer's authentic check came, and which the peer has not offered itself.
PRFLX_LIFETIME_S = 60.0
# Own addresses that peers are told of, besides what others see of them: half of what a message holds.
MAX_OFFERED_HOSTS = MAX_OFFERED // 2


class LocalCandidates:
    """What this node offers in one network."""

    def __init__(self, mesh_ranges: tuple[str, ...]) -> None:
        self._mesh_ranges = mesh_ranges
        self._preferences: dict[str, int] = {}
        self._all: dict[tuple[str, Address, Address], Candidate] = {}
        self._ordered: tuple[Candidate, ...] = ()
        self._bases: tuple[Address, ...] = ()
        self._base: dict[int, Address] = {}  # the best of each family
        self._answered: frozenset[Address] = frozenset()  # bases that servers' answers come to
        self._told: tuple[Offered, ...] = ()

    def all(self) -> tuple[Candidate, ...]:
        """Best first. Of those with one address and one base the best alone (RFC 8445 section 5.1.3)."""
        return self._ordered

    def offered(self) -> tuple[Offered, ...]:
        """What peers are told: each address once, at most as many as a message holds, best first."""
        return self._told

    def base(self, family: int) -> Address | None:
        """The own address to send from, of that family: the best that servers' answers come to, for a bridge has
        addresses too that lead nowhere; else the best. None without one."""
        return self._base.get(family)

    def bases(self) -> tuple[Address, ...]:
        """All own addresses with the tunnel's port, best first."""
        return self._bases

    @property
    def answered(self) -> frozenset[Address]:
        """The own addresses that servers' answers come to."""
        return self._answered

    def to_ask_from(self, family: int) -> tuple[Address, ...]:
        """The own addresses of that family that servers' answers come to, best first; all, where none come."""
        of_family = tuple(base for base in self._bases if base.family == family)
        return tuple(base for base in of_family if base in self._answered) or of_family

    def set_hosts(self, addresses: Iterable[LocalAddress], port: int, gateways: Iterable[str] = ()) -> bool:
        """These are the host's addresses and default gateways now. What hung on one that has gone goes too. Whether
        peers should hear."""
        usable = [a for a in addresses if not refusal(a.ip, port, self._mesh_ranges)]
        self._preferences = local_preferences([a.ip for a in usable], ways_out(usable, gateways))
        ips = self._preferences
        kept = [c for c in self._all.values() if c.kind != "host" and c.base.ip in ips and c.base.port == port]
        self._all = {}
        for c in [*(self._candidate("host", Address(ip, port), Address(ip, port)) for ip in ips), *kept]:
            if len(self._all) < MAX_CANDIDATES:
                renewed = priority(c.kind, self._preferences[c.base.ip])
                self._all[c.kind, c.address, c.base] = replace(c, priority=renewed)
        return self._changed()

    def set_ranges(self, mesh_ranges: tuple[str, ...]) -> None:
        """The mesh has these addresses now, of which none is anybody's outside it. `set_hosts` comes next, and says
        whether peers should hear."""
        self._mesh_ranges = mesh_ranges
        self._all = {k: c for k, c in self._all.items() if not refusal(c.address.ip, c.address.port, mesh_ranges)}

    def put(self, kind: str, address: Address, base: Address, expires_at: float = inf, server_ip: str = "") -> bool:
        """Add a candidate, or give one that is there a later end. Whether peers should hear.

        What is nobody's endpoint, hangs on no address of this host, or is one too many is not added.
        """
        key = (kind, address, base)
        if key in self._all:
            self._all[key] = replace(self._all[key], expires_at=max(expires_at, self._all[key].expires_at))
            return self._changed()
        full = len(self._all) >= MAX_CANDIDATES
        if full or base.ip not in self._preferences or refusal(address.ip, address.port, self._mesh_ranges):
            return False
        self._all[key] = replace(self._candidate(kind, address, base, server_ip), expires_at=expires_at)
        return self._changed()

    def drop(self, kind: str, keep: Iterable[Address] = ()) -> bool:
        """Take all of a kind away but those with an address in `keep`. Whether peers should hear."""
        kept = set(keep)
        self._all = {key: c for key, c in self._all.items() if c.kind != kind or c.address in kept}
        return self._changed()

    def expire(self, now: float) -> bool:
        """Take away what has had its time. Whether peers should hear."""
        gone = [key for key, c in self._all.items() if c.expires_at <= now]
        for key in gone:
            del self._all[key]
        return self._changed() if gone else False

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        return min((c.expires_at for c in self._all.values() if c.expires_at < inf), default=None)

    def _candidate(self, kind: str, address: Address, base: Address, server_ip: str = "") -> Candidate:
        its_priority = priority(kind, self._preferences[base.ip])
        return Candidate(kind, address, base, foundation(kind, base.ip, server_ip), its_priority)

    def _changed(self) -> bool:
        best: dict[tuple[Address, Address], Candidate] = {}
        for c in sorted(self._all.values(), key=lambda c: c.order):
            best.setdefault((c.address, c.base), c)
        self._ordered = tuple(best.values())
        self._bases = tuple(dict.fromkeys(c.base for c in self._ordered if c.kind == "host"))
        self._answered = frozenset(c.base for c in self._all.values() if c.kind in ("srflx", "told"))
        self._base = {}
        answered_first = sorted(self._bases, key=lambda base: base not in self._answered)
        for base in answered_first:
            self._base.setdefault(base.family, base)
        untold = answered_first[MAX_OFFERED_HOSTS:]
        told: dict[Address, Offered] = {}
        for c in self._ordered:
            if c.kind != "host" or c.base not in untold:
                told.setdefault(c.address, c.offered())
        before, self._told = self._told, tuple(told.values())[:MAX_OFFERED]
        return self._told != before


class RemoteCandidates:
    """What is known of one peer: what it offered, and what was learned without it."""

    def __init__(self, mesh_ranges: tuple[str, ...]) -> None:
        self._mesh_ranges = mesh_ranges
        self._offered: dict[Address, Candidate] = {}
        self._learned: dict[Address, Candidate] = {}
        self._first_end: float | None = None  # of those at the earliest; None: to be worked out
        self.refused: dict[Address, str] = {}  # of the last offer, with the reason: for `why`

    def all(self) -> tuple[Candidate, ...]:
        """Best first; what the peer itself offers comes before what was learned of the same address."""
        merged = {**self._learned, **self._offered}
        return tuple(sorted(merged.values(), key=lambda c: c.order))[:MAX_CANDIDATES]

    def offer(self, offer: Offer) -> bool:
        """The peer's newest offer takes the place of the one before. Whether that is a change."""
        before, fresh = self._offered, dict[Address, Candidate]()
        self.refused = {}
        for o in offer.candidates[:MAX_CANDIDATES]:
            why = refusal(o.address.ip, o.address.port, self._mesh_ranges)
            if why:
                self.refused[o.address] = why
                continue
            c = Candidate(o.kind, o.address, o.address, o.foundation, o.priority)
            if o.address not in fresh or c.priority > fresh[o.address].priority:
                fresh[o.address] = c
        self._offered = fresh
        return fresh != before

    def set_ranges(self, mesh_ranges: tuple[str, ...]) -> bool:
        """The mesh has these addresses now. Whether the peer is not at one any more where it was known to be."""
        self._mesh_ranges, before = mesh_ranges, self.all()
        for known in (self._offered, self._learned):
            for address in [a for a in known if refusal(a.ip, a.port, mesh_ranges)]:
                del known[address]
        self._first_end = None
        return self.all() != before

    def learn(
        self, kind: str, address: Address, expires_at: float = inf, told: CandidatePriority | None = None
    ) -> bool:
        """An address from a check (`prflx`; `told` is its PRIORITY) or the inventory (`static`). Whether that is a
        change. When there are too many, the one that ends first makes room.
        """
        if refusal(address.ip, address.port, self._mesh_ranges):
            return False
        self._first_end = None
        known = self._learned.get(address)
        if known is not None and known.kind == kind:
            self._learned[address] = replace(known, expires_at=max(expires_at, known.expires_at))
            return False
        its_priority = told or priority(kind, 0)
        if known is not None and known.priority >= its_priority:
            return False
        if known is None and len(self._learned) >= MAX_CANDIDATES:
            first = min(self._learned.values(), key=lambda c: (c.expires_at, c.order))
            if first.expires_at >= expires_at:
                return False
            del self._learned[first.address]
        self._learned[address] = Candidate(
            kind, address, address, foundation(kind, address.ip), its_priority, expires_at=expires_at
        )
        return address not in self._offered

    def forget(self, kind: str, keep: Iterable[Address] = ()) -> bool:
        """Take what was learned of a kind away but those in `keep`. Whether that is a change."""
        kept = set(keep)
        self._first_end = None
        gone = [a for a, c in self._learned.items() if c.kind == kind and a not in kept]
        for address in gone:
            del self._learned[address]
        return any(address not in self._offered for address in gone)

    def expire(self, now: float) -> bool:
        """Take away what has had its time. Whether that is a change."""
        first = self.next_expiry()
        if first is None or now < first:
            return False
        gone = [a for a, c in self._learned.items() if c.expires_at <= now]
        for address in gone:
            del self._learned[address]
        self._first_end = None
        return any(address not in self._offered for address in gone)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        if self._first_end is None:
            self._first_end = min((c.expires_at for c in self._learned.values()), default=inf)
        return self._first_end if self._first_end < inf else None
