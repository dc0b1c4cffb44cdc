"""The core in small worlds: nothing is found, and the same seed is the same world, whichever Python runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from argparse import ArgumentTypeError
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from simbig import star_world
from simdraw import draw
from simnat import RANDOM, Behaviour
from simoutages import HANDSHAKE_AGAIN_S
from simreport import MANY, coverage, is_green, seeds_of
from simshrink import describe, shrink
from simspec import Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec
from simspecs import HARD, spec_of
from simtrace import Meter, Trace
from simworld import World

from meshctl.core.agent import path
from meshctl.core.agent.events import Reconfigured
from meshctl.core.agent.path import State, Trigger
from meshctl.core.reachability import ADDRESS_AND_PORT

SEEDS = range(24)
# What two agents need to talk, by way of an anchor that is far.
_SESSIONS_S = 3.0
_HERE = Path(__file__).parent
# Run by every Python that is there: prints the digests of a few worlds.
_DIGESTS = """
import sys
sys.path[:0] = sys.argv[1:3]
from simdraw import draw
from simworld import World
print(*(World(draw(seed)).run().digest for seed in (3, 7)))
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_in_a_small_world(seed: int) -> None:
    outcome = World(draw(seed)).run()
    assert outcome.findings == (), "\n".join([describe(draw(seed)), outcome.text])


def test_a_hub_of_many_that_can_only_be_relayed_has_a_way_to_each_of_them_a_second_after_its_start() -> None:
    assert World(star_world(40)).run().findings == ()


def test_two_anchors_that_are_far_apart_and_start_at_one_moment_have_a_tunnel_soon() -> None:
    anchors = tuple(NodeSpec(f"a{n}", n, kind="anchor") for n in (0, 1))
    world = World(WorldSpec(0, Link(delay_s=0.3), (), anchors, (), seconds=60.0))
    assert world.run().findings == ()
    assert all(peer.handshake_at is not None for node in world.nodes.values() for peer in node.kernel.wg.peers())


def test_two_anchors_that_have_nothing_to_say_know_that_the_other_is_there() -> None:
    anchors = tuple(NodeSpec(f"a{n}", n, kind="anchor") for n in (0, 1))
    world = World(WorldSpec(0, Link(), (), anchors, (), seconds=1200.0))
    shown: list[bool] = []

    def look() -> None:
        shown.extend(path.alive for node in world.nodes.values() for path in node.core.paths())

    for minute in range(1, 20):
        world.clock.at(60.0 * minute, look)
    assert world.run().findings == ()
    assert shown == [True] * (2 * 19)


def test_a_port_is_mapped_anew_behind_another_router_that_has_the_first_ones_address() -> None:
    hard = Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, RANDOM)
    sites = (*(SiteSpec(n, hard, "192.168.1", speaks=("upnp",)) for n in (0, 1)), SiteSpec(2, hard, "192.168.2"))
    nodes = (NodeSpec("a0", 0, kind="anchor"), NodeSpec("n0", 1, "site0"), NodeSpec("n1", 2, "site2"))
    roams = Fault("roam", 18.0, 0.0, "n0", "site1")
    spec = WorldSpec(0, Link(), sites, nodes, (("n0", "n1"),), faults=(roams,), quiet_at=18.0, seconds=50.0)
    assert World(spec).run().findings == ()  # two hard NATs, and still direct


@pytest.mark.parametrize("hairpin", [True, False])
def test_two_homes_behind_one_carriers_nat_know_in_the_end_whether_it_hairpins(hairpin: bool) -> None:
    homes = tuple(SiteSpec(n, Behaviour(), f"192.168.{n}", carrier="site0") for n in (1, 2))
    sites = (SiteSpec(0, Behaviour(hairpin=hairpin), "100.64.200"), *homes)
    anchors = (NodeSpec(f"a{n}", n, kind="anchor") for n in (0, 1))
    nodes = (NodeSpec("n0", 2, "site1"), NodeSpec("n1", 3, "site2"), NodeSpec("n2", 4))
    pairs = (("n0", "n1"), ("n0", "n2"), ("n1", "n2"))
    world = World(WorldSpec(0, Link(), sites, (*anchors, *nodes), pairs, seconds=50.0))
    told: dict[str, list[bool | None]] = {}

    def look() -> None:
        for name in ("n0", "n1", "n2"):
            core = world.nodes[name].core
            assert core is not None
            told[name] = [nat.hairpins for view in core.views(world.nodes[name].now) for nat in view.nats]

    world.clock.at(49.0, look)
    assert world.run().findings == ()
    assert told == {"n0": [hairpin], "n1": [hairpin], "n2": [None]}


def test_an_agent_whose_host_was_slow_hears_in_the_order_in_which_things_happened() -> None:
    nodes = (NodeSpec("a0", 0, kind="anchor"), NodeSpec("n0", 1), NodeSpec("n1", 2))
    pings = (Flow("n0", "n1", 1.0, 1.0, 60),)
    world = World(WorldSpec(0, Link(), (), nodes, (("n0", "n1"),), pings, seconds=30.0))
    node = world.nodes["n0"]

    def edit_twice() -> None:
        node.slow_s = 3.0
        node.give(Reconfigured(replace(node.runs, networks=())))
        node.slow_s = 0.0
        node.give(Reconfigured(node.runs))

    world.clock.at(10.0, edit_twice)
    assert world.run().findings == ()


