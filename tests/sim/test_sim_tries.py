"""Splices and tries that do not go on, and paths that are left for nothing after a fault, are found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simbounds
import simtries
from simspec import Fault, Flow
from simspecs import EASY, NEVER, SPLICED, found
from simwatch import Decided
from simworld import World

from meshctl.core.agent import events as ev
from meshctl.core.agent import splice
from meshctl.core.agent.history import Decision
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import PeerWork


def test_checks_of_who_does_not_splice_are_few_though_others_do() -> None:
    world = World(SPLICED)
    world.run()
    assert list(simbounds.probes_are_few(world)) == []
    assert {n for n, meter in world.watch.of_node.items() if meter.most > world.watch.unspliced[n].most} == {"n0", "n1"}
    world.watch.unspliced["n0"].most = 250
    world.watch.of_node["n1"].most = 1500
    assert [who for who, _ in simbounds.probes_are_few(world)] == ["n0", "n1"]


def test_an_attempt_at_a_splice_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses = splice.guesses
    monkeypatch.setattr(splice, "guesses", lambda *args: guesses(*args)[:1])
    spec = replace(SPLICED, faults=())
    assert found(spec) == set()
    monkeypatch.setattr(splice, "LISTEN_S", 1000.0)
    assert "splices end" in found(spec)


def test_an_attempt_at_a_splice_that_ended_too_late_is_found() -> None:
    world = World(EASY)
    world.run()
    begun = Decision(5.0, State.RELAYED, State.SPLICING, Trigger.SPLICE_BEGUN, "doctored")
    failed = Decision(30.0, State.SPLICING, State.RELAYED, Trigger.SPLICE_FAILED, "doctored")
    world.watch.decided += [Decided(5.0, "n0", "n1", begun), Decided(15.0, "n0", "n1", failed)]
    assert list(simtries.splices_end(world)) == []
    world.watch.decided += [Decided(15.5, "n0", "n1", begun), Decided(30.0, "n0", "n1", failed)]
    assert [who for who, _ in simtries.splices_end(world)] == ["n0"]
    world.spec = replace(EASY, faults=(Fault("sleep", 18.0, 6.0, "n0"),))
    assert list(simtries.splices_end(world)) == [], "its host slept"


def test_a_way_that_is_never_tried_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeerWork, "_retry_later", lambda _self, _now: None)
    assert found(NEVER) == {"what failed is tried again"}


@pytest.mark.parametrize("when", [40.0, 25.0])
@pytest.mark.parametrize("kind", ["rebind", "agent dies"])
def test_a_path_that_is_left_for_nothing_after_a_fault_that_was_soon_mended_is_found(kind: str, when: float) -> None:
    fault = Fault(kind, 14.0, 0.0, "site0") if kind == "rebind" else Fault(kind, 14.0, 1.0, "n1")
    flow = Flow("n0", "n1", 1.0, 0.2, 55.0)
    spec = replace(EASY, faults=(fault,), flows=(flow,), quiet_at=fault.ends_at, seconds=60.0)
    assert found(spec) == set()
    world = World(spec)
    world.clock.at(when, lambda: _leave(world, "n0", "n1"))
    assert "no live path is abandoned" in {f.invariant for f in world.run().findings}


def _leave(world: World, name: str, peer: str) -> None:
    """Its agent gives its direct path to the peer up, for nothing."""
    node = world.nodes[name]
    assert node.driver is not None
    network = next(iter(node.core._networks.values()))
    path = next(p for p in network.paths.values() if p.peer.name == peer)
    assert path.state is State.DIRECT
    world.deciding = node.driver
    for trigger in (Trigger.DISTRESS, Trigger.DEAD):
        path._machine.fire(trigger, "doctored", node.now)
    world.deciding = None
    network.settle(node.now)
    node.give(ev.Wake())
