"""Who hears of what in a network. Hunted: somebody who waits for the next try, a minute away, though what he waits for
has happened; and a path that is doubted, or is not, when this node is seen elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agentcore_ends import network_of
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, pair_of
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.anchorduty import AGAIN_S, TIMES
from meshctl.core.agent.anchorlink import ASK_LONGEST_S
from meshctl.core.agent.bodies import TOKEN_BYTES, Body, MessageType, Observation, Observed, RelayGrant
from meshctl.core.agent.config import node_id
from meshctl.core.agent.gatherer import REFRESH_S
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S, IDLE_SAMPLE_S
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.agent.signal import peek
from meshctl.core.agent.silence import NEXT_S

DIRECT, RELAYED, UNKNOWN = ("direct", "direct"), ("relayed", "relayed"), ("unknown", "unknown")
HUB = Address(IPS["hub0"], PORT)
ID = {name: node_id(key(name)) for name in IPS}
# What no repetition explains: the first one of anything comes later.
AT_ONCE_S = 1.0


def silent(world: PairWorld, *names: str, apart: bool = False) -> None:
    """Nothing gets to these hosts, nor from them; `apart`: nor from one node to the other."""
    dead, nodes = {IPS[name] for name in names}, {IPS["a"], IPS["b"]}
    world.cut = lambda source, destination: bool(
        {source.ip, destination.ip} & dead or (apart and {source.ip, destination.ip} == nodes)
    )


def direct() -> PairWorld:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 5.0)
    world.run(5.0)
    return world


def relayed(*, hubs: int = 1) -> PairWorld:
    world = PairWorld(hubs=hubs)
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.run(5.0)
    return world


def triggers(host: Host, since: float) -> set[Trigger]:
    assert host.core is not None
    return {d.trigger for d in host.core.history(key("ab".replace(host.name, ""))) if d.at >= since}


def asked(host: Host, since: float, *remotes: Address) -> list[float]:
    """When these were asked something by STUN."""
    sent = host.done(ev.SendProbe, since)
    return [at for at, probe in sent if isinstance(probe, ev.SendProbe) and probe.remote in remotes]


def said(host: Host, to: str, since: float) -> list[MessageType]:
    """What it said to that agent from then on."""
    sent = [a for _, a in host.done(ev.SendSignal, since) if isinstance(a, ev.SendSignal)]
    headers = [peek(a.data) for a in sent]
    return [header.kind for header in headers if (header.source, header.destination) == (ID[host.name], ID[to])]


def happens(host: Host, event: str) -> None:
    """It has another address, or it has slept."""
    if event == "move":
        host.ip = "198.18.7.7"
        host.tell_addresses()
    else:
        host.give(ev.ClockStepped())


def up(host: Host, anchor: str) -> bool:
    return host.path(anchor).state is State.DIRECT


# Anchors


@pytest.mark.parametrize("event", ["move", "sleep"])
def test_an_anchor_that_was_dead_is_asked_again_and_again_when_this_node_has_moved_or_slept(event: str) -> None:
    world = direct()
    node = world.hosts["a"]
    silent(world, "hub0")
    node.ping("hub0")
    world.run(200.0)
    last = asked(node, 0.0, HUB)[-1]
    world.run(max(0.0, last + 5.0 - world.now))
    happened = world.now
    happens(node, event)
    world.run(10.0)
    series = [at for at in asked(node, happened, HUB) if at > happened + 2.5]
    assert series, f"not only once, and then {ASK_LONGEST_S} s later"


def test_wireguard_chooses_its_source_towards_anchors_anew_when_this_node_has_moved() -> None:
    world = direct()
    node, since = world.hosts["a"], world.now
    assert not [a for _, a in node.done(ev.SetEndpoint, since)]
    happens(node, "move")
    assert ev.SetEndpoint(key("hub0"), HUB) in [a for _, a in node.done(ev.SetEndpoint, since)]


def test_who_cannot_be_reached_is_asked_for_at_once_when_an_anchors_link_comes_back() -> None:
    world = PairWorld(agents=("a",))
    node = world.hosts["a"]
    world.run(300.0)
    silent(world, "hub0")
    node.ping("hub0")
    world.run(20.0)
    assert not up(node, "hub0")
    world.together()
    world.until(lambda: up(node, "hub0"), 2 * ASK_LONGEST_S)
    since = world.now - 0.05
    world.run(0.1)
    assert MessageType.HELLO in said(node, "b", since)


def test_nodes_that_were_cut_off_from_all_are_relayed_again_as_soon_as_their_anchors_link_is_back() -> None:
    world = relayed()
    silent(world, "hub0", apart=True)
    world.talk(400.0, every=1.0)
    assert world.states() == UNKNOWN
    silent(world, apart=True)
    world.until(lambda: all(up(host, "hub0") for host in pair_of(world)), 2 * ASK_LONGEST_S)
    world.until(lambda: world.states() == RELAYED, AT_ONCE_S)


@pytest.mark.parametrize("before_s", [0.01, 0.06, 0.12])
def test_an_agent_that_starts_right_after_its_anchor_has_asked_for_it_has_its_relay_as_soon_as_another(
    before_s: float,
) -> None:
    world = PairWorld(agents=(OTHER,))
    world.apart("a", "b")
    world.run(5.0)
    hub, late = world.hosts["hub0"], world.hosts[CONTROLLING]
    network_of(hub)._dispatcher.ask(hub.peers[key(CONTROLLING)], world.now, opened=True)
    hub.give(ev.Wake())  # which sets the timer
    world.run(0.0)
    assert said(hub, CONTROLLING, world.now) == [MessageType.HELLO]
    world.run(before_s)
    late.start()
    assert world.until(lambda: world.states() == RELAYED, 5.0) < AT_ONCE_S / 2


def test_who_cannot_be_reached_is_asked_for_at_once_when_an_anchors_agent_starts() -> None:
    world = PairWorld()
    hub = world.hosts["hub0"]
    hub.kill()
    world.run(420.0)
    assert world.states() == UNKNOWN
    since = world.now
    hub.start()
    world.run(0.5)
    for node, other in (pair_of(world), pair_of(world)[::-1]):
        assert MessageType.HELLO in said(node, other.name, since)
    world.until(lambda: world.states() == DIRECT, AT_ONCE_S)


def test_whose_path_works_is_left_alone_when_an_anchors_link_comes_back() -> None:
    world = direct()
    node, other = pair_of(world)
    silent(world, "hub0")
    node.ping("hub0")
    world.run(30.0)
    assert not up(node, "hub0")
    assert world.states() == DIRECT
    world.together()
    since = world.now
    world.until(lambda: up(node, "hub0"), 2 * ASK_LONGEST_S)
    world.run(AT_ONCE_S)
    assert MessageType.HELLO in said(node, "hub0", since)
    assert MessageType.HELLO not in said(node, other.name, since) + said(other, node.name, since)


def test_an_anchor_that_comes_up_gets_the_relay_that_is_kept_warm() -> None:
    world = PairWorld(hubs=2)
    silent(world, "hub1", apart=True)
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.run(60.0)
    assert world.hosts["hub1"].relays == {}
    silent(world, apart=True)
    world.until(lambda: all(up(host, "hub1") for host in pair_of(world)), 2 * ASK_LONGEST_S)
    world.run(AT_ONCE_S)
    assert len(world.hosts["hub1"].relays) == 1


def test_an_anchors_new_agent_that_has_forgotten_its_relays_is_asked_for_them_at_once() -> None:
    world = relayed()
    hub = world.hosts["hub0"]
    hub.kill()
    hub.relays.clear()
    hub.saved = b""
    hub.start()
    world.until(lambda: len(hub.relays) == 1, 3 * AT_ONCE_S)


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_an_anchor_tells_a_nodes_new_agent_at_once_of_its_relays_and_where_it_sees_it(end: str) -> None:
    world = relayed()
    world.run(60.0)
    node, hub = world.hosts[end], world.hosts["hub0"]
    node.kill()
    node.start()
    started = world.now
    world.run(AT_ONCE_S)
    assert {MessageType.RELAY_GRANT, MessageType.OBSERVED} <= set(said(hub, end, started))
    assert asked(node, started, *(Address(hub.ip, port) for port in hub.relays))
    world.run(2.0**TIMES * AGAIN_S)
    assert said(hub, end, started).count(MessageType.OBSERVED) == TIMES


# This node


@pytest.mark.parametrize("event", ["move", "sleep"])
def test_each_anchor_hears_from_a_node_that_has_moved_or_slept_through_its_tunnel(event: str) -> None:
    world = PairWorld(hubs=2, agents=("a",))
    world.run(30.0)
    node, since = world.hosts["a"], world.now
    happens(node, event)
    world.run(0.1)
    assert MessageType.HELLO in said(node, "hub0", since)
    assert MessageType.HELLO in said(node, "hub1", since)


def behind_a_nat() -> tuple[PairWorld, Host]:
    """A node that tries out how long its NAT keeps mappings, with two open ports."""
    world = PairWorld(agents=())
    node = world.hosts["a"]
    node.ip = "192.168.1.10"
    world.outside[node.ip] = (IPS["a"], 0)
    node.start()
    world.run(NEXT_S + 2.0)
    opened = [action.ports for _, action in node.done(ev.OpenPorts) if isinstance(action, ev.OpenPorts)]
    assert [len(ports) for ports in opened] == [2]
    return world, node


@pytest.mark.parametrize("leaves", ["hub0", "b"])
def test_what_is_tried_out_with_an_anchor_ends_when_that_leaves_and_not_when_another_does(leaves: str) -> None:
    world, node = behind_a_nat()
    [network] = node.config.networks
    since, peers = world.now, tuple(p for p in network.peers if p.name != leaves)
    node.give(ev.Reconfigured(replace(node.config, networks=(replace(network, peers=peers),))))
    closed = [ev.OpenPorts(key("hub0"), ())] if leaves == "hub0" else []
    assert [action for _, action in node.done(ev.OpenPorts, since)] == closed


@pytest.mark.parametrize("event", ["move", "sleep"])
def test_what_is_tried_out_with_the_nat_ends_when_this_node_has_moved_or_slept(event: str) -> None:
    world, node = behind_a_nat()
    since = world.now
    happens(node, event)
    assert [action for _, action in node.done(ev.OpenPorts, since)] == [ev.OpenPorts(key("hub0"), ())]


def test_after_a_sleep_the_path_in_use_is_doubted() -> None:
    world = direct()
    world.run(30.0)
    node, since = world.hosts["a"], world.now
    node.give(ev.ClockStepped())
    world.run(AT_ONCE_S)
    assert triggers(node, since) == {Trigger.DISTRESS, Trigger.ANSWERED}
    assert world.states() == DIRECT


@pytest.mark.parametrize("end", [CONTROLLING, OTHER])
def test_who_is_seen_elsewhere_is_so_by_the_peers_wireguard_too_though_nobody_uses_the_path(end: str) -> None:
    world = direct()
    world.outside[IPS[end]] = seen = Address("198.51.100.77", 7)
    world.hosts[end].tell_addresses()  # it asks where it is seen
    world.until(lambda: Trigger.DISTRESS in triggers(world.hosts[end], world.now - 1.0), 2.0)
    world.run(0.2)
    there = world.hosts["ab".replace(end, "")].tunnels[key(end)]
    assert there.endpoint == Address(seen.ip, PORT + seen.port)


def test_one_address_more_is_told_and_tried_and_no_path_is_doubted() -> None:
    world = direct()
    node, other, since = world.hosts["a"], world.hosts["b"], world.now
    more = Address("203.0.113.77", 7)
    network_of(node).mapped([(more, Address(node.ip, PORT), world.now + 600.0)], world.now)
    node.give(ev.Wake())
    world.run(AT_ONCE_S)
    assert said(node, other.name, since) == [MessageType.OFFER]
    assert more in {
        c.address for c in network_of(other).paths[network_of(node).config.id].work.negotiation.remote.all()
    }
    assert said(node, "hub0", since) == []
    assert triggers(node, since) == set()


# Sessions


def test_agents_that_had_lost_each_other_and_answer_again_find_their_path_again() -> None:
    world = direct()
    silent(world, "a", "b", "hub0")
    world.talk(300.0, every=1.0)
    assert world.states() == UNKNOWN
    world.together()
    world.until(lambda: world.states() == DIRECT, 2 * ASK_LONGEST_S)


# Who is believed

SEEN, SEEN6, OWN6 = Address("203.0.113.77", 7), Address("2a00:77::1", 7), "2a00:1::1"


def say(host: Host, to: str, body: Body) -> None:
    """A message of that agent, authentic and through the tunnel."""
    network = network_of(host)
    peer = next(peer for peer in network.config.peers if peer.name == to)
    network.signalling.say(peer, body, host.world.now)
    host.give(ev.Wake())
    host.world.run(0.1)


@pytest.mark.parametrize(("speaker", "about", "address", "believed"), [
    ("hub0", "a", SEEN, True), ("hub0", "b", SEEN, False), ("b", "a", SEEN, False), ("hub0", "a", SEEN6, False),
])  # fmt: skip
def test_only_an_anchor_tells_a_node_where_it_is_seen_and_only_in_the_family_in_which_it_hears_it(
    speaker: str, about: str, address: Address, believed: bool
) -> None:
    world = direct()
    node = world.hosts["a"]
    node.give(ev.LocalAddresses((LocalAddress(node.ip, 24, "eth0"), LocalAddress(OWN6, 64, "eth0"))))
    world.run(1.0)
    since = world.now
    say(world.hosts[speaker], "a", Observed((Observation(ID[about], address, 1),)))
    offered = {offer.address for offer in network_of(node).context.own.offered()}
    assert Address(OWN6, PORT) in offered
    assert (address in offered) is believed
    assert (MessageType.OFFER in said(node, "b", since)) is believed


@pytest.mark.parametrize(("age_s", "believed"), [(IDLE_HANDSHAKE_MAX_S - 1, True), (IDLE_HANDSHAKE_MAX_S + 1, False)])
def test_where_an_anchor_saw_a_node_before_its_keys_ended_says_nothing_of_the_present(
    age_s: float, believed: bool
) -> None:
    world = direct()
    seen, since = Address("198.18.9.9", 4444), world.now
    say(world.hosts["hub0"], "a", Observed((Observation(ID["a"], seen, int(age_s)),)))
    assert (seen in {offer.address for offer in network_of(world.hosts["a"]).context.own.offered()}) is believed
    assert (Trigger.DISTRESS in triggers(world.hosts["a"], since)) is believed


@pytest.mark.parametrize(("speaker", "believed"), [("hub0", True), (CONTROLLING, False)])
def test_only_an_anchor_grants_relays(speaker: str, believed: bool) -> None:
    world = relayed()
    node, relay = world.hosts[OTHER], Address("203.0.113.77", RELAY_PORTS[7])
    since = world.now
    say(world.hosts[speaker], OTHER, RelayGrant(ID[CONTROLLING], (relay,), bytes(TOKEN_BYTES), 600))
    assert bool(asked(node, since, relay)) is believed


def test_an_anchor_that_is_farther_away_than_it_was_is_told_to_be() -> None:
    world = relayed()
    node = world.hosts["a"]
    [path] = network_of(node).paths.values()
    [near] = path.work.relay.distances()
    world.delay_s = 0.2
    world.run(REFRESH_S + 60.0)
    [far] = path.work.relay.distances()
    assert near.rtt_ms < 50 < far.rtt_ms
    assert network_of(world.hosts["b"]).paths[ID["a"]].work.offer.relays == (far,)


@pytest.mark.parametrize("asks", ["a", "b"])
def test_where_no_anchor_is_agents_meet_as_soon_as_their_tunnel_is_up(asks: str) -> None:
    """By an endpoint that is written down, say."""
    world = PairWorld(hubs=0)
    world.run(60.0)
    assert world.states() == UNKNOWN
    (tunnel,) = world.hosts[asks].tunnels.values()
    tunnel.endpoint = Address(IPS["ab".replace(asks, "")], PORT)
    world.hosts[asks].ping("ab".replace(asks, ""))
    world.until(lambda: world.states() == DIRECT, IDLE_SAMPLE_S + 2 * AT_ONCE_S)


def test_a_tunnel_that_comes_up_while_anchors_forward_nothing_is_the_way_to_its_agent() -> None:
    world = PairWorld()
    hub = IPS["hub0"]
    world.cut = lambda source, destination: hub in (source.ip, destination.ip)
    world.run(60.0)
    (tunnel,) = (t for known, t in world.hosts["a"].tunnels.items() if known == key("b"))
    tunnel.endpoint = Address(IPS["b"], PORT)
    world.hosts["a"].ping("b")
    world.until(lambda: world.states() == DIRECT, IDLE_SAMPLE_S + 2 * AT_ONCE_S)