@pytest.mark.parametrize(
    ("userspace", "delay_s", "starts_at"), [(("n0", "n1"), 0.01, 3.3), (("n1",), 0.2, 5.15), (("n0",), 0.1, 2.0)]
)
def test_where_a_userspace_wireguard_was_tried_before_the_agents_talked_handshakes_do_not_cross_for_ever(
    userspace: tuple[str, ...], delay_s: float, starts_at: float
) -> None:
    sites = tuple(SiteSpec(n, Behaviour(), f"192.168.{n}") for n in (0, 1))
    nodes = [
        NodeSpec(f"n{n}", 1 + n, f"site{n}", starts_at=starts_at + 0.2 * n, userspace=f"n{n}" in userspace)
        for n in (0, 1)
    ]
    flows = tuple(Flow(*ends, 1.0, 0.1, 26.0) for ends in (("n0", "n1"), ("n1", "n0")))
    anchor = NodeSpec("a0", 0, kind="anchor")
    for seed in range(5):
        link = Link(delay_s=delay_s)
        world = World(WorldSpec(seed, link, sites, (anchor, *nodes), (("n0", "n1"),), flows, seconds=26.0))
        assert world.run().findings == ()
        has_way_s = starts_at + _SESSIONS_S + HANDSHAKE_AGAIN_S
        assert all(flow.first_at is not None and flow.first_at < has_way_s for flow in world.flows)


def _pythons() -> list[str]:
    """Every Python from 3.9 on that is on the path or that pyenv has, this one first."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [sys.executable]
    for minor in range(9, 20):
        names = [shutil.which(f"python3.{minor}"), *map(str, versions.glob(f"3.{minor}.*/bin/python3"))]
        found += [name for name in names if name and _runs(name)][:1]
    return found


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_a_seed_has_the_same_trace_on_every_python_and_with_every_hash_seed() -> None:
    digests = set()
    for hash_seed, python in enumerate([sys.executable, *_pythons()]):
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
        command = [python, "-c", _DIGESTS, str(_HERE), str(_HERE.parents[1])]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1
    assert len(set(digests.pop().split())) == 2


def test_a_failing_world_shrinks_to_what_makes_it_fail() -> None:
    spec = next(s for s in map(draw, range(500)) if any(f.kind == "rebind" for f in s.faults) and len(s.faults) > 2)

    def fails(candidate: WorldSpec) -> bool:
        return any(f.kind == "rebind" for f in candidate.faults)

    smallest = shrink(spec, fails)
    assert [f.kind for f in smallest.faults] == ["rebind"]
    assert (len(smallest.nodes), smallest.pairs, smallest.flows) == (2, (), ())
    assert len(describe(smallest)) < len(describe(spec))


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_of("3") == [0, 1, 2]
    assert seeds_of("17,99-101") == [17, 99, 100, 101]
    assert seeds_of("3,") == [3]
    assert seeds_of("5,3-5,5") == [5, 3, 4]
    with pytest.raises(ArgumentTypeError, match="a part"):
        seeds_of("0-99999999999999999999")
    for nothing in ("", "0", "120-99", "5-", "-5", "abc", "1.5", "²", ","):
        with pytest.raises(ArgumentTypeError, match="names no seed"):
            seeds_of(nothing)


def test_many_worlds_must_take_every_row_of_the_transition_table_and_few_need_not() -> None:
    rows = Counter({(state, trigger): 1 for state, trigger, _ in path.rows()})
    assert is_green(0, MANY, rows)
    assert not is_green(1, MANY, rows)
    del rows[State.SUSPECT, Trigger.DEAD]
    assert not is_green(0, MANY, rows)
    assert is_green(0, MANY - 1, rows)
    assert list(coverage(rows))[1:] == ["  never: suspect, dead"]


def test_the_trace_is_bounded_and_its_digest_is_of_everything() -> None:
    traces = [Trace(10), Trace(1000)]
    for trace in traces:
        for n in range(100):
            trace.add(n / 10, "n0", f"line {n}")
    short, long = traces
    assert len(short.text().splitlines()) == 11
    assert short.digest == long.digest
    assert "    9.900  n0      line 99" in short.text()


def test_a_meter_knows_the_busiest_second() -> None:
    meter = Meter()
    for n in range(10):
        meter.add("a", n * 0.25)
    for n in range(7):
        meter.add("b", 5 + n * 0.01)
    assert (meter.total, meter.most, meter.busiest) == (17, 7, "b")


@pytest.mark.parametrize("who", [{"n0"}, {"n1"}, {"n0", "n1"}])
def test_a_bridge_whose_address_comes_first_does_not_hide_what_the_nat_is_from_a_splice(who: set[str]) -> None:
    plain = spec_of(HARD, Behaviour(), 1, seconds=60.0)
    world = World(replace(plain, nodes=tuple(replace(n, second=n.name in who) for n in plain.nodes)))
    world.run()
    begun = [d for d in world.watch.decided if d.decision.trigger is Trigger.SPLICE_BEGUN]
    assert {d.node for d in begun} == {"n0", "n1"}
