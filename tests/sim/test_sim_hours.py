"""Worlds of two hours. Hunted: a bound by the hour that nothing could break, and a long world that is not long."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simhours
from simdraw import draw
from simlong import LONG_S
from simspec import Fault, WorldSpec
from simspecs import EASY
from simtrace import Meter
from simwatch import Decided
from simworld import World

from meshctl.core.agent.choice import CHANGES_PER_HOUR
from meshctl.core.agent.history import Decision
from meshctl.core.agent.path import State, Trigger

HOURS = replace(EASY, quiet_at=LONG_S, seconds=LONG_S)
REBIND = Fault("rebind", 1000.0, 0.0, "site0")


def decided(spec: WorldSpec, after: State, trigger: Trigger, times: list[float]) -> World:
    """A world in which n0 has decided that of n1, each time."""
    world = World(spec)
    for at in times:
        world.watch.decided.append(Decided(at, "n0", "n1", Decision(at, State.DIRECT, after, trigger, "doctored")))
    return world


def test_some_worlds_last_for_two_hours_and_have_few_agents() -> None:
    lasting = [spec for spec in map(draw, range(600)) if spec.seconds > LONG_S]
    assert 2 <= len(lasting) <= 15
    assert {len(spec.nodes) for spec in lasting} <= {2, 3, 4}
    assert any(spec.faults for spec in lasting)


@pytest.mark.parametrize(("times", "most"), [([], 0), ([5.0], 1), ([0.0, 3600.0, 3601.0], 2), ([1.0, 2.0, 9000.0], 2)])
def test_the_fullest_hour_is_found_wherever_it_begins(times: list[float], most: int) -> None:
    assert simhours.most_in_an_hour(times) == most


def test_changes_without_need_that_are_too_many_are_found_and_those_after_a_fault_are_not() -> None:
    times = [1000.0 + n for n in range(CHANGES_PER_HOUR + 1)]
    changing = decided(HOURS, State.DIRECT, Trigger.NOMINATED, times)
    assert [who for who, _ in simhours.changes_without_need_are_few(changing)] == ["n0"]
    fewer = decided(HOURS, State.DIRECT, Trigger.NOMINATED, times[1:])
    assert list(simhours.changes_without_need_are_few(fewer)) == []
    provoked = decided(replace(HOURS, faults=(REBIND,)), State.DIRECT, Trigger.NOMINATED, times)
    assert list(simhours.changes_without_need_are_few(provoked)) == []


def test_a_path_that_is_doubted_every_minute_is_found() -> None:
    world = decided(HOURS, State.SUSPECT, Trigger.DISTRESS, [60.0 * n for n in range(1, 100)])
    assert [who for who, _ in simhours.doubts_are_few(world)] == ["n0"]


def test_checks_and_relays_without_an_end_are_found() -> None:
    world = World(HOURS)
    assert list(simhours.hours_cost_little(world)) == []
    meter = world.watch.of_node["n0"] = Meter()
    meter.total = 100_000
    world.watch.installed["a1"] = 1_000
    assert sorted(who for who, _ in simhours.hours_cost_little(world)) == ["a1", "n0"]


def test_a_path_whose_keys_are_old_is_found() -> None:
    world = World(EASY)

    def age() -> None:
        for peer in world.nodes["n0"].kernel.wg.peers():
            peer.handshake_at = world.clock.now - 1000.0
        found.extend(simhours.keys_are_renewed(world))

    found: list[tuple[str, str]] = []
    world.clock.at(20.0, lambda: found.extend(simhours.keys_are_renewed(world)))
    world.clock.at(21.0, age)
    world.run()
    assert [who for who, _ in found] == ["n0"]
