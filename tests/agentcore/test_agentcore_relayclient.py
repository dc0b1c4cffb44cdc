"""Both ends of a pair get to the same anchor, keep a second one warm, and move when theirs dies. Hunted: ends at two
anchors, a relay that is given up though it works or kept though it does not, leases that nobody needs, and packets that
nobody waits for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from agentcore_relays import HUBS, NAMES, RelayWorld, places_of
from agentcore_values import interface
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import (
    MAX_DISTANCES,
    MAX_RTT_MS,
    AnchorDistance,
    RefuseReason,
    RelayAsk,
    RelayGrant,
    RelayRefuse,
    RelayRelease,
)
from meshctl.core.agent.choice import CHANGES_PER_HOUR
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.relaychoice import MARGIN_S, MARGIN_SHARE
from meshctl.core.agent.relayclient import WANTED_ANCHORS
from meshctl.core.agent.relaylease import (
    ASK_SOON_S,
    BIND_LONGEST_S,
    CHECK_AGAIN_S,
    IDLE_GAP_S,
    MAX_ASKED,
    MAX_UNANSWERED,
    REBIND_S,
    RTTS,
    SLOWEST_S,
    Lease,
)
from meshctl.core.agent.relayserver import LIFETIME_S
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress

KEEPALIVE_S = 25.0


def settled(**settings: object) -> RelayWorld:
    """Both ends have a relay, and nothing is under way."""
    world = RelayWorld(**settings)  # type: ignore[arg-type]
    world.want()
    world.run(5)
    assert world.works()
    return world


def near(world: RelayWorld, **rtts: tuple[float, float, float]) -> None:
    """Round trips of "a" and "b" to the three anchors."""
    for name, values in rtts.items():
        world.rtts[name] = dict(zip(HUBS, values, strict=True))


def since(world: RelayWorld, start: float, name: str) -> list[object]:
    return [what for when, who, _, what in world.sent if when > start and who == name]


def test_both_ends_are_ready_at_the_nearest_anchor_within_a_few_round_trips() -> None:
    world = RelayWorld()
    world.want()
    world.run(0.3)
    assert world.works()
    assert world.hub_of("a") == "hub0"
    assert [hub for _, _, hub, what in world.sent if isinstance(what, RelayAsk)] == ["hub0", "hub1"]


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_lost_messages_cost_time_and_nothing_else(loss: float) -> None:
    world = RelayWorld(loss=loss)
    world.want()
    world.run(15)
    assert world.works()


def test_a_grant_that_did_not_reach_the_other_end_is_sent_again() -> None:
    world = RelayWorld()
    world.drop = lambda to, _hub, _body: to == "b" and world.now < 1.5
    world.want()
    world.run(1.4)
    assert not world.works()
    world.run(1.75)
    assert world.works(), "three round trips after the third time of asking"


def test_what_an_anchor_has_dropped_because_it_did_not_know_the_session_is_asked_again_at_its_first_word() -> None:
    world = RelayWorld()
    world.drop = lambda _to, _hub, _body: True
    world.want()
    world.run(0.1)
    assert not world.works()
    world.drop = lambda _to, _hub, _body: False
    for anchor in world.anchors.values():
        world.clients["a"].anchor_speaks(anchor, world.now)
    world.run(ASK_SOON_S + 0.2)
    assert world.works()


@pytest.mark.parametrize("words", [1, 20])
def test_an_anchor_whose_answer_comes_right_behind_its_first_word_is_not_asked_again(words: int) -> None:
    world = RelayWorld()
    world.want()
    for _ in range(words):
        world.run(0.015 / words)
        for anchor in world.anchors.values():
            world.clients["a"].anchor_speaks(anchor, world.now)
    world.run(5.0)
    assert [hub for _, _, hub, what in world.sent if isinstance(what, RelayAsk)] == ["hub0", "hub1"]


def test_an_anchor_that_speaks_and_does_not_answer_is_asked_no_more_often_for_it() -> None:
    world = RelayWorld()
    world.drop = lambda _to, _hub, _body: True
    world.want()
    for _ in range(100):
        world.run(0.02)
        world.clients["a"].anchor_speaks(world.anchors["hub0"], world.now)
        world.drain("a")
    assert [hub for _, _, hub, what in world.sent if isinstance(what, RelayAsk)].count("hub0") == 3


def test_a_relay_is_asked_for_each_second_at_first_and_then_ever_more_rarely() -> None:
    world = RelayWorld()
    world.dead = {*HUBS}
    world.want()
    world.run(20)
    asked = [when for when, _, hub, what in world.sent if hub == "hub0" and isinstance(what, RelayAsk)]
    assert asked == pytest.approx([0.0, 1.0, 2.0, 3.0, 5.0, 9.0, 17.0])


def test_both_ends_take_the_anchor_that_is_near_to_both() -> None:
    world = RelayWorld()
    near(world, a=(0.02, 0.06, 0.3), b=(0.30, 0.08, 0.02))
    world.want()
    world.run(5)
    assert world.works()
    assert world.hub_of("b") == "hub1"


def test_the_other_end_follows_the_controlling_one_whatever_it_would_take_itself() -> None:
    world = settled()
    for _ in range(20):
        near(world, a=(0.02, 0.06, 0.08), b=(0.06, 0.03, 0.08))
        world.want("b")
        world.run(1)
    assert {world.hub_of(name) for name in NAMES} == {"hub0"}
    assert world.works()


def test_both_move_when_another_anchor_is_nearer_by_more_than_the_margin() -> None:
    world = settled()
    near(world, a=(0.05, 0.02, 0.06), b=(0.05, 0.02, 0.06))
    world.want()
    world.run(2)
    assert world.works()
    assert world.hub_of("a") == "hub1"
    assert [place for _, _, place in world.moves if place is None] == []


def test_round_trips_that_waver_move_nobody_and_tell_nothing_new() -> None:
    world = settled()
    near(world, **dict.fromkeys(NAMES, (0.02, 0.02, 0.02)))
    world.want()
    world.run(1)
    start, moves, told = world.now, len(world.moves), world.told.copy()
    wave = MARGIN_S / 4
    for turn in range(100):
        near(world, **dict.fromkeys(NAMES, (0.02 + wave, 0.02 - wave * (turn % 2), 0.02 - wave * ((turn + 1) % 2))))
        world.want()
        world.run(0.1)
    assert len(world.moves) == moves
    assert world.told == told
    assert since(world, start, "a") == since(world, start, "b") == []


def test_round_trips_over_a_long_way_may_waver_more() -> None:
    world = settled()
    near(world, **dict.fromkeys(NAMES, (0.3, 0.3, 0.3)))
    world.want()
    world.run(1)
    moves = len(world.moves)
    for turn in range(40):
        wave = MARGIN_SHARE * 0.3 / 3 * (-1) ** turn
        near(world, **dict.fromkeys(NAMES, (0.3 + wave, 0.3 - wave, 0.3 - wave)))
        world.want()
        world.run(0.1)
    assert len(world.moves) == moves


def test_anchors_that_take_turns_at_being_nearer_move_a_pair_a_few_times_an_hour_and_no_more() -> None:
    world = settled()
    before = [world.hub_of("a")]
    for turn in range(40):
        near(world, **dict.fromkeys(NAMES, (0.02, 0.2, 0.2) if turn % 2 else (0.2, 0.02, 0.2)))
        world.want()
        world.run(5.0)
        assert world.works()
        assert world.hub_of("a") == world.hub_of("b")
        before.append(world.hub_of("a"))
    assert sum(one != other for one, other in itertools.pairwise(before)) == CHANGES_PER_HOUR


def test_when_the_tunnel_to_the_anchor_is_down_the_warm_one_is_there_at_once() -> None:
    world = settled()
    for hub, following in itertools.pairwise(HUBS):
        for name in NAMES:
            world.down[name].add(hub)
        world.want()
        assert {world.hub_of(name) for name in NAMES} == {following}
        world.run(2)
        assert world.works()


def test_an_anchor_that_only_one_end_reaches_is_used_by_neither_and_again_when_both_do() -> None:
    world = settled()
    world.down["b"].add("hub0")
    world.want("b")
    world.run(2)
    assert world.works()
    assert world.hub_of("a") == "hub1"
    world.down["b"].clear()
    world.want("b")
    world.run(2)
    assert world.works()
    assert world.hub_of("a") == "hub0"


def mistrusted(by: str) -> RelayWorld:
    """A world in which one end has found that the relay in use carries nothing."""
    world = settled()
    world.clients[by].mistrust(world.now)
    world.drain(by)
    world.run(2)
    return world


@pytest.mark.parametrize("by", NAMES)
def test_a_relay_that_carries_nothing_is_left_for_the_warm_one_by_both_ends_whoever_has_found_out(by: str) -> None:
    world = mistrusted(by)
    assert world.works()
    assert world.hub_of("a") == "hub1"
    world.run(600)
    world.want()
    assert world.hub_of("a") == "hub1", "as long as a relay is wanted"
    assert [place for _, _, place in world.moves if place is None] == []


@pytest.mark.parametrize("by", NAMES)
@pytest.mark.parametrize("again", ["a new agent", "another need"])
def test_a_relay_that_carried_nothing_has_another_chance_when_its_anchors_agent_or_the_need_is_a_new_one(
    by: str, again: str
) -> None:
    world = mistrusted(by)
    if again == "another need":
        world.release()
    else:
        world.restart("hub0", told=True)
    world.want()
    world.run(5)
    assert world.works()
    assert world.hub_of("a") == "hub0"


@pytest.mark.parametrize("by", NAMES)
def test_the_only_relay_is_not_mistrusted(by: str) -> None:
    world = RelayWorld()
    for name in NAMES:
        world.down[name] = {*HUBS[1:]}
    world.want()
    world.run(5)
    told = world.told.copy()
    world.clients[by].mistrust(world.now)
    world.drain(by)
    world.run(2)
    assert world.works()
    assert world.told == told
    for name in NAMES:
        world.down[name].clear()
    world.want()
    world.run(5)
    assert world.hub_of("a") == "hub0"


def test_in_doubt_a_dead_anchor_is_left_within_a_second_for_the_warm_one() -> None:
    world = settled()
    world.run(200)
    world.dead.add("hub0")
    for _ in range(10):
        world.check()
        world.run((sum(CHECK_AGAIN_S) + 0.1) / 10)
    assert world.works()
    assert world.hub_of("a") == "hub1"


def test_in_doubt_a_relay_that_answers_is_kept_and_the_other_end_binds_again_too() -> None:
    world = settled()
    world.run(200)
    start, moves = world.now, len(world.moves)
    world.check("a")
    world.check("a")
    world.run(3)
    assert len(world.moves) == moves
    assert [type(what) for what in since(world, start - 1, "b")] == [SendProbe]
    assert len(since(world, start - 1, "a")) == 1 + WANTED_ANCHORS
    world.run(200)
    assert {hub for when, _, hub, what in world.sent if when > start + 3 and isinstance(what, SendProbe)} == {"hub1"}


def test_a_relay_that_was_idle_is_bound_to_again_by_both_ends_when_either_takes_it_into_use() -> None:
    for name in NAMES:
        world = settled()
        world.run(200)
        for each in NAMES:
            world.bases[each] = tuple(base._replace(port=base.port + 1) for base in world.bases[each])  # its NAT forgot
        assert not world.works()
        world.clients[name].refresh(world.now)
        world.run(4 * 0.02 + 0.02)
        assert world.works()
        start = world.now
        world.clients[name].refresh(world.now)
        world.run(1.0)
        assert since(world, start, name) == [], "that is known"


def test_an_end_with_another_address_is_forwarded_to_there_within_two_round_trips() -> None:
    world = settled()
    world.run(200)
    moves = len(world.moves)
    world.move("b")
    world.run(2 * 0.02 + 0.02)
    assert world.works()
    assert len(world.moves) == moves


def test_binds_that_are_lost_now_and_then_do_not_lose_the_relay() -> None:
    world = settled()
    world.loss = 0.2
    for _ in range(20):
        world.check()
        world.run(5)
    losses = [place for _, _, place in world.moves if place is None]
    assert losses == []
    world.loss = 0.0
    world.run(5)
    assert world.works()


def test_a_relay_lives_as_long_as_it_is_wanted_and_ends_when_both_release_it() -> None:
    world = settled()
    moves = len(world.moves)
    world.run(5 * LIFETIME_S)
    assert len(world.moves) == moves, "nobody moved"
    assert world.works()
    world.release()
    world.run(1)
    assert all(server.due() is None for server in world.servers.values())
    assert all(client.due() is None and client.ready is None for client in world.clients.values())


def test_a_relay_that_one_end_still_needs_outlives_the_others_release() -> None:
    world = settled()
    world.release("b")
    world.run(1)
    hub, place = "hub0", world.relay["a"]
    assert place is not None
    assert place.port in world.forwards[hub]
    world.run(LIFETIME_S)
    assert world.works() or world.relay["b"] is None
    assert place.port in world.forwards[hub]


def test_what_the_controlling_end_has_released_ends_with_its_lifetime_though_the_other_end_renews() -> None:
    world = settled()
    world.release("a")
    world.run(1.1 * LIFETIME_S)
    start = world.now
    world.check("b")
    world.run(5)
    assert all(server.due() is None for server in world.servers.values())
    assert world.relay == {"a": world.relay["a"], "b": None}
    assert len(since(world, start, "b")) <= 30


def test_an_idle_relay_costs_each_end_at_most_one_packet_in_a_keepalive_interval() -> None:
    world = settled()
    world.run(IDLE_GAP_S)
    start = world.now
    world.run(3 * LIFETIME_S)
    for name in NAMES:
        times = [when for when, who, _, _ in world.sent if when > start and who == name]
        assert 3 * 2 <= len(times) <= 3 * LIFETIME_S / KEEPALIVE_S / 2
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= KEEPALIVE_S
    binds = {hub for when, _, hub, what in world.sent if when > start and isinstance(what, SendProbe)}
    assert binds == {"hub1"}, "WireGuard's own packets show that the one in use lives"


def test_a_restarted_anchor_is_asked_and_bound_again_at_once_and_not_given_up() -> None:
    world = settled()
    world.run(200)
    before, moves = world.relay["a"], len(world.moves)
    world.restart("hub0", told=True)
    world.run(1)
    assert world.works()
    assert world.relay["a"] != before
    assert [world.hub_of(name) for name in NAMES] == ["hub0", "hub0"]
    assert {place.ip for _, _, place in world.moves[moves:] if place} == {"203.0.113.1"}
    assert None not in [place for _, _, place in world.moves[moves:]]


def test_an_anchor_that_restarted_unnoticed_is_found_out_by_a_check_or_by_a_renewal() -> None:
    for check in (True, False):
        world = settled()
        world.restart("hub0")
        if check:
            world.check()
        world.run(3 if check else LIFETIME_S)
        assert world.works()
        assert world.servers["hub0"].due() is not None
        assert world.hub_of("a") == "hub0"


def test_leases_are_given_back_at_anchors_that_are_not_near_any_more() -> None:
    world = settled()
    near(world, **dict.fromkeys(NAMES, (0.09, 0.02, 0.02)))
    world.want()
    world.run(1.1 * LIFETIME_S)
    assert world.works()
    assert world.servers["hub0"].due() is None
    assert all(world.servers[hub].due() is not None for hub in ("hub1", "hub2"))
    places = {place.ip for client in world.clients.values() for place in places_of(client)}
    assert places == {"203.0.113.2", "203.0.113.3", "2001:db8::2", "2001:db8::3"}


def test_the_one_in_use_is_kept_until_a_nearer_one_is_ready() -> None:
    world = settled()
    world.dead |= {"hub1", "hub2"}
    near(world, **dict.fromkeys(NAMES, (0.09, 0.02, 0.02)))
    world.want()
    world.run(60)
    assert world.works()
    assert world.hub_of("a") == "hub0"


def test_an_anchor_that_does_not_answer_is_not_counted_upon_and_asked_ever_more_rarely() -> None:
    world = RelayWorld()
    world.dead.add("hub0")
    world.want()
    world.run(10)
    assert world.works()
    assert {hub for _, _, hub, what in world.sent if isinstance(what, SendProbe)} == {"hub1", "hub2"}
    world.run(600)
    asked = [when for when, _, hub, _ in world.sent if hub == "hub0"]
    assert len(asked) <= 20
    world.dead.clear()
    world.run(70)
    assert world.hub_of("a") == "hub0"
    assert world.works()


def test_anchors_that_grant_and_answer_no_bind_are_not_counted_upon() -> None:
    world = RelayWorld()
    for hub in ("hub0", "hub1"):
        world.servers[hub].bind = lambda *_: None  # type: ignore[method-assign]
    world.want()
    world.run(10)
    assert world.works()
    assert world.hub_of("a") == "hub2"


def test_an_anchor_that_the_peer_does_not_name_is_farther_than_any_that_it_does() -> None:
    world = RelayWorld()
    near(world, a=(0.02, 0.02, 0.9), b=(0.02, 0.02, 0.9))
    world.down["b"] = {"hub0", "hub1"}
    world.want()
    world.run(5)
    assert world.works()
    assert world.hub_of("a") == "hub2"


def test_ends_with_one_common_family_meet_in_it() -> None:
    world = RelayWorld(families=((6,), (4, 6)))
    world.want()
    world.run(10)
    assert world.works()
    assert world.relay["a"] is not None
    assert world.relay["a"].family == 6


def test_ends_without_a_common_family_stop_trying_hard() -> None:
    world = RelayWorld(families=((6,), (4,)))
    world.want()
    world.run(60)
    start = world.now
    world.run(600)
    assert all(len(since(world, start, name)) <= 600 / 2 for name in NAMES)


def test_a_refusal_is_heeded_for_its_time() -> None:
    world = RelayWorld()
    world.clients["a"].refused(world.anchors["hub0"], RelayRefuse(bytes(8), RefuseReason.FULL, 30), 0.0)
    world.want()
    asked = [(when, hub) for when, _, hub, what in world.sent if isinstance(what, RelayAsk)]
    assert asked == []
    world.clients["a"].refused(world.anchors["hub0"], RelayRefuse(bytes(8), RefuseReason.FULL, 30), 0.0)
    world.run(29)
    world.check("a")
    asked = [(when, hub) for when, _, hub, what in world.sent if isinstance(what, RelayAsk)]
    assert {hub for _, hub in asked} == {"hub1", "hub2"}
    world.run(10_000)
    asked = [(when, hub) for when, _, hub, what in world.sent if isinstance(what, RelayAsk)]
    assert {hub for _, hub in asked} == {"hub0", "hub1", "hub2"}
    assert min(when for when, hub in asked if hub == "hub0") == 30.0


def test_an_anchor_that_has_not_heard_yet_that_the_pair_is_permitted_is_asked_again_later_each_time() -> None:
    world = RelayWorld()
    strangers = (replace(node, reaches=frozenset()) for node in world.nodes.values())
    world.servers["hub0"].configure(interface("hub0", 1, *strangers, is_anchor=True))
    world.want()
    world.run(200)
    asked = [when for when, _, hub, what in world.sent if hub == "hub0" and isinstance(what, RelayAsk)]
    assert [b - a for a, b in itertools.pairwise(asked)] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=0.1)
    assert world.works()
    assert world.hub_of("a") == "hub1"
    world.servers["hub0"].configure(interface("hub0", 1, *world.nodes.values(), is_anchor=True))
    world.run(61)
    assert world.hub_of("a") == "hub0", "the nearest"
    assert world.works()


def test_a_relay_that_the_controlling_end_does_not_want_is_given_back() -> None:
    world = RelayWorld()
    grant = RelayGrant(world.nodes["b"].id, (Address("203.0.113.1", 40000),), bytes(16), LIFETIME_S)
    world.clients["a"].granted(world.anchors["hub0"], grant, 0.0)
    world.drain("a")
    assert [what for _, _, _, what in world.sent] == [RelayRelease(grant.peer, grant.token)]


def test_answers_that_belong_to_no_bind_count_for_nothing() -> None:
    world = settled()
    client = world.clients["a"]
    assert client.token_of(bytes(12)) is None
    grant = RelayGrant(world.nodes["b"].id, (Address("203.0.113.1", 40000),), bytes(16), LIFETIME_S)
    client.refused(world.anchors["hub2"], RelayRefuse(grant.peer, RefuseReason.UNKNOWN), world.now)
    world.run(1)
    assert world.works()


@pytest.mark.parametrize("ended", [False, True])
def test_an_answer_that_comes_when_its_grant_has_ended_does_not_count_later_when_the_same_is_granted_again(
    ended: bool,
) -> None:
    world = RelayWorld()
    client, hub, base = world.clients["a"], world.anchors["hub0"], world.bases["a"][0]
    grant = RelayGrant(world.nodes["b"].id, (Address("203.0.113.1", 40000),), bytes(range(16)), LIFETIME_S)
    client.want({hub.id: (hub, 0.01)}, {}, 0.0)
    client.granted(hub, grant, 0.0)
    client.poll((base,), 0.0)
    (bind,) = (stun.decode(out.data).message for out in client.outputs() if isinstance(out, SendProbe))
    answer = stun.success_response(bind, TransportAddress(*base))
    if ended:
        client.refused(hub, RelayRefuse(grant.peer, RefuseReason.FULL, 1), 0.1)
        assert client.token_of(bind.transaction) == grant.token, "it is known as one that has come"
        client.answered(answer, 0.2)
        client.granted(hub, grant, 0.3)
    client.answered(answer, 0.4)
    assert client.ready == (None if ended else grant.relay[0])


def test_an_offer_names_the_relay_in_use_first_and_no_more_anchors_than_it_holds() -> None:
    world = settled()
    many = {bytes((n,) * 8): (world.anchors["hub0"], 0.001 * n) for n in range(1, 20)}
    used = world.anchors["hub0"].id
    world.clients["a"].want({used: (world.anchors["hub0"], 0.5), **many}, {}, world.now)
    told = world.clients["a"].distances()
    assert len(told) == MAX_DISTANCES
    assert [(d.anchor == used, d.used) for d in told] == [(True, True)] + [(False, False)] * (MAX_DISTANCES - 1)
    assert (told[0].rtt_ms, told[1].rtt_ms) == (500, 1)
    world.clients["a"].want({used: (world.anchors["hub0"], 1000.0)}, {}, world.now)
    assert [d.rtt_ms for d in world.clients["a"].distances()] == [MAX_RTT_MS]
    assert world.clients["a"].used_anchor == world.anchors["hub0"]


def test_the_end_that_does_not_control_uses_what_the_other_one_uses_if_it_can() -> None:
    world = settled()
    for preferred, used in ((1, "hub1"), (2, "hub0"), (None, "hub0")):
        for client in world.clients.values():
            client.prefer(None if preferred is None else world.anchors[HUBS[preferred]].id)
        for name in NAMES:
            world.drain(name)
        assert [world.hub_of(name) for name in NAMES] == ["hub0", used]


def test_an_end_whose_binds_had_no_answer_binds_at_once_when_the_peer_uses_the_relay() -> None:
    world = RelayWorld()
    world.want()
    world.run(1)
    client = world.clients["b"]
    used = world.clients["a"].used_anchor
    assert used is not None
    world.drain("b")
    for lease in client._leases.values():
        lease.place, lease.bind_at = None, world.now + BIND_LONGEST_S
    client.prefer(None)
    client.prefer(used.id)
    due = client.due()
    assert due is not None
    assert due <= world.now
    world.run(1)
    assert world.works()


def test_the_end_that_does_not_control_asks_for_a_relay_in_use_that_it_has_forgotten() -> None:
    world = settled()
    used = world.clients["a"].ready
    world.release("b")  # it has taken the other end for lost, which has not noticed
    world.run(5)
    world.want("b")
    world.run(1)
    assert world.clients["a"].ready == used == world.clients["b"].ready
    assert world.works()


def test_a_tunnel_that_was_down_for_a_moment_at_one_end_leaves_both_at_one_anchor() -> None:
    world = settled()
    world.down["b"].add("hub0")
    world.want("b")
    world.down["b"].clear()
    world.want("b")
    world.run(2)
    assert world.works()


def test_a_tunnel_that_was_down_for_long_leaves_no_lease_behind() -> None:
    world = settled()
    world.release("a")
    world.down["b"].add("hub0")
    world.want("b")
    world.run(1.1 * LIFETIME_S)
    world.want("b")
    assert all(not place.ip.endswith(".1") for place in places_of(world.clients["b"]))


def test_an_anchor_whose_agent_is_dead_for_long_leaves_no_lease_behind() -> None:
    world = settled()
    world.dead.add("hub1")
    world.run(1.2 * LIFETIME_S)
    assert world.works()
    assert {place.ip for place in places_of(world.clients["b"]) if place.family == 4} == {"203.0.113.1", "203.0.113.3"}


def test_a_warm_relay_that_the_anchor_has_forgotten_is_had_again_before_it_is_needed() -> None:
    world = settled()
    world.restart("hub1")
    world.run(REBIND_S + 10)
    assert world.forwards["hub1"]
    assert world.hub_of("a") == "hub0"


def test_the_one_that_was_used_before_is_kept_warm() -> None:
    world = settled()
    near(world, **dict.fromkeys(NAMES, (0.05, 0.02, 0.06)))
    world.want()
    start = world.now
    world.run(2 * REBIND_S + IDLE_GAP_S)
    bound = [who for when, who, hub, what in world.sent if when > start + 5 and hub == "hub0"]
    assert bound == ["a", "b"] * 2


def test_the_warm_one_is_found_dead_as_fast_when_it_is_taken_in_the_midst_of_a_check() -> None:
    world = settled()
    world.run(200)
    world.dead.add("hub1")
    world.check()
    world.run(0.3)
    for name in NAMES:
        world.down[name].add("hub0")
    world.want()
    assert world.hub_of("a") == "hub1"
    world.run(sum(CHECK_AGAIN_S))
    assert world.hub_of("a") != "hub1"


@pytest.mark.parametrize("delay_s", [0.3, 0.6])
def test_an_anchor_that_is_far_away_is_not_taken_for_a_dead_one(delay_s: float) -> None:
    world = RelayWorld()
    world.delay_s = delay_s
    for rtts in world.rtts.values():
        rtts.update(dict.fromkeys(rtts, 2 * delay_s))
    world.want()
    world.run(20)
    moves = len(world.moves)
    world.check()
    world.run(5)
    assert len(world.moves) == moves
    assert world.works()


def test_a_relay_in_use_is_told_of_also_before_its_anchor_was_measured() -> None:
    world = RelayWorld()
    world.want("a")
    world.run(2)
    assert world.works()
    hub = world.anchors[world.hub_of("b") or ""]
    assert world.clients["b"].distances() == (AnchorDistance(hub.id, 1000, used=True),)


def test_a_grant_that_comes_after_the_answer_to_a_bind_causes_no_other_bind() -> None:
    anchor = RelayWorld().anchors["hub0"]
    grant = RelayGrant(bytes(8), (Address("203.0.113.1", 40000),), bytes(16), LIFETIME_S)
    lease = Lease(anchor)
    lease.granted(grant, 0.0)
    lease.answered(grant.relay[0], 0.0)
    lease.ask(1.0)
    lease.asked(1.0)
    lease.answered(grant.relay[0], 1.1)
    lease.granted(grant, 1.2)
    assert lease.bind_at == 1.1 + REBIND_S
    for _ in range(MAX_ASKED):
        lease.asked(2.0)
    assert not lease.silent, "its binds are answered"
    lease.down()
    assert lease.silent


def test_a_grant_with_another_port_begins_the_count_of_binds_anew() -> None:
    anchor = RelayWorld().anchors["hub0"]
    old, new = (RelayGrant(bytes(8), (Address("203.0.113.1", 40000 + n),), bytes(16), LIFETIME_S) for n in (0, 1))
    lease = Lease(anchor, refused_until=float("inf"))
    lease.granted(old, 0.0)
    lease.answered(old.relay[0], 0.0)
    assert lease.refused_until < 0
    lease.hurry(1.0)
    for _ in range(MAX_UNANSWERED):
        assert lease.bound(1.0, rtt_s=0.02)
    lease.granted(new, 1.5)
    assert lease.bind_at == 1.5
    assert lease.bound(1.5, rtt_s=0.02)
    assert lease.place == old.relay[0], "what worked works until the new one does"


@pytest.mark.parametrize(("rtt_s", "lost_after_s"), [(0.02, sum(CHECK_AGAIN_S)), (1.0, RTTS), (60.0, SLOWEST_S)])
def test_in_doubt_an_anchor_has_as_long_as_its_binds_take_but_not_for_ever(rtt_s: float, lost_after_s: float) -> None:
    grant = RelayGrant(bytes(8), (Address("203.0.113.1", 40000),), bytes(16), LIFETIME_S)
    lease = Lease(RelayWorld().anchors["hub0"])
    lease.granted(grant, 0.0)
    lease.answered(grant.relay[0], 0.0)
    lease.hurry(1.0)
    while lease.bound(lease.bind_at, rtt_s):
        lost_at = lease.bind_at
    assert lost_at - 1.0 == pytest.approx(lost_after_s)


STEPS = st.one_of(
    st.tuples(st.sampled_from(["kill", "revive", "restart", "restart told"]), st.sampled_from(HUBS)),
    st.tuples(st.sampled_from(["down", "up"]), st.tuples(st.sampled_from(NAMES), st.sampled_from(HUBS))),
    st.tuples(st.just("rtt"), st.tuples(st.sampled_from(NAMES), st.sampled_from(HUBS), st.floats(0.001, 0.5))),
    st.tuples(st.sampled_from(["check", "release", "want", "move"]), st.sampled_from(NAMES)),
    st.tuples(st.just("wait"), st.sampled_from([0.015, 0.3, 3.0, 40.0, 400.0])),
    st.tuples(st.just("loss"), st.sampled_from([0.0, 0.3])),
)


def do(world: RelayWorld, what: str, of: object) -> None:
    if what == "wait":
        world.run(of)  # type: ignore[arg-type]
    elif what == "loss":
        world.loss = of  # type: ignore[assignment]
    elif what in ("check", "release", "want", "move"):
        getattr(world, what)(of)
    elif what in ("kill", "revive"):
        (world.dead.add if what == "kill" else world.dead.discard)(str(of))
    elif what in ("restart", "restart told"):
        world.restart(str(of), told=what == "restart told")
    else:
        name, hub, *value = of  # type: ignore[misc]
        if what == "rtt":
            world.rtts[name][hub] = value[0]
        else:
            (world.down[name].add if what == "down" else world.down[name].discard)(hub)
        if world.clients[name].wanted:
            world.want(name)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(STEPS, max_size=20))
def test_whatever_happened_both_ends_meet_at_one_anchor_once_it_is_over_and_leave_nothing_when_released(
    steps: list[tuple[str, object]],
) -> None:
    world = RelayWorld()
    for what, of in steps:
        do(world, what, of)
    world.dead.clear()
    world.loss = 0.0
    for name in NAMES:
        world.down[name].clear()
    world.want()
    world.check()
    world.run(3.0 if world.works() else 130.0)
    world.check()
    world.run(3.0)
    assert world.works()
    world.release()
    world.run(2 * LIFETIME_S)
    assert all(server.due() is None for server in world.servers.values())
    assert all(client.due() is None for client in world.clients.values())
