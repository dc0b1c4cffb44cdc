"""What operators want of a path. Hunted: ends that do not do what is wanted, or forget it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agentcore_ends import DIRECT, RELAYED, binds, checks, direct, history, network_of, path_of, relayed, silences
from agentcore_pair import CONTROLLING, IPS, NUMBERS, OTHER, Host, PairWorld, config_of, pair_of
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.peerwork import RELAY_LINGER_S
from meshctl.core.agent.relayserver import LIFETIME_S
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_at_either_end_can_have_the_relay_used_and_take_that_back(end: str) -> None:
    world = direct()
    world.talk(2.0)
    host = world.hosts[end]
    peer_key = key("ab".replace(end, ""))
    host.give(ev.Override(peer_key, "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    turned = world.now
    world.talk(RELAY_LINGER_S + 5.0)  # the direct path would have given it up by then
    assert world.states() == RELAYED, "and it stays"
    assert silences(world.hosts["a"], turned) < 0.5
    since = world.now
    host.give(ev.Override(peer_key, ""))
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.talk(2.0)
    assert silences(world.hosts["a"], since) < 0.5


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_who_takes_the_relay_back_while_it_is_dead_has_the_direct_path_tried(end: str) -> None:
    world = direct()
    host, peer_key = world.hosts[end], key("ab".replace(end, ""))
    host.give(ev.Override(peer_key, "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    world.cut = lambda source, destination: bool({source.port, destination.port} & set(RELAY_PORTS))
    world.talk(15.0)
    assert world.states() == ("probing", "probing")
    host.give(ev.Override(peer_key, ""))
    world.until(lambda: world.states() == DIRECT, 5.0)


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_who_is_moved_to_a_relay_that_was_about_to_be_given_up_keeps_it_and_an_agent_that_restarts_there_costs_nothing(
    end: str,
) -> None:
    world = direct()
    world.talk(2.0)
    world.hosts[end].give(ev.Override(key("ab".replace(end, "")), "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    world.talk(RELAY_LINGER_S + 2.0)
    ports = set(world.hosts["hub0"].relays)
    since = world.now
    host = world.hosts["ab".replace(end, "")]
    host.kill()
    world.talk(2.0)
    host.start()
    world.talk(10.0)
    assert world.states() == RELAYED
    assert set(world.hosts["hub0"].relays) == ports
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
def test_who_forbids_the_relay_for_a_moment_has_both_ends_back_on_it_at_once(end: str) -> None:
    world = relayed()
    host = world.hosts[end]
    host.give(ev.Override(key("ab".replace(end, "")), "direct"))
    world.until(lambda: world.states() == ("probing", "probing"), 1.0)
    world.run(1.0)  # the relays that were had for the path are still there
    host.give(ev.Override(key("ab".replace(end, "")), ""))
    world.until(lambda: world.states() == RELAYED, 1.0)


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_operator_who_prefers_the_relay_has_it_while_there_is_one_and_else_the_direct_path(end: str) -> None:
    world = direct()
    world.talk(2.0)
    world.hosts[end].give(ev.Override(key("ab".replace(end, "")), "prefer-relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    world.talk(RELAY_LINGER_S + 5.0)
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


def test_a_nomination_against_an_operators_wish_is_not_followed() -> None:
    world = direct()
    world.talk(2.0)
    controlling, other = pair_of(world)
    pair = path_of(controlling).work.negotiation.selected
    assert pair is not None
    other.give(ev.Override(key(CONTROLLING), "relay"))
    world.until(lambda: world.states() == RELAYED, 3.0)
    negotiation = path_of(controlling).work.negotiation
    negotiation.check(pair, world.now)
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


def without(host: Host, *gone: str) -> None:
    """These are in its configuration no more."""
    [network] = host.config.networks
    peers = tuple(p for p in network.peers if p.name not in gone)
    host.give(ev.Reconfigured(replace(host.config, networks=(replace(network, peers=peers),))))


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_who_hears_that_an_anchor_is_none_any_more_relays_by_the_other_one_and_says_nothing_to_the_first(
    end: str, spare: bool
) -> None:
    world = relayed(hubs=2)
    host = world.hosts[end]
    used = host.path("ab".replace(end, "")).relay
    gone = next(name for name in world.names if (name != used) is spare)
    since = world.now
    without(host, gone)
    world.talk(3.0)
    assert world.states() == RELAYED
    assert host.path("ab".replace(end, "")).relay != gone
    world.run(LIFETIME_S)
    world.talk(3.0)
    assert world.states() == RELAYED
    assert silences(world.hosts["a"], world.now - 3.0) < 0.5
    assert f"10.42.0.{NUMBERS[gone]}" not in {a.mesh_ip for _, a in host.done(ev.SendSignal, since)}  # type: ignore[attr-defined]
    assert IPS[gone] not in {a.remote.ip for _, a in host.done(ev.SendProbe, since)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_the_only_anchor_and_a_peer_that_is_relayed_there_can_go_together(end: str) -> None:
    world = relayed()
    host = world.hosts[end]
    without(host, "hub0", "ab".replace(end, ""))
    world.run(LIFETIME_S)
    assert host.core is not None
    assert host.core.paths() == ()


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_a_direct_path_bears_that_there_is_no_anchor_any_more(end: str) -> None:
    world = direct()
    world.talk(2.0)
    without(world.hosts[end], "hub0")
    world.talk(60.0)
    assert world.states() == DIRECT


def test_who_has_lost_a_peer_takes_no_notice_of_the_answer_to_a_check_of_it() -> None:
    world = direct()
    host = world.hosts["a"]
    world.delay_s, since = 0.1, world.now
    host.give(ev.ClockStepped())
    world.until(lambda: any(p.remote.ip == IPS["b"] for _, p in host.done(ev.SendProbe, since)), 2.0)
    assert host.path("b").state.value == "suspect"
    without(host, "b")
    world.run(5.0)
    assert [action for _, action in host.done(ev.SetEndpoint, since) if action.peer == key("b")] == []


def test_how_far_an_anchor_is_stays_known_when_policy_lets_it_reach_one_more() -> None:
    world = direct()
    host = world.hosts["a"]
    [network] = host.config.networks
    before = {link.peer.name: link.rtt_s for link in network_of(host).context.anchors.values()}
    assert before["hub0"]
    peers = tuple(replace(p, reaches=p.reaches | {"c"}) if p.is_anchor else p for p in network.peers)
    host.give(ev.Reconfigured(replace(host.config, networks=(replace(network, peers=peers),))))
    world.run(1.0)
    assert {link.peer.name: link.rtt_s for link in network_of(host).context.anchors.values()} == before


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_no_packet_goes_by_a_relay_that_an_operator_has_forbidden_for_longer_than_a_direct_path_is_given(
    end: str
) -> None:
    world = relayed()
    host = world.hosts[end]
    host.give(ev.Override(key("ab".replace(end, "")), "direct"))
    world.talk(RELAY_LINGER_S + 5.0)
    assert world.hosts["hub0"].relays == {}
    assert silences(world.hosts["a"], world.now - 3.0) >= 3.0
    host.give(ev.Override(key("ab".replace(end, "")), ""))
    world.until(lambda: world.states() == RELAYED, 2.0)
    world.talk(2.0)
    assert silences(world.hosts["a"], world.now - 1.0) < 0.5


def test_what_the_inventory_says_of_a_whole_interface_changes_no_path_and_takes_no_word_back() -> None:
    world = direct()
    host, other = pair_of(world)
    host.give(ev.Override(key(other.name), "relay"))
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.run(10.0)
    path, decisions = path_of(host), history(host)
    say(host, mesh_ranges=("10.99.0.0/16",), keepalive_s=17)
    world.talk(5.0)
    assert (path_of(host), history(host)) == (path, decisions)
    assert host.tunnels[key(other.name)].keepalive_s == 17


def test_an_address_that_the_inventory_gives_to_the_mesh_is_offered_to_nobody_and_one_that_it_takes_away_is() -> None:
    world = direct()
    host, other = pair_of(world)

    def offered() -> set[str]:
        world.run(1.0)
        return {c.address.ip for c in path_of(other).work.negotiation.remote._offered.values()}

    assert host.ip in offered()
    ranges = host.config.networks[0].mesh_ranges
    say(host, mesh_ranges=(*ranges, f"{host.ip}/32"))
    assert host.ip not in offered()
    say(host, mesh_ranges=ranges)
    assert host.ip in offered()
    say(other, mesh_ranges=(*ranges, f"{host.ip}/32"))
    assert host.ip not in offered()


def say(host: Host, **settings: object) -> None:
    """The inventory says something else of its interface."""
    networks = (replace(host.config.networks[0], **settings),)  # type: ignore[arg-type]
    host.give(ev.Reconfigured(replace(host.config, networks=networks)))
