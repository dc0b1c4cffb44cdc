"""Anchors that grant relays of which nothing comes. Hunted: a pair that no anchor carries, while one of them could."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from simconfig import public_key
from simspec import Flow, NodeSpec, SiteSpec, WorldSpec
from simspecs import HARD, NEVER
from simworld import World

from meshctl.core.agent.blockage import BLOCKED_S, BLOCKED_WORDS
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.relayserver import PORTS

SECONDS = 120.0
BREAKS_AT = 20.0
WARM = "80.0.1.1"  # a1
STRAYS_AT = 20.15  # no ping is under way then, which would bring it back
NEAREST = "80.0.0.1"  # a0
# The controlling end first.
ENDS = tuple(sorted(("n0", "n1"), key=lambda name: public_key(name).raw()))
PINGS = Flow("n0", "n1", 3.0, 0.2, SECONDS)


def anchors(*far_s: float, **changes: bool) -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec(f"a{n}", n, kind="anchor", far_s=s, **changes) for n, s in enumerate(far_s))


def between_hard_nats(*far_s: float, pings: Flow = PINGS) -> World:
    """Two nodes that need a relay, and anchors so much farther away, in seconds one way."""
    nodes = (NodeSpec("n0", 8, "site0"), NodeSpec("n1", 9, "site1"))
    sites = tuple(SiteSpec(n, HARD, f"192.168.{n}") for n in (0, 1))
    return World(replace(NEVER, sites=sites, nodes=(*anchors(*far_s), *nodes), flows=(pings,), seconds=SECONDS))


def relays(world: World) -> list[tuple[State, str]]:
    """What both ends say at the end."""
    paths = (world.nodes["n0"].path("n1"), world.nodes["n1"].path("n0"))
    return [(path.state, path.relay) for path in paths if path is not None]


def run(world: World) -> tuple[list[tuple[State, str]], float]:
    """What both ends say right before the end, and for how long the pings were not answered at a time."""
    found: list[tuple[State, str]] = []
    world.clock.at(SECONDS - 1.0, lambda: found.extend(relays(world)))
    world.run()
    (flow,) = world.flows
    return found, max([o.ended_at - o.began_at for o in flow.outages], default=inf if flow.first_at is None else 0.0)


@pytest.mark.parametrize("four", ENDS)
def test_a_pair_of_two_families_is_relayed_by_the_one_anchor_that_has_both_however_far_it_is(four: str) -> None:
    nodes = (NodeSpec(n, 8 + i, v4=n == four, v6=n != four) for i, n in enumerate(("n0", "n1")))
    far = NodeSpec("a2", 2, kind="anchor", v6=True, far_s=0.3)
    spec = WorldSpec(0, NEVER.link, (), (*anchors(0.0, 0.0), far, *nodes), (("n0", "n1"),), (PINGS,), seconds=SECONDS)
    found, longest_s = run(World(spec))
    assert found == [(State.RELAYED, "a2")] * 2
    assert longest_s < 5.0


@pytest.mark.parametrize("closed_at", [0.0, BREAKS_AT])
def test_anchors_whose_relay_ports_are_closed_are_passed_by(closed_at: float) -> None:
    world = between_hard_nats(0.0, 0.0, 0.05)
    for name in ("a0", "a1"):
        kernel, heard = world.nodes[name].kernel, world.nodes[name].kernel._receive

        def guarded(packet, heard=heard):  # type: ignore[no-untyped-def]
            if packet.destination[1] not in PORTS or world.clock.now < closed_at:
                heard(packet)

        kernel._receive = guarded  # type: ignore[method-assign]
    found, longest_s = run(world)
    assert found == [(State.RELAYED, "a2")] * 2
    assert longest_s < 7.0


@pytest.mark.parametrize("source", ENDS)
@pytest.mark.parametrize("breaks_at", [0.0, BREAKS_AT])
def test_an_anchor_that_answers_binds_and_forwards_nothing_is_left_for_the_warm_one_and_not_taken_again(
    breaks_at: float, source: str
) -> None:
    """As one does on which Docker has the FORWARD policy drop what no rule allows."""
    target = next(name for name in ENDS if name != source)
    world = between_hard_nats(0.0, 0.05, pings=replace(PINGS, a=source, b=target))
    kernel, relay = world.nodes["a0"].kernel, world.nodes["a0"].kernel._relay
    kernel._relay = lambda *passing: relay(*passing) if world.clock.now < breaks_at else None  # type: ignore[method-assign]
    found, longest_s = run(world)
    assert found == [(State.RELAYED, "a1")] * 2
    assert longest_s < BLOCKED_S + 6.0
    taken = [d.at for d in world.watch.decided if d.decision.trigger is Trigger.RELAY_READY and d.node in ENDS]
    assert max(taken) < breaks_at + 3.0 + BLOCKED_S + 6.0
    why = [d.decision.reason for d in world.watch.decided if {d.node, d.peer} == {source, target}]
    assert any(BLOCKED_WORDS in reason for reason in why), "an operator sees why"


@pytest.mark.parametrize("lost_by", ENDS)
def test_both_ends_are_at_one_anchor_soon_after_one_of_them_has_lost_the_other(lost_by: str) -> None:
    world = between_hard_nats(0.0, 0.3)
    kernel = world.nodes[lost_by].kernel
    kernel.sieve = lambda place, _data: world.clock.now < BREAKS_AT or place[0] != NEAREST
    agreed: list[float] = []

    def look() -> None:
        if {anchor for _, anchor in relays(world)} == {"a1"}:
            agreed.append(world.clock.now)
        world.clock.after(1.0, look)

    world.clock.at(BREAKS_AT, look)
    found, longest_s = run(world)
    assert found == [(State.RELAYED, "a1")] * 2
    assert agreed[0] < BREAKS_AT + 6.0
    assert longest_s < 6.0


def test_the_worlds_of_these_tests_are_relayed_by_the_nearest_anchor_when_all_are_whole() -> None:
    world = between_hard_nats(0.0, 0.0, 0.05)
    assert {anchor for _, anchor in run(world)[0]} <= {"a0", "a1"}


def straying(end: str) -> World:
    """To the end that pings the other one has come, by the warm relay, what was long under way: WireGuard follows its
    source, and there the other end's follows it."""
    other = next(name for name in ENDS if name != end)
    world = between_hard_nats(0.0, 0.05, pings=replace(PINGS, a=end, b=other))

    def stray() -> None:
        tunnel = world.nodes[end].tunnel(other)
        assert tunnel is not None
        (port,) = world.nodes["a1"].kernel.relays
        world.nodes[end].kernel.wg.set_endpoint(tunnel.key, (WARM, port))

    world.clock.at(STRAYS_AT, stray)
    return world


