"""Sessions between two agents. Hunted: a message that counts twice, or that counts though its sender did not mean this
life of the receiver; a belief in a session that is older than one believed before; two agents that stay deaf to each
other once messages arrive."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from agentcore_values import key, shared
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshctl.core.agent import signal
from meshctl.core.agent.backoff import TRIES, Backoff
from meshctl.core.agent.bodies import Ack, Hello, HelloAck, MessageType, SignalError
from meshctl.core.agent.config import node_id
from meshctl.core.agent.session import ASK_INTERVAL_S, NO_SESSION, ON_ITS_WAY_S, WINDOW, Session, Verdict, new_session
from meshctl.core.agent.signal import Header
from meshctl.core.agent.window import Window

NAMES = ("a", "b")
IDS = {name: node_id(key(name)) for name in NAMES}
KEY = shared("a", "b")
OTHER = {"a": "b", "b": "a"}


def session(name: str, number: int) -> Session:
    """Life `number` of an agent: its session id says which."""
    return Session(IDS[name], IDS[OTHER[name]], KEY, bytes((ord(name),)) + number.to_bytes(7, "big"))


def state(of: Session) -> tuple[object, ...]:
    """What a message that does not count must leave alone: all but its own HELLOs."""
    return of.theirs, of._window.highest, of._window.seen, of._answerable if of._hello.due is None else None


class Pair:
    """Two agents and a wire that delivers what it holds in order, and forgets nothing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lives = {"a": 1, "b": 1}
        self.ends = {name: session(name, 1) for name in NAMES}
        self.wire: list[tuple[str, bytes]] = []  # to whom, what: not delivered yet
        self.record: list[bytes] = []
        self.accepted: list[tuple[str, int]] = []  # by whom, which payload
        self.hearer: list[bytes] = []  # the session of the receiver, for each accepted one

    def send(self, to: str, data: bytes) -> None:
        self.wire.append((to, data))
        self.record.append(data)

    def deliver(self, to: str, data: bytes) -> Verdict:
        end = self.ends[to]
        received = end.receive(data, self.now)
        for reply in received.replies:
            self.send(OTHER[to], reply)
        assert (received.message is not None) == (received.verdict is Verdict.ACCEPTED)
        if received.message is not None:
            assert isinstance(received.message.body, Ack)
            self.accepted.append((to, received.message.body.generation))
            self.hearer.append(end.mine)
        return received.verdict

    def restart(self, name: str) -> None:
        self.lives[name] += 1
        self.ends[name] = session(name, self.lives[name])

    def poll(self) -> None:
        for name in NAMES:
            hello = self.ends[name].poll(self.now)
            if hello is not None:
                self.send(OTHER[name], hello)

    def settle(self, seconds: float = 1.0) -> None:
        """Let the wire and the timers run."""
        until = self.now + seconds
        while True:
            while self.wire:
                self.deliver(*self.wire.pop(0))
            self.poll()
            due = [end.due for end in self.ends.values() if end.due is not None]
            if not self.wire:
                if not due or min(due) > until:
                    break
                self.now = max(self.now, min(due))
        self.now = until

    def know_each_other(self) -> bool:
        return all(self.ends[n].theirs == self.ends[OTHER[n]].mine for n in NAMES)


@pytest.fixture
def pair() -> Pair:
    """Two agents that know each other's sessions."""
    made = Pair()
    made.ends["a"].start(made.now)
    made.settle()
    assert made.know_each_other()
    return made


