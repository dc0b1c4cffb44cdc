"""Ways that answer checks and are bad all the same: they drop WireGuard's packets, or die again and again. Hunted: a
pair that goes back to such a way for ever, one that leaves a way that works, and ends of two minds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from agentcore_ends import DIRECT, RELAYED, direct, history, path_of, relayed, silences, triggers
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, pair_of
from agentcore_values import key, transaction

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.blockage import BLOCKED_S
from meshctl.core.agent.bodies import Offered
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.damping import FIRST_S, FREE_FAILURES
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.pathfailures import UNHEARD_AGAIN_S, UNHEARD_S
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.wire import stun

BOTH = ("ab", "ba")
KEEPALIVE_S = 25.0  # what comes by the one way that is left, at times


def falls(host: Host, since: float) -> list[float]:
    """When it gave a direct path up."""
    return [d.at for d in history(host, since) if d.trigger is Trigger.DEAD]


def opened(*ways: str) -> PairWorld:
    """And then one on which those ways drop WireGuard's packets: the time is that of the first step onto it."""
    world = relayed()
    world.block(*ways)
    world.together()
    controlling, other = pair_of(world)
    while "direct" not in world.states():
        controlling.ping(other.name)
        world.run(0.1)
    return world


@pytest.mark.parametrize("ways", [BOTH, ("ab",), ("ba",)])
def test_a_way_that_never_carries_wireguard_is_left_by_both_within_half_a_minute_and_not_gone_back_to(
    ways: tuple[str, ...]
) -> None:
    world = opened(*ways)
    start = world.now
    world.talk(BLOCKED_S + 3.0)
    assert world.states() == RELAYED
    heard = [at for host in pair_of(world) for at, _ in host.heard]
    assert max(heard) > world.now - 0.5
    world.talk(100.0)
    assert world.states() == RELAYED
    for host in pair_of(world):
        assert len(falls(host, start)) == 1, "and neither tries it again"
    words = [d.reason for host in pair_of(world) for d in history(host, start) if d.trigger is Trigger.DEAD]
    assert any(w.startswith("WireGuard's packets have not come through for ") for w in words)


def test_a_way_that_carries_nothing_is_not_gone_back_to_because_a_bridge_of_an_end_has_come_or_gone() -> None:
    world = opened(*BOTH)
    world.talk(BLOCKED_S + 3.0)
    assert world.states() == RELAYED
    start, own = world.now, [LocalAddress(world.hosts["a"].ip, 24, "eth0")]
    for bridges in ([LocalAddress("172.18.0.1", 16, "br0")], []) * 4:
        world.hosts["a"].give(ev.LocalAddresses((*own, *bridges)))
        world.talk(20.0)
        assert world.states() == RELAYED
    assert [falls(host, start) for host in pair_of(world)] == [[], []]


@pytest.mark.parametrize("ways", [BOTH, ("ab",), ("ba",)])
def test_a_way_that_carries_wireguard_no_more_is_left_too(ways: tuple[str, ...]) -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(5.0)
    world.block(*ways)
    world.talk(KEEPALIVE_S + BLOCKED_S + 3.0)
    assert world.states() == RELAYED
    world.talk(100.0)
    assert world.states() == RELAYED


def test_a_way_that_carries_nothing_is_left_though_it_is_agreed_on_again_and_again_while_in_doubt() -> None:
    world = opened(*BOTH)
    controlling, other = pair_of(world)
    for _ in range(round(BLOCKED_S) + 3):
        for path in (path_of(other), path_of(controlling)):
            if path.state is State.DIRECT:
                path._selected_pair.doubt("for a test", world.now)
        path = path_of(controlling)
        if path.state is State.SUSPECT and path.work.negotiation.selected is not None:
            path.work.negotiation.nominate(path.work.negotiation.selected, world.now)
        world.talk(1.0)
    assert world.states() == RELAYED


def test_a_way_that_carries_nothing_is_left_in_time_though_little_is_sent() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(5.0)
    world.block(*BOTH)
    for _ in range(5):  # as WireGuard without keys does
        world.hosts["a"].ping("b")
        world.run(5.0)
    assert world.states() == RELAYED


