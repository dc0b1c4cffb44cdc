"""What two versions of the policies permit differently: who gains and who loses which traffic to whom.

Subjects about whom both versions say the same are one class, so that the work grows with the number of different
policies and not with pairs. A prefix that only one version tells apart is told apart in both: it then stands for what
the next wider prefix stands for there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from meshctl.core.prefixes import without_covered
from meshctl.core.traffic import subtract, union
from meshctl.model.mesh import Node
from meshctl.model.policy import INTERNET, Rule, Subject, Traffic, is_prefix
from meshctl.policy.compile import Decisions
from meshctl.policy.naming import Naming, Party, narrowest
from meshctl.policy.network import NetworkPolicy, Piece

# Which versions have both ends of a change in the network.
COMMON, ADDED, REMOVED = "common", "added", "removed"


@dataclass(frozen=True)
class Change:
    """Every source gains (or loses) `traffic` to every destination but itself and what stands at the same node.

    `base` and `head` are the rules that decide in each version, None where none does. `ends` tells whether both
    versions have both ends (`common`), or one of them is in the head (`added`) or the base (`removed`) alone.
    """

    network: str
    gained: bool
    source: Party
    destination: Party
    traffic: Traffic
    base: Rule | None
    head: Rule | None
    ends: str = COMMON


class _Kind(NamedTuple):
    """What changes share when they are told as one."""

    gained: bool
    ends: str
    base: str
    head: str
    traffic: Traffic


class _Delta(NamedTuple):
    gained: bool
    base: Rule | None
    head: Rule | None
    traffic: Traffic


class _Class(NamedTuple):
    """What the two versions say of a subject; each tuple is (base, head).

    `homes` is None but for subjects at nodes between which a prefix has moved.
    """

    present: tuple[bool, bool]
    source: tuple[int, int]
    destination: tuple[int, int]
    homes: tuple[str | None, str | None] | None
    exits: tuple[bool, bool]  # whether it reaches the internet by the mesh
    internet: bool


def diff_policies(base: Decisions, head: Decisions) -> tuple[Change, ...]:
    """All changes, by network, gains first; () when both permit the same."""
    found: list[Change] = []
    everyone = tuple(frozenset(n for p in d.networks.values() for n in p.nodes) for d in (base, head))
    for name in sorted({*base.networks, *head.networks}):
        sides = (_View(base.networks.get(name)), _View(head.networks.get(name)))
        found.extend(_NetworkDiff(name, sides, (everyone[0], everyone[1])).changes())
    return tuple(found)


class _View:
    """One version of a network that may not be there, asked about the subjects of both versions."""

    def __init__(self, policy: NetworkPolicy | None) -> None:
        self.policy = policy
        self._prefixes = frozenset(policy.prefixes if policy else ())

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.policy.nodes if self.policy else {}

    def known(self, subject: Subject) -> Subject | None:
        """What stands for the subject here: itself, or the narrowest prefix around it."""
        if self.policy is None:
            return None
        if is_prefix(subject):
            return narrowest(subject, self._prefixes)
        return subject if subject == INTERNET or subject in self.policy.nodes else None

    def bits(self, known: Subject | None) -> tuple[int, int]:
        """(source, destination) bits; none for a subject that is not here."""
        if self.policy is None or known is None:
            return 0, 0
        return self.policy.source.get(known, 0), self.policy.destination[known]

    def home(self, subject: Subject) -> str | None:
        known = self.known(subject)
        return None if self.policy is None or known in (None, INTERNET) else self.policy.home(known or "")

    def exits(self, known: Subject | None) -> bool:
        return self.policy is not None and known is not None and self.policy.carries(known, INTERNET)

    def pieces(self, bits: int) -> tuple[Piece, ...]:
        return self.policy.pieces(bits) if self.policy else ()


class _NetworkDiff:
    def __init__(
        self, network: str, sides: tuple[_View, _View], everyone: tuple[frozenset[str], frozenset[str]]
    ) -> None:
        self._network = network
        self._sides = sides
        policies = [side.policy for side in sides if side.policy]
        nodes = sorted({name for policy in policies for name in policy.nodes})
        prefixes = without_covered({prefix for policy in policies for prefix in policy.prefixes})
        self._naming = Naming(network, (sides[0].nodes, sides[1].nodes), everyone, prefixes)
        subjects = (*nodes, *prefixes, INTERNET)
        self._homes = {s: (sides[0].home(s), sides[1].home(s)) for s in subjects}
        self._rank = {subject: rank for rank, subject in enumerate(subjects)}
        moved = [h for h in self._homes.values() if None not in h and h[0] != h[1]]
        self._moving = frozenset(home for homes in moved for home in homes)
        self._classes: dict[_Class, list[Subject]] = {}
        for subject in subjects:
            self._classes.setdefault(self._class(subject), []).append(subject)
        self._deltas: dict[tuple[int, int], tuple[_Delta, ...]] = {}
        self._rules: dict[_Kind, tuple[Rule | None, Rule | None]] = {}

    def changes(self) -> Iterator[Change]:
        """Sources that gain (or lose) the same to the same destinations together, in order."""
        rows: dict[_Kind, dict[tuple[_Class, ...], list[_Class]]] = {}
        for source in self._classes:
            for kind, destinations in self._row(source).items():
                rows.setdefault(kind, {}).setdefault(tuple(destinations), []).append(source)
        found = []
        for kind, blocks in rows.items():
            for targets, sources in blocks.items():
                change = self._change(kind, self._members(sources), self._members(targets))
                if change is not None:
                    found.append(change)
        return iter(sorted(found, key=self._order))

    def _class(self, subject: Subject) -> _Class:
        known = [side.known(subject) for side in self._sides]
        (base_source, base_destination), (head_source, head_destination) = (
            side.bits(k) for side, k in zip(self._sides, known, strict=True)
        )
        homes = self._homes[subject]
        return _Class(
            present=(known[0] is not None, known[1] is not None),
            source=(base_source, head_source),
            destination=(base_destination, head_destination),
            homes=homes if self._moving.intersection(homes) else None,
            exits=(self._sides[0].exits(known[0]), self._sides[1].exits(known[1])),
            internet=subject == INTERNET,
        )

    def _row(self, source: _Class) -> Mapping[_Kind, list[_Class]]:
        row: dict[_Kind, list[_Class]] = {}
        for destination in self._classes:
            carried = _carried(source, destination)
            bits = [s & d if c else 0 for s, d, c in zip(source.source, destination.destination, carried, strict=True)]
            for delta in self._delta(bits[0], bits[1]):
                names = [rule.name if rule else "" for rule in (delta.base, delta.head)]
                kind = _Kind(delta.gained, _ends(source, destination), names[0], names[1], delta.traffic)
                self._rules[kind] = delta.base, delta.head
                row.setdefault(kind, []).append(destination)
        return row

    def _delta(self, base: int, head: int) -> tuple[_Delta, ...]:
        if (base, head) not in self._deltas:
            pieces = self._sides[0].pieces(base), self._sides[1].pieces(head)
            self._deltas[base, head] = tuple(_compare(*pieces))
        return self._deltas[base, head]

    def _members(self, classes: Iterable[_Class]) -> list[Subject]:
        return sorted((s for c in classes for s in self._classes[c]), key=self._rank.__getitem__)

    def _change(self, kind: _Kind, sources: list[Subject], destinations: list[Subject]) -> Change | None:
        """None when nothing of it passes the mesh: a node and what is behind it."""
        if not any(self._passes(s, d) for s in sources for d in destinations):
            return None
        base, head = self._rules[kind]
        return Change(
            self._network, kind.gained, self._party(sources, destinations, kind),
            self._party(destinations, sources, kind), kind.traffic, base, head, kind.ends,
        )  # fmt: skip

    def _passes(self, source: Subject, destination: Subject) -> bool:
        """Whether the two stand at different nodes in either version."""
        pairs = zip(self._homes[source], self._homes[destination], strict=True)
        return INTERNET in (source, destination) or any(start != end for start, end in pairs if start and end)

    def _party(self, subjects: list[Subject], others: list[Subject], kind: _Kind) -> Party:
        """One end. Opposite a single subject what stands at its node may be told or not: the shorter is told."""
        sides = {COMMON: (True, True), ADDED: (False, True), REMOVED: (True, False)}[kind.ends]
        options = [subjects]
        if len(others) == 1 and others[0] != INTERNET:
            options.insert(0, [s for s in subjects if self._passes(s, others[0])])
            options.append(sorted({*subjects, *others}, key=self._rank.__getitem__))
        parties = [Party(self._naming.names(option, sides), tuple(option)) for option in options]
        return min(parties, key=lambda party: len(party.names))

    def _order(self, change: Change) -> tuple[object, ...]:
        rules = [rule.name if rule else "" for rule in (change.head, change.base)]
        ends = [[self._rank[s] for s in party.subjects] for party in (change.source, change.destination)]
        return not change.gained, change.ends, *ends, change.traffic, *rules


def _carried(source: _Class, destination: _Class) -> tuple[bool, bool]:
    """(base, head): whether such a connection passes the mesh.

    True for a pair at the same node in both versions: it matters to nobody, and lets groups be told by their names.
    """
    if destination.internet:
        return source.exits
    if source.homes is None or destination.homes is None:
        return True, True
    base, head = (one != other for one, other in zip(source.homes, destination.homes, strict=True))
    return (base, head) if base or head else (True, True)


def _ends(source: _Class, destination: _Class) -> str:
    base, head = (one and other for one, other in zip(source.present, destination.present, strict=True))
    return COMMON if base and head else ADDED if head else REMOVED


def _compare(base: tuple[Piece, ...], head: tuple[Piece, ...]) -> Iterator[_Delta]:
    """What differs between two lists of decisions, gains first, together where the same two rules did it."""
    for gained, allowing, other in ((True, head, base), (False, base, head)):
        found: dict[tuple[str, str], tuple[Rule, Rule | None, list[tuple[int, int]]]] = {}
        for low, high, rule in allowing:
            if rule.deny:
                continue
            for was, interval in _against(((low, high),), other):
                key = rule.name, was.name if was else ""
                found.setdefault(key, (rule, was, []))[2].append(interval)
        for rule, was, intervals in found.values():
            yield _Delta(gained, was if gained else rule, rule if gained else was, union(intervals))


def _against(traffic: Traffic, other: tuple[Piece, ...]) -> Iterator[tuple[Rule | None, tuple[int, int]]]:
    """The parts of `traffic` that the other version does not allow, with the rule that denies there."""
    for low, high, rule in other:
        rest = subtract(traffic, ((low, high),))
        if rule.deny:
            yield from ((rule, interval) for interval in subtract(traffic, rest))
        traffic = rest
    yield from ((None, interval) for interval in traffic)
