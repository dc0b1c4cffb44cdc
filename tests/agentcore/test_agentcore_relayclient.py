"""Both ends of a pair get to the same anchor, keep a second one warm, and move when theirs dies."""

from __future__ import annotations

import random

import pytest
from agentcore_values import interface, key, shared

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RelayAsk, RelayGrant, RelayRefresh, RelayRefuse
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.relayclient import Lost, Ready, RelayClient, Say
from meshctl.core.agent.relayserver import RelayServer
from meshctl.core.wire import stun

PORT = 51820
NAMES = ("a", "b")


def entry(name: str, number: int, kind: str = "node") -> PeerConfig:
    others = frozenset(NAMES) - {name}
    return PeerConfig(name, key(name), (f"10.42.0.{number}",), shared("x", name), kind, reaches=others)


class World:
    """Two nodes and some anchors; every message takes 10 ms, and is lost with a probability."""

    def __init__(self, *, loss: float = 0.0, families: tuple[tuple[int, ...], ...] = ((4, 6), (4, 6))) -> None:
        self.dice, self.loss, self.now = random.Random(1), loss, 0.0  # noqa: S311
        self.nodes = {name: entry(name, 10 + i) for i, name in enumerate(NAMES)}
        self.anchors = {f"hub{i}": entry(f"hub{i}", 1 + i, "anchor") for i in (0, 1, 2)}
        self.rtts = {name: {f"hub{i}": 0.02 * (i + 1) for i in (0, 1, 2)} for name in NAMES}
        self.dead: set[str] = set()
        self.servers = {}
        for i, name in enumerate(self.anchors):
            config = interface(name, 1 + i, *self.nodes.values(), is_anchor=True)
            own = (Address(f"203.0.113.{i + 1}", PORT), Address(f"2001:db8::{i + 1}", PORT))
            self.servers[name] = RelayServer(config, own, self.dice)
        self.clients = {}
        self.bases = {}
        for i, name in enumerate(NAMES):
            self.clients[name] = RelayClient(self.nodes[NAMES[1 - i]], controlling=i == 0, dice=self.dice)
            of = {4: Address(f"198.51.100.{i + 1}", PORT), 6: Address(f"2001:db8:{i + 1}::1", PORT)}
            self.bases[name] = tuple(of[family] for family in families[i])
        self.relay: dict[str, Address | None] = dict.fromkeys(NAMES)
        self.moves: list[tuple[float, str, Address | None]] = []
        self.sent = 0
        self._queue: list[tuple[float, int, object]] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + 0.01, 2)
            due, self._queue = [e for e in self._queue if e[0] <= self.now], [e for e in self._queue if e[0] > self.now]
            for _, _, call in due:
                call()  # type: ignore[operator]
            for server in self.servers.values():
                server.expire(self.now)
            for name in NAMES:
                self._turn(name)

    def want(self, *names: str) -> None:
        for name in names or NAMES:
            up = {h: (self.anchors[h], rtt) for h, rtt in self.rtts[name].items() if h not in self.dead}
            self.clients[name].want({peer.id: (peer, rtt) for peer, rtt in up.values()}, self.now)
            self._turn(name)

    def _later(self, call: object) -> None:
        if self.dice.random() >= self.loss:
            self._queue.append((self.now + 0.01, len(self._queue), call))

    def _turn(self, name: str) -> None:
        client = self.clients[name]
        client.poll(self.bases[name], self.now)
        for output in client.outputs():
            if isinstance(output, Say):
                self.sent += 1
                self._later(lambda o=output: self._told(name, o))
            elif isinstance(output, SendProbe):
                self.sent += 1
                self._later(lambda o=output: self._probed(name, o))
            else:
                self.relay[name] = output.relay if isinstance(output, Ready) else None
                self.moves.append((self.now, name, self.relay[name]))
                assert isinstance(output, (Ready, Lost))

    def _told(self, name: str, say: Say) -> None:
        hub, asking = say.anchor.name, self.nodes[name]
        if hub in self.dead:
            return
        server = self.servers[hub]
        if isinstance(say.body, RelayAsk):
            answers = server.ask(asking, say.body, self.now)
        elif isinstance(say.body, RelayRefresh):
            answers = server.refresh(asking, say.body, self.now)
        else:
            server.release(asking, say.body)
            return
        for to, body in answers:
            self._later(lambda t=to, b=body: self._answered(t.name, hub, b))

    def _answered(self, name: str, hub: str, body: RelayGrant | RelayRefuse) -> None:
        client = self.clients[name]
        if isinstance(body, RelayGrant):
            client.granted(self.anchors[hub], body, self.now)
        else:
            client.refused(self.anchors[hub], body, self.now)

    def _probed(self, name: str, probe: SendProbe) -> None:
        number = probe.remote.ip.replace(":", ".").rpartition(".")[2]
        hub = f"hub{int(number) - 1}"
        if hub in self.dead:
            return
        answer = self.servers[hub].bind(probe.remote.port, probe.local, probe.data)
        if answer is not None:
            self._later(lambda: self.clients[name].answered(stun.decode(answer.data).message, self.now))


