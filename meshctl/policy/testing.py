"""Policy tests against the compiled policies: each pair, each item, and the rule that decided otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshctl.core.traffic import subtract, union, words
from meshctl.model.policy import PolicyTest, Rule, Side, Subject, Traffic, is_prefix
from meshctl.policy.compile import Decisions
from meshctl.policy.explain import judged, networks_for


@dataclass(frozen=True)
class Failure:
    """One pair for which one item does not hold. `traffic` is the part of it that is decided otherwise.

    `expected` says whether it should have been allowed; `rule` decided, None where no rule did. `no_way`: the two
    share no network, or there is no exit node on the way.
    """

    source: Subject
    destination: Subject
    item: str
    traffic: tuple[str, ...]
    expected: bool
    rule: Rule | None = None
    no_way: bool = False


@dataclass(frozen=True)
class Result:
    """One test's outcome; `pairs` is how many it was asked of. A test of no pair fails: it would prove nothing."""

    test: PolicyTest
    pairs: int
    failures: tuple[Failure, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything holds for at least one pair."""
        return self.pairs > 0 and not self.failures


def run_tests(decisions: Decisions, tests: Iterable[PolicyTest]) -> tuple[Result, ...]:
    """Every test's result, in the order given."""
    return tuple(_run(decisions, test) for test in tests)


def _run(decisions: Decisions, test: PolicyTest) -> Result:
    failures: list[Failure] = []
    pairs = 0
    for source, destination, networks in _pairs(decisions, test):
        pairs += 1
        for expected, items in ((True, test.can), (False, test.cannot)):
            for item, traffic in items:
                failures.extend(_judge(decisions, networks, source, destination, item, traffic, expected=expected))
    return Result(test, pairs, tuple(failures))


def _pairs(decisions: Decisions, test: PolicyTest) -> Iterator[tuple[Subject, Subject, frozenset[str]]]:
    """Every source with every destination at another node, and the networks in which both sides are meant."""
    sources, destinations = _subjects(decisions, test.source), _subjects(decisions, test.destination)
    for source, of_source in sources.items():
        for destination, of_destination in destinations.items():
            networks = of_source & of_destination
            if not any(_same_place(decisions, name, source, destination) for name in of_source | of_destination):
                yield source, destination, networks


def _subjects(decisions: Decisions, side: Side) -> dict[Subject, frozenset[str]]:
    """Everybody whom the side means, sorted, with the networks in which it does."""
    found: dict[Subject, set[str]] = {}
    for name, members in side.members.items():
        policy = decisions.network(name)
        for member in members:
            for one in judged(policy, member, side.excluded) if is_prefix(member) else (member,):
                found.setdefault(one, set()).add(name)
    return {one: frozenset(found[one]) for one in sorted(found)}


def _same_place(decisions: Decisions, network: str, source: Subject, destination: Subject) -> bool:
    policy = decisions.network(network)
    return policy.home(source) == policy.home(destination, source)


def _judge(
    decisions: Decisions,
    networks: frozenset[str],
    source: Subject,
    destination: Subject,
    item: str,
    traffic: Traffic,
    *,
    expected: bool,
) -> Iterator[Failure]:
    """What fails. Traffic is allowed when one of the networks allows it, as the two then have a way."""
    ways = [p for p in networks_for(decisions, source, destination) if p.name in networks]
    if not ways:
        if expected:
            yield Failure(source, destination, item, words(traffic), expected, no_way=True)
        return
    allowed = union(interval for way in ways for interval in way.allowed(source, destination))
    rest = subtract(traffic, allowed) if expected else subtract(traffic, subtract(traffic, allowed))
    for way in ways:
        for rule in dict.fromkeys(piece.rule for piece in way.decide(source, destination)):
            if rule.deny is not expected:
                continue
            decided = union((p.low, p.high) for p in way.decide(source, destination) if p.rule is rule)
            left = subtract(rest, decided)
            if left != rest:
                yield Failure(source, destination, item, words(subtract(rest, left)), expected, rule)
                rest = left
    if rest:
        yield Failure(source, destination, item, words(rest), expected)
