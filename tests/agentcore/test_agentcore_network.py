"""What one network's parts hear of each other. Hunted: an anchor that comes, goes or restarts and somebody who is
not told of it, a path where there is none to be, and words that are believed though they come from the wrong one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from agentcore_ends import DIRECT, RELAYED, network_of
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, config_of, pair_of
from agentcore_values import interface, key, peer, transaction

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.config import AgentConfig, node_id
from meshctl.core.agent.negotiation import ANSWERS_BURST
from meshctl.core.agent.path import State
from meshctl.core.agent.peerwork import COMPARE_S
from meshctl.core.agent.stunport import MAX_AWAITED
from meshctl.core.agentcore import AgentCore
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256


def silence_of(world: PairWorld, *names: str) -> None:
    """Nothing gets to these hosts, nor from them."""
    ips = {IPS[name] for name in names}
    world.cut = lambda source, destination: bool({source.ip, destination.ip} & ips)


def hubs_of(world: PairWorld) -> set[str]:
    return {world.hosts[name].path("ba"["ab".index(name)]).relay for name in "ab"}


def probes_to(host: Host, remote: Address, since: float) -> int:
    return sum(action.remote == remote for _, action in host.done(ev.SendProbe, since))  # type: ignore[attr-defined]


# Who has a path


def test_nodes_have_paths_to_nodes_and_links_to_anchors_and_to_clients_neither() -> None:
    peers = (
        peer("a", "b", 11), peer("a", "far", 12, permitted=False), peer("a", "phone", 13, kind="client"),
        peer("a", "hub0", 1, kind="anchor", permitted=False),
    )  # fmt: skip
    core = AgentCore(AgentConfig("a", (interface("a", 10, *peers),)), random.Random(1), 0.0)  # noqa: S311
    assert [status.peer for status in core.paths()] == ["b", "hub0"]


def test_an_anchor_has_no_paths_to_nodes_for_they_come_to_its_own_endpoint() -> None:
    world = PairWorld(hubs=2)
    world.run(3.0)
    core = world.hosts["hub0"].core
    assert core is not None
    assert [status.peer for status in core.paths()] == ["hub1"]
    for name in "ab":
        assert [a for _, a in world.hosts["hub0"].done(ev.SetEndpoint)] == []
        assert world.hosts["hub0"].tunnels[key(name)].endpoint == Address(IPS[name], PORT)


def reconfigured(host: Host, **changes: object) -> None:
    """The host's configuration with this change of the other node's entry."""
    [network] = host.config.networks
    peers = tuple(p if p.is_anchor else replace(p, **changes) for p in network.peers)  # type: ignore[arg-type]
    host.give(ev.Reconfigured(replace(host.config, networks=(replace(network, peers=peers),))))


def test_an_endpoint_of_the_inventory_is_tried_and_again_each_time_the_path_in_use_is_compared_with_others() -> None:
    world, nobody = PairWorld(), Address("198.51.100.77", PORT)
    for name in "ab":
        reconfigured(world.hosts[name], endpoints=(nobody,))
    world.talk(20.0)
    assert world.states() == DIRECT
    assert probes_to(world.hosts[CONTROLLING], nobody, 0.0) > 0
    since = world.now
    world.talk(COMPARE_S)
    assert probes_to(world.hosts[CONTROLLING], nobody, since) > 0
    world.run(20.0)
    since = world.now
    world.run(COMPARE_S)
    assert probes_to(world.hosts[CONTROLLING], nobody, since) == 0, "nothing is sent for a path that nobody uses"


def without_nodes(host: Host) -> None:
    [network] = host.config.networks
    peers = tuple(p for p in network.peers if p.is_anchor)
    host.give(ev.Reconfigured(replace(host.config, networks=(replace(network, peers=peers),))))


@pytest.mark.parametrize("ends", [(CONTROLLING, OTHER), (CONTROLLING,), (OTHER,)])
@pytest.mark.parametrize("change", ["permitted", "peer", "address"])
def test_a_path_that_is_made_anew_is_found_again_though_the_other_end_may_know_of_no_change(
    ends: tuple[str, ...], change: str
) -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.run(5.0)
    hosts = [world.hosts[name] for name in ends]
    for host in hosts:
        if change == "address":
            [b] = [p for p in host.config.networks[0].peers if not p.is_anchor]
            reconfigured(host, mesh_addresses=(*b.mesh_addresses, "10.42.0.99"))
            continue
        reconfigured(host, permitted=False) if change == "permitted" else without_nodes(host)
        assert host.core is not None
        assert [status.peer for status in host.core.paths()] == ["hub0"]
    if change != "address":
        world.run(5.0)
        for host in hosts:
            host.give(ev.Reconfigured(host.config))
    assert world.until(lambda: world.states() == DIRECT, 5.0) < 1.0
    for host in hosts:
        assert host.core is not None
        first = host.core.history(key("ba"["ab".index(host.name)]))[0]
        assert first.reason == "its tunnel works"
        assert host.core.history(key("ba"["ab".index(host.name)]))[-1].after is State.DIRECT
    world.talk(5.0)
    assert world.states() == DIRECT


@pytest.mark.parametrize("ends", [(CONTROLLING, OTHER), (CONTROLLING,), (OTHER,)])
def test_a_relayed_path_that_is_made_anew_is_relayed_again(ends: tuple[str, ...]) -> None:
    world = PairWorld()
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.run(5.0)
    for name in ends:
        reconfigured(world.hosts[name], permitted=False)
    world.run(5.0)
    for name in ends:
        world.hosts[name].give(ev.Reconfigured(world.hosts[name].config))
    assert world.until(lambda: world.states() == RELAYED, 5.0) < 1.0
    world.talk(5.0)
    assert world.states() == RELAYED
    assert world.now - world.hosts["a"].heard[-1][0] < 0.5


# Anchors


def test_agents_that_start_one_after_the_other_find_each_other() -> None:
    world = PairWorld(agents=(CONTROLLING,))
    world.run(30.0)
    world.hosts[OTHER].start()
    assert world.until(lambda: world.states() == DIRECT, 5.0) < 1.5


def test_who_cannot_be_reached_is_asked_for_when_an_anchor_comes_back() -> None:
    world = PairWorld(agents=())
    silence_of(world, "hub0")
    for host in pair_of(world):
        host.start()
    world.run(300.0)
    assert world.states() == ("unknown", "unknown")
    world.together()
    hub_key = key("hub0")
    world.until(lambda: all(h.tunnels[hub_key].handshake_at is not None for h in pair_of(world)), 60.0)
    assert world.until(lambda: world.states() == DIRECT, 60.0) < 3.0


def test_a_relay_whose_anchor_dies_is_left_for_that_of_another_one_within_two_seconds_under_traffic() -> None:
    world = PairWorld(hubs=2)
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.talk(3.0)
    [first] = hubs_of(world)
    dead = {IPS[first], *IPS.values()} - {ip for name, ip in IPS.items() if name.startswith("hub") and name != first}
    world.cut = lambda source, destination: source.ip in dead and destination.ip in dead
    cut_at = world.now
    world.talk(4.0)
    assert hubs_of(world) == {"hub0", "hub1"} - {first}
    heard = [at for at, _ in world.hosts["a"].heard if at > cut_at + 0.1]
    assert heard[0] - cut_at < 2.5


def test_an_anchor_that_restarts_relays_again_for_the_pairs_that_it_has_forgotten() -> None:
    world = PairWorld()
    world.apart("a", "b")
    world.until(lambda: world.states() == RELAYED, 5.0)
    world.talk(3.0)
    hub = world.hosts["hub0"]
    before = dict(hub.relays)
    hub.kill()
    world.talk(2.0)
    hub.relays.clear()
    hub.saved = b""
    hub.start()
    world.talk(20.0)
    assert world.states() == RELAYED
    assert len(hub.relays) == 1
    assert hub.relays != before
    assert world.now - world.hosts["a"].heard[-1][0] < 0.5


def test_an_anchor_in_doubt_is_asked_at_all_its_addresses_and_used_where_it_answers() -> None:
    spare = Address("203.0.113.40", PORT)
    configs = {}
    for name in "ab":
        config = config_of(name, ["hub0"])
        [network] = config.networks
        peers = tuple(replace(p, endpoints=(*p.endpoints, spare)) if p.is_anchor else p for p in network.peers)
        configs[name] = replace(config, networks=(replace(network, peers=peers),))
    world = PairWorld(configs=configs)
    world.run(3.0)
    hub, node = world.hosts["hub0"], world.hosts["a"]
    # The anchor is at its other address alone.
    world.outside[hub.ip] = (spare.ip, 0)
    cut_at = world.now
    for _ in range(40):
        node.ping("hub0")
        world.run(0.1)
    asked = {a.remote for _, a in node.done(ev.SendProbe, cut_at) if isinstance(a, ev.SendProbe)}
    assert {Address(IPS["hub0"], PORT), spare} <= asked
    assert node.path("hub0").endpoint == spare
    assert node.path("hub0").state is State.DIRECT


def test_an_anchor_that_is_silent_at_all_addresses_is_not_up() -> None:
    world = PairWorld()
    world.run(3.0)
    node = world.hosts["a"]
    silence_of(world, "hub0")
    for _ in range(60):
        node.ping("hub0")
        world.run(0.1)
    assert node.path("hub0").state is State.UNKNOWN
    world.together()
    world.run(10.0)
    assert node.path("hub0").state is State.DIRECT


# This node


def test_a_node_that_moves_carries_traffic_again_within_a_second() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.talk(3.0)
    for host in pair_of(world):
        new = f"198.18.{ord(host.name)}.7"
        world.cut = lambda source, destination, old=host.ip: old in (source.ip, destination.ip)  # type: ignore[misc]
        host.ip = new
        moved_at = world.now
        host.tell_addresses()
        world.talk(3.0)
        heard = [at for at, _ in world.hosts["a"].heard if at > moved_at + 0.03]
        assert heard[0] - moved_at < 1.0
        world.talk(20.0)
        assert world.states() == DIRECT


def test_after_a_sleep_tunnels_are_knocked_at_and_paths_come_back() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.talk(1.0)
    world.run(30.0)
    node = world.hosts["a"]
    since = world.now
    node.give(ev.ClockStepped())
    assert [a.mesh_ip for _, a in node.done(ev.SendSignal, since) if isinstance(a, ev.SendSignal)][:1] == ["10.42.0.11"]
    world.run(2.0)
    assert world.states() == DIRECT


def test_an_operators_word_on_a_stranger_changes_nothing() -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.hosts["a"].give(ev.Override(key("nobody"), "relay"))
    world.run(5.0)
    assert world.states() == DIRECT


# Who is believed


class Told(PairWorld):
    """A world where "a" has a `stun:` server besides its anchor, which says whatever it likes."""

    SERVER = Address("203.0.113.99", 3478)

    def __init__(self, says: Address) -> None:
        super().__init__(agents=("b",), configs={"a": config_of("a", ["hub0"], stun_servers=(self.SERVER,))})
        self.asked = 0
        self.says = says
        self.servers[self.SERVER.ip] = self._answer
        self.hosts["a"].start()

    def _answer(self, _source: Address, data: bytes) -> bytes:
        self.asked += 1
        return stun.encode(stun.success_response(stun.decode(data).message, TransportAddress(*self.says)))


@pytest.mark.parametrize("says", [Address("192.0.2.66", 6), Address("10.42.0.9", 51820), Address("127.0.0.1", 1)])
def test_a_stun_server_that_lies_costs_a_few_checks_and_changes_no_path(says: Address) -> None:
    world = Told(says)
    assert world.until(lambda: world.states() == DIRECT, 3.0) < 1.5
    world.talk(30.0, every=0.25)
    assert 1 <= world.asked <= 4
    assert {h.path("ba"["ab".index(h.name)]).endpoint for h in pair_of(world)} == {
        Address(IPS["a"], PORT), Address(IPS["b"], PORT),
    }  # fmt: skip
    astray = [a for _, a in world.hosts["b"].done(ev.SendProbe) if isinstance(a, ev.SendProbe) and a.remote == says]
    assert len(astray) <= 12


def probes(host: Host, since: float) -> list[ev.SendProbe]:
    return [a for _, a in host.done(ev.SendProbe, since) if isinstance(a, ev.SendProbe)]


def test_an_answer_counts_only_from_where_it_was_asked() -> None:
    core = AgentCore(config_of("a", [], stun_servers=(Told.SERVER,)), random.Random(1), 0.0)  # noqa: S311
    core.handle(ev.LocalAddresses((LocalAddress(IPS["a"], 24, "eth0"),)), 0.0)
    core.handle(ev.Wake(), 0.0)
    [probe] = [action for action in iter(core.poll_action, None) if isinstance(action, ev.SendProbe)]
    request = stun.decode(probe.data).message
    answer = stun.encode(stun.success_response(request, TransportAddress("198.51.100.99", 1)))
    core.handle(ev.Datagram(probe.local, Address("192.0.2.9", 9), answer), 0.01)
    core.handle(ev.Wake(), 0.2)
    again = [action for action in iter(core.poll_action, None) if isinstance(action, ev.SendProbe)]
    assert [a.remote for a in again] == [Told.SERVER], "the question stands"


def test_what_is_no_stun_message_or_nobodys_is_dropped_without_a_word() -> None:
    world = PairWorld()
    world.run(3.0)
    node, since = world.hosts["a"], world.now
    local, remote = Address(IPS["a"], PORT), Address("192.0.2.9", 9)
    for data in (b"", b"x" * 2000, bytes(20), stun.encode(stun.Message(stun.Class.REQUEST, bytes(12)))):
        node.give(ev.Datagram(local, remote, data))
        node.give(ev.Signal("10.42.0.1", data))
        node.give(ev.RelayDatagram(40000, remote, data))
    assert node.done(ev.SendProbe, since) == node.done(ev.SendSignal, since) == []


def test_a_check_of_the_peer_is_answered_and_one_of_a_stranger_with_its_name_is_not() -> None:
    world = PairWorld()
    world.run(3.0)
    controlling, other = pair_of(world)
    sent = [p for p in probes(controlling, 0.0) if p.remote == Address(other.ip, PORT)]
    [check] = [p for p in sent if stun.decode(p.data).message.message_class is stun.Class.REQUEST][-1:]
    request = stun.decode(check.data).message
    forged = stun.encode(request._replace(transaction=b"elsewhere..."), b"guessed")
    since = world.now
    other.give(ev.Datagram(Address(other.ip, PORT), Address("192.0.2.66", 6), forged))
    assert probes(other, since) == []
    other.give(ev.Datagram(Address(other.ip, PORT), Address("192.0.2.66", 6), check.data))
    assert probes(other, since) == [], "a check that came before, sent again by somebody"
    assert controlling.core is not None
    network = network_of(controlling)
    credentials = network.paths[node_id(key(OTHER))].work.negotiation.credentials
    assert credentials is not None
    again = request._replace(transaction=transaction(2**16))
    fresh = stun.encode(again, credentials.key, integrity=(MESSAGE_INTEGRITY_SHA256,))
    other.give(ev.Datagram(Address(other.ip, PORT), Address(controlling.ip, PORT), fresh))
    assert [p.remote for p in probes(other, since)] == [Address(controlling.ip, PORT)]


def test_a_peer_that_asks_by_addresses_of_others_has_few_answers_sent_to_them() -> None:
    world = PairWorld()
    world.run(3.0)
    liar, believer = pair_of(world)
    credentials = network_of(liar).paths[node_id(key(OTHER))].work.negotiation.credentials
    assert credentials is not None
    since, asked = world.now, 3 * int(ANSWERS_BURST)
    for number in range(asked):
        name, this = credentials.username, transaction(2**16 + number)
        check = stun.Message(stun.Class.REQUEST, this, username=name, priority=1, ice_controlling=1)
        data = stun.encode(check, credentials.key, integrity=(MESSAGE_INTEGRITY_SHA256,))
        believer.give(ev.Datagram(Address(believer.ip, PORT), Address("192.0.2.66", 1024 + number), data))
    answers = [p for p in probes(believer, since) if p.remote.ip == "192.0.2.66"]
    assert 0 < len(answers) <= ANSWERS_BURST


@pytest.mark.parametrize("seen", ["a", "b"])
def test_a_check_that_comes_from_inside_the_mesh_makes_no_path_through_the_mesh_itself(seen: str) -> None:
    world = PairWorld(hubs=1, outside={IPS[seen]: ("10.42.0.77", 0)})
    world.run(10.0)
    for host in pair_of(world):
        assert not any(action.address.ip.startswith("10.42.") for _, action in host.done(ev.SetEndpoint))
        assert not any(probe.remote.ip.startswith("10.42.") for _, probe in host.done(ev.SendProbe))
    assert world.states() == RELAYED


def test_answers_that_nobody_waits_for_any_more_are_forgotten() -> None:
    world = PairWorld()
    world.run(3.0)
    node = world.hosts["a"]
    assert node.core is not None
    network = network_of(node)
    local, answered = Address(IPS["a"], PORT), []
    for n in range(MAX_AWAITED + 100):
        data = stun.encode(stun.Message(stun.Class.REQUEST, n.to_bytes(12, "big")))
        probe = ev.SendProbe(local, Told.SERVER, data)
        network.context.probe(probe, lambda received, *_: answered.append(received.message.transaction))
    for n in range(MAX_AWAITED + 100):
        request = stun.Message(stun.Class.REQUEST, n.to_bytes(12, "big"))
        reply = stun.encode(stun.success_response(request, TransportAddress("192.0.2.1", 1)))
        network.datagram(ev.Datagram(local, Told.SERVER, reply), world.now)
    assert answered == [n.to_bytes(12, "big") for n in range(100, MAX_AWAITED + 100)]


# Keys that are rotated


def other_key_of_its_own(host: Host) -> None:
    [network] = host.config.networks
    host.give(ev.Reconfigured(replace(host.config, networks=(replace(network, public_key=key("rotated")),))))


def other_key_of_the_peer(host: Host) -> None:
    reconfigured(host, public_key=key("rotated"), pair_key=bytes(32))


@pytest.mark.parametrize("rotate", [other_key_of_its_own, other_key_of_the_peer])
def test_a_path_between_nodes_that_have_rotated_a_key_is_known_as_after_a_restart(
    rotate: Callable[[Host], None]
) -> None:
    world = PairWorld()
    world.until(lambda: world.states() == DIRECT, 3.0)
    world.run(5.0)
    host = world.hosts["a"]
    [was] = network_of(host).kept_paths()
    rotate(host)
    [path] = [path for path in network_of(host).paths.values() if path.peer.name == "b"]
    assert path.peer.public_key == (key("b") if rotate is other_key_of_its_own else key("rotated"))
    assert was.pair.remote in [c.address for c in path.work.negotiation.remote.all()]
