"""The path to one peer, from both ends. Hunted: a path that works and is given up, one that is dead and is kept, and
what is left behind."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from agentcore_ends import DIRECT, RELAYED, binds, direct, endpoints, path_of, relayed, silences, triggers
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, pair_of
from agentcore_values import key, transaction

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import AnchorDistance, Offered
from meshctl.core.agent.check import ANSWER_S, SCHEDULE_S
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import RELAY_LINGER_S, RETRY_FIRST_S
from meshctl.core.agent.relayserver import LIFETIME_S
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.agent.tunnel import INSIST_S, SECOND_S
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress


def test_two_nodes_that_reach_each_other_are_direct_within_a_second_and_their_tunnel_works() -> None:
    world = PairWorld()
    assert world.until(lambda: world.states() == DIRECT, 2.0) < 1.5
    world.talk(1.0)
    assert len(world.hosts["a"].heard) >= 9


def test_a_direct_path_is_shown_with_its_reason_and_its_round_trip() -> None:
    world = PairWorld(delay_s=0.03)
    world.until(lambda: world.states() == DIRECT, 10.0)
    controlling, other = pair_of(world)
    assert controlling.path(other.name).reason == f"{Address(other.ip, PORT)} answers in 60 ms"
    for host, peer_name in ((controlling, other.name), (other, controlling.name)):
        assert host.path(peer_name).rtt_s == pytest.approx(0.06)


def test_the_controlling_end_begins_the_first_handshake() -> None:
    world = direct()
    controlling, other = pair_of(world)
    world.run(SECOND_S)
    assert controlling.tunnels[key(OTHER)].asked_at > -inf
    assert other.tunnels[key(CONTROLLING)].asked_at == -inf
    assert other.tunnels[key(CONTROLLING)].handshake_at is not None


def test_both_set_the_pair_that_was_agreed_on_and_no_other() -> None:
    world = direct()
    world.run(2.0)
    for host, other in (pair_of(world), pair_of(world)[::-1]):
        assert endpoints(host)[-1] == Address(other.ip, PORT)
        assert host.path(other.name).endpoint == Address(other.ip, PORT)


def test_a_packet_that_was_under_way_does_not_take_the_endpoint_back_to_the_relay() -> None:
    world = relayed()
    place = world.hosts["a"].tunnels[key("b")].endpoint
    world.together()
    controlling, other = pair_of(world)
    world.until(lambda: triggers(controlling)[-1:] == [Trigger.NOMINATED], 30.0)
    controlling.tunnels[key(OTHER)].endpoint = place
    world.run(INSIST_S / 2)
    assert controlling.tunnels[key(OTHER)].endpoint == Address(other.ip, PORT)


def test_two_nodes_without_a_direct_path_are_relayed_within_a_second() -> None:
    world = PairWorld()
    world.apart("a", "b")
    assert world.until(lambda: world.states() == RELAYED, 2.0) < 1.5
    world.talk(1.0)
    assert len(world.hosts["a"].heard) >= 9
    assert world.hosts["a"].path("b").relay == "hub0"
    assert world.hosts["a"].path("b").reason == "both ends are bound at hub0"


def test_all_pairs_are_tried_again_after_ever_longer_pauses() -> None:
    world = relayed()
    world.run(400.0)
    controlling, _ = pair_of(world)
    sent = [(at, a) for at, a in controlling.done(ev.SendProbe) if isinstance(a, ev.SendProbe)]
    probes = [at for at, probe in sent if probe.remote.ip == IPS[OTHER]]
    pauses = [later - earlier for earlier, later in pairwise(probes) if later - earlier > RETRY_FIRST_S / 2]
    assert len(pauses) >= 5
    assert pauses[0] < 2 * RETRY_FIRST_S
    assert all(later > 1.3 * earlier for earlier, later in pairwise(pauses[:5]))


def test_when_a_direct_path_opens_it_is_taken_at_the_next_try_and_the_relay_given_back_after_a_while() -> None:
    world = relayed()
    world.together()
    world.until(lambda: world.states() == DIRECT, 3 * RETRY_FIRST_S)
    world.run(RELAY_LINGER_S * 0.9)
    assert len(world.hosts["hub0"].relays) == 1
    world.run(RELAY_LINGER_S * 0.2)
    assert world.hosts["hub0"].relays == {}
    assert world.states() == DIRECT


def test_the_relay_that_was_asked_for_in_doubt_is_given_up_too_when_the_path_was_not_dead() -> None:
    world = direct()
    world.run(RELAY_LINGER_S * 1.2)
    assert world.hosts["hub0"].relays == {}
    for host in pair_of(world):
        path_of(host).network_changed(world.now, moved=True)
    world.talk(2.0)
    assert world.states() == DIRECT
    assert len(world.hosts["hub0"].relays) == 1
    world.run(RELAY_LINGER_S * 1.2)
    assert world.hosts["hub0"].relays == {}


def test_a_dead_direct_path_is_left_for_a_relay_within_two_seconds_under_traffic() -> None:
    world = direct()
    world.talk(3.0)
    world.apart("a", "b")
    cut_at = world.now
    world.talk(4.0)
    assert world.states() == RELAYED
    assert silences(world.hosts["a"], cut_at) < 2.2
    for host in pair_of(world):
        found = triggers(host, cut_at)
        assert Trigger.DISTRESS not in found[found.index(Trigger.RELAY_READY) :], "nothing is held against the relay"
        assert path_of(host).rtt_s is None, "no pair is in use"


def test_a_path_that_carries_traffic_is_not_asked() -> None:
    world = direct()
    world.talk(3.0)
    start = world.now
    world.talk(10.0)
    assert [h.done(ev.SendProbe, start) for h in pair_of(world)] == [[], []]


@pytest.mark.parametrize("delay_s", [0.25, 0.6])
def test_no_path_is_taken_for_dead_on_a_slow_link(delay_s: float) -> None:
    world = PairWorld(delay_s=delay_s)
    world.until(lambda: world.states() == DIRECT, 60.0)
    start = world.now
    world.talk(15.0, every=0.25)
    for host in pair_of(world):
        assert Trigger.DEAD not in triggers(host, start)
    assert world.states() == DIRECT


def test_a_peer_that_moves_is_followed_when_its_new_address_answers() -> None:
    world = PairWorld(outside={IPS[OTHER]: ("192.0.2.200", 0)})
    controlling, other = pair_of(world)
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.talk(3.0)
    world.outside[IPS[OTHER]] = ("192.0.2.200", 77)
    moved_at = world.now
    for _ in range(30):
        other.ping(CONTROLLING)
        world.run(0.1)
    assert controlling.path(OTHER).endpoint == Address("192.0.2.200", PORT + 77)
    assert world.states() == DIRECT
    assert Trigger.DEAD not in triggers(controlling, moved_at)
    assert Address("192.0.2.200", PORT) not in endpoints(controlling, moved_at + 1.0)
    assert silences(other, moved_at) < 0.5
    assert triggers(controlling, moved_at + 1.5) == []


def test_a_place_that_answers_no_check_is_not_followed() -> None:
    world = direct()
    world.talk(3.0)
    controlling, other = pair_of(world)
    controlling.tunnels[key(OTHER)].endpoint = Address("192.0.2.66", 6)
    world.run(1.0)
    assert controlling.path(OTHER).endpoint == Address(other.ip, PORT)
    assert world.states() == DIRECT


def test_a_relayed_path_comes_back_from_where_somebody_has_sent_on_an_old_packet_of_the_peers() -> None:
    world = relayed()
    controlling, _ = pair_of(world)
    relay = controlling.path(OTHER).endpoint
    since = world.now
    controlling.tunnels[key(OTHER)].endpoint = Address("192.0.2.66", 6)
    for _ in range(30):  # by one who gets no answer, and so does not lead WireGuard back
        controlling.ping(OTHER)
        world.run(0.1)
    assert controlling.path(OTHER).endpoint == relay
    assert silences(controlling, since) < 2.0
    assert set(endpoints(controlling, since)) == {relay}


# Starts and ends


@pytest.mark.parametrize("ends", [CONTROLLING, OTHER, "ab"])
def test_a_running_tunnel_is_adopted_after_a_restart_of_the_agent_and_not_cut(ends: str) -> None:
    world = direct()
    world.talk(RELAY_LINGER_S + 2.0)
    for end in ends:
        world.hosts[end].kill()
    world.talk(3.0)
    since = world.now
    for end in ends:
        world.hosts[end].start()
    world.talk(8.0)
    assert world.states() == DIRECT
    assert silences(world.hosts["a"], since) < 0.3
    for end in ends:
        host = world.hosts[end]
        assert triggers(host)[0] is Trigger.ADOPTED
        assert set(endpoints(host, since)) <= {Address(IPS["ab".replace(end, "")], PORT)}


def restarted(delay_s: float) -> tuple[PairWorld, Host, float]:
    """The agent of one end of a direct path is another one; when that began."""
    world = direct(delay_s=delay_s)
    world.talk(RELAY_LINGER_S + 2.0)
    host, _ = pair_of(world)
    host.kill()
    world.talk(3.0)
    since = world.now
    host.start()
    return world, host, since


def test_a_running_tunnel_by_satellite_is_adopted_and_not_cut() -> None:
    world, host, since = restarted(0.6)
    world.talk(10.0)
    assert Trigger.DEAD not in triggers(host, since)
    assert triggers(host, since)[:2] == [Trigger.ADOPTED, Trigger.ANSWERED]


def test_an_adopted_path_that_is_dead_is_left_in_two_seconds() -> None:
    world, host, _ = restarted(0.01)
    world.apart("a", "b")
    world.until(lambda: path_of(host).state is not State.UNKNOWN, 5.0)
    adopted_at = world.now
    assert triggers(host) == [Trigger.ADOPTED]
    world.until(lambda: Trigger.DEAD in triggers(host), 5.0)
    assert world.now - adopted_at < 2.0


def test_what_works_is_left_alone_when_the_other_agent_is_gone() -> None:
    world = direct()
    world.talk(RELAY_LINGER_S + 2.0)
    controlling, other = pair_of(world)
    other.kill()
    since = world.now
    world.talk(60.0, every=0.25)
    assert controlling.path(OTHER).state.value == "direct"
    assert endpoints(controlling, since) == []


def test_relays_are_given_back_when_an_agent_stops() -> None:
    world = relayed()
    controlling, other = pair_of(world)
    controlling.stop()
    world.run(0.1)
    assert len(world.hosts["hub0"].relays) == 1, "the other end may need it still"
    other.stop()
    world.run(0.1)
    assert world.hosts["hub0"].relays == {}


def test_a_relay_that_nobody_gives_back_ends_with_its_lifetime() -> None:
    world = relayed()
    for host in pair_of(world):
        host.kill()
    world.run(LIFETIME_S + 10.0)
    assert world.hosts["hub0"].relays == {}


def test_an_offer_tells_how_far_the_anchors_are_and_whose_relay_is_used() -> None:
    world = relayed(hubs=2)
    controlling, _ = pair_of(world)
    told = path_of(controlling).work.offer.relays
    assert {type(distance) for distance in told} == {AnchorDistance}
    assert [distance.used for distance in told] == [True, False]


def used_anchors(world: PairWorld) -> list[str | None]:
    controlling, other = pair_of(world)
    return [controlling.path(OTHER).relay, other.path(CONTROLLING).relay]


def test_an_anchor_whose_agent_was_not_there_when_it_was_asked_is_asked_when_it_is() -> None:
    world = PairWorld(hubs=2)
    world.apart("a", "b")
    world.far_s[IPS["hub0"]] = 0.05
    world.hosts["hub1"].kill()
    world.run(1.5)
    assert used_anchors(world) == ["hub0", "hub0"]
    world.hosts["hub1"].start()
    world.run(3.0)
    assert used_anchors(world) == ["hub1", "hub1"]


def test_the_controlling_end_hears_that_the_other_end_has_come_to_reach_an_anchor_that_is_nearer() -> None:
    world = PairWorld(hubs=2)
    far, near, other = IPS["hub0"], IPS["hub1"], IPS[OTHER]
    world.far_s[far] = 0.05
    apart = [{IPS["a"], IPS["b"]}, {other, near}]
    world.cut = lambda source, destination: {source.ip, destination.ip} in apart
    world.run(20.0)
    assert used_anchors(world) == ["hub0", "hub0"]
    apart.pop()
    world.run(30.0)
    assert used_anchors(world) == ["hub1", "hub1"]


# Relays and NATs


def test_an_answer_of_an_anchor_that_is_forged_makes_no_relay_ready() -> None:
    world = PairWorld()
    hub = IPS["hub0"]
    world.cut = lambda source, destination: (
        {source.ip, destination.ip} == {IPS["a"], IPS["b"]} or (source.ip == hub and source.port in RELAY_PORTS)
    )
    world.run(2.0)
    for host in pair_of(world):
        asked = binds(host, 0.0)
        assert asked
        for probe in asked:
            request = stun.decode(probe.data).message
            forged = stun.encode(stun.success_response(request, TransportAddress(*probe.local)), b"guessed")
            host.give(ev.Datagram(probe.local, probe.remote, forged))
    assert world.states() == ("probing", "probing")


def test_the_other_end_moves_to_the_relay_that_the_controlling_one_uses() -> None:
    world = relayed(hubs=2)
    world.run(3.0)
    _, other = pair_of(world)
    path = path_of(other)
    assert other.path(CONTROLLING).relay == "hub0"
    told = tuple(replace(d, used=not d.used) for d in path.work.offer.relays)
    path.offered(replace(path.work.offer, relays=told), world.now)
    assert other.path(CONTROLLING).relay == "hub1"


def test_an_indication_on_the_pair_in_use_shows_that_the_peer_lives_but_not_twice() -> None:
    world = direct()
    path = path_of(world.hosts["a"])
    liveness, current = path.work.liveness, path.work.negotiation.selected
    assert current is not None
    first = stun.Message(stun.Class.INDICATION, transaction(2**16))
    path.indicated(first, current, world.now + 1)
    assert liveness.heard_at == world.now + 1
    path.indicated(first, current, world.now + 2)
    assert liveness.heard_at == world.now + 1, "it came before"
    other = Pair(current.local, Address("192.0.2.66", PORT))
    path.indicated(first._replace(transaction=transaction(2**16 + 1)), other, world.now + 3)
    assert liveness.heard_at == world.now + 1, "it says nothing of this pair"


def test_what_one_end_sends_for_its_nats_sake_reaches_the_other_and_is_not_answered() -> None:
    world = direct()
    a, b = world.hosts["a"], world.hosts["b"]
    world.run(1.0)
    began = world.now
    path_of(b).work.tunnel.keep_open(Address(IPS[a.name], PORT), world.now)
    world.run(1.5)  # until the next reading, after which it leaves
    sent = [stun.decode(p.data).message for _, p in b.done(ev.SendProbe, began) if isinstance(p, ev.SendProbe)]
    assert [message.message_class for message in sent] == [stun.Class.INDICATION]
    heard_at = path_of(a).work.liveness.heard_at
    assert heard_at is not None
    assert heard_at > began
    assert IPS["b"] not in {p.remote.ip for _, p in a.done(ev.SendProbe, began) if isinstance(p, ev.SendProbe)}


def test_a_path_on_which_wireguard_has_followed_the_peer_is_kept_open_to_where_it_is_now() -> None:
    world = direct()
    host = world.hosts["a"]
    path = path_of(host)
    current = path.work.negotiation.selected
    assert current is not None
    moved = current._replace(remote=Address("192.0.2.77", PORT))
    path._selected_pair.replaced(moved, world.now)
    host.give(ev.Wake())
    began = world.now
    path.work.tunnel.maintain(world.now + 1000.0)
    host.give(ev.Wake())
    sent = [p for _, p in host.done(ev.SendProbe, began) if isinstance(p, ev.SendProbe)]
    assert [(p.local, p.remote) for p in sent] == [moved]


def test_an_offer_with_nothing_new_to_ask_ends_no_trying() -> None:
    world = relayed()
    paths = [path_of(host) for host in pair_of(world)]
    offers = [path.work.offer for path in paths]
    more = Offered("host", Address("192.0.2.77", PORT), "00000001", 1)
    for path, offer in zip(paths, offers, strict=True):
        path.offered(replace(offer, candidates=(*offer.candidates, more)), world.now)
    world.run(SCHEDULE_S[-1] + ANSWER_S + 1.0)  # all pairs are tried in vain, and will be again
    for path, offer in zip(paths, offers, strict=True):
        path.offered(offer, world.now)
    world.together()
    world.until(lambda: world.states() == DIRECT, RETRY_FIRST_S + 1.0)
