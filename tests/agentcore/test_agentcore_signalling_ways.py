"""Which way messages take, and which count. Hunted: a message that goes where nobody takes it, one that is handed on
for who may not speak, and a conversation that is lost with a new configuration."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

import pytest
from agentcore_values import interface, key, peer, shared

from meshctl.core.agent.bodies import Ack, Splice
from meshctl.core.agent.config import InterfaceConfig, PeerConfig, node_id
from meshctl.core.agent.events import Action, SendSignal
from meshctl.core.agent.events import Signal as SignalEvent
from meshctl.core.agent.signalling import Heard, Signalling

NUMBERS = {"a": 10, "b": 11, "hub0": 1, "hub1": 2, "phone": 20}
NAMES = {f"10.42.0.{number}": name for name, number in NUMBERS.items()}


def config_of(name: str, *others: str) -> InterfaceConfig:
    kinds = {"hub0": "anchor", "hub1": "anchor", "phone": "client"}
    peers = [
        peer(name, other, NUMBERS[other], kind=kinds.get(other, "node"), reaches=frozenset("ab") - {other})
        for other in others
    ]
    return interface(name, NUMBERS[name], *peers, is_anchor=name.startswith("hub"))


class Office:
    """The posts of two nodes and their anchors; what they send is handed over at once."""

    def __init__(self) -> None:
        everybody = ("a", "b", "hub0", "hub1")
        self.now = 50.0
        self.up = {name: set(everybody) - {name} for name in everybody}
        for one, other in (("a", "b"), ("b", "a")):
            self.up[one].discard(other)
        self.sent: list[tuple[str, str]] = []  # from whom, to whom
        self.heard: list[tuple[str, Heard]] = []
        self.given: list[tuple[str, SignalEvent]] = []
        self._mail: deque[tuple[str, SendSignal]] = deque()
        self.signallings = {name: self._signalling(name, [n for n in everybody if n != name]) for name in everybody}

    def _signalling(self, name: str, others: list[str]) -> Signalling:
        def act(action: Action) -> None:
            assert isinstance(action, SendSignal)
            self._mail.append((name, action))

        config = config_of(name, *others, *(["phone"] if name == "a" else []))
        return Signalling(config, random.Random(name), act, lambda: self.up[name], lambda *_: None)  # noqa: S311

    def deliver(self) -> None:
        while self._mail:
            sender, action = self._mail.popleft()
            to = NAMES[action.mesh_ip]
            self.sent.append((sender, to))
            self.give(to, SignalEvent(f"10.42.0.{NUMBERS[sender]}", action.data))

    def give(self, to: str, event: SignalEvent) -> Heard | None:
        self.given.append((to, event))
        heard = self.signallings[to].receive(event, self.now)
        if heard is not None:
            self.heard.append((to, heard))
        return heard

    def drop(self) -> list[tuple[str, str]]:
        """What would have been sent."""
        found = [(sender, NAMES[action.mesh_ip]) for sender, action in self._mail]
        self._mail.clear()
        return found

    def peer(self, of: str, name: str) -> PeerConfig:
        return next(p for p in self.signallings[of].peers() if p.name == name)

    def meet(self, one: str, other: str) -> None:
        self.signallings[one].conversation(self.peer(one, other)).ask(self.now)
        self.signallings[one].poll(self.peer(one, other), self.now)
        self.deliver()
        self.sent.clear()
        self.heard.clear()


def met() -> Office:
    office = Office()
    office.meet("a", "b")
    return office


def test_a_message_for_a_peer_without_a_tunnel_goes_by_an_anchor() -> None:
    office = met()
    assert office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    office.deliver()
    assert office.sent == [("a", "hub0"), ("hub0", "b")]
    [(to, heard)] = office.heard
    assert (to, heard.peer.name, heard.body, heard.from_mesh_ip) == ("b", "a", Splice(1, 1), "10.42.0.1")


def test_a_message_for_a_peer_whose_tunnel_works_goes_there_itself() -> None:
    office = met()
    office.up["a"].add("b")
    office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    office.deliver()
    assert office.sent == [("a", "b")]


def test_each_attempt_of_a_question_takes_another_way() -> None:
    office = Office()
    to = office.peer("a", "b")
    office.signallings["a"].conversation(to).ask(office.now)
    ways = []
    for _ in range(3):
        office.signallings["a"].poll(to, office.now)
        ways += office.drop()
        office.now += 1.0
    assert ways == [("a", "hub0"), ("a", "hub1"), ("a", "hub0")]


def test_without_a_session_nothing_is_said_and_the_session_is_asked_for() -> None:
    office = Office()
    to = office.peer("a", "b")
    assert not office.signallings["a"].say(to, Splice(1, 1), office.now)
    assert office.drop() == []
    assert office.signallings["a"].conversation(to).due == office.now


def test_where_no_way_is_nothing_is_sent() -> None:
    office = met()
    office.up["a"].clear()
    office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    assert office.drop() == []


def test_a_knock_goes_into_the_peers_own_tunnel_whatever_is_thought_of_it() -> None:
    office = met()
    office.signallings["a"].knock(office.peer("a", "b"))
    assert office.drop() == [("a", "b")]


def test_an_answer_goes_back_the_way_the_message_came() -> None:
    office = met()
    office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    office.deliver()
    [(_, heard)] = office.heard
    office.up["b"] = {"hub1"}
    office.signallings["b"].answer(heard, Ack(1))
    assert office.drop() == [("b", "hub0")]


@pytest.mark.parametrize("changed", [0, 1])
def test_a_message_that_came_before_or_that_somebody_has_changed_is_nothing_to_hear_of(changed: int) -> None:
    office = met()
    office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    office.deliver()
    event = next(e for to, e in reversed(office.given) if to == "b")
    again = replace(event, data=event.data[:-1] + bytes((event.data[-1] ^ changed,)))
    assert office.give("b", again) is None
    assert office.drop() == []


def test_an_answer_to_who_has_no_session_is_none() -> None:
    office = Office()
    heard = Heard(office.peer("b", "a"), None, renewed=False, revived=False, from_mesh_ip="x")
    office.signallings["b"].answer(heard, Ack(1))
    assert office.drop() == []


def test_a_first_meeting_is_a_new_session_for_both() -> None:
    office = Office()
    office.signallings["a"].conversation(office.peer("a", "b")).ask(office.now)
    office.signallings["a"].poll(office.peer("a", "b"), office.now)
    office.deliver()
    assert {to for to, heard in office.heard if heard.renewed} == {"a", "b"}
    assert not any(heard.revived for _, heard in office.heard)
    assert {heard.body for _, heard in office.heard} == {None}


def test_who_was_lost_and_is_heard_again_has_come_back_to_life_once() -> None:
    office = met()
    office.signallings["a"].conversation(office.peer("a", "b")).lost = True
    for n in range(2):
        office.signallings["b"].say(office.peer("b", "a"), Splice(n, 1), office.now)
    office.deliver()
    assert [heard.revived for _, heard in office.heard] == [True, False]
    assert not any(heard.renewed for _, heard in office.heard)


def test_a_message_for_another_is_handed_on_and_not_read() -> None:
    office = met()
    office.signallings["a"].say(office.peer("a", "b"), Splice(1, 1), office.now)
    office.deliver()
    assert [to for to, _ in office.heard] == ["b"]


@pytest.mark.parametrize("from_mesh_ip", ["10.42.0.99", "10.42.0.20"])
def test_what_comes_from_no_agent_counts_for_nothing(from_mesh_ip: str) -> None:
    office = met()
    data = office.signallings["b"].conversation(office.peer("b", "a")).seal(Splice(1, 1))
    assert data is not None
    assert office.give("a", SignalEvent(from_mesh_ip, data)) is None
    assert office.drop() == []
    heard = office.give("a", SignalEvent("10.42.0.1", data))
    assert heard is not None
    assert heard.body == Splice(1, 1)


def test_a_client_has_no_conversation() -> None:
    office = Office()
    assert [p.name for p in office.signallings["a"].peers()] == ["b", "hub0", "hub1"]
    assert office.signallings["a"].conversation_by_id(node_id(key("phone"))) is None
    with pytest.raises(KeyError):
        office.signallings["a"].conversation(peer("a", "phone", 20, kind="client"))


def test_with_a_new_configuration_who_stays_need_not_be_met_again() -> None:
    office = met()
    signalling = office.signallings["a"]
    before = signalling.conversation(office.peer("a", "b"))
    changed = replace(office.peer("a", "b"), permitted=False)
    signalling.configure(interface("a", 10, changed))
    assert signalling.conversation(changed) is before
    assert not signalling.conversation(changed).peer.permitted
    assert [p.name for p in signalling.peers()] == ["b"]
    assert signalling.conversation_by_id(node_id(key("hub0"))) is None


def test_with_a_new_key_a_peer_is_met_anew() -> None:
    office = met()
    signalling = office.signallings["a"]
    rotated = replace(office.peer("a", "b"), pair_key=shared("another", "key"))
    signalling.configure(interface("a", 10, rotated))
    assert not signalling.conversation(rotated).alive
    assert signalling.conversation(rotated).session.theirs == bytes(8)
