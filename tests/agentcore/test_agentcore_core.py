"""The whole core, driven as a service would. Hunted: a timer in the past, one that spins, a stranger who makes it
remember without an end, and an event that is lost without a word."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from agentcore_pair import CONTROLLING, IPS, OTHER, PORT, Host, PairWorld, config_of
from agentcore_values import SESSION, interface, key, peer

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress, NamedEndpoint
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.config import AgentConfig, node_id
from meshctl.core.agent.liveness import BUSY_S, SAMPLE_S
from meshctl.core.agent.path import State
from meshctl.core.agent.resolver import DEAD_S
from meshctl.core.agent.router import BURST
from meshctl.core.agent.state import Kept, KeptEnd, KeptPath, KeptRelay, dump, load
from meshctl.core.agent.stunclient import anchor_server
from meshctl.core.agentcore import IDLE_SAMPLE_S, AgentCore
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

HERE = ev.LocalAddresses((LocalAddress("198.51.100.1", 24, "eth0"),))


def drained(core: AgentCore) -> list[ev.Action]:
    return list(iter(core.poll_action, None))


def alone() -> AgentCore:
    core = AgentCore(config_of("a", ["hub0"]), random.Random(1), 0.0)  # noqa: S311
    core.handle(HERE, 0.0)
    return core


@dataclass(frozen=True)
class Strange(ev.Event):
    """Of a version to come."""


def test_an_event_that_the_core_does_not_know_raises() -> None:
    with pytest.raises(KeyError):
        alone().handle(Strange(), 0.0)


def test_at_its_start_it_wants_to_know_what_wireguard_shows() -> None:
    core = AgentCore(config_of("a", ["hub0"]), random.Random(1), 0.0)  # noqa: S311
    assert drained(core) == [ev.PollWg()]
    assert {p.state for p in core.paths()} == {State.UNKNOWN}


def test_woken_before_its_time_it_does_nothing() -> None:
    world = PairWorld()
    for _ in range(40):
        world.run(0.05)
        for host in world.hosts.values():
            core = host.core
            assert core is not None
            due = core.poll_timeout()
            assert due is not None
            core.handle(ev.Wake(), world.now)
            assert drained(core) == []
            assert core.poll_timeout() == due


def test_after_a_wake_no_timer_is_in_the_past_whatever_happens() -> None:
    world = PairWorld(hubs=2, outside={IPS["a"]: ("198.51.100.200", 0)})
    for step in range(300):
        if step == 60:
            world.apart("a", "b")
        if step == 120:
            world.hosts["hub0"].kill()
            world.outside[IPS["a"]] = ("198.51.100.200", 7)
        if step == 180:
            world.together()
            world.hosts["b"].give(ev.ClockStepped())
        if step % 3 == 0:
            world.hosts["a"].ping("b")
        world.run(0.1)
        for name, host in world.hosts.items():
            due = host.core.poll_timeout() if host.core is not None else None
            assert due is None or due[0] > world.now, f"{name}: {due}"
            assert due is None or due[1], "a reason"


def test_late_wakes_are_made_up_for_at_once() -> None:
    world = PairWorld()
    world.run(3.0)
    core = world.hosts["a"].core
    assert core is not None
    now = world.now + 3600.0
    for _ in range(20):
        core.handle(ev.Wake(), now)
        drained(core)
    due = core.poll_timeout()
    assert due is not None
    assert due[0] > now


def test_counters_are_read_often_while_a_path_is_used_and_rarely_when_none_is() -> None:
    world = PairWorld()
    world.run(3.0)
    world.talk(5.0)
    used = [at for at, _ in world.hosts["a"].done(ev.PollWg, world.now - 4.0)]
    world.run(BUSY_S + 1.0)
    start = world.now
    world.run(10.0)
    idle = [at for at, _ in world.hosts["a"].done(ev.PollWg, start)]
    assert len(used) == pytest.approx(4.0 / SAMPLE_S, abs=2)
    assert len(idle) == pytest.approx(10.0 / IDLE_SAMPLE_S, abs=2)


def test_idle_nodes_say_nothing_to_each_other_and_to_a_silent_anchor_one_message_in_a_minute() -> None:
    world = PairWorld()
    world.run(150.0)
    start = world.now
    world.run(60.0)
    for name in "ab":
        probes = world.hosts[name].done(ev.SendProbe, start)
        assert len(probes) <= 2, probes
        # Whoever has no keys any more, after a restart, shows so by not answering in the tunnel.
        [(_, knock)] = world.hosts[name].done(ev.SendSignal, start)
        assert isinstance(knock, ev.SendSignal)
        assert knock.mesh_ip == "10.42.0.1"


def test_what_it_said_to_save_is_what_the_next_agent_starts_with_and_saves_no_more_until_it_changes() -> None:
    world = PairWorld()
    world.run(3.0)
    for name in "ab":
        saved = world.hosts[name].done(ev.SaveState)
        assert len({action.data for _, action in saved if isinstance(action, ev.SaveState)}) == len(saved)


def test_every_peer_with_an_agent_is_shown_by_network_and_name() -> None:
    world = PairWorld(hubs=2)
    world.run(3.0)
    core = world.hosts["a"].core
    assert core is not None
    shown = [(p.network, p.peer, p.state, p.endpoint) for p in core.paths()]
    assert shown == [
        ("corp", "b", State.DIRECT, Address(IPS["b"], PORT)),
        ("corp", "hub0", State.DIRECT, Address(IPS["hub0"], PORT)),
        ("corp", "hub1", State.DIRECT, Address(IPS["hub1"], PORT)),
    ]


def test_decisions_are_remembered_with_their_reasons_and_of_a_stranger_there_are_none() -> None:
    world = PairWorld()
    world.run(3.0)
    core = world.hosts["a"].core
    assert core is not None
    decisions = core.history(key("b"))
    assert decisions[-1].after is State.DIRECT
    assert all(d.reason for d in decisions)
    assert core.history(key("nobody")) == ()


def test_a_name_is_asked_for_and_its_addresses_are_where_the_anchor_is_asked() -> None:
    name = NamedEndpoint("hub0.example", PORT)
    config = config_of("a", ["hub0"])
    network = config.networks[0]
    peers = tuple(replace(p, endpoints=(name,)) if p.is_anchor else p for p in network.peers)
    core = AgentCore(replace(config, networks=(replace(network, peers=peers),)), random.Random(1), 0.0)  # noqa: S311
    core.handle(HERE, 0.0)
    core.handle(ev.Wake(), 0.0)
    assert ev.Resolve(name) in drained(core)
    core.handle(ev.Resolved(name, (Address("203.0.113.1", PORT),)), 0.01)
    core.handle(ev.Wake(), 0.01)
    probes = [action for action in drained(core) if isinstance(action, ev.SendProbe)]
    assert {probe.remote for probe in probes} == {Address("203.0.113.1", PORT)}


def test_a_name_is_asked_for_again_after_a_minute_while_its_peer_is_reached_in_no_way() -> None:
    config = config_of("a", ["hub0"])
    [network] = config.networks
    name = NamedEndpoint("anchor.example", PORT)
    peers = tuple(replace(p, endpoints=(name,)) if p.is_anchor else p for p in network.peers)
    config = replace(config, networks=(replace(network, peers=peers),))
    for age, asked in ((None, True), (1.0, False)):
        core = AgentCore(config, random.Random(1), 0.0)  # noqa: S311
        core.handle(ev.Wake(), 0.0)
        core.handle(ev.Resolved(name, (Address(IPS["hub0"], PORT),)), 0.0)
        core.handle(ev.WgStatus((ev.PeerStatus(key("hub0"), None, age, 0, 0, 25),)), 1.0)
        drained(core)
        core.handle(ev.Wake(), DEAD_S)
        assert (ev.Resolve(name) in drained(core)) is asked


# Strangers

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


def elements(root: object) -> int:
    """Of all containers that can be reached from there."""
    seen: set[int] = set()
    waiting, count = [root], 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)) or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, _CONTAINERS):
            waiting += thing
        elif hasattr(thing, "__dict__"):
            waiting += vars(thing).values()
        count += len(thing) if isinstance(thing, _CONTAINERS) else 0
    return count


FORGERS = 10_000


def forged(name: str, recorded: list[ev.Signal]) -> Iterator[ev.Event]:
    """What strangers send, and what a peer of bad will makes of what it has recorded."""
    dice = random.Random(3)  # noqa: S311
    anchor = name.startswith("hub")
    question = f"node:{node_id(key('a')).hex()}:{SESSION.hex()}"
    usernames = ["", question, "node:zz", *(f"{n:016x}:{n:016x}" for n in range(3))]
    for n in range(FORGERS):
        remote = Address(f"192.0.2.{n % 250 + 1}", 1024 + n)
        transaction = dice.getrandbits(96).to_bytes(12, "big")
        cls = stun.Class.REQUEST if n % 3 else stun.Class.SUCCESS
        message = stun.Message(cls, transaction, username=usernames[n % len(usernames)] or None, priority=n)
        data = stun.encode(message, b"guessed", integrity=(MESSAGE_INTEGRITY_SHA256,))
        local = Address(IPS[name], PORT)
        if n % 4 == 0:
            yield ev.Signal(dice.choice(["10.42.0.1", "10.42.0.10", "10.42.0.11", "10.9.9.9"]), dice.randbytes(n % 200))
        elif n % 4 == 1 and recorded:
            old = recorded[n % len(recorded)]
            at = 4 + n % (len(old.data) - 4)
            yield ev.Signal(old.from_mesh_ip, old.data[:at] + bytes([old.data[at] ^ 1 + n % 255]) + old.data[at + 1 :])
        elif n % 4 == 2 and anchor:
            yield ev.RelayDatagram(40000 + n % 10_000, remote, data)
        else:
            yield ev.Datagram(local, remote, data if n % 5 else data[: n % len(data)])


@pytest.mark.parametrize("name", [CONTROLLING, "hub0"])
def test_ten_thousand_forged_messages_change_no_path_and_are_not_remembered(name: str) -> None:
    world = PairWorld()
    host = world.hosts[name]
    recorded: list[ev.Signal] = []
    give = host.give
    host.give = lambda event: (recorded.append(event) if isinstance(event, ev.Signal) else None, give(event))[1]  # type: ignore[method-assign]
    world.run(5.0)
    core = host.core
    assert core is not None
    before, states, sent = elements(core), core.paths(), 0
    assert recorded
    for event in forged(name, recorded):
        core.handle(event, world.now)
        sent += len(drained(core))
    assert core.paths() == states
    assert sent <= 2 * BURST, "which is what an anchor hands on at most, unread"
    assert elements(core) < before + 200


# The end


def test_at_its_end_it_gives_back_what_it_holds() -> None:
    world = PairWorld()
    world.apart("a", "b")
    world.run(3.0)
    hub = world.hosts["hub0"]
    assert len(hub.relays) == 1
    for name in (CONTROLLING, OTHER):
        world.hosts[name].stop()
    world.run(0.1)
    assert hub.relays == {}


@pytest.mark.parametrize(("name", "standing"), [("b", True), ("hub0", False), ("gone", False)])
def test_the_splice_of_who_has_no_path_any_more_is_taken_away_at_the_start(name: str, standing: bool) -> None:
    pair = Pair(Address("198.51.100.1", 12345), Address("192.0.2.2", PORT))
    paths = (KeptPath(key(name), pair, True), KeptPath(key("another"), pair, False))
    core = AgentCore(config_of("a", ["hub0"]), random.Random(1), 0.0, dump(Kept(paths=paths)))  # noqa: S311
    done = [action for action in drained(core) if isinstance(action, (ev.InstallSplice, ev.RemoveSplice, ev.OpenPorts))]
    if standing:
        assert done == [ev.OpenPorts(key(name), (12345,)), ev.InstallSplice(key(name), pair.remote, 12345)]
    else:
        assert done == [ev.RemoveSplice(key(name), pair.remote, 12345), ev.OpenPorts(key(name), ())]


# An anchor whose configuration is another one


def relaying() -> tuple[PairWorld, Host]:
    """The two nodes, relayed by the anchor."""
    world = PairWorld()
    world.apart("a", "b")
    world.until(lambda: world.states() == ("relayed", "relayed"), 5.0)
    world.run(2.0)
    return world, world.hosts["hub0"]


def test_an_anchor_whose_interface_is_another_one_goes_on_with_its_relays() -> None:
    world, hub = relaying()
    before = dict(hub.relays)
    [network] = hub.config.networks
    hub.give(ev.Reconfigured(replace(hub.config, networks=(replace(network, interface="wg9"),))))
    assert load(hub.saved).relays
    world.talk(20.0)
    assert hub.relays == before
    assert world.now - world.hosts["a"].heard[-1][0] < 0.5
    for name in "ab":
        world.hosts[name].stop()
    world.run(0.1)
    assert hub.relays == {}


@pytest.mark.parametrize("gone", [True, False])
def test_who_is_no_anchor_any_more_forwards_for_nobody_and_remembers_no_relay(gone: bool) -> None:
    _, hub = relaying()
    networks = () if gone else tuple(replace(n, is_anchor=False) for n in hub.config.networks)
    assert load(hub.saved).relays
    hub.give(ev.Reconfigured(replace(hub.config, networks=networks)))
    assert hub.relays == {}
    assert load(hub.saved).relays == ()


# More than one network


def two_networks(name: str) -> AgentConfig:
    other = "ab".replace(name, "")
    networks = []
    for net, port in (("corp", PORT), ("lab", PORT + 1)):
        number = {"a": 10, "b": 11}
        known = replace(peer(name, other, number[other]), public_key=key(f"{other} {net}"))
        hub = peer(name, "hub0", 1, kind="anchor", endpoints=(Address(IPS["hub0"], port),))
        one = interface(name, number[name], known, replace(hub, public_key=key(f"hub0 {net}")))
        networks.append(
            replace(one, network=net, interface=f"wg-{net}", public_key=key(f"{name} {net}"), listen_port=port)
        )
    return AgentConfig(name, tuple(networks))


def two() -> AgentCore:
    core = AgentCore(two_networks("a"), random.Random(1), 0.0)  # noqa: S311
    core.handle(HERE, 0.0)
    return core


def probes_of(core: AgentCore, now: float) -> list[ev.SendProbe]:
    core.handle(ev.Wake(), now)
    return [action for action in drained(core) if isinstance(action, ev.SendProbe)]


def test_each_network_asks_from_its_own_port() -> None:
    asked = probes_of(two(), 0.0)
    assert {(probe.local.port, probe.remote.port) for probe in asked} == {(PORT, PORT), (PORT + 1, PORT + 1)}


def test_the_answer_to_a_question_of_one_network_says_nothing_in_the_other() -> None:
    core = two()
    [probe] = [p for p in probes_of(core, 0.0) if p.local.port == PORT]
    request = stun.decode(probe.data).message
    network = two_networks("a").networks[0]
    from_hub = next(p for p in network.peers if p.is_anchor)
    answer_key = anchor_server(probe.remote, network.id, SESSION, from_hub.pair_key).key
    answer = stun.success_response(request, (Address("198.51.100.99", 4)))  # type: ignore[arg-type]
    data = stun.encode(answer, answer_key, integrity=(MESSAGE_INTEGRITY_SHA256,))
    core.handle(ev.Datagram(Address(probe.local.ip, PORT + 1), probe.remote, data), 0.02)
    [again] = [p for p in probes_of(core, 0.2) if p.local.port == PORT][:1]
    assert again.remote == probe.remote, "it waits for its answer still"
    core.handle(ev.Datagram(probe.local, probe.remote, data), 0.22)
    assert [p for p in probes_of(core, 0.6) if p.local.port == PORT] == []


@pytest.mark.parametrize("name", ["sample", "ports", "names"])
def test_a_network_may_be_called_as_a_part_of_the_agent_is(name: str) -> None:
    configs = {}
    for host in ("a", "b", "hub0"):
        config = config_of(host, ["hub0"])
        configs[host] = replace(config, networks=(replace(config.networks[0], network=name),))
    world = PairWorld(configs=configs)
    assert world.until(lambda: world.states() == ("direct", "direct"), 5.0) < 2.0
    assert {path.network for host in world.hosts.values() if host.core for path in host.core.paths()} == {name}


def test_a_port_is_relayed_at_for_one_network_alone() -> None:
    """A state that says otherwise is an old one's, and two maps of the kernel cannot hold both."""
    config = two_networks("a")
    names = frozenset("bc")
    networks, relays = [], []
    for network in config.networks:
        ends = [
            replace(peer("a", name, 20 + n, reaches=names), public_key=key(f"{name} {network.network}"))
            for n, name in enumerate(sorted(names))
        ]
        networks.append(replace(network, peers=tuple(ends), is_anchor=True))
        places = [KeptEnd(end.public_key, bytes(16), Address("198.51.100.9", n + 1)) for n, end in enumerate(ends)]
        relays.append(KeptRelay(network.network, 40000, places[0], places[1]))
    state = dump(Kept(relays=tuple(relays)))
    core = AgentCore(replace(config, networks=tuple(networks)), random.Random(1), 0.0, state)  # noqa: S311
    installed = [action for action in drained(core) if isinstance(action, ev.InstallRelay)]
    assert [action.port for action in installed] == [40000]


def test_paths_are_shown_for_each_network_and_an_operators_word_is_for_the_one_that_has_the_key() -> None:
    core = two()
    assert [(p.network, p.peer) for p in core.paths()] == [
        ("corp", "b"), ("corp", "hub0"), ("lab", "b"), ("lab", "hub0"),
    ]  # fmt: skip
    core.handle(ev.Override(key("b lab"), "relay"), 0.0)
    assert len({p.public_key for p in core.paths()}) == 4