class Adversary(RuleBasedStateMachine):
    """Agents that start, restart and talk; and someone on the way who keeps, delays, repeats, turns back and forges."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.payload = 0
        self.meant: dict[int, tuple[str, bytes]] = {}  # payload: the receiver and its session, as the sender sees it
        self.believed: dict[tuple[str, int], list[bytes]] = {}  # by life: sessions of the peer, in the order of belief

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        self.pair.ends[name].start(self.pair.now)

    @rule(name=st.sampled_from(NAMES))
    def restart(self, name: str) -> None:
        self.pair.restart(name)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.1, 0.3, 2.5, 100.0]))
    def wait(self, seconds: float) -> None:
        self.pair.now += seconds
        self.pair.poll()

    @rule(name=st.sampled_from(NAMES))
    def talk(self, name: str) -> None:
        end = self.pair.ends[name]
        if end.established:
            self.payload += 1
            self.meant[self.payload] = OTHER[name], end.theirs
            self.pair.send(OTHER[name], end.seal(Ack(self.payload)))

    @precondition(lambda self: self.pair.wire)
    @rule(at=st.integers(0, 1000), lose=st.integers(0, 4))
    def deliver(self, at: int, lose: int) -> None:
        to, data = self.pair.wire.pop(at % len(self.pair.wire))
        if lose:
            self.pair.deliver(to, data)

    @rule(name=st.sampled_from(NAMES), restart=st.booleans())
    def meet_and_talk(self, name: str, restart: bool) -> None:
        """What mostly happens, so that there is something to spoil."""
        if restart:
            self.pair.restart(name)
        self.pair.ends[name].start(self.pair.now)
        self.pair.settle()
        self.talk(name)
        self.talk(OTHER[name])

    @rule()
    def all_that_is_under_way_arrives(self) -> None:
        under_way, self.pair.wire = self.pair.wire, []
        for to, data in under_way:
            self.pair.deliver(to, data)

    @precondition(lambda self: self.pair.record)
    @rule(at=st.integers(0, 10_000), to=st.sampled_from(NAMES))
    def replay_at_any_time_to_either_side(self, at: int, to: str) -> None:
        """Also what is still under way, which makes the later delivery the replay."""
        data = self.pair.record[at % len(self.pair.record)]
        before = state(self.pair.ends[to])
        verdict = self.pair.deliver(to, data)
        if signal.peek(data).source == IDS[to]:
            assert verdict is Verdict.FOREIGN
            assert state(self.pair.ends[to]) == before

    @precondition(lambda self: self.pair.record)
    @rule(at=st.integers(0, 10_000), to=st.sampled_from(NAMES), byte=st.integers(0, 10_000), flip=st.integers(1, 255))
    def forge_from_a_recorded_message(self, at: int, to: str, byte: int, flip: int) -> None:
        data = bytearray(self.pair.record[at % len(self.pair.record)])
        byte %= len(data)
        data[byte if byte != 4 else 5] ^= flip
        self.nothing_comes_of(to, bytes(data))

    @rule(to=st.sampled_from(NAMES), sequence=st.integers(1, 50), kind=st.sampled_from(["hello", "answer", "ack"]))
    def forge_with_another_key(self, to: str, sequence: int, kind: str) -> None:
        end = self.pair.ends[to]
        body = {"hello": Hello(), "answer": HelloAck(end._sequence), "ack": Ack(0)}[kind]
        kinds = {"hello": MessageType.HELLO, "answer": MessageType.HELLO_ACK, "ack": MessageType.ACK}
        header = Header(kinds[kind], IDS[OTHER[to]], IDS[to], end.theirs, end.mine, sequence)
        self.nothing_comes_of(to, signal.encode(header, body, shared("a", "mallory")))

    def nothing_comes_of(self, to: str, data: bytes) -> None:
        before, under_way = state(self.pair.ends[to]), len(self.pair.wire)
        assert self.pair.deliver(to, data) is Verdict.REFUSED
        assert state(self.pair.ends[to]) == before
        assert len(self.pair.wire) == under_way

    @invariant()
    def each_message_counts_once_and_for_the_life_it_was_meant_for(self) -> None:
        payloads = [payload for _, payload in self.pair.accepted]
        assert len(set(payloads)) == len(payloads)
        for (to, payload), session_id in zip(self.pair.accepted, self.pair.hearer, strict=True):
            assert self.meant[payload] == (to, session_id)

    @invariant()
    def belief_never_goes_back_to_an_earlier_life(self) -> None:
        for name in NAMES:
            end, lives = self.pair.ends[name], self.believed.setdefault((name, self.pair.lives[name]), [])
            if end.established and (not lives or lives[-1] != end.theirs):
                assert end.theirs[:1] == OTHER[name].encode()
                assert end.theirs not in lives
                lives.append(end.theirs)

    def teardown(self) -> None:
        """The adversary leaves; within a second of the first word the two understand each other."""
        self.pair.wire.clear()
        self.pair.now += ASK_INTERVAL_S
        self.pair.ends["a"].start(self.pair.now)
        self.pair.settle()
        assert self.pair.know_each_other()
        for name in NAMES:
            self.talk(name)
        self.pair.settle()
        assert {payload for _, payload in self.pair.accepted} >= {self.payload, self.payload - 1}


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=examples(30), stateful_step_count=40, deadline=None)


@settings(max_examples=examples(50))
@given(st.lists(st.integers(0, 300), max_size=200))
def test_the_window_takes_each_number_once_and_none_that_is_64_behind(numbers: list[int]) -> None:
    window, seen = Window(WINDOW), set[int]()
    for number in numbers:
        expected = number >= 1 and number not in seen and (not seen or number > max(seen) - 64)
        assert window.accept(number) is expected
        if expected:
            seen.add(number)


@settings(max_examples=examples(50))
@given(st.permutations(range(1, 65)))
def test_the_window_takes_64_messages_in_any_order(order: list[int]) -> None:
    window = Window(WINDOW)
    assert all(window.accept(n) for n in order)
    assert not any(window.accept(n) for n in order)


def test_the_asker_knows_the_session_after_one_round_trip_and_the_asked_after_one_and_a_half() -> None:
    pair = Pair()
    a, b = pair.ends["a"], pair.ends["b"]
    a.start(0.0)
    hello = a.poll(0.0)
    assert hello is not None
    assert a.poll(0.0) is None
    answer, ask = b.receive(hello, 0.0).replies
    received = a.receive(answer, 0.0)
    assert (received.verdict, received.renewed, a.theirs) == (Verdict.SESSION, True, b.mine)
    (answer_back,) = a.receive(ask, 0.0).replies
    assert b.receive(answer_back, 0.0).renewed
    assert b.receive(a.seal(Ack(1)), 0.0).verdict is Verdict.ACCEPTED


def test_who_starts_right_after_it_was_asked_for_in_vain_is_asked_for_again_at_once() -> None:
    pair = Pair()
    a, b = pair.ends["a"], pair.ends["b"]
    b.start(0.0)
    now = 0.0
    while now < 1.0:  # "a" does not run yet, and the pauses have become long
        now = b.due or 0.0
        b.poll(now)
    a.start(now + 0.05)
    hello = a.poll(now + 0.05)
    assert hello is not None
    [answer] = b.receive(hello, now + 0.07).replies
    a.receive(answer, now + 0.09)
    asked = b.poll(now + ON_ITS_WAY_S)
    assert asked is not None
    [answer, *_] = a.receive(asked, now + 0.12).replies
    assert b.receive(answer, now + 0.14).renewed


def test_who_is_heard_late_in_a_round_is_asked_once_more_the_best_way() -> None:
    a, b = session("a", 1), session("b", 1)
    now = 0.0
    b.start(now)
    for attempt in range(4):
        due = b.due
        assert due is not None
        now = due
        assert b.poll(now)
        assert b.attempt == attempt
    a.start(now)
    hello = a.poll(now)
    assert hello is not None
    assert len(b.receive(hello, now).replies) == 1, "the answer, for a HELLO is on its way"
    assert b.poll(now + ON_ITS_WAY_S)
    assert b.attempt == 0


def test_nothing_can_be_sealed_for_a_peer_whose_session_is_not_known() -> None:
    with pytest.raises(SignalError, match="not known yet"):
        session("a", 1).seal(Ack(1))


def test_hellos_that_nobody_answers_are_sent_eight_times_and_end() -> None:
    end, sent = session("a", 1), list[float]()
    end.start(5.0)
    while end.due is not None:
        now = end.due
        if end.poll(now):
            sent.append(now)
    gaps = [round(later - earlier, 6) for earlier, later in pairwise(sent)]
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert end.unanswered
    end.start(60.0)
    assert end.due == 60.0
    assert not end.unanswered


def test_starting_again_asks_at_once_and_still_takes_the_answer_to_what_was_asked_before() -> None:
    a, b = session("a", 1), session("b", 1)
    a.start(0.0)
    first = a.poll(0.0)
    assert first is not None
    a.start(0.05)
    assert a.due == 0.05
    assert a.poll(0.05)
    assert a.receive(b.receive(first, 0.06).replies[0], 0.07).renewed
    assert a.due is None


@pytest.mark.parametrize("who", NAMES)
def test_after_a_restart_of_either_the_first_message_of_either_brings_them_together(pair: Pair, who: str) -> None:
    stays = OTHER[who]
    pair.restart(who)
    pair.send(who, pair.ends[stays].seal(Ack(1)))  # meant for a life that is over
    pair.settle()
    assert pair.accepted == []
    assert pair.know_each_other()
    pair.send(who, pair.ends[stays].seal(Ack(2)))
    pair.settle()
    assert pair.accepted == [(who, 2)]


def test_a_session_that_is_over_does_not_come_back_with_an_answer_that_was_held_back(pair: Pair) -> None:
    """The answer names a's session and b's first one, and a never saw it; then b restarts."""
    a, b = pair.ends["a"], pair.ends["b"]
    a.start(pair.now)
    hello = a.poll(pair.now)
    assert hello is not None
    held, offer = b.receive(hello, pair.now).replies[0], b.seal(Ack(1))
    pair.deliver("a", offer)
    pair.restart("b")
    pair.ends["b"].start(pair.now)
    pair.settle()
    assert pair.know_each_other()
    assert pair.deliver("a", held) is Verdict.STALE
    assert pair.deliver("a", offer) is Verdict.STALE
    assert a.theirs == pair.ends["b"].mine
    assert pair.accepted == [("a", 1)]


def test_of_two_answers_to_one_round_the_first_to_arrive_ends_it(pair: Pair) -> None:
    """b answers the second HELLO, restarts, and then gets the first: the later session answers the earlier HELLO."""
    a = pair.ends["a"]
    said = pair.ends["b"].seal(Ack(1))
    pair.deliver("a", said)
    a.start(pair.now)
    first = a.poll(pair.now)
    pair.now += 0.1
    second = a.poll(pair.now)
    assert first is not None
    assert second is not None
    held = pair.ends["b"].receive(second, pair.now).replies[0]
    pair.restart("b")
    pair.deliver("b", first)
    pair.deliver(*pair.wire.pop(0))
    assert a.theirs == pair.ends["b"].mine
    assert pair.deliver("a", held) is Verdict.STALE
    assert pair.deliver("a", said) is Verdict.STALE
    assert a.theirs == pair.ends["b"].mine


def test_replaying_old_messages_makes_an_agent_ask_at_most_four_times_a_second(pair: Pair) -> None:
    old = pair.ends["b"].seal(Ack(1))
    pair.restart("a")
    pair.ends["a"].start(pair.now)
    pair.settle()
    asked = 0
    for _ in range(1000):
        asked += len(pair.ends["a"].receive(old, pair.now).replies)
        pair.settle(0.001)  # each HELLO is answered at once, so no round holds the next one back
    assert 1 <= asked <= 1 / ASK_INTERVAL_S + 1


def test_an_answer_ends_only_the_round_that_it_answers(pair: Pair) -> None:
    a = pair.ends["a"]
    old = [data for data in pair.record if signal.peek(data).kind is MessageType.HELLO_ACK]
    a.start(pair.now)
    a.poll(pair.now)
    due = a.due
    for data in old:
        pair.deliver("a", data)
    assert a.due == due


def test_both_ends_derive_the_same_keys_and_others_after_a_restart(pair: Pair) -> None:
    a, b = pair.ends["a"], pair.ends["b"]
    before = a.shared_key(b"probes")
    assert b.shared_key(b"probes") == before != a.shared_key(b"splices")
    assert len(before) == 32
    pair.restart("b")
    pair.ends["b"].start(pair.now)
    pair.settle()
    assert a.shared_key(b"probes") == pair.ends["b"].shared_key(b"probes") != before


def test_a_message_of_the_pair_for_someone_else_is_foreign(pair: Pair) -> None:
    header = signal.peek(pair.record[0])._replace(destination=node_id(key("c")))
    assert pair.ends["b"].receive(signal.encode(header, Hello(), KEY), 0.0).verdict is Verdict.FOREIGN
    nameless = header._replace(destination=IDS["b"], my_session=NO_SESSION)
    assert pair.ends["b"].receive(signal.encode(nameless, Hello(), KEY), 0.0).verdict is Verdict.FOREIGN


def test_session_ids_are_as_random_as_what_is_passed_in() -> None:
    one, same, other = (new_session(Random(seed)) for seed in (1, 1, 2))  # noqa: S311
    assert one == same != other
    assert len(one) == signal.SESSION_BYTES


def test_a_backoff_that_is_due_does_something_each_time() -> None:
    backoff, sent = Backoff(), 0
    assert not backoff.take(0.0)
    backoff.start(0.0)
    for _ in range(TRIES + 1):
        assert backoff.due is not None
        sent += backoff.take(backoff.due)
    assert sent == TRIES
    assert backoff.exhausted
    backoff.stop()
    assert not backoff.exhausted
