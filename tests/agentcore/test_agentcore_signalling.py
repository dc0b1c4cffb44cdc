"""Sessions, offers and routing together, over a net that loses, repeats and reorders. Hunted: two agents that do not
have each other's newest offer soon after messages arrive again, a timer that spins, and a storm of messages."""

from __future__ import annotations

import heapq
import random
from typing import Any

import pytest
from agentcore_values import interface, key, peer, shared
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent import signal
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Ack, Offer, Offered
from meshctl.core.agent.config import node_id
from meshctl.core.agent.reliable import OfferReceiver, OfferSender
from meshctl.core.agent.router import Local, Onward, Refusal, Router
from meshctl.core.agent.session import Session, new_session

IP = {"x": "10.42.0.1", "y": "10.42.0.2", "a": "10.42.0.3", "b": "10.42.0.4"}
NAME = {ip: name for name, ip in IP.items()}
ONE_WAY_S = 0.02


class Agent:
    """As much of an agent as signals to the other of `a` and `b`, and hands on what others signal."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.other = name, {"a": "b", "b": "a"}.get(name, "")
        others = [
            peer(name, n, int(IP[n][-1]), kind="anchor" if n in "xy" else "node", reaches=frozenset("ab") - {n})
            for n in IP
            if n != name
        ]
        self.peers = {p.name: p for p in others}
        self.router = Router(interface(name, int(IP[name][-1]), *others, is_anchor=name in "xy"))
        ids = node_id(key(name)), node_id(key(self.other))
        self.session = Session(*ids, shared(name, self.other), new_session(random.Random(seed)))  # noqa: S311
        self.out, self.received = OfferSender(), OfferReceiver()


class World:
    """Tunnels between each node and each anchor; `lose` says what share of the messages is lost on each hop."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311
        self.now, self.lose, self.repeat = 0.0, 0.0, 0.0
        self.dead: set[str] = set()  # anchors that nobody knows to be dead
        self.agents = {name: Agent(name, self.dice.getrandbits(32)) for name in IP}
        self.wire: list[tuple[float, int, str, str, bytes]] = []
        self.sent = 0
        self.number = 0

    def offer(self, name: str) -> None:
        self.number += 1
        candidates = (Offered("host", Address("192.0.2.1", self.number), "00000000", 1),)
        self.agents[name].out.put(candidates, (), self.now)

    def restart(self, name: str) -> None:
        self.agents[name] = Agent(name, self.dice.getrandbits(32))
        if name in "ab":
            self.offer(name)
            self.agents[name].session.start(self.now)

    def put(self, source: str, hop: str, data: bytes) -> None:
        self.sent += 1
        for _ in range(2 if self.dice.random() < self.repeat else 1):
            if self.dice.random() >= self.lose and not {source, hop} & self.dead:
                arrives = self.now + ONE_WAY_S * (1 if not self.repeat else self.dice.uniform(0.5, 3))
                heapq.heappush(self.wire, (arrives, self.dice.getrandbits(60), source, hop, data))

    def send(self, agent: Agent, data: bytes, attempt: int) -> None:
        hop = agent.router.route(agent.peers[agent.other], attempt, {"x", "y"})
        assert hop is not None
        self.put(agent.name, hop.name, data)

    def timers(self) -> None:
        for name in "ab":
            agent = self.agents[name]
            hello = agent.session.poll(self.now)
            if hello is not None:
                self.send(agent, hello, agent.session.attempt)
            offer = agent.out.poll(self.now)
            if offer is not None:
                self.send(agent, agent.session.seal(offer), agent.out.attempt)

    def arrive(self, last: str, name: str, data: bytes) -> None:
        agent = self.agents[name]
        routed = agent.router.receive(data, IP[last], {"x", "y"} if name in "ab" else {"a", "b"}, self.now)
        if isinstance(routed, Onward):
            for hop in routed.hops:
                self.put(name, hop.name, routed.data)
            return
        assert isinstance(routed, Local) or routed is Refusal.RATE
        if isinstance(routed, Local):
            self.local(agent, last, data)

    def local(self, agent: Agent, last: str, data: bytes) -> None:
        received = agent.session.receive(data, self.now)
        for reply in received.replies:
            self.put(agent.name, last, reply)
        if received.renewed:
            agent.received.renewed()
            agent.out.renewed(self.now)
        body: Any = received.message and received.message.body
        if isinstance(body, Offer):
            _, ack = agent.received.receive(body)
            self.put(agent.name, last, agent.session.seal(ack))
        elif isinstance(body, Ack):
            agent.out.acknowledged(body, self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(100_000):
            self.timers()
            ends = [self.agents[n] for n in "ab"]
            times = [t for e in ends for t in (e.session.due, e.out.due) if t is not None]
            times += [self.wire[0][0]] if self.wire else []
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self.wire and self.wire[0][0] <= self.now:
                _, _, last, name, data = heapq.heappop(self.wire)
                self.arrive(last, name, data)
        raise AssertionError("a timer spins")

    def agree(self) -> bool:
        a, b = self.agents["a"], self.agents["b"]
        return a.received.offer == b.out._offer and b.received.offer == a.out._offer and None not in (
            a.received.offer, b.received.offer,
        )  # fmt: skip


def started(seed: int = 1) -> World:
    world = World(seed)
    for name in "ab":
        world.offer(name)
        world.agents[name].session.start(0.0)
    return world


def test_two_agents_that_start_together_have_each_others_offers_after_three_ways_by_an_anchor() -> None:
    world = started()
    world.run(3 * 2 * ONE_WAY_S + 0.001)  # HELLO, HELLO-ACK, OFFER; each takes two hops
    assert world.agree()
    world.run(60.0)
    assert world.sent == 2 * 2 * 4  # two ends, two hops; HELLO, HELLO-ACK, OFFER, ACK
    assert world.agents["a"].out.due is None
    assert world.agents["a"].session.due is None


def test_an_anchor_that_is_dead_unnoticed_costs_one_repetition() -> None:
    world = started()
    world.dead = {"x"}
    world.run(0.1 + 3 * 2 * ONE_WAY_S + 0.1 + 0.001)
    assert world.agree()


def test_a_restart_of_one_is_overcome_by_its_own_first_words() -> None:
    world = started()
    world.run(5.0)
    world.restart("b")
    world.run(4 * 2 * ONE_WAY_S + 0.001)  # HELLO; HELLO-ACK and HELLO; HELLO-ACK and OFFER; OFFER
    assert world.agree()


@pytest.mark.parametrize("what", ["x", "y"])
def test_an_anchor_that_restarts_has_forgotten_nothing_that_matters(what: str) -> None:
    world = started()
    world.run(0.03)
    world.restart(what)
    world.run(1.0)
    assert world.agree()


faults = st.lists(
    st.tuples(st.sampled_from(["offer a", "offer b", "restart a", "restart b", "restart x"]), st.floats(0, 1.5)),
    max_size=15,
)


@settings(max_examples=examples(22), deadline=None)
@given(st.integers(0, 2**32), faults, st.floats(0, 0.6))
def test_over_loss_repetition_reordering_and_restarts_both_have_the_newest_offer_in_the_end(
    seed: int, steps: list[tuple[str, float]], lose: float
) -> None:
    world = started(seed)
    world.lose, world.repeat = lose, 0.3
    for step, seconds in steps:
        verb, name = step.split()
        (world.offer if verb == "offer" else world.restart)(name)
        world.run(seconds)
    world.run(1.0)
    world.lose = 0.0
    for name in "ab":  # as after a network event, or when the last round was in vain
        world.agents[name].session.start(world.now)
        if world.agents[name].session.established:
            world.agents[name].out.renewed(world.now)
    world.run(1.5)
    assert world.agree()
    assert world.sent <= 200 + 100 * len(steps)
    quiet = world.sent
    world.run(100.0)
    assert world.sent - quiet <= 8


def test_signals_fit_the_smallest_mtu_of_ipv6_inside_the_tunnel() -> None:
    assert signal.MAX_BYTES + 8 + 40 <= 1280