@pytest.mark.parametrize("end", ENDS)
def test_a_tunnel_that_has_strayed_to_the_warm_relay_is_brought_back(end: str) -> None:
    world = straying(end)
    at: list[str | None] = []
    world.clock.at(BREAKS_AT + 1.0, lambda: at.extend(endpoints(world)))
    world.clock.at(BREAKS_AT + 30.0, lambda: at.extend(endpoints(world)))  # after some tries
    found, longest_s = run(world)
    assert at == [WARM] * 2 + [NEAREST] * 2
    assert found == [(State.RELAYED, "a0")] * 2
    assert longest_s == 0.0


@pytest.mark.parametrize("end", ENDS)
def test_a_tunnel_that_has_strayed_to_a_warm_relay_that_dies_is_brought_back_at_once(end: str) -> None:
    world = straying(end)
    world.nodes["a1"].kernel.sieve = lambda _place, _data: world.clock.now < BREAKS_AT + 1.0
    found, longest_s = run(world)
    assert found == [(State.RELAYED, "a0")] * 2
    assert longest_s < 3.0


def endpoints(world: World) -> list[str | None]:
    """To which address both ends' WireGuards send."""
    tunnels = [world.nodes[one].tunnel(other) for one, other in (ENDS, ENDS[::-1])]
    return [tunnel.endpoint[0] if tunnel and tunnel.endpoint else None for tunnel in tunnels]
