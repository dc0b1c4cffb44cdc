"""Recovery after a fault. Hunted: a time that is owed and never asked about, and a fault that is not alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simrecovery
from simnat import SEQUENTIAL, Behaviour
from simspec import Fault, Flow
from simspecs import EASY, spec_of
from simworld import World

from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.path import State
from meshctl.core.agent.peer import PeerPath
from meshctl.core.reachability import ADDRESS

REBIND = Fault("rebind", 20.0, 0.0, "site1")
TALK = Flow("n0", "n1", 5.0, 0.2, 38.0)
# Without ports that a router opens, so that a rebinding is felt.
SITES = tuple(replace(s, speaks=()) for s in EASY.sites)
PLAIN = replace(EASY, sites=SITES, flows=(TALK,), faults=(REBIND,), quiet_at=20.0, seconds=52.0)


def test_a_pair_is_direct_again_after_its_nat_was_rebound() -> None:
    assert World(PLAIN).run().findings == ()


def test_a_pair_that_stays_relayed_after_its_nat_was_rebound_is_found() -> None:
    world = World(PLAIN)
    sites = world.sites
    # Both filter everything that no anchor sends, from the fault on, though the oracle is asked of what they were.
    for site in sites.values():
        inward = site.router.nat.inward

        def only_anchors(source, port, now, inward=inward):  # type: ignore[no-untyped-def]
            return inward(source, port, now) if now < REBIND.at or source[0].startswith("80.") else None

        site.router.nat.inward = only_anchors  # type: ignore[method-assign]
    assert "direct again soon" in {f.invariant for f in world.run().findings}


@pytest.mark.parametrize("fault", [Fault("roam", 20.0, 0.0, "n0"), Fault("unplug", 20.0, 4.0, "n0")])
def test_a_pair_that_does_not_take_a_direct_path_for_long_after_an_end_had_other_addresses_is_found(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    spec = replace(PLAIN, flows=(), faults=(fault,), quiet_at=fault.ends_at, seconds=fault.ends_at + 32.0)
    assert World(spec).run().findings == ()
    nominated, until = PeerPath._nominated, fault.ends_at + 20.0

    def late(path: PeerPath, pair: Pair, now: float) -> None:
        if not fault.at < now < until or path.state in (State.DIRECT, State.SUSPECT):
            nominated(path, pair, now)

    monkeypatch.setattr(PeerPath, "_nominated", late)
    assert "direct again soon" in {f.invariant for f in World(spec).run().findings}


@pytest.mark.parametrize(
    ("other", "alone"),
    [
        (Fault("roam", 21.0, 0.0, "n0"), False),
        (Fault("lossy", 10.0, 5.0, "n0"), False),
        (Fault("roam", 90.0, 0.0, "n0"), True),
    ],
)
def test_a_fault_is_alone_when_no_other_is_near(other: Fault, alone: bool) -> None:
    assert simrecovery.is_alone(REBIND, (REBIND, other), 5.0) is alone


@pytest.mark.parametrize(("rebound", "hit"), [("site0", True), ("site1", False)])
def test_who_gets_a_flow_in_one_direction_cannot_see_at_once_that_its_nat_was_rebound(rebound: str, hit: bool) -> None:
    world = World(replace(PLAIN, flows=(replace(TALK, one_way=True),), faults=()))
    found: list[object] = []
    world.clock.at(19.0, lambda: found.extend(simrecovery.hit_by(world, replace(REBIND, target=rebound))))
    world.run()
    assert bool(found) is hit


def test_who_has_moved_and_is_sent_nothing_by_the_other_end_of_a_splice_has_a_way_to_it_at_once() -> None:
    # The end with the splice lets in what comes from another port of the same address.
    easy, hard = Behaviour(allocation=SEQUENTIAL), Behaviour(ADDRESS, ADDRESS)
    said, fault = Flow("n0", "n1", 5.0, 1.0, 55.0, one_way=True), Fault("rebind", 25.0, 0.0, "site0")
    spec = spec_of(easy, hard, faults=(fault,), flows=(said,), quiet_at=25.0, seconds=60.0)
    assert World(replace(spec, sites=tuple(replace(s, speaks=()) for s in spec.sites))).run().findings == ()
