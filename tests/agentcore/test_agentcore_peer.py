"""The path to one peer, from both ends. Hunted: a path that works and is given up, one that is dead and is kept, ends
that do not do what the operator says, and what is left behind."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, config_of, pair_of
from agentcore_values import interface, key, peer

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.bodies import AnchorDistance, Offer, Offered, Wish
from meshctl.core.agent.check import ANSWER_S, SCHEDULE_S
from meshctl.core.agent.checks import Credentials, Pair
from meshctl.core.agent.config import OVERRIDES
from meshctl.core.agent.gathered import LocalCandidates
from meshctl.core.agent.here import Here, Pace
from meshctl.core.agent.inuse import RENOMINATE_S
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peer import (
    CARRIED_S,
    RELAY_DOUBT_S,
    RESTARTS_BURST,
    RESTARTS_RATE,
    PeerPath,
)
from meshctl.core.agent.peerwork import RELAY_LINGER_S, RETRY_FIRST_S, PeerWork
from meshctl.core.agent.relayserver import LIFETIME_S
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.tunnel import INSIST_AGAIN_S, INSIST_S, SECOND_S
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress

HUB = Address(IPS["hub0"], PORT)
DIRECT, RELAYED = ("direct", "direct"), ("relayed", "relayed")


def direct(**settings: float) -> PairWorld:
    world = PairWorld(**settings)  # type: ignore[arg-type]
    world.until(lambda: world.states() == DIRECT, 10.0)
    return world


def relayed(*, hubs: int = 1) -> PairWorld:
    world = PairWorld(hubs=hubs)
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.talk(1.0)
    return world


def triggers(host: Host, since: float = 0.0) -> list[Trigger]:
    assert host.core is not None
    other = key("ab".replace(host.name, ""))
    return [d.trigger for d in host.core.history(other) if d.at >= since]


def endpoints(host: Host, since: float = 0.0) -> list[Address]:
    """Where it had WireGuard send to the other node."""
    other = key("ab".replace(host.name, ""))
    found = [a for _, a in host.done(ev.SetEndpoint, since) if isinstance(a, ev.SetEndpoint)]
    return [a.address for a in found if a.peer == other]


def path_of(host: Host) -> PeerPath:
    """The one end of the path itself, for what nobody is shown."""
    assert host.core is not None
    [network] = host.core._networks.values()
    [path] = network.paths.values()
    return path


def checks(host: Host, since: float) -> list[stun.Message]:
    """Of the other node's addresses."""
    ip = IPS["ab".replace(host.name, "")]
    sent = [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe) and a.remote.ip == ip]
    found = [stun.decode(probe.data).message for probe in sent]
    return [message for message in found if message.message_class is stun.Class.REQUEST]


