"""Where an anchor's relays are reached. Hunted: a pair that is not relayed though both ends reach the anchor, and an
address to which no tunnel may lead, because an anchor names it."""

from __future__ import annotations

import pytest
from agentcore_ends import RELAYED, endpoints, network_of, relayed
from agentcore_pair import IPS, OTHER, PORT, PairWorld
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.anchorlink import AnchorLink
from meshctl.core.agent.bodies import TOKEN_BYTES, RelayGrant
from meshctl.core.agent.config import node_id
from meshctl.core.agent.path import Trigger
from meshctl.core.agent.relayserver import PORTS

INNER, OUTER, ELSEWHERE = "172.31.0.10", IPS["hub0"], "203.0.113.99"
RELAY = PORTS[7]


def behind_nat() -> PairWorld:
    """The anchor has an address of its own that nobody reaches: a router maps all ports of another one to it."""
    world = PairWorld(agents=())
    hub = world.hosts["hub0"]
    hub.ip, world.outside = INNER, {INNER: (OUTER, 0)}
    hub.tell_addresses()
    world.apart("a", "b")
    for name in "ab":
        world.hosts[name].start()
    return world


def test_an_anchor_behind_one_to_one_nat_relays_at_the_address_by_which_it_is_reached() -> None:
    world = behind_nat()
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.talk(2.0)
    assert len(world.hosts["a"].heard) >= 19
    for name in "ab":
        assert {place.ip for place in endpoints(world.hosts[name])} == {OUTER}
        probes = [a for _, a in world.hosts[name].done(ev.SendProbe) if isinstance(a, ev.SendProbe)]
        assert INNER not in {probe.remote.ip for probe in probes}


def test_such_a_relay_is_known_as_one_by_an_agent_that_was_restarted() -> None:
    world = behind_nat()
    world.until(lambda: world.states() == RELAYED, 5.0)
    node, since = world.hosts["a"], world.now
    node.kill()
    node.start()
    world.run(0.01)
    assert node.path("b").relay == "hub0"
    world.until(lambda: world.states() == RELAYED, 5.0)
    assert node.core is not None
    assert Trigger.ADOPTED not in [d.trigger for d in node.core.history(key("b")) if d.at >= since]


@pytest.mark.parametrize(("granted", "used", "written", "reached"), [
    (INNER, OUTER, (OUTER,), OUTER),
    (INNER, OUTER, (), OUTER),  # WireGuard sends where its peer answers, whatever is written
    (INNER, None, (OUTER,), OUTER),  # it was not read yet
    (INNER, "2001:db8::1", ("2001:db8::1", OUTER), OUTER),
    ("fd00::10", "2001:db8::1", ("2001:db8::1",), "2001:db8::1"),
    (INNER, INNER, (INNER,), INNER),  # a lab
    (INNER, INNER, (OUTER,), INNER),
    ("10.0.0.2", "10.0.0.1", ("10.0.0.1",), "10.0.0.1"),
    (INNER, "2001:db8::1", ("2001:db8::1",), INNER),  # it is not known to be reached by IPv4 elsewhere
    (ELSEWHERE, OUTER, (OUTER,), ELSEWHERE),  # an address of its own that is public leads there
])  # fmt: skip
def test_of_a_relay_at_a_private_address_it_counts_by_which_its_anchor_is_reached(
    granted: str, used: str | None, written: tuple[str, ...], reached: str
) -> None:
    world = relayed()
    [link] = network_of(world.hosts["a"]).context.anchors.values()
    link = AnchorLink(link.peer)
    link.set_endpoints(tuple(Address(ip, PORT) for ip in written))
    if used is not None:
        link.sample(ev.PeerStatus(link.peer.public_key, Address(used, PORT), 1.0, 0, 0, 25), world.now)
    assert link.relay_at(Address(granted, RELAY)) == Address(reached, RELAY)
    if used is not None:
        assert link.relays_at(Address(used, RELAY))


NOBODYS = ["10.42.0.1", "127.0.0.1", "224.0.0.1", "0.0.0.0"]  # noqa: S104 - the first is the mesh's


def grant(world: PairWorld, *places: str) -> None:
    """The anchor grants both ends a relay there, and says so to one of them."""
    network = network_of(world.hosts["hub0"])
    peer = next(p for p in network.config.peers if p.name == OTHER)
    other = "ab".replace(OTHER, "")
    relay = tuple(Address(ip, RELAY) for ip in places)
    network.signalling.say(peer, RelayGrant(node_id(key(other)), relay, bytes(TOKEN_BYTES), 600), world.now)
    world.hosts["hub0"].give(ev.Wake())
    world.talk(1.0)


@pytest.mark.parametrize("ip", NOBODYS)
def test_a_relay_at_an_address_that_is_nobodys_endpoint_is_none(ip: str) -> None:
    world = relayed()
    node, since = world.hosts[OTHER], world.now
    grant(world, ip)
    assert RELAY not in {a.remote.port for _, a in node.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)}
    assert endpoints(node, since) == []
    assert world.states() == RELAYED
    assert network_of(node).paths[node_id(key("ab".replace(OTHER, "")))].work.relay.ready is not None


def test_of_a_relays_addresses_those_that_are_nobodys_endpoint_are_left_out() -> None:
    world = relayed()
    node, since = world.hosts[OTHER], world.now
    grant(world, ELSEWHERE, "ff02::1")
    probes = [a for _, a in node.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    assert {probe.remote.ip for probe in probes if probe.remote.port == RELAY} == {ELSEWHERE}
    work = network_of(node).paths[node_id(key("ab".replace(OTHER, "")))].work
    assert not work.relay.is_at(Address("ff02::1", RELAY))


def test_an_endpoint_inside_the_mesh_is_not_adopted_and_nothing_is_sent_there() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == ("direct", "direct"), 5.0)
    node, inside = world.hosts["a"], Address("10.42.0.11", PORT)
    node.kill()
    node.tunnels[key("b")].endpoint = inside
    node.start()
    since = world.now
    world.run(5.0)
    assert node.core is not None
    assert [d.trigger for d in node.core.history(key("b")) if d.at >= since][:1] == [Trigger.SESSION]
    assert inside not in [a.remote for _, a in node.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    assert world.states() == ("direct", "direct")


def test_where_wireguard_sends_into_the_mesh_itself_nothing_is_checked() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == ("direct", "direct"), 5.0)
    node, inside, since = world.hosts["a"], Address("10.42.0.11", PORT), world.now
    node.tunnels[key("b")].endpoint = inside
    world.run(5.0)
    assert inside not in [a.remote for _, a in node.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]
    assert endpoints(node, since)[-1:] == [Address(IPS["b"], PORT)]
