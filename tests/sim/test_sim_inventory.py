"""The inventory changes while all runs. Hunted: what outlives the peer that it was for, and a pair that does not find
together again; and agents that have not read the new document, which must be found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from simchanges import NATS
from siminventory import APPLY_S
from simnode import Node
from simspec import SETTLE_S, Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec
from simworld import World

from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.events import Event, Reconfigured
from meshctl.core.agentcore import AgentCore

AT_S, LASTS_S = 12.0, 8.0


def spec_of(nat: str, fault: Fault) -> WorldSpec:
    """Two nodes that talk behind such NATs of their own, and two anchors."""
    sites = tuple(SiteSpec(n, NATS[nat], f"192.168.{n}") for n in (0, 1))
    anchors = (NodeSpec(f"a{n}", n, kind="anchor") for n in (0, 1))
    nodes = (*anchors, *(NodeSpec(f"n{n}", 2 + n, f"site{n}") for n in (0, 1)))
    seconds = fault.ends_at + APPLY_S + SETTLE_S
    flows = (Flow("n0", "n1", 1.0, 0.2, seconds - 5.0),)
    return WorldSpec(
        0, Link(), sites, nodes, (("n0", "n1"),), flows, (fault,), quiet_at=fault.ends_at + APPLY_S, seconds=seconds
    )


def lasting(kind: str, target: str, value: str = "") -> Fault:
    return Fault(kind, AT_S, LASTS_S, target, value)


LEAVES, DEMOTED = lasting("anchor leaves", "a0"), lasting("anchor leaves", "a0", "demoted")
NODE_LEAVES, PAIR_ENDS = lasting("node leaves", "n1"), lasting("pair ends", "n0", "n1")


@pytest.mark.parametrize("nat", ["easy", "hard"])
@pytest.mark.parametrize("fault", [LEAVES, DEMOTED, NODE_LEAVES, PAIR_ENDS], ids=str)
def test_whoever_leaves_and_comes_back_is_met_again(nat: str, fault: Fault) -> None:
    assert World(spec_of(nat, fault)).run().findings == ()


@pytest.mark.parametrize("nat", ["easy", "hard"])
def test_a_pair_that_is_no_more_permitted_has_nothing_left_when_all_hosts_know(nat: str) -> None:
    world = World(spec_of(nat, PAIR_ENDS))
    left: list[object] = []

    def look() -> None:
        left.extend(world.nodes[name].path(peer) for name, peer in (("n0", "n1"), ("n1", "n0")))
        left.extend(len(world.nodes[name].kernel.relays) for name in ("a0", "a1"))
        left.append(world.flows[0].answered_at)

    world.clock.at(AT_S + APPLY_S, look)
    world.run()
    assert left[:-1] == [None, None, 0, 0]
    assert AT_S <= left[-1] < AT_S + APPLY_S


@pytest.mark.parametrize("leaves", ["a0", "a1"])
@pytest.mark.parametrize("value", ["", "demoted"])
def test_no_packet_waits_while_the_anchor_leaves_that_relays_them(leaves: str, value: str) -> None:
    world = World(spec_of("hard", lasting("anchor leaves", leaves, value)))
    relays: list[str | None] = []

    def look() -> None:
        paths = (world.nodes["n0"].path("n1"), world.nodes["n1"].path("n0"))
        relays.extend(path.relay if path else None for path in paths)

    world.clock.at(AT_S + APPLY_S + 0.5, look)
    world.run()
    other = {"a0": "a1", "a1": "a0"}[leaves]
    assert relays == [other, other]
    assert world.flows[0].outages == []


class Ignorant(AgentCore):
    """Reads no other document than its first."""

    def handle(self, event: Event, now: float) -> None:
        if not isinstance(event, Reconfigured):
            super().handle(event, now)


@pytest.mark.parametrize(
    ("who", "nat", "fault", "invariant"),
    [
        ("a", "hard", PAIR_ENDS, "a relay outlives its pair"),
        ("n", "easy", PAIR_ENDS, "a path outlives its peer"),
        ("n", "easy", replace(PAIR_ENDS, lasts_s=40.0), "candidates of unpermitted pairs"),
    ],
)
def test_an_agent_that_does_not_read_its_new_document_is_found(
    monkeypatch: pytest.MonkeyPatch, who: str, nat: str, fault: Fault, invariant: str
) -> None:
    def core(config: AgentConfig, dice: random.Random, now: float, state: bytes) -> AgentCore:
        return (Ignorant if config.name.startswith(who) else AgentCore)(config, dice, now, state)

    monkeypatch.setattr(Node, "make_core", staticmethod(core))
    assert invariant in {f.invariant for f in World(spec_of(nat, fault)).run().findings}