def test_a_way_that_carries_wireguard_no_more_is_given_no_new_time_when_it_is_nominated_while_it_is_in_doubt() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(5.0)
    world.block(*BOTH)
    host, since = world.hosts[OTHER], world.now
    path = path_of(host)
    pair = path.work.negotiation.selected
    assert pair is not None
    while world.now < since + BLOCKED_S / 2:
        host.ping(CONTROLLING)
        world.run(0.005)
    path._selected_pair.doubt("it is in doubt", world.now)
    host.give(ev.Wake())
    # Before its check is answered, so that the answer makes it use the pair.
    nomination = stun.Message(stun.Class.REQUEST, transaction(2**16), use_candidate=True, priority=1)
    path.check_received(nomination, pair, world.now)
    asked_at = world.now
    world.run(0.1)
    assert Trigger.ANSWERED in triggers(host, asked_at)
    world.talk(since + BLOCKED_S + 3.0 - world.now)
    assert world.states() == RELAYED


def test_a_way_that_was_left_is_tried_again_after_minutes_and_taken_when_it_carries() -> None:
    world = opened(*BOTH)
    world.talk(BLOCKED_S + 3.0)
    world.block()
    world.talk(900.0, every=0.5)
    assert world.states() == DIRECT


def test_when_a_node_stands_elsewhere_what_was_barred_is_tried_at_once() -> None:
    for moved in (CONTROLLING, OTHER):
        world = opened(*BOTH)
        world.talk(BLOCKED_S + 3.0)
        world.block()
        world.talk(20.0)
        assert world.states() == RELAYED
        host = world.hosts[moved]
        if moved == CONTROLLING:
            path_of(host).network_changed(world.now, moved=True)
        else:
            path = path_of(world.hosts[CONTROLLING])
            there = Offered("host", Address("192.0.2.77", PORT), "00000001", 1)
            path.offered(replace(path.work.offer, candidates=(*path.work.offer.candidates, there)), world.now)
            path_of(host).network_changed(world.now, moved=True)
        world.talk(5.0)
        assert world.states() == DIRECT


def test_a_flow_in_one_direction_that_wireguard_answers_now_and_then_does_not_take_a_way_from_anybody() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    start = world.now
    for second in range(120):
        for _ in range(4):
            world.hosts["a"].send(key("b"), b"content that nobody answers")
            world.run(0.25)
        if second % 10 == 9:
            world.hosts["b"].send(key("a"))
    assert "relayed" not in world.states()
    assert not falls(world.hosts["a"], start)


def test_where_the_relay_carries_nothing_either_the_direct_way_was_not_at_fault() -> None:
    world = opened(*BOTH)
    controlling, _ = pair_of(world)
    while not falls(controlling, world.now - 1.0):
        controlling.ping(OTHER)
        world.run(0.1)
    world.blocked = lambda source, destination: bool({source.port, destination.port} & set(RELAY_PORTS))
    world.talk(60.0)
    assert world.states() == DIRECT


def test_without_a_relay_a_way_that_is_barred_is_better_than_none() -> None:
    world = opened(*BOTH)
    world.talk(20.0)
    world.block()
    world.cut = lambda source, destination: IPS["hub0"] in (source.ip, destination.ip)
    world.talk(20.0)
    assert world.states() == DIRECT


def test_a_way_that_dies_again_and_again_is_gone_back_to_later_each_time() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    start = world.now
    for _ in range(60):
        world.apart("a", "b")
        world.talk(2.0, every=0.2)
        world.together()
        world.talk(6.0, every=0.2)
    controlling, _ = pair_of(world)
    found = falls(controlling, start)
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert len(found) < FREE_FAILURES + 6
    assert gaps[-1] > gaps[0] + 8 * FIRST_S
    assert silences(world.hosts["a"], world.now - 60.0) < 4.0
    world.talk(700.0, every=0.5)
    assert world.states() == DIRECT, "in the end it is"


