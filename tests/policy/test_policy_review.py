"""Rules without effect are found by what they decide, pair by pair."""

from __future__ import annotations

from asking import read, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_strategies import RuleMaker, inventory, layouts, node

from meshctl.model.mesh import Mesh
from meshctl.policy import compile_policies
from meshctl.policy.review import idle_rules


def deciding(mesh: Mesh) -> set[str]:
    """The rules that decide anything for any pair, found the slow way."""
    return {
        piece.rule.name
        for policy in compile_policies(mesh).networks.values()
        for source in policy.source
        for destination in policy.subjects()
        for piece in policy.decide(source, destination)
    }


@settings(max_examples=100, deadline=None)
@given(layout=layouts(), seed=st.integers(0, 2**32))
def test_a_rule_has_no_effect_when_it_decides_no_pair(layout: dict[str, object], seed: int) -> None:
    _, mesh = sound({**layout, "policies": RuleMaker(layout, seed).policies()})
    idle = {found.rule.name for found in idle_rules(compile_policies(mesh))}
    assert idle == {rule.name for rule in mesh.rules} - deciding(mesh)


def test_a_copy_of_a_better_rule_is_told_by_that_rule_alone() -> None:
    rule = {"from": "*", "to": "*", "allow": ["tcp/22"]}
    nodes = {f"n{i}": node(i, ("corp",), endpoint=True) for i in (1, 2, 3)}
    names = ("first", "second", "third")
    mesh = read(inventory(nodes, policies=[{"name": name, **rule} for name in names]))
    found = {idle.rule.name: [by.name for by in idle.by] for idle in idle_rules(compile_policies(mesh))}
    assert found == {"second": ["first"], "third": ["first"]}
