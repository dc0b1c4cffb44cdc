"""Two ends of a conversation, and what is lost between them. Hunted: an end that gives up for ever, one that asks
without an end, and an offer that never arrives."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from agentcore_values import key, peer

from meshctl.core.agent.address import Address
from meshctl.core.agent.backoff import TRIES
from meshctl.core.agent.bodies import Ack, MessageType, Offer, Offered, Splice
from meshctl.core.agent.config import node_id
from meshctl.core.agent.conversation import AGAIN_FIRST_S, AGAIN_LONGEST_S, MISSING_S, Conversation
from meshctl.core.agent.session import Received, Verdict
from meshctl.core.agent.signal import peek

ONE_WAY_S = 0.01
# So often may there be something to do at one moment.
MAX_TURNS = 5


class Line:
    """A conversation of "a" with "b". `deaf` ends hear nothing."""

    def __init__(self) -> None:
        self.now = 100.0
        self.deaf: set[str] = set()
        self.sent: list[tuple[float, str, MessageType]] = []
        self.recorded: list[tuple[str, bytes]] = []  # who it is for
        self.heard: list[tuple[str, Received]] = []
        self._wire: list[tuple[float, str, bytes]] = []
        self.ends = {name: self._end(name, seed) for seed, name in enumerate("ab")}

    def _end(self, name: str, seed: int) -> Conversation:
        other = "ab".replace(name, "")
        return Conversation(node_id(key(name)), peer(name, other, 2), random.Random(seed))  # noqa: S311

    def restart(self, name: str) -> None:
        self.ends[name] = self._end(name, 7)

    def run(self, seconds: float) -> None:
        end, turns = self.now + seconds, 0
        while True:
            dues = [(due, name) for name, talk in self.ends.items() if (due := talk.due) is not None]
            when = min([d for d, _ in dues] + [at for at, _, _ in self._wire], default=end)
            if when > end:
                break
            turns = turns + 1 if when <= self.now else 0
            assert turns <= MAX_TURNS, "something spins"
            self.now = max(when, self.now)
            arriving = [m for m in self._wire if m[0] <= self.now]
            self._wire = [m for m in self._wire if m[0] > self.now]
            for _, to, data in arriving:
                self.hear(to, data)
            for name, talk in self.ends.items():
                for data, _ in talk.poll(self.now):
                    self.send(name, data)
            if not arriving and not dues:
                break
        self.now = end

    def send(self, name: str, data: bytes) -> None:
        other = "ab".replace(name, "")
        self.sent.append((self.now, name, peek(data).kind))
        self.recorded.append((other, data))
        if other not in self.deaf:
            self._wire.append((self.now + ONE_WAY_S, other, data))

    def hear(self, to: str, data: bytes) -> Received:
        received = self.ends[to].receive(data, self.now)
        self.heard.append((to, received))
        for reply in received.replies:
            self.send(to, reply)
        if received.message is not None and isinstance(received.message.body, Offer):
            _, ack = self.ends[to].receiver.receive(received.message.body)
            sealed = self.ends[to].seal(ack)
            assert sealed is not None
            self.send(to, sealed)
        elif received.message is not None and isinstance(received.message.body, Ack):
            self.ends[to].sender.acknowledged(received.message.body, self.now)
        return received

    def offer(self, name: str, port: int) -> None:
        candidates = (Offered("host", Address("192.0.2.1", port), "00000000", 1),)
        self.ends[name].sender.put(candidates, (), self.now)

    def offered_to(self, name: str) -> list[int]:
        offer = self.ends[name].receiver.offer
        return [c.address.port for c in offer.candidates] if offer is not None else []

    def times(self, name: str, kind: MessageType) -> list[float]:
        return [at for at, who, what in self.sent if (who, what) == (name, kind)]

    def rounds(self, name: str) -> list[float]:
        """When each round of questions began."""
        asked = self.times(name, MessageType.HELLO)
        return [t for before, t in pairwise([-9e9, *asked]) if t - before > 4.0]


def met() -> Line:
    line = Line()
    line.ends["a"].ask(line.now)
    line.run(1.0)
    assert line.ends["a"].alive
    assert line.ends["b"].alive
    return line


def lost(seconds: float = 12.0) -> Line:
    """Both had met; "b" hears nothing any more, and "a" has noticed that."""
    line = met()
    line.deaf.add("b")
    line.ends["a"].ask(line.now)
    line.run(seconds)
    assert line.ends["a"].lost
    return line


def test_one_question_makes_the_session_of_both_known_in_two_round_trips() -> None:
    line = met()
    assert max(at for at, _, _ in line.sent) - line.sent[0][0] <= 4 * ONE_WAY_S
    assert {kind for _, _, kind in line.sent} == {MessageType.HELLO, MessageType.HELLO_ACK}
    assert line.ends["a"].due is None


def test_an_agent_that_was_taken_for_another_one_by_its_key_offers_again_when_it_is_known_again() -> None:
    line = met()
    line.offer("b", 1)
    line.run(1.0)
    first = line.ends["b"]
    line.restart("b")  # a second host with the key, for a while
    line.offer("b", 2)
    line.ends["b"].ask(line.now)
    line.run(1.0)
    assert line.offered_to("a") == [2]
    line.ends["b"] = first
    line.ends["a"].ask(line.now)
    line.run(0.9 * MISSING_S)
    line.deaf.add("b")
    line.run(0.2 * MISSING_S)
    line.deaf.clear()
    assert line.offered_to("a") == [2], "what is asked once may be lost"
    line.run(1.0)
    assert line.offered_to("a") == [1]
    acks = line.times("a", MessageType.ACK)
    line.run(100.0)
    assert line.times("a", MessageType.ACK) == acks, "and that is all"


def test_who_restarts_offers_unasked() -> None:
    line = met()
    line.offer("b", 1)
    line.run(1.0)
    line.restart("b")
    line.offer("b", 2)
    line.ends["b"].ask(line.now)
    line.run(1.0 + MISSING_S)
    assert line.offered_to("a") == [2]
    assert len(line.times("a", MessageType.ACK)) == 2


def test_nothing_can_be_sealed_while_the_session_of_the_other_is_not_known() -> None:
    line = Line()
    assert line.ends["a"].seal(Ack(1)) is None
    assert not line.ends["a"].alive
    assert met().ends["a"].seal(Ack(1)) is not None


def test_a_question_that_is_under_way_is_not_asked_again_from_the_beginning() -> None:
    line = Line()
    line.deaf.add("b")
    for _ in range(20):
        line.ends["a"].ask(line.now)
        line.run(0.1)
    assert len(line.times("a", MessageType.HELLO)) <= 5


def test_after_a_round_without_an_answer_the_other_counts_as_lost_and_not_before() -> None:
    line = met()
    line.deaf.add("b")
    line.ends["a"].ask(line.now)
    line.run(5.0)
    assert line.ends["a"].alive
    line.run(10.0)
    assert line.ends["a"].lost
    assert not line.ends["a"].alive
    assert line.ends["a"].session.established, "what it said is still understood"


def test_who_is_lost_is_asked_again_after_ever_longer_pauses_and_for_ever() -> None:
    line = Line()
    line.deaf.add("b")
    line.ends["a"].ask(line.now)
    line.run(600.0)
    pauses = [later - earlier for earlier, later in pairwise(line.rounds("a"))]
    round_s = pauses[0] - AGAIN_FIRST_S
    wanted = [min(AGAIN_FIRST_S * 2**n, AGAIN_LONGEST_S) for n in range(len(pauses))]
    assert [round(pause - round_s, 6) for pause in pauses] == wanted
    assert wanted.count(AGAIN_LONGEST_S) >= 3
    assert len(line.times("a", MessageType.HELLO)) <= TRIES * (len(pauses) + 1)


def test_who_is_asked_for_because_something_has_changed_is_asked_with_new_patience() -> None:
    line = Line()
    line.deaf.add("b")
    line.ends["a"].ask(line.now)
    line.run(200.0)
    line.ends["a"].ask(line.now)
    asked_at = line.now
    line.run(60.0)
    rounds = [at for at in line.rounds("a") if at >= asked_at]
    assert rounds[0] == asked_at
    assert rounds[1] - rounds[0] < 3 * AGAIN_FIRST_S


def test_who_was_lost_and_answers_is_alive_and_asked_no_more() -> None:
    line = lost()
    line.deaf.clear()
    line.run(AGAIN_LONGEST_S)
    assert line.ends["a"].alive
    assert line.ends["a"].due is None


def test_after_an_answer_patience_begins_anew() -> None:
    line = lost(300.0)
    line.deaf.clear()
    line.run(2 * AGAIN_LONGEST_S)
    line.deaf.add("b")
    line.offer("a", 1)
    start = line.now
    line.run(60.0)
    rounds = [at for at in line.rounds("a") if at >= start]
    assert rounds[1] - rounds[0] < 3 * AGAIN_FIRST_S


def test_a_message_that_counts_shows_that_the_other_lives_though_nobody_answered() -> None:
    line = lost()
    sealed = line.ends["b"].seal(Splice(1, 1))
    assert sealed is not None
    assert line.hear("a", sealed).verdict is Verdict.ACCEPTED
    assert line.ends["a"].alive
    assert line.ends["a"].due is None, "the next round is not needed"


def test_what_was_recorded_shows_nothing() -> None:
    line = met()
    sealed = line.ends["b"].seal(Splice(1, 1))
    assert sealed is not None
    line.hear("a", sealed)
    line.deaf.add("b")
    line.ends["a"].ask(line.now)
    line.run(15.0)
    assert line.ends["a"].lost
    for to, data in [*line.recorded, ("a", sealed)]:
        if to == "a":
            line.hear("a", data)
    assert line.ends["a"].lost


def test_an_offer_waits_for_the_session_and_is_sent_until_it_has_arrived() -> None:
    line = Line()
    line.offer("a", 1)
    line.run(5.0)
    assert line.sent == []
    line.ends["a"].ask(line.now)
    line.run(0.015)
    line.deaf.add("b")
    line.run(1.0)
    assert len(line.times("a", MessageType.OFFER)) > 1
    assert line.offered_to("b") == []
    line.deaf.clear()
    line.run(2.0)
    assert line.offered_to("b") == [1]
    assert line.ends["a"].due is None


def test_no_offer_goes_to_who_is_lost() -> None:
    line = lost()
    line.offer("a", 2)
    start = line.now
    line.run(60.0)
    assert [at for at in line.times("a", MessageType.OFFER) if at > start] == []


def test_an_offer_that_nobody_acknowledged_has_the_other_asked_and_is_sent_again_when_that_answers() -> None:
    line = met()
    line.deaf.add("b")
    line.offer("a", 2)
    start = line.now
    line.run(30.0)
    offers = [at for at in line.times("a", MessageType.OFFER) if at >= start]
    questions = [at for at in line.times("a", MessageType.HELLO) if at >= start]
    assert len(offers) == TRIES
    assert questions[0] > offers[-1]
    assert line.ends["a"].lost
    line.deaf.clear()
    line.run(AGAIN_LONGEST_S)
    assert line.offered_to("b") == [2]


def test_an_offer_that_nobody_acknowledged_is_sent_again_when_the_first_question_is_answered_too() -> None:
    line = met()
    line.deaf.add("b")
    line.offer("a", 2)
    while not line.ends["a"].sender.unacknowledged:
        line.run(0.1)
    line.deaf.clear()
    line.run(1.0)
    assert line.ends["a"].alive
    assert line.offered_to("b") == [2]


def test_an_agent_that_restarted_is_offered_everything_again_and_what_it_offers_counts_anew() -> None:
    line = met()
    for port in (1, 2, 3):
        line.offer("a", port)
        line.offer("b", 10 + port)
        line.run(1.0)
    line.restart("b")
    line.offer("b", 20)
    line.ends["b"].ask(line.now)
    line.run(2.0)
    assert line.offered_to("b") == [3]
    assert line.offered_to("a") == [20], "its first offer is newer than the third of before"


def test_an_answer_alone_does_not_have_an_offer_that_arrived_sent_again() -> None:
    line = met()
    line.offer("a", 1)
    line.run(1.0)
    before = len(line.times("a", MessageType.OFFER))
    line.ends["a"].ask(line.now)
    line.run(1.0)
    assert len(line.times("a", MessageType.OFFER)) == before


def test_a_question_of_the_other_is_no_answer_to_ours() -> None:
    line = lost()
    received = line.hear("a", line.ends["b"].session.knock())
    assert received.verdict is Verdict.SESSION
    assert peek(received.replies[0]).kind is MessageType.HELLO_ACK
    assert line.ends["a"].lost


@pytest.mark.parametrize("every_s", [0.02, 0.05, 0.1, 0.2, 1.0])
def test_an_agent_that_is_gone_is_lost_as_soon_though_old_questions_of_its_are_sent_again_and_again(
    every_s: float,
) -> None:
    took = []
    for flooded in (False, True):
        line = met()
        [old, *_] = [data for to, data in line.recorded if to == "a" and peek(data).kind is MessageType.HELLO]
        line.restart("b")
        line.offer("b", 1)
        line.ends["b"].ask(line.now)
        line.run(1.0)
        line.deaf = {"b"}
        if flooded:
            line.hear("a", old)
        line.ends["a"].ask(line.now)
        began = line.now
        while not line.ends["a"].lost:
            assert line.now < began + 60.0
            line.run(every_s)
            if flooded:
                line.hear("a", old)
        took.append(line.now - began)
    assert abs(took[1] - took[0]) <= 2 * every_s


def test_a_round_that_the_others_question_began_counts_when_it_is_in_vain() -> None:
    line = met()
    [old, *_] = [data for to, data in line.recorded if to == "a" and peek(data).kind is MessageType.HELLO]
    line.restart("b")
    line.ends["b"].ask(line.now)
    line.run(1.0)
    line.deaf = {"b"}
    line.hear("a", old)
    line.ends["a"].ask(line.now)
    line.run(20.0)
    assert line.ends["a"].lost
