"""Direct ways that are bad: they drop WireGuard's packets, die again and again, or become slow; or two are one. Hunted:
a pair that stays on such a way, or goes back to it for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simnat import SEQUENTIAL, Behaviour
from simnet import Cable
from simpairs import KNOWN_BLOCKED_S, trying
from simspec import Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec
from simways import BLINKS, BLOCKS
from simworld import World

from meshctl.core.agent.damping import FREE_FAILURES
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import COMPARE_S

PINGS = (Flow("n0", "n1", 2.0, 0.2, 1000.0),)


def at_home(seconds: float, *faults: Fault, quiet_at: float = 12.0) -> WorldSpec:
    """Two nodes behind easy NATs that talk to each other, and an anchor."""
    sites = tuple(SiteSpec(n, Behaviour(), f"192.168.{n}") for n in (0, 1))
    nodes = (NodeSpec("a0", 0, kind="anchor"), *(NodeSpec(f"n{n}", 1 + n, f"site{n}") for n in (0, 1)))
    return WorldSpec(0, Link(), sites, nodes, (("n0", "n1"),), PINGS, faults, quiet_at=quiet_at, seconds=seconds)


def decided(world: World, trigger: Trigger, node: str) -> list[float]:
    return [d.at for d in world.watch.decided if d.decision.trigger is trigger and (d.node, d.peer[0]) == (node, "n")]


@pytest.mark.parametrize("at", [0.1, 20.0])
def test_a_pair_whose_direct_way_drops_wireguard_is_relayed_and_stays_so(at: float) -> None:
    world = World(at_home(150.0, Fault(BLOCKS, at, 0.0, "n0", "n1"), quiet_at=118.0))
    states: list[State] = []

    def note() -> None:
        paths = (world.nodes["n0"].path("n1"), world.nodes["n1"].path("n0"))
        states.extend(path.state for path in paths if path is not None)

    world.clock.at(149.0, note)
    outcome = world.run()
    assert outcome.findings == (), outcome.text
    assert states == [State.RELAYED, State.RELAYED]
    for node in ("n0", "n1"):
        assert len(decided(world, Trigger.DEAD, node)) == 1


def test_that_a_way_drops_wireguard_cannot_be_known_before_there_is_something_to_send() -> None:
    block_at, pings_at = 20.0, 50.0
    spec = at_home(100.0, Fault(BLOCKS, block_at, 0.0, "n0", "n1"), quiet_at=68.0)
    world = World(replace(spec, flows=(Flow("n0", "n1", pings_at, 0.2, 100.0),)))
    tried: dict[float, tuple[bool, bool]] = {}

    def note() -> None:
        now = world.clock.now
        tried[now] = trying(world, "n0", "n1"), trying(world, "n1", "n0", lately_s=10.0)

    times = (block_at - 1.0, block_at + 1.0, pings_at + KNOWN_BLOCKED_S - 1.0, pings_at + KNOWN_BLOCKED_S + 1.0, 99.0)
    for at in times:
        world.clock.at(at, note)
    assert world.run().findings == ()
    assert list(tried.values()) == [(False, False), (True, True), (True, True), (False, True), (False, False)]


def test_a_pair_whose_direct_way_dies_every_few_seconds_is_relayed_for_longer_each_time_and_direct_in_the_end() -> None:
    world = World(at_home(420.0, Fault(BLINKS, 20.0, 150.0, "n0"), quiet_at=388.0))
    outcome = world.run()
    assert outcome.findings == (), outcome.text
    deaths = decided(world, Trigger.DEAD, "n0")
    assert FREE_FAILURES < len(deaths) <= FREE_FAILURES + 4
    [flow] = [f for f in world.flows if f.flow == PINGS[0]]
    assert sum(o.ended_at - o.began_at for o in flow.outages if o.began_at > 60.0) < 10.0
    assert decided(world, Trigger.NOMINATED, "n0")[-1] > 170.0


def test_a_direct_path_that_has_become_slow_is_left_for_a_better_one_after_some_minutes() -> None:
    nodes = (NodeSpec("a0", 0, kind="anchor", v6=True), *(NodeSpec(f"n{n}", 1 + n, v6=True) for n in (0, 1)))
    world = World(WorldSpec(0, Link(), (), nodes, (("n0", "n1"),), PINGS, seconds=2 * COMPARE_S))
    slow: list[str] = []

    def become_slow() -> None:
        """The way of the family that is in use, at one end."""
        path = world.nodes["n0"].path("n1")
        assert path is not None
        assert path.endpoint is not None
        slow.append(path.endpoint.ip)
        kernel = world.nodes["n1"].kernel
        kernel.join(world.internet, path.endpoint.ip, Cable(delay_s=0.2))

    world.clock.at(20.0, become_slow)
    ended: list[Any] = []
    ends = [(world.nodes["n0"], "n1"), (world.nodes["n1"], "n0")]
    world.clock.at(world.spec.seconds - 1.0, lambda: ended.extend(node.path(peer) for node, peer in ends))
    assert world.run().findings == ()
    assert [p.state for p in ended] == [State.DIRECT] * 2
    assert ended[0].endpoint.ip != slow[0]
    assert len(decided(world, Trigger.NOMINATED, "n0")) == 2, "one change, and no other"


def test_a_shorter_way_that_did_not_work_when_the_agents_met_is_taken_some_minutes_after_it_does() -> None:
    nodes = (NodeSpec("a0", 0, kind="anchor"), *(NodeSpec(f"n{n}", 1 + n, v6=True) for n in (0, 1)))
    slow = Link(delay_s=0.05)
    world = World(WorldSpec(0, slow, (), nodes, (("n0", "n1"),), PINGS, seconds=2 * COMPARE_S))
    ways = {"n0": Cable(up=False), "n1": Cable(up=False)}

    def join() -> None:
        for node, cable in ways.items():
            kernel = world.nodes[node].kernel
            kernel.join(world.internet, next(ip for ip in kernel.addresses if ":" in ip), cable)

    families: list[int] = []

    def note() -> None:
        path = world.nodes["n0"].path("n1")
        assert path is not None
        assert path.endpoint is not None
        families.append(path.endpoint.family)

    world.clock.at(0.0, join)
    world.clock.at(59.0, note)
    world.clock.at(60.0, lambda: [setattr(cable, "up", True) for cable in ways.values()])
    world.clock.at(world.spec.seconds - 1.0, note)
    assert world.run().findings == ()
    assert families == [4, 6]


def test_an_operator_takes_his_word_back_as_soon_as_the_host_is_awake() -> None:
    faults = Fault("override", 14.0, 4.0, "n0", "n1 relay"), Fault("sleep", 16.0, 4.0, "n0")
    world = World(at_home(60.0, *faults, quiet_at=28.0))
    assert world.run().findings == ()
    assert decided(world, Trigger.DEMOTED, "n0")
    assert decided(world, Trigger.NOMINATED, "n0")[-1] > 20.0


@pytest.mark.parametrize("every_s", [0.1, 0.5])
def test_a_peer_that_is_seen_under_a_port_of_its_nat_and_one_that_its_router_promised_stays_where_it_is(
    every_s: float,
) -> None:
    # What it says comes by the one port while that flow lives, and by the other. Each word would take the path there.
    site = SiteSpec(0, Behaviour(allocation=SEQUENTIAL), "192.168.0", speaks=("pcp",))
    ends = NodeSpec("n0", 1, starts_at=1.0), NodeSpec("n1", 2, site.name, starts_at=1.0)
    nodes = (NodeSpec("a0", 0, kind="anchor"), *ends)
    pings = Flow("n1", "n0", 1.0, every_s, 90.0)
    far = Link(delay_s=0.2)
    world = World(WorldSpec(0, far, (site,), nodes, (("n0", "n1"),), (pings,), quiet_at=60.0, seconds=100.0))
    assert world.run().findings == ()
    assert [at for at in decided(world, Trigger.DISTRESS, "n0") if 12.0 < at < pings.ends_at] == []


@pytest.mark.parametrize("four", ["n0", "n1"])
def test_two_nodes_without_a_common_family_meet_at_an_anchor_that_one_of_them_knows_by_a_family_it_does_not_have(
    four: str,
) -> None:
    sites = tuple(SiteSpec(n, Behaviour(), f"192.168.{n}", v6=True) for n in (0, 1))
    anchors = tuple(NodeSpec(f"a{n}", n, kind="anchor", v6=True, written=(4, 6)[n], starts_at=0.1 * n) for n in (0, 1))
    nodes = (NodeSpec(n, 2 + i, f"site{i}", v4=n == four, v6=n != four) for i, n in enumerate(("n0", "n1")))
    pings = Flow("n0", "n1", 2.0, 0.2, 50.0)
    world = World(replace(at_home(60.0), sites=sites, nodes=(*anchors, *nodes), flows=(pings,)))
    assert world.run().findings == ()
    assert all(decided(world, Trigger.RELAY_READY, name)[0] < 3.0 for name in ("n0", "n1"))


@pytest.mark.parametrize("every_s", [0.02, 1.0])
@pytest.mark.parametrize("cut_at", [40.0, 40.4, 40.8])
def test_a_direct_path_that_dies_under_a_flow_that_nobody_answers_is_left_in_two_seconds_and_seldom_doubted_before(
    every_s: float, cut_at: float
) -> None:
    spec = at_home(90.0, Fault("partition", cut_at, 15.0, "n1"), quiet_at=58.0)
    world = World(replace(spec, flows=(Flow("n0", "n1", 2.0, every_s, 80.0, one_way=True),)))
    assert world.run().findings == ()
    [dead_at] = decided(world, Trigger.DEAD, "n0")
    assert dead_at - cut_at < 2.0
    assert len([at for at in decided(world, Trigger.DISTRESS, "n0") if at < cut_at]) <= 4