def binds(host: Host, since: float) -> list[ev.SendProbe]:
    sent = [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    return [probe for probe in sent if probe.remote.port in RELAY_PORTS]


def silences(host: Host, since: float) -> float:
    """The longest time without a word of the other node."""
    times = [since, *(at for at, _ in host.heard if at >= since), host.world.now]
    return max(later - earlier for earlier, later in pairwise(times))


# What one end does with WireGuard


class Bench:
    """The work of one end, and what it had done."""

    def __init__(self, name: str) -> None:
        self.done: list[ev.Action] = []
        other = "ab".replace(name, "")
        config = interface(name, 10, peer(name, other, 11))
        own = LocalCandidates(config.mesh_ranges)
        dice = random.Random(1)  # noqa: S311
        self.here = Here(
            config, own, dice, Pace(), self.done.append, lambda probe, _: self.done.append(probe),
            lambda *_: None, lambda _: None,
        )  # fmt: skip
        self.peer = config.peers[0]
        self.work = PeerWork(self.peer, self.here, SpliceSlot([PORT]), lambda *_: None, lambda *_: None)

    def status(self, endpoint: Address | None, age_s: float | None, keepalive_s: int = 25) -> None:
        self.work.tunnel.status = ev.PeerStatus(self.peer.public_key, endpoint, age_s, 0, 0, keepalive_s)

    def endpoints(self) -> list[Address]:
        return [action.address for action in self.done if isinstance(action, ev.SetEndpoint)]


def test_the_controlling_end_sets_an_endpoint_at_once() -> None:
    bench = Bench(CONTROLLING)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    assert bench.endpoints() == [HUB]


def test_the_other_end_puts_its_endpoint_off_so_that_no_two_handshakes_cross() -> None:
    bench = Bench(OTHER)
    bench.status(None, None)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    bench.work.tunnel.maintain(SECOND_S * 0.99)
    assert bench.done == []
    bench.work.tunnel.maintain(SECOND_S)
    assert bench.endpoints() == [HUB], "the controlling end has not come"


def test_a_second_order_does_not_put_the_endpoint_off_again_and_the_newest_counts() -> None:
    bench = Bench(OTHER)
    bench.work.tunnel.set_endpoint(Address("192.0.2.7", 1), 0.0)
    bench.work.tunnel.set_endpoint(HUB, SECOND_S * 0.9)
    bench.work.tunnel.maintain(SECOND_S)
    assert bench.endpoints() == [HUB]


def test_the_other_end_sets_its_endpoint_as_soon_as_there_is_a_session() -> None:
    bench = Bench(OTHER)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    bench.status(HUB, 0.0)
    bench.work.tunnel.maintain(0.1)
    assert bench.endpoints() == [HUB]
    bench.work.tunnel.set_endpoint(HUB, 0.5)
    assert bench.endpoints() == [HUB, HUB], "and at once while there is one"


@pytest.mark.parametrize(("endpoint", "age", "alive"), [
    (HUB, 0.0, True), (HUB, IDLE_HANDSHAKE_MAX_S - 1, True), (HUB, IDLE_HANDSHAKE_MAX_S, False), (HUB, None, False),
    (None, 0.0, False),
])  # fmt: skip
def test_there_is_a_session_while_the_last_handshake_is_young(
    endpoint: Address | None, age: float | None, alive: bool
) -> None:
    bench = Bench(OTHER)
    assert not bench.work.tunnel.alive
    bench.status(endpoint, age)
    assert bench.work.tunnel.alive is alive


def test_an_endpoint_is_set_again_for_a_while_and_then_left_alone() -> None:
    bench = Bench(CONTROLLING)
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    times = [0.0]
    while bench.work.tunnel.insist_at is not None:
        times.append(bench.work.tunnel.insist_at)
        bench.work.tunnel.insist(times[-1])
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert bench.endpoints() == [HUB] * len(times)
    assert INSIST_S <= times[-1] <= INSIST_S + INSIST_AGAIN_S[1]
    assert all(INSIST_AGAIN_S[0] <= gap <= INSIST_AGAIN_S[1] for gap in gaps)
    assert len(set(gaps)) > 10, "irregularly"


def test_the_keepalive_is_set_where_it_is_another_and_only_there() -> None:
    bench = Bench(CONTROLLING)
    bench.status(HUB, 1.0, keepalive_s=0)
    bench.work.tunnel.maintain(0.0)
    assert bench.done == [], "nobody has set an endpoint"
    bench.work.tunnel.set_endpoint(HUB, 0.0)
    assert ev.SetKeepalive(bench.peer.public_key, 25) in bench.done
    bench.status(HUB, 1.0, keepalive_s=25)
    bench.done.clear()
    bench.work.tunnel.maintain(1.0)
    assert bench.done == []
    bench.status(HUB, 1.0, keepalive_s=0)
    bench.work.tunnel.maintain(2.0)
    assert bench.done == [ev.SetKeepalive(bench.peer.public_key, 25)]


@pytest.mark.parametrize("mine", OVERRIDES)
@pytest.mark.parametrize("theirs", list(Wish))
def test_of_two_operators_the_one_who_wants_the_relay_prevails_then_the_one_who_wants_none(
    mine: str, theirs: Wish
) -> None:
    bench = Bench(CONTROLLING)
    bench.work.wish = {"": Wish.NONE, "relay": Wish.RELAY, "direct": Wish.DIRECT, "prefer-relay": Wish.PREFER_RELAY}[
        mine
    ]
    bench.work.offer = Offer(1, wish=theirs)
    wanted = {bench.work.wish, theirs}
    order = (Wish.RELAY, Wish.DIRECT, Wish.PREFER_RELAY, Wish.NONE)
    assert bench.work.mode is next(wish for wish in order if wish in wanted)
    assert bench.work.may_go_direct is (Wish.RELAY not in wanted)


def test_an_endpoint_is_adopted_only_where_this_node_has_an_address_of_its_family() -> None:
    bench = Bench(CONTROLLING)
    bench.status(HUB, 1.0)
    assert not bench.work.adopt()
    bench.here.own.set_hosts([LocalAddress("198.51.100.1", 24, "eth0")], PORT)
    assert bench.work.adopt()
    assert bench.work.negotiation.current == (Address("198.51.100.1", PORT), HUB)
    assert not bench.work.proven
    bench.status(Address("2001:db8::1", PORT), 1.0)
    assert not bench.work.adopt()


def test_an_answer_on_the_own_port_says_nothing_of_packets_that_a_splice_has_leave_from_another() -> None:
    bench = Bench(CONTROLLING)
    own, spliced = (Pair(Address("198.51.100.1", port), HUB) for port in (PORT, 20000))
    bench.status(HUB, 1.0)
    assert bench.work.carries(own)
    bench.work.splice.restore(spliced)
    assert (bench.work.carries(own), bench.work.carries(spliced)) == (False, True)
    bench.status(Address("198.51.100.9", PORT), 1.0)
    assert not bench.work.carries(spliced)


# Both ends


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


# Operators


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_at_either_end_can_have_the_relay_used_and_take_that_back(end: str) -> None:
    world = direct()
    world.talk(2.0)
    host = world.hosts[end]
    peer_key = key("ab".replace(end, ""))
    host.give(ev.Override(peer_key, "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    world.talk(20.0)
    assert world.states() == RELAYED, "and it stays"
    since = world.now
    host.give(ev.Override(peer_key, ""))
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.talk(2.0)
    assert silences(world.hosts["a"], since) < 0.5


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_at_either_end_can_forbid_the_relay_and_allow_it_again(end: str) -> None:
    world = relayed()
    host = world.hosts[end]
    peer_key = key("ab".replace(end, ""))
    host.give(ev.Override(peer_key, "direct"))
    world.run(2.0)
    assert set(world.states()) <= {"probing"}
    host.give(ev.Override(peer_key, ""))
    world.until(lambda: world.states() == RELAYED, 15.0)


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_who_prefers_the_relay_has_it_while_there_is_one_and_else_the_direct_path(end: str) -> None:
    world = direct()
    world.talk(2.0)
    world.hosts[end].give(ev.Override(key("ab".replace(end, "")), "prefer-relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    world.talk(10.0)
    assert world.states() == RELAYED
    hub = world.hosts["hub0"]
    hub.kill()
    hub.relays.clear()
    world.cut = lambda source, destination: hub.ip in (source.ip, destination.ip)
    for _ in range(200):
        world.talk(0.1)
        if world.states() == DIRECT:
            break
    assert world.states() == DIRECT


def test_the_wish_of_the_files_counts_from_the_start() -> None:
    world = PairWorld(configs={"a": config_of("a", ["hub0"], override="relay")})
    world.run(10.0)
    assert world.states() == RELAYED


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


# In doubt


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
    path._course.fire(Trigger.SPLICE_BEGUN, "ports are open", world.now)
    world.apart("a", "b", "hub0")
    world.talk(1.0)
    path.session_lost(world.now + 2.0 * CARRIED_S)
    assert path.state.value == "splicing"


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
    pair = path_of(other).work.negotiation.current
    assert pair is not None
    for _ in range(8):
        path_of(other).work.negotiation.ask_path(world.now)
        path_of(other).poll(world.now)
        world.run(RENOMINATE_S / 10)
    assert [m.use_candidate for m in checks(controlling, since)].count(True) == 1


def test_a_peer_that_has_lost_the_path_that_this_end_keeps_is_told_of_it_again_at_once() -> None:
    world = direct()
    world.run(3.0)
    controlling, other = pair_of(world)
    path_of(other).work.negotiation.ask_path(world.now)
    path_of(other).poll(world.now)
    world.run(0.5)  # it was told right before
    other.give(ev.LocalAddresses(()))
    assert other.path(CONTROLLING).state.value == "relayed"
    assert controlling.path(OTHER).state.value == "direct"
    other.tell_addresses()
    assert world.until(lambda: world.states() == DIRECT, 10.0) < 1.0


def test_a_nomination_against_an_operators_wish_is_not_followed() -> None:
    world = direct()
    world.talk(2.0)
    controlling, other = pair_of(world)
    pair = path_of(controlling).work.negotiation.current
    assert pair is not None
    other.give(ev.Override(key(CONTROLLING), "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    negotiation = path_of(controlling).work.negotiation
    negotiation.ask(pair, world.now)
    negotiation.nominate(pair, world.now)
    path_of(controlling).poll(world.now)
    since = world.now
    world.run(2.0)
    assert True in [m.use_candidate for m in checks(controlling, since)]
    assert world.states() == RELAYED


def test_where_an_operator_wants_the_relay_no_pair_is_tried_in_vain() -> None:
    world = PairWorld(configs={name: config_of(name, ["hub0"], override="relay") for name in "ab"})
    world.run(60.0)
    assert world.states() == RELAYED
    since = world.now
    world.run(100.0)
    assert checks(world.hosts["a"], since) == checks(world.hosts["b"], since) == []


def test_an_operators_wish_at_the_other_end_outlives_a_silence() -> None:
    world = PairWorld()
    world.hosts["b"].give(ev.Override(key("a"), "relay"))
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.apart("a", "b", "hub0")
    world.talk(40.0)
    assert world.states()[0] == "unknown"
    world.together()
    world.talk(30.0)
    assert world.states() == RELAYED


def test_where_an_operator_wants_none_no_relay_is_asked_for() -> None:
    world = PairWorld(configs={name: config_of(name, ["hub0"], override="direct") for name in "ab"})
    world.apart("a", "b")
    world.run(20.0)
    assert world.states() == ("probing", "probing")
    assert binds(world.hosts["a"], 0.0) == binds(world.hosts["b"], 0.0) == []


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


# Keeping NATs open


def idle(bench: Bench, until: float, *, sends: bool, adopted: bool = False) -> list[float]:
    """Direct, and nothing but keepalives: the peer's, or this end's too. When something left for the NAT's sake."""
    pair, every_s = Pair(Address("192.168.1.5", PORT), Address("198.51.100.7", PORT)), 25
    bench.work.negotiation.renew(Credentials("b:a", b"k" * 32))
    bench.status(pair.remote, 1.0)
    if adopted:
        bench.here.own.set_hosts([LocalAddress(pair.local.ip, 24, "eth0")], PORT)
        assert bench.work.adopt()
    else:
        bench.work.negotiation.current = pair
        bench.work.tunnel.set_endpoint(pair.remote, 0.0)
    times = []
    for second in range(1, round(until)):
        count = second // every_s
        status = ev.PeerStatus(bench.peer.public_key, pair.remote, 1.0, 32 * count, 32 * count * sends, every_s)
        bench.work.tunnel.status = status
        bench.work.liveness.sample(status, float(second))
        bench.done.clear()
        bench.work.tunnel.maintain(float(second))
        for action in bench.done:
            assert isinstance(action, ev.SendProbe), action
            message = stun.decode(action.data).message
            assert (action.local, action.remote) == pair
            assert (message.message_class, message.username) == (stun.Class.INDICATION, "b:a")
            times.append(float(second))
    return times


def test_an_end_whose_wireguard_sends_nothing_because_the_peers_keepalives_come_keeps_its_nat_open_itself() -> None:
    times = idle(Bench(CONTROLLING), 100.0, sends=False)
    assert [later - earlier for earlier, later in pairwise([1.0, *times])] == [29.0, 29.0, 29.0]


def test_a_path_that_was_adopted_is_kept_open_as_any_other() -> None:
    assert idle(Bench(CONTROLLING), 100.0, sends=False, adopted=True)


def test_an_end_whose_wireguard_sends_keepalives_sends_nothing_besides() -> None:
    assert idle(Bench(CONTROLLING), 100.0, sends=True) == []


def test_an_indication_on_the_pair_in_use_shows_that_the_peer_lives_but_not_twice() -> None:
    world = direct()
    path = path_of(world.hosts["a"])
    liveness, current = path.work.liveness, path.work.negotiation.current
    assert current is not None
    first = stun.Message(stun.Class.INDICATION, b"t" * 12)
    path.indicated(first, current, world.now + 1)
    assert liveness.heard_at == world.now + 1
    path.indicated(first, current, world.now + 2)
    assert liveness.heard_at == world.now + 1, "it came before"
    other = Pair(current.local, Address("192.0.2.66", PORT))
    path.indicated(first._replace(transaction=b"u" * 12), other, world.now + 3)
    assert liveness.heard_at == world.now + 1, "it says nothing of this pair"


def test_what_one_end_sends_for_its_nats_sake_reaches_the_other_and_is_not_answered() -> None:
    world = direct()
    a, b = world.hosts["a"], world.hosts["b"]
    world.run(1.0)
    began = world.now
    path_of(b).work.negotiation.keep_open(world.now)
    world.run(1.5)  # until the next reading, after which it leaves
    sent = [stun.decode(p.data).message for _, p in b.done(ev.SendProbe, began) if isinstance(p, ev.SendProbe)]
    assert [message.message_class for message in sent] == [stun.Class.INDICATION]
    heard_at = path_of(a).work.liveness.heard_at
    assert heard_at is not None
    assert heard_at > began
    assert IPS["b"] not in {p.remote.ip for _, p in a.done(ev.SendProbe, began) if isinstance(p, ev.SendProbe)}
