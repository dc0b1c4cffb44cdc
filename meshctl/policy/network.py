"""One network's policies, compiled: who may open what to whom, decided by which rule.

Every rule has a bit (two when it holds both ways), the lowest for the rule that wins over all others. A subject's
`source` bits are the rules that select it in `from`, its `destination` bits those in `to`; the rules about a pair are
then the AND of two integers, and many pairs share the same few of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from meshctl.core.prefixes import covers, sort_prefixes, without_covered
from meshctl.core.traffic import subtract, union
from meshctl.model.mesh import Mesh, Node
from meshctl.model.policy import INTERNET, Rule, Side, Subject, Traffic, is_prefix
from meshctl.model.topology import Reach


class Piece(NamedTuple):
    """An interval of traffic (core.traffic) and the rule that decides it."""

    low: int
    high: int
    rule: Rule


class NetworkPolicy:
    """The compiled policies of one network. `rules` are in order of precedence, best first."""

    def __init__(self, mesh: Mesh, network: str, rules: tuple[Rule, ...]) -> None:
        self.name = network
        self.rules = rules
        self.nodes: dict[str, Node] = {n.name: n for n in mesh.nodes.values() if n.attachment(network) is not None}
        self._home = {prefix: n.name for n in self.nodes.values() for prefix in n.routes}
        self._add_named_prefixes()
        # A route of which rules name every part stands for nobody.
        self.prefixes: tuple[str, ...] = without_covered(self._home)
        # Bit by bit: the rule, and the sides that are its sources and destinations there.
        self._turns = [turn for rule in rules for turn in _turns(rule)]
        self._bits_of: dict[str, list[int]] = {rule.name: [] for rule in rules}
        for bit, (rule, _, _) in enumerate(self._turns):
            self._bits_of[rule.name].append(bit)
        self._denying = _denying([rule for rule, _, _ in self._turns])
        self.source: dict[Subject, int] = dict.fromkeys((*self.nodes, *self.prefixes), 0)
        self.destination: dict[Subject, int] = dict.fromkeys((*self.nodes, *self.prefixes, INTERNET), 0)
        self._sources = [self._mark(self.source, bit, turn[1]) for bit, turn in enumerate(self._turns)]
        self._destinations = [self._mark(self.destination, bit, turn[2]) for bit, turn in enumerate(self._turns)]
        self._askers: dict[int, tuple[tuple[Subject, tuple[Piece, ...]], ...]] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {0: ()}
        self._opened: dict[tuple[int, bool], frozenset[Subject]] = {}
        self._known: dict[int, bool] = {0: False}
        self._left: dict[tuple[int, int], bool] = {}

    def subjects(self) -> tuple[Subject, ...]:
        """Everybody who may be at an end of a connection: nodes by name, prefixes by number, `internet` if there."""
        internet = (INTERNET,) if any(n.exit_node for n in self.nodes.values()) else ()
        return (*sorted(self.nodes), *self.prefixes, *internet)

    def home(self, subject: Subject, source: Subject = "") -> str | None:
        """The node that stands for a subject: itself, the prefix's gateway, the exit node that `source` uses."""
        if subject != INTERNET:
            return self._home.get(subject, subject)
        via = self.nodes[source].exit_via if source in self.nodes else None
        return via if via in self.nodes else None

    def carries(self, source: Subject, destination: Subject) -> bool:
        """Whether such a connection passes the mesh at all: the two stand at different nodes, and there is a way."""
        start, end = self.home(source), self.home(destination, source)
        return source != INTERNET and end is not None and start != end

    def decide(self, source: Subject, destination: Subject) -> tuple[Piece, ...]:
        """All traffic that a rule decides, ascending; the rest is denied. () for what does not pass the mesh."""
        if not self.carries(source, destination):
            return ()
        return self.pieces(self.source[source] & self.destination[destination])

    def allowed(self, source: Subject, destination: Subject) -> Traffic:
        """The traffic that `source` may open to `destination`."""
        return union((low, high) for low, high, rule in self.decide(source, destination) if not rule.deny)

    def opens(self, source: Subject, destination: Subject) -> bool:
        """Whether `allowed` is anything at all, which is asked of many pairs."""
        bits = self.source[source] & self.destination[destination]
        if bits not in self._known:
            self._known[bits] = self._opens(bits)
        return self._known[bits] and self.carries(source, destination)

    def askers(self, destination: Subject) -> tuple[tuple[Subject, tuple[Piece, ...]], ...]:
        """Everybody about whom a rule says something towards `destination`, and what."""
        wanted = self.destination[destination]
        if wanted not in self._askers:
            pairs = ((source, bits & wanted) for source, bits in self.source.items())
            self._askers[wanted] = tuple((source, self.pieces(bits)) for source, bits in pairs if bits)
        return self._askers[wanted]

    def pieces(self, bits: int) -> tuple[Piece, ...]:
        """The decisions of the rules in `bits`: each takes what better ones left."""
        known = self._pieces.get(bits)
        if known is None:
            known = self._pieces[bits] = self._paint(bits)
        return known

    def sides(self, rule: Rule) -> tuple[tuple[frozenset[Subject], frozenset[Subject]], ...]:
        """(sources, destinations) that the rule selects here; twice when it holds both ways."""
        return tuple((self._sources[bit], self._destinations[bit]) for bit in self.turns(rule))

    def turns(self, rule: Rule) -> tuple[int, ...]:
        """The bits of the rule, one for each of its `sides`."""
        return tuple(self._bits_of[rule.name])

    def rules_of(self, bits: int) -> Iterator[Rule]:
        """The rules of `bits`, best first."""
        return (self._turns[bit][0] for bit in _bits(bits))

    def reaches(self) -> Mapping[str, Reach]:
        """Every node's Reach; nodes about which the same is said share one object."""
        plain: dict[tuple[int, int], Reach] = {}
        result: dict[str, Reach] = {}
        own: dict[str, list[str]] = {}
        for prefix in self.prefixes:
            own.setdefault(self._home[prefix], []).append(prefix)
        for name in self.nodes:
            key = self.source[name], self.destination[name]
            if name in own:
                result[name] = self._reach((name, *own[name]))
                continue
            if key not in plain:
                plain[key] = self._reach((name,))
            result[name] = plain[key]
        for name, via in self._exits().items():
            result[name] = replace(result[name], peers=result[name].peers | {via}, exit_via=via)
            result[via] = replace(
                result[via], peers=result[via].peers | {name}, exit_users=result[via].exit_users | {name}
            )
        return result

    def _exits(self) -> dict[str, str]:
        found = {}
        for name in self.nodes:
            via = self.home(INTERNET, name)
            if via is not None and self.opens(name, INTERNET):
                found[name] = via
        return found

    def _reach(self, subjects: tuple[Subject, ...]) -> Reach:
        met: frozenset[Subject] = frozenset()
        for subject in subjects:
            met |= self._open(self.source[subject], outgoing=True)
            met |= self._open(self.destination[subject], outgoing=False)
        behind: dict[str, list[str]] = {}
        for prefix in sort_prefixes(filter(is_prefix, met)):
            behind.setdefault(self._home[prefix], []).append(prefix)
        peers = frozenset(s for s in met if s in self.nodes).union(behind)
        return Reach(peers=peers, prefixes={gateway: tuple(found) for gateway, found in sorted(behind.items())})

    def _open(self, bits: int, *, outgoing: bool) -> frozenset[Subject]:
        """Everybody to whom (from whom) a subject with these bits may open anything."""
        key = bits, outgoing
        if key not in self._opened:
            sides, others = (self._destinations, self.destination) if outgoing else (self._sources, self.source)
            allowing = [bit for bit in _bits(bits) if not self._turns[bit][0].deny]
            free = [bit for bit in allowing if not bits & self._denying[bit]]
            found = frozenset[Subject]().union(*(sides[bit] for bit in free))
            rest = frozenset[Subject]().union(*(sides[bit] for bit in allowing)) - found
            self._opened[key] = found.union(s for s in rest if self._opens(bits & others[s]))
        return self._opened[key]

    def _opens(self, bits: int) -> bool:
        """Whether an allowing rule among these keeps anything that no better rule denies."""
        return any(
            self._leaves(bit, bits & self._denying[bit]) for bit in _bits(bits) if not self._turns[bit][0].deny
        )

    def _leaves(self, bit: int, denies: int) -> bool:
        """Whether a rule keeps any of its traffic when those of `denies` have taken theirs."""
        key = bit, denies
        if key not in self._left:
            denied = union(interval for rule in self.rules_of(denies) for interval in rule.traffic)
            self._left[key] = bool(subtract(self._turns[bit][0].traffic, denied))
        return self._left[key]

    def _paint(self, bits: int) -> tuple[Piece, ...]:
        """The line of all traffic, painted by the rules of `bits`, best first; what is painted stays."""
        covered: Traffic = ()
        pieces: list[Piece] = []
        for rule in self.rules_of(bits):
            fresh = subtract(rule.traffic, covered)
            if fresh:
                pieces.extend(Piece(low, high, rule) for low, high in fresh)
                covered = union((*covered, *fresh))
        return tuple(sorted(pieces, key=lambda piece: piece.low))

    def _mark(self, bits_of: dict[Subject, int], bit: int, side: Side) -> frozenset[Subject]:
        """Set the bit of every subject that the side selects here; who they are."""
        members = side.members.get(self.name, frozenset())
        named = [m for m in members if is_prefix(m)]
        chosen = {m for m in members if not is_prefix(m)} & bits_of.keys()
        if named:
            chosen.update(p for p in self.prefixes if _within(p, named) and not _within(p, side.excluded))
        for subject in chosen:
            bits_of[subject] |= 1 << bit
        return frozenset(chosen)

    def _add_named_prefixes(self) -> None:
        """Prefixes that rules name inside a gateway's routes are subjects of their own."""
        routes = list(self._home.items())
        for rule in self.rules:
            for side in (rule.source, rule.destination):
                for prefix in (*side.excluded, *filter(is_prefix, side.members.get(self.name, ()))):
                    home = next((gateway for route, gateway in routes if covers(route, prefix)), None)
                    if home is not None:
                        self._home[prefix] = home


def _turns(rule: Rule) -> Iterator[tuple[Rule, Side, Side]]:
    """The rule with its sources and destinations; then, when it holds both ways, with these in each other's place."""
    yield rule, rule.source, rule.destination
    if rule.both_ways:
        yield rule, rule.destination, rule.source


def _denying(rules: Sequence[Rule]) -> list[int]:
    """For each rule the bits of the better ones that deny some of what it allows; 0 for one that denies.

    One walk along the line of all traffic: whatever meets anywhere is open there at the same time.
    """
    found = [0] * len(rules)
    open_now: dict[bool, list[tuple[int, int]]] = {True: [], False: []}  # those that deny, those that allow
    for low, high, bit in sorted((low, high, bit) for bit, rule in enumerate(rules) for low, high in rule.traffic):
        deny = rules[bit].deny
        opposite = open_now[not deny] = [(end, other) for end, other in open_now[not deny] if end >= low]
        for _, other in opposite:
            better, worse = sorted((bit, other))
            if rules[better].deny:
                found[worse] |= 1 << better
        open_now[deny].append((high, bit))
    return found


def _within(prefix: str, outer: Iterable[str]) -> bool:
    return any(covers(o, prefix) for o in outer)


def _bits(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