def test_what_the_other_end_gives_up_is_barred_where_it_asks_from_too_for_it_may_have_moved() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(5.0)
    path = path_of(world.hosts[CONTROLLING])
    moved = Address("192.0.2.77", PORT)
    request = stun.Message(stun.Class.REQUEST, transaction(2**16), username="", priority=1)
    path.check_received(request, Pair(Address(IPS[CONTROLLING], PORT), moved), world.now)
    path.offered(replace(path.work.offer, blocked=7), world.now)
    damping = path.work.negotiation.damping
    assert damping.suppressed(moved.ip, world.now)
    assert damping.suppressed(IPS[OTHER], world.now)


def test_the_other_ends_word_is_followed_once_and_only_where_there_is_a_direct_path() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(5.0)
    path = path_of(world.hosts[CONTROLLING])
    path.offered(replace(path.work.offer, blocked=7), world.now)
    assert path.state in (State.PROBING, State.RELAYED)
    decided = len(path.history.decisions)
    path.offered(replace(path.work.offer, blocked=8), world.now)
    path.offered(replace(path.work.offer, blocked=0), world.now)
    assert [d.trigger for d in path.history.decisions[decided:]] == []


def test_a_pair_that_was_given_up_though_it_answers_is_not_taken_before_the_peer_can_have_heard_of_it() -> None:
    world = direct()
    world.talk(5.0)
    path = path_of(world.hosts[OTHER])
    current = path.work.negotiation.selected
    assert current is not None
    path.offered(replace(path.work.offer, blocked=7), world.now)
    falls = path._failures
    other = current._replace(remote=Address("2001:db8::1", PORT))
    for pair, most_s in ((current, UNHEARD_AGAIN_S), (other, UNHEARD_S)):
        assert falls.just_blocked(pair, world.now + 0.9 * most_s)
        assert not falls.just_blocked(pair, world.now + most_s)
    assert falls.heard_by(world.now) == world.now + UNHEARD_S
    path.work.negotiation.damping.clear()
    assert not falls.just_blocked(current, world.now), "one of the two stands elsewhere"
    assert falls.heard_by(world.now) < world.now


def test_after_both_have_given_a_pair_up_neither_takes_another_one_alone() -> None:
    """They do it by two seconds one after the other, as by long paths, and have a second way that carries."""
    for first, second in ((CONTROLLING, OTHER), (OTHER, CONTROLLING)):
        world = direct()
        world.talk(5.0)
        for name in (first, second):
            path = path_of(world.hosts[name])
            path.offered(replace(path.work.offer, blocked=7), world.now)
            path.work.negotiation.damping.clear()
            path.work.negotiation.damping.record_failure("2001:db8::1", world.now, blocked=True)
            world.talk(2.0)
        alone_s = 0.0
        for _ in range(200):
            world.talk(0.1)
            alone_s += 0.1 * (len(set(world.states())) > 1)
        assert world.states() == DIRECT
        assert alone_s < 0.5


def test_the_first_offer_of_a_session_gives_nothing_up() -> None:
    world = direct()
    world.talk(5.0)
    path = path_of(world.hosts[CONTROLLING])
    credentials = path.work.negotiation.credentials
    assert credentials is not None
    path.session(replace(credentials, key=b"another".ljust(32)), world.now)
    path.offered(replace(path.work.offer, blocked=7), world.now)
    assert path.state is State.DIRECT
    path.offered(replace(path.work.offer, blocked=8), world.now)
    assert path.state is not State.DIRECT


@pytest.mark.parametrize(("kind", "stays"), [("told", True), ("mapped", True), ("srflx", False), ("observed", False)])
def test_what_is_barred_stays_so_unless_the_peer_shows_itself_elsewhere(kind: str, stays: bool) -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    path = path_of(world.hosts[CONTROLLING])
    damping = path.work.negotiation.damping
    damping.record_failure(IPS[OTHER], world.now, blocked=True)
    offer = path.work.offer
    new = Offered(kind, Address("203.0.113.99", PORT), "00000000", 1)
    path.offered(replace(offer, candidates=(*offer.candidates, new)), world.now)
    assert damping.suppressed(IPS[OTHER], world.now) is stays
