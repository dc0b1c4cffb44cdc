"""The compiler against the reference evaluator, on thousands of random rules over random meshes.

It hunts for a packet about which the two name different rules: not only a different verdict, so that a wrong order
among rules shows even where they happen to say the same.
"""

from __future__ import annotations

import random
from typing import Any

from asking import borders, number, pairs, smallest, sound
from effort import examples
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from policy_strategies import RuleMaker, layouts
from reference import Packet, Reference

from meshctl.model.mesh import Mesh
from meshctl.model.policy import Rule
from meshctl.policy import compile_policies

SETS_OF_RULES = 5  # over each mesh; with 220 meshes and four rules a set these are 4,400 policies
PAIRS = 40  # asked about for each set of rules, in each network
POINTS = 12  # of traffic, asked about for each pair


def told(rule: Rule | dict[str, Any] | None) -> str:
    """The name of the rule that decides."""
    if rule is None:
        return "nobody"
    return rule.name if isinstance(rule, Rule) else str(rule["name"])


def disagreement(data: dict[str, Any], mesh: Mesh, chance: random.Random) -> str:
    """A packet about which the two disagree, in words; empty: none was found."""
    reference = Reference(data)
    for name, policy in compile_policies(mesh).networks.items():
        asked = list(pairs(policy))
        for one, other, source, destination in chance.sample(asked, min(PAIRS, len(asked))):
            about = frozenset(rule["name"] for rule in reference.about(name, source, destination))
            interesting = borders(mesh, about)
            pieces = policy.decide(one, other)
            for protocol, port in chance.sample(interesting, min(POINTS, len(interesting))):
                packet, point = Packet(name, source, destination, protocol, port), number(protocol, port)
                compiled = next((piece.rule for piece in pieces if piece.low <= point <= piece.high), None)
                expected = reference.decides(packet)
                if told(compiled) != told(expected):
                    return f"{packet}: compiled {told(compiled)}, reference {told(expected)}"
    return ""


# Hypothesis would take minutes to make the layout smaller, which is small already.
QUICK = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.reuse, Phase.generate]}


@given(layouts(), st.integers(0, 2**32))
@settings(max_examples=examples(220), **QUICK)
def test_the_compiler_names_the_rule_that_the_reference_names(layout: dict[str, Any], seed: int) -> None:
    def fails(data: dict[str, Any]) -> str:
        return disagreement(*sound(data), random.Random(seed))  # noqa: S311

    maker = RuleMaker(layout, seed)
    for _ in range(SETS_OF_RULES):
        data = {**layout, "policies": maker.policies()}
        assert not fails(data), smallest(data, fails)


@given(layouts(), st.integers(0, 2**32))
@settings(max_examples=examples(60), **QUICK)
def test_those_are_peers_between_whom_some_packet_may_pass_and_nobody_else(layout: dict[str, Any], seed: int) -> None:
    data, mesh = sound({**layout, "policies": RuleMaker(layout, seed).policies()})
    reference, decisions = Reference(data), compile_policies(mesh)
    for network, reaches in decisions.reaches.items():
        met: dict[str, set[str]] = {name: set() for name in reaches}
        for _, _, source, destination in pairs(decisions.network(network)):
            way = reference.between(network, source, destination)
            if way and any(reference.allowed(Packet(network, source, destination, *p)) for p in borders(mesh)):
                met[way[0]].add(way[1])
                met[way[1]].add(way[0])
        assert {name: reach.peers - {name} for name, reach in reaches.items()} == met