def test_both_ends_are_ready_at_the_nearest_anchor_within_a_few_round_trips() -> None:
    world = World()
    world.want()
    world.run(0.3)
    assert world.relay["a"] == world.relay["b"]
    assert world.relay["a"] is not None
    assert world.relay["a"].ip == "203.0.113.1"


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_lost_messages_cost_time_and_nothing_else(loss: float) -> None:
    world = World(loss=loss)
    world.want()
    world.run(15)
    assert world.relay["a"] == world.relay["b"] is not None


def test_when_the_anchor_dies_the_warm_one_is_there_at_once() -> None:
    world = World()
    world.want()
    world.run(5)
    world.dead.add("hub0")
    world.want()
    assert {place.ip for place in world.relay.values() if place} == {"203.0.113.2"}
    world.run(2)
    world.dead.add("hub1")
    world.want()
    assert {place.ip for place in world.relay.values() if place} == {"203.0.113.3"}


def test_an_anchor_that_answers_no_bind_any_more_is_left_though_its_tunnel_seems_up() -> None:
    world = World()
    world.want()
    world.run(5)
    world.dead.add("hub0")
    world.run(60)
    assert {place.ip for place in world.relay.values() if place} == {"203.0.113.2"}


def test_a_relay_lives_as_long_as_it_is_wanted_and_ends_when_both_release_it() -> None:
    world = World()
    world.want()
    world.run(400)
    assert len(world.moves) == 2, "nobody moved"
    for client in world.clients.values():
        client.release()
    world.run(1)
    assert all(server.due() is None for server in world.servers.values())


def test_an_idle_relay_costs_few_packets() -> None:
    world = World()
    world.want()
    world.run(10)
    before = world.sent
    world.run(600)
    # Two ends, two anchors: a bind every 20 s and a renewal every 30 s each.
    assert world.sent - before <= 2 * 2 * 600 * (1 / 20 + 1 / 30) * 1.1


def test_round_trips_that_waver_move_nobody() -> None:
    world = World()
    world.want()
    world.run(5)
    for turn in range(100):
        world.rtts = {name: {"hub0": 0.02, "hub1": 0.01 if turn % 2 else 0.03, "hub2": 0.06} for name in NAMES}
        world.want()
        world.run(0.1)
    assert len(world.moves) == 2


def test_ends_with_one_common_family_meet_in_it() -> None:
    world = World(families=((6,), (4, 6)))
    world.want()
    world.run(10)
    assert world.relay["a"] == world.relay["b"] is not None
    assert world.relay["a"] is not None
    assert world.relay["a"].family == 6


def test_a_restarted_anchor_that_knows_nothing_is_asked_anew() -> None:
    world = World()
    world.want()
    world.run(5)
    config = interface("hub0", 1, *world.nodes.values(), is_anchor=True)
    world.servers["hub0"] = RelayServer(config, (Address("203.0.113.1", PORT),), world.dice)
    world.run(120)
    assert world.relay["a"] == world.relay["b"] is not None
    assert world.servers["hub0"].due() is not None
