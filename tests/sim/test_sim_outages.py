"""Outages that nothing explains. Hunted: an excuse that has no end, or that anything is one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simnat import ADDRESS_AND_PORT, RANDOM, Behaviour
from simoutages import HANDSHAKE_AGAIN_S, again_after_crossing_s
from simspec import Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec
from simwg import KEEPALIVE_TIMEOUT_S
from simworld import World

CAUSE = "every outage has a cause"


def world_of(*faults: Fault, expiry_s: float = 120.0, begins_at: float = 2.0, loss: float = 0.0) -> WorldSpec:
    """Two nodes at home, of which one pings the other five times a second, a site that neither has to do with, and an
    anchor."""
    sites = tuple(SiteSpec(n, Behaviour(expiry_s=expiry_s), f"192.168.{n}") for n in (0, 1, 2))
    nodes = (NodeSpec("a0", 0, kind="anchor"), *(NodeSpec(f"n{n}", 1 + n, f"site{n}") for n in (0, 1)))
    pings = Flow("n0", "n1", begins_at, 0.2, 95.0)
    return WorldSpec(
        0, Link(loss=loss), sites, nodes, (("n0", "n1"),), (pings,), faults, quiet_at=60.0, seconds=100.0
    )


def found(spec: WorldSpec, cut_at: float, cut_s: float, crossed: tuple[float, ...] = ()) -> set[str]:
    """What is found when all that both ends send is lost for so long, and nobody says so; or they say that handshakes
    had crossed at these times."""
    world = World(spec)

    def cross(at: float) -> None:
        for name in ("n0", "n1"):
            tunnel = world.nodes[name].tunnel("n1" if name == "n0" else "n0")
            assert tunnel is not None
            tunnel.crossed.append(at)

    for at in crossed:
        world.clock.at(at, lambda at=at: cross(at))  # type: ignore[misc]

    def lose(share: float) -> None:
        for name in ("n0", "n1"):
            for cable in world.nodes[name].cables:
                cable.loss_out = share

    world.clock.at(cut_at, lambda: lose(1.0))
    world.clock.at(cut_at + cut_s, lambda: lose(0.0))
    return {f.invariant for f in world.run().findings}


@pytest.mark.parametrize(
    ("spec", "cut_at", "cut_s"),
    [
        pytest.param(world_of(), 25.0, 6.0, id="nothing happened"),
        pytest.param(world_of(expiry_s=20.0), 25.0, 6.0, id="a NAT that forgets quickly, and is used all the time"),
        pytest.param(world_of(expiry_s=60.0, loss=0.02), 40.0, 12.0, id="and where something is lost"),
        pytest.param(world_of(Fault("sleep", 14.0, 1.0, "n0"), begins_at=59.0), 65.0, 13.0, id="a sleep long ago"),
        pytest.param(world_of(Fault("rebind", 30.0, 0.0, "site1"), Fault("rebind", 20.0, 0.0, "site2")), 30.0, 8.0,
                     id="a fault, and one of somebody else"),
        pytest.param(world_of(Fault("anchor's agent dies", 20.0, 5.0, "a0"), Fault("pair ends", 50.0, 5.0, "n0", "n1")),
                     20.2, 4.5, id="a fault that costs nothing, before the two met once more"),
    ],
)  # fmt: skip
def test_an_outage_is_found_whatever_else_there_was(spec: WorldSpec, cut_at: float, cut_s: float) -> None:
    assert CAUSE not in found(spec, cut_at, 0.0)
    assert CAUSE in found(spec, cut_at, cut_s)


HARD = Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, RANDOM)


@pytest.mark.parametrize("first_at", [20.0, 37.0])
def test_an_anchor_that_goes_explains_more_only_while_the_other_one_is_gone_too(first_at: float) -> None:
    faults = Fault("anchor off", first_at, 5.0, "a0"), Fault("anchor off", 40.0, 9.0, "a1")
    spec = world_of(*faults)
    relayed = replace(
        spec, sites=tuple(replace(s, nat=HARD) for s in spec.sites),
        nodes=(*spec.nodes, NodeSpec("a1", 5, kind="anchor")),
    )  # fmt: skip
    assert (CAUSE in found(relayed, 44.0, 6.0)) is (first_at == 20.0)


def test_handshakes_that_have_crossed_explain_a_few_seconds_and_no_more() -> None:
    assert CAUSE not in found(world_of(), 25.0, 5.0, crossed=(25.1,))
    assert CAUSE not in found(world_of(), 25.0, 9.0, crossed=(25.1, 30.2))
    assert CAUSE in found(world_of(), 25.0, 15.0, crossed=(25.1, 30.2, 35.3))
    assert CAUSE in found(world_of(), 25.0, 5.0, crossed=(31.0,))
    assert again_after_crossing_s(World(world_of()), ("n0", "n1")) == HANDSHAKE_AGAIN_S
    copied = World(world_of(Fault("double", 20.0, 5.0, "n1", "site0")))
    assert again_after_crossing_s(copied, ("n0", "n1")) == HANDSHAKE_AGAIN_S + KEEPALIVE_TIMEOUT_S
    assert again_after_crossing_s(copied, ("n0", "a0")) == HANDSHAKE_AGAIN_S


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_a_wall_clock_that_is_set_while_packets_pass_costs_none(by_s: float) -> None:
    assert found(world_of(Fault("wall clock", 30.0, 0.0, "n0", f"{by_s:g}")), 30.0, 0.0) == set()


def test_an_outage_that_a_fault_explains_is_not_found() -> None:
    spec = replace(world_of(Fault("partition", 30.0, 8.0, "n1")), seconds=100.0)
    assert found(spec, 30.0, 8.0) == set()
