"""What is odd about a set of rules as a whole: those that match nothing, and those that never decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product

from meshctl.core.traffic import subtract
from meshctl.model.policy import Rule, Subject
from meshctl.policy.compile import Decisions
from meshctl.policy.network import NetworkPolicy


@dataclass(frozen=True)
class Idle:
    """A rule without effect. `by` are the rules that decide in its place, best first; none when it matches nobody."""

    rule: Rule
    by: tuple[Rule, ...] = ()

    @property
    def opposite(self) -> tuple[Rule, ...]:
        """Those that say the opposite with the same priority: one of the two was not meant."""
        return tuple(r for r in self.by if r.deny != self.rule.deny and r.priority == self.rule.priority)


def idle_rules(decisions: Decisions) -> tuple[Idle, ...]:
    """Rules that decide no packet in any network, in order of precedence."""
    found: dict[str, Idle] = {}
    effective: set[str] = set()
    for policy in decisions.networks.values():
        for rule in policy.rules:
            if rule.name in effective:
                continue
            by = _deciding_instead(policy, rule)
            if by is None:
                effective.add(rule.name)
            else:
                before = found[rule.name].by if rule.name in found else ()
                found[rule.name] = Idle(rule, tuple(dict.fromkeys((*before, *by))))
    return tuple(idle for name, idle in found.items() if name not in effective)


def _deciding_instead(policy: NetworkPolicy, rule: Rule) -> list[Rule] | None:
    """The rules that decide wherever `rule` applies; None when it decides something itself."""
    meetings = _meetings(policy, rule)
    first = next(meetings, None)
    if first is None:
        return []
    one = _one_instead(policy, rule)
    if one is not None:
        return [one]
    instead: dict[str, Rule] = {}
    for bits in chain((first,), meetings):
        rest = rule.traffic
        for other in policy.rules_of(bits):
            if other is rule:
                break
            if subtract(rest, other.traffic) != rest:
                instead[other.name] = other
                rest = subtract(rest, other.traffic)
        if rest:
            return None
    return list(instead.values())


def _one_instead(policy: NetworkPolicy, rule: Rule) -> Rule | None:
    """A better rule that alone has all of this one, as copies have: seen without a look at any pair."""
    selecting = [
        dict.fromkeys(policy.rules_of(_common(policy, *sides) & ((1 << turn) - 1)))
        for turn, sides in zip(policy.turns(rule), policy.sides(rule), strict=True)
    ]
    for other in selecting[0]:
        everywhere = other is not rule and all(other in found for found in selecting)
        if everywhere and not subtract(rule.traffic, other.traffic):
            return other
    return None


def _common(policy: NetworkPolicy, sources: Iterable[Subject], destinations: Iterable[Subject]) -> int:
    """The rules that speak of all these pairs, as bits."""
    bits = -1  # all of them
    for source in sources:
        bits &= policy.source[source]
    for destination in destinations:
        bits &= policy.destination[destination]
    return bits


def _meetings(policy: NetworkPolicy, rule: Rule) -> Iterator[int]:
    """The sets of rules that speak of the same pairs as `rule`, as bits: one of each set that matters.

    Rules that it wins over do not, so subjects that differ in those alone are one.
    """
    seen: set[int] = set()
    for turn, (sources, destinations) in zip(policy.turns(rule), policy.sides(rule), strict=True):
        mask = (2 << turn) - 1
        starts, ends = _alike(sources, policy.source, mask), _alike(destinations, policy.destination, mask)
        for (one, those), (other, these) in product(starts.items(), ends.items()):
            met = one & other
            if met not in seen and any(policy.carries(s, d) for s in those for d in these):
                seen.add(met)
                yield met


def _alike(subjects: Iterable[Subject], bits_of: Mapping[Subject, int], mask: int) -> dict[int, list[Subject]]:
    found: dict[int, list[Subject]] = {}
    for subject in sorted(subjects):
        found.setdefault(bits_of[subject] & mask, []).append(subject)
    return found
