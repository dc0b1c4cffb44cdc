"""What is odd about a set of rules as a whole: those that match nothing, and those that never decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    def contradicted(self) -> bool:
        """Whether another rule of the same priority says the opposite of it wherever it applies."""
        return any(other.deny != self.rule.deny and other.priority == self.rule.priority for other in self.by)


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
    instead: dict[str, Rule] = {}
    seen: set[int] = set()
    for source, destination in _pairs(policy, rule):
        bits = policy.source[source] & policy.destination[destination]
        if bits in seen or not policy.carries(source, destination):
            continue
        seen.add(bits)
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


def _pairs(policy: NetworkPolicy, rule: Rule) -> Iterator[tuple[Subject, Subject]]:
    for sources, destinations in policy.sides(rule):
        for source in sorted(sources):
            for destination in sorted(destinations):
                yield source, destination
