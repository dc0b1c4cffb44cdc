"""Paths in doubt, and agents that are silent or try all pairs anew. Hunted: a path that works and is given up, one
that is doubted for ever, and ends of two minds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agentcore_ends import DIRECT, RELAYED, binds, checks, direct, path_of, relayed, triggers
from agentcore_pair import CONTROLLING, OTHER, pair_of
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import LocalAddress
from meshctl.core.agent.check import PATH_SCHEDULE_S, RTTS
from meshctl.core.agent.checklist import Credentials
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peer import CARRIED_S, RELAY_DOUBT_S, RESTARTS_BURST, RESTARTS_RATE
from meshctl.core.agent.selectedpair import RENOMINATE_S


def test_a_path_that_has_become_slow_is_doubted_once_and_not_for_ever() -> None:
    world = direct()
    world.talk(3.0)
    world.delay_s = 0.5
    world.talk(10.0)
    since = world.now
    world.talk(20.0)
    assert world.states() == DIRECT
    for host in pair_of(world):
        assert triggers(host, since) == []


def test_the_relay_that_is_warm_is_bound_to_at_both_ends_as_soon_as_the_direct_path_is_in_doubt() -> None:
    world = direct()
    world.talk(10.0)
    world.apart("a", "b")
    cut_at = world.now
    for _ in range(100):
        world.talk(0.1)
        if "suspect" in world.states():
            break
    world.talk(0.1)
    assert "relayed" not in world.states()
    for host in pair_of(world):
        assert binds(host, cut_at), host.name


def test_an_agent_that_starts_after_the_wall_clock_was_set_forward_has_a_way_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = relayed()
    host, _ = pair_of(world)
    set_at, read = world.now, host.statuses

    def shown() -> tuple[ev.PeerStatus, ...]:
        old = {public for public, t in host.tunnels.items() if t.handshake_at is not None and t.handshake_at < set_at}
        return tuple(
            s._replace(handshake_age_s=s.handshake_age_s + 3600.0) if s.handshake_age_s and s.public_key in old else s
            for s in read()
        )

    host.kill()
    monkeypatch.setattr(host, "statuses", shown)
    host.start()
    world.until(lambda: world.states() == RELAYED, 5.0)


def test_a_silent_relay_is_asked_now_and_then_and_the_peers_agent_with_it_until_that_counts_as_lost() -> None:
    world = relayed()
    controlling, other = pair_of(world)
    up_since = controlling.path(OTHER).since
    world.cut = lambda source, destination: other.ip in (source.ip, destination.ip)
    cut_at = world.now
    for _ in range(int(1.5 * RELAY_DOUBT_S / 0.1)):
        controlling.ping(OTHER)
        world.run(0.1)
    assert 1 <= len(binds(controlling, cut_at)) <= 2 * 5, "of two series, for a relay that answers each of them"
    assert controlling.path(OTHER).since == up_since
    for _ in range(100):
        controlling.ping(OTHER)
        world.run(0.1)
    assert controlling.path(OTHER).state.value == "unknown"
    assert triggers(controlling)[-1] is Trigger.SESSION_LOST
    assert not path_of(controlling).work.relay.wanted
    world.together()
    world.until(lambda: world.states() == DIRECT, 120.0)


def test_a_relay_that_works_is_kept_though_the_other_agent_is_gone() -> None:
    world = relayed()
    controlling, other = pair_of(world)
    other.kill()
    world.talk(40.0, every=0.25)
    assert controlling.path(OTHER).state.value == "relayed"
    assert world.now - world.hosts["a"].heard[-1][0] < 0.5


def test_a_relay_that_loses_much_is_kept_though_no_message_of_the_other_agent_comes_through() -> None:
    world = relayed()
    path = path_of(world.hosts["a"])
    tunnel = world.hosts["a"].tunnels[key("b")]
    world.apart("a", "b", "hub0")
    world.talk(1.0)
    assert path.work.liveness.distress(world.now)
    path.session_lost(world.now)
    assert path.state.value == "relayed"
    world.talk(CARRIED_S)
    path.session_lost(world.now)
    assert path.state.value in ("probing", "unknown")
    assert tunnel.endpoint is not None, "and WireGuard goes on as it is"


def test_a_pair_without_a_way_is_given_up_when_the_other_agent_is_gone() -> None:
    world = relayed()
    controlling, other = pair_of(world)
    controlling.give(ev.Override(key(OTHER), "direct"))
    world.run(1.0)
    assert controlling.path(OTHER).state.value == "probing"
    other.kill()
    controlling.give(ev.LocalAddresses((LocalAddress(controlling.ip, 24, "eth0"), LocalAddress("198.18.0.9", 24, "x"))))
    world.run(30.0)
    assert controlling.path(OTHER).state.value == "unknown"


def test_that_the_agent_is_silent_changes_nothing_while_the_path_is_in_doubt() -> None:
    world = direct()
    path = path_of(world.hosts["a"])
    path.network_changed(world.now, moved=True)
    path.session_lost(world.now)
    assert path.state.value == "suspect"
    assert path.history.decisions[-1].trigger is Trigger.DISTRESS


def test_that_the_agent_is_silent_changes_nothing_while_ports_are_tried() -> None:
    world = relayed()
    path = path_of(world.hosts["a"])
    path._machine.fire(Trigger.SPLICE_BEGUN, "ports are open", world.now)
    world.apart("a", "b", "hub0")
    world.talk(1.0)
    path.session_lost(world.now + 2.0 * CARRIED_S)
    assert path.state.value == "splicing"


def test_a_path_that_was_in_doubt_when_its_host_fell_asleep_is_asked_anew_when_that_wakes() -> None:
    world = direct()
    host = world.hosts["a"]
    world.apart("a", "b")
    path_of(host).network_changed(world.now, moved=True)
    host.give(ev.Wake())
    world.run(PATH_SCHEDULE_S[-1] + 0.1)  # its last check has left
    world.together()
    world.now += 5.0
    since = world.now
    host.give(ev.ClockStepped())
    world.run(1.0)
    assert Trigger.DEAD not in triggers(host, since)
    assert host.path("b").state is State.DIRECT


def test_a_host_that_slept_before_it_was_answered_takes_neither_path_nor_anchor_for_as_far_as_it_slept() -> None:
    world = direct()
    world.talk(5.0)
    host = world.hosts["a"]
    (network,) = host.core._networks.values()
    host.give(ev.ClockStepped())
    world.run(world.delay_s / 2)  # a check of the path is under way, and a question to the anchor
    world.now += 5.0
    host.give(ev.ClockStepped())
    for _ in range(100):
        world.run(0.01)
        assert path_of(host).work.liveness.rtt_s < 1.0
        assert [link.distance_s < 1.0 for link in network.context.anchors.values()] == [True]
    assert host.path("b").state is State.DIRECT


def test_an_attempt_that_ends_with_the_peers_agent_leaves_a_path_that_is_tried_again() -> None:
    world = relayed()
    host = world.hosts["a"]
    path = path_of(host)
    path._machine.fire(Trigger.SPLICE_BEGUN, "ports are open", world.now)
    path.session(Credentials("of another", bytes(32)), world.now)
    assert path.state is State.RELAYED
    assert path.work.due is not None


def test_a_path_in_doubt_is_asked_again_in_a_new_session() -> None:
    world = direct()
    host = world.hosts["a"]
    path = path_of(host)
    world.apart("a", "b")
    path.network_changed(world.now, moved=True)
    path.session(Credentials("of another", bytes(32)), world.now)
    host.give(ev.Wake())
    world.run(2.0)
    assert path.state.value != "suspect"
    assert Trigger.DEAD in triggers(host)


def test_a_slow_path_in_doubt_has_the_time_that_it_takes_in_a_new_session_too() -> None:
    world = direct(delay_s=0.6)
    world.run(5.0)
    host = world.hosts["a"]
    path = path_of(host)
    world.apart("a", "b")
    world.run(1.0)
    path.network_changed(world.now, moved=True)
    path.session(Credentials("of another", bytes(32)), world.now)
    host.give(ev.Wake())
    world.run(1.2 * RTTS)
    assert path.state is State.SUSPECT
    world.run(1.0)
    assert Trigger.DEAD in triggers(host)


def test_both_ends_try_all_pairs_anew_at_the_same_time() -> None:
    world = relayed()
    world.run(60.0)
    for host, other in (pair_of(world), pair_of(world)[::-1]):
        assert path_of(host).work.offer.restart == path_of(other).work.restarts
        assert path_of(host).work.restarts > 1


def test_a_peer_that_tries_all_pairs_anew_has_the_path_in_use_asked() -> None:
    world = direct()
    world.talk(2.0)
    for host in pair_of(world):
        path, since = path_of(host), world.now
        path.offered(replace(path.work.offer, restart=path.work.offer.restart + 1), world.now)
        assert triggers(host, since) == [Trigger.DISTRESS]
        world.run(1.0)
        assert world.states() == DIRECT


def test_a_peer_that_tries_all_pairs_anew_without_an_end_is_joined_a_few_times_and_then_now_and_then() -> None:
    world = relayed()
    world.run(60.0)
    host, _ = pair_of(world)
    path, since = path_of(host), world.now
    for _ in range(300):
        path.offered(replace(path.work.offer, restart=path.work.offer.restart + 1), world.now)
        world.run(0.1)
    assert RESTARTS_BURST < len(checks(host, since)) < 300 / 2
    assert len(checks(host, world.now - 1.5 / RESTARTS_RATE)) > 1, "what was too much is made up for"


def test_a_direct_path_is_doubted_no_more_often_than_that_for_a_peer_that_tries_all_pairs_anew() -> None:
    world = direct()
    world.talk(2.0)
    host, _ = pair_of(world)
    path = path_of(host)
    doubts, since = 0, world.now
    for _ in range(300):
        path.offered(replace(path.work.offer, restart=path.work.offer.restart + 1), world.now)
        doubts += path.state is State.SUSPECT and path.since == world.now
        world.talk(0.1)
    assert RESTARTS_BURST <= doubts <= RESTARTS_BURST + RESTARTS_RATE * (world.now - since) + 1


def test_an_agent_that_is_new_is_tried_for_at_once_however_long_the_pause_was() -> None:
    world = relayed()
    world.run(250.0)
    world.together()
    _, other = pair_of(world)
    other.kill()
    other.start()
    assert world.until(lambda: world.states() == DIRECT, 60.0) < 3.0


def test_the_controlling_end_nominates_again_when_the_other_asks_on_the_pair_in_use_but_not_each_time() -> None:
    world = direct()
    world.run(3.0)
    controlling, other = pair_of(world)
    since = world.now
    pair = path_of(other).work.negotiation.selected
    assert pair is not None
    for _ in range(8):
        path_of(other).work.negotiation.check_path(world.now)
        path_of(other).poll(world.now)
        world.run(RENOMINATE_S / 10)
    assert [m.use_candidate for m in checks(controlling, since)].count(True) == 1


def test_a_peer_that_has_lost_the_path_that_this_end_keeps_is_told_of_it_again_at_once() -> None:
    world = direct()
    world.run(3.0)
    controlling, other = pair_of(world)
    path_of(other).work.negotiation.check_path(world.now)
    path_of(other).poll(world.now)
    world.run(0.5)  # it was told right before
    other.give(ev.LocalAddresses(()))
    assert other.path(CONTROLLING).state.value == "relayed"
    assert controlling.path(OTHER).state.value == "direct"
    other.tell_addresses()
    assert world.until(lambda: world.states() == DIRECT, 10.0) < 1.0
