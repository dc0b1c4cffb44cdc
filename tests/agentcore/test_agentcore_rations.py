"""What a peer with valid keys makes others do. Hunted: messages of its own, as many as anybody may send, that have a
victim spend its time, and its share of an anchor's attention, on nothing."""

from __future__ import annotations

import pytest
from agentcore_ends import direct, network_of, relayed
from agentcore_pair import CONTROLLING, NUMBERS, OTHER, Host, PairWorld
from agentcore_values import key

from meshctl.core.agent import events as ev
from meshctl.core.agent.bodies import Body, MessageType, Offer, RelayAsk, Wish
from meshctl.core.agent.config import node_id
from meshctl.core.agent.conversation import OFFERS_BURST, OFFERS_PER_S
from meshctl.core.agent.relayallocation import TOLD_BURST, TOLD_PER_S
from meshctl.core.agent.router import RATE_PER_S

SECONDS = 20.0


class Flood:
    """The agent of one of the two is killed, and somebody with its keys says what he likes in its session."""

    def __init__(self, world: PairWorld, victim: str) -> None:
        self.world, self.name = world, "ab".replace(victim, "")
        host = world.hosts[self.name]
        signalling = network_of(host).signalling
        self._conversations = {n: signalling.conversation_by_id(node_id(key(n))) for n in (victim, *world.names)}
        host.kill()
        self._generation = 1000

    def offer(self, wish: Wish) -> Offer:
        self._generation += 1
        return Offer(self._generation, wish=wish)

    def say(self, to: str, body: Body) -> None:
        conversation = self._conversations[to]
        assert conversation is not None
        self.world.hosts[to].give(ev.Signal(f"10.42.0.{NUMBERS[self.name]}", conversation.session.seal(body)))


def said(host: Host, to: str, since: float) -> list[int]:
    """The types of the messages that it has handed to that neighbour."""
    sent = [a for _, a in host.done(ev.SendSignal, since) if isinstance(a, ev.SendSignal)]
    return [a.data[3] for a in sent if a.mesh_ip == f"10.42.0.{NUMBERS[to]}"]


@pytest.mark.parametrize("victim", [CONTROLLING, OTHER])
def test_a_peer_that_changes_its_mind_all_the_time_is_followed_a_few_times_in_a_second(victim: str) -> None:
    world = relayed()
    flood, host, since = Flood(world, victim), world.hosts[victim], world.now
    for n in range(round(SECONDS * RATE_PER_S)):
        flood.say(victim, flood.offer((Wish.NONE, Wish.DIRECT)[n % 2]))
        world.run(1 / RATE_PER_S)
    read = OFFERS_BURST + OFFERS_PER_S * SECONDS
    assert said(host, flood.name, since).count(MessageType.ACK) <= read
    assert len(said(host, "hub0", since)) <= read
    world.run(1.0)
    since = world.now
    flood.say(victim, flood.offer(Wish.RELAY))
    assert said(host, flood.name, since) == [MessageType.ACK], "what it says when it is quiet again counts"


@pytest.mark.parametrize("start", [direct, relayed])
@pytest.mark.parametrize("victim", [CONTROLLING, OTHER])
def test_who_asks_for_a_relay_all_the_time_has_the_other_end_told_once_in_a_second(victim: str, start: object) -> None:
    world = start()  # type: ignore[operator]
    world.run(60.0)
    flood, host, hub, since = Flood(world, victim), world.hosts[victim], world.hosts["hub0"], world.now
    for _ in range(round(SECONDS * RATE_PER_S)):
        flood.say("hub0", RelayAsk(node_id(key(victim))))
        world.run(1 / RATE_PER_S)
    told = TOLD_BURST + TOLD_PER_S * SECONDS
    own = said(host, "hub0", since).count(MessageType.RELAY_ASK)
    assert 1 <= said(hub, victim, since).count(MessageType.RELAY_GRANT) - own <= told
    assert len(said(host, "hub0", since)) <= told
    assert len(said(hub, flood.name, since)) >= SECONDS * RATE_PER_S, "who asks is answered"
