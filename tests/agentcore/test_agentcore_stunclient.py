"""Questions to STUN servers. Hunted: an answer that counts though nobody asked, or somebody else answered; a question
that is asked without an end, and one that spins."""

from __future__ import annotations

import random

import pytest
from agentcore_values import SESSION, key, shared

from meshctl.core.agent.address import Address
from meshctl.core.agent.config import node_id
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.stunclient import (
    ANSWER_S,
    PACE_S,
    SCHEDULE_S,
    USERNAME,
    Seen,
    Server,
    StunClient,
    anchor_server,
)
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256, StunError

BASE, OTHER_BASE = Address("192.168.1.5", 51820), Address("192.168.1.6", 51820)
BASE_6 = Address("2001:db8::5", 51820)
MAPPED = Address("198.51.100.7", 40000)
ANCHOR = anchor_server(Address("203.0.113.1", 51820), node_id(key("a")), SESSION, shared("a", "hub"))
STRANGER = Server(Address("203.0.113.9", 3478))


class Asking:
    """An asker that is polled whenever it wants to be."""

    def __init__(self) -> None:
        self.stun_client = StunClient(Transactions(random.Random(1)))  # noqa: S311
        self.now = 50.0
        self.sent: list[tuple[float, SendProbe]] = []
        self.silent: list[tuple[float, Address]] = []

    def ask(self, *servers: Server, base: Address = BASE) -> None:
        for server in servers:
            self.stun_client.ask(base, server, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.stun_client.due()) is not None and due <= end:
            assert due >= self.now
            self.now = due
            probe = self.stun_client.poll(self.now)
            if probe is not None:
                self.sent.append((self.now, probe))
            self.silent += [(self.now, server) for _, server in self.stun_client.silent(self.now)]
            following = self.stun_client.due()
            assert following is None or following > self.now, "polled, and still due"
        self.now = end

    def answer(self, server: Server, number: int = -1, mapped: Address | None = MAPPED, **changes: object) -> bytes:
        """The server's answer to a question of ours."""
        message = stun.decode(self.sent[number][1].data).message
        reply = stun.success_response(message, TransportAddress(*(mapped or MAPPED)))
        reply = reply._replace(**({} if mapped else {"xor_mapped_address": None}), **changes)
        return stun.encode(reply, server.key or None, integrity=(MESSAGE_INTEGRITY_SHA256,))

    def hear(self, data: bytes, base: Address = BASE, remote: Address = ANCHOR.address) -> Seen | None:
        return self.stun_client.receive(stun.decode(data), base, remote, self.now)


def asked(*servers: Server) -> Asking:
    asking = Asking()
    asking.ask(*servers)
    asking.run(0.1)
    return asking


def test_a_question_is_sent_by_its_schedule_and_is_over_a_while_after_the_last() -> None:
    asking = Asking()
    asking.ask(ANCHOR)
    asking.run(60.0)
    assert [round(at - 50.0, 6) for at, _ in asking.sent] == list(SCHEDULE_S)
    assert [(round(at - 50.0, 6), server) for at, server in asking.silent] == [
        (SCHEDULE_S[-1] + ANSWER_S, ANCHOR.address)
    ]
    assert asking.stun_client.due() is None


def test_each_sending_is_a_transaction_of_its_own_and_goes_from_the_base_to_the_server() -> None:
    asking = Asking()
    asking.ask(ANCHOR)
    asking.run(60.0)
    transactions = {stun.decode(probe.data).message.transaction for _, probe in asking.sent}
    assert len(transactions) == len(SCHEDULE_S)
    assert {(probe.local, probe.remote) for _, probe in asking.sent} == {(BASE, ANCHOR.address)}


def test_an_anchor_is_asked_in_the_name_of_the_node_and_signed_and_a_stranger_is_told_nothing() -> None:
    asking = asked(ANCHOR, STRANGER)
    by_server = {probe.remote: stun.decode(probe.data) for _, probe in asking.sent}
    to_anchor, to_stranger = by_server[ANCHOR.address], by_server[STRANGER.address]
    assert to_anchor.message.username == f"{USERNAME}{node_id(key('a')).hex()}:{SESSION.hex()}"
    assert to_anchor.is_authentic(ANCHOR.key)
    assert to_stranger.message.username is None
    assert not to_stranger.integrity


def test_the_key_of_questions_is_of_the_pair_and_not_the_one_of_signalling() -> None:
    assert ANCHOR.key != shared("a", "hub")
    other = anchor_server(ANCHOR.address, node_id(key("a")), SESSION, shared("b", "hub"))
    assert other.key != ANCHOR.key


def test_what_is_being_asked_is_not_asked_twice_and_may_be_asked_again_when_it_is_over() -> None:
    asking = asked(ANCHOR)
    asking.ask(ANCHOR)
    asking.run(60.0)
    assert len(asking.sent) == len(SCHEDULE_S)
    asking.ask(ANCHOR)
    asking.run(60.0)
    assert len(asking.sent) == 2 * len(SCHEDULE_S)


def test_no_server_is_asked_from_an_address_of_the_other_family() -> None:
    asking = Asking()
    asking.ask(ANCHOR, base=BASE_6)
    assert asking.stun_client.due() is None


def test_questions_of_one_node_leave_a_pace_apart() -> None:
    asking = Asking()
    for n in range(10):
        asking.ask(Server(Address("203.0.113.9", 3478 + n)))
    asking.run(SCHEDULE_S[1] / 2)
    times = [at for at, _ in asking.sent]
    assert [round(at - 50.0, 6) for at in times] == [round(n * PACE_S, 6) for n in range(10)]
    for n in range(10):
        asking.ask(Server(Address("203.0.113.9", 4478 + n)))
    assert asking.stun_client.poll(asking.now) is not None
    assert asking.stun_client.poll(asking.now + PACE_S / 2) is None
    assert asking.stun_client.poll(asking.now + PACE_S) is not None


def test_an_answer_says_who_sees_which_address_where_and_how_far_that_is() -> None:
    asking = Asking()
    asking.ask(ANCHOR)
    asking.run(SCHEDULE_S[1])
    asking.now += 0.02
    first = asking.answer(ANCHOR, 0)
    seen = asking.hear(asking.answer(ANCHOR, 1))
    assert seen is not None
    assert seen[:3] == (BASE, ANCHOR.address, MAPPED)
    assert seen.rtt_s == pytest.approx(0.02), "of the sending that was answered"
    assert asking.stun_client.due() is None
    assert asking.hear(first) is None, "the question is over"


def test_an_answer_to_an_earlier_sending_counts_as_well() -> None:
    asking = Asking()
    asking.ask(ANCHOR)
    asking.run(SCHEDULE_S[1])
    asking.now += 0.02
    seen = asking.hear(asking.answer(ANCHOR, 0))
    assert seen is not None
    assert seen.rtt_s == pytest.approx(SCHEDULE_S[1] + 0.02)


@pytest.mark.parametrize(
    ("base", "remote"),
    [
        (OTHER_BASE, ANCHOR.address),
        (BASE, STRANGER.address),
        (BASE, Address(ANCHOR.address.ip, ANCHOR.address.port + 1)),
    ],
)
def test_an_answer_that_came_another_way_than_it_was_asked_counts_for_nothing(base: Address, remote: Address) -> None:
    asking = asked(ANCHOR)
    data = asking.answer(ANCHOR)
    assert asking.hear(data, base, remote) is None
    assert asking.hear(data) is not None, "the true one still counts"


def test_an_answer_to_a_question_that_was_not_asked_counts_for_nothing() -> None:
    asking = asked(ANCHOR)
    assert asking.hear(asking.answer(ANCHOR, transaction=bytes(12))) is None
    assert asking.hear(asking.answer(ANCHOR)) is not None


def test_an_answer_for_an_anchor_without_its_key_counts_for_nothing() -> None:
    asking = asked(ANCHOR)
    for forger in (ANCHOR._replace(key=b""), ANCHOR._replace(key=b"guessed")):
        assert asking.hear(asking.answer(forger)) is None
    assert asking.hear(asking.answer(ANCHOR)) is not None


def test_an_answer_of_a_server_without_key_needs_no_signature() -> None:
    asking = asked(STRANGER)
    seen = asking.hear(asking.answer(STRANGER), remote=STRANGER.address)
    assert seen is not None
    assert seen.mapped == MAPPED


def test_an_error_and_an_answer_without_address_do_not_end_the_question() -> None:
    asking = asked(ANCHOR)
    error = {"message_class": stun.Class.ERROR, "error": StunError(500, "Server Error")}
    assert asking.hear(asking.answer(ANCHOR, **error)) is None
    assert asking.hear(asking.answer(ANCHOR, mapped=None)) is None
    assert asking.hear(asking.answer(ANCHOR)) is not None


def test_an_answer_after_its_time_counts_for_nothing() -> None:
    asking = asked(ANCHOR)
    asking.run(60.0)
    assert asking.hear(asking.answer(ANCHOR)) is None


def test_an_answer_that_has_waited_for_a_host_that_slept_counts_for_nothing_and_the_next_one_does() -> None:
    asking = asked(ANCHOR)
    late = asking.answer(ANCHOR, 0)
    asking.now += 3600.0
    assert asking.hear(late) is None, "before the timers"
    again = asking.stun_client.poll(asking.now)
    assert again is not None
    asking.sent.append((asking.now, again))
    asking.now += 0.02
    seen = asking.hear(asking.answer(ANCHOR))
    assert seen is not None
    assert seen.rtt_s == pytest.approx(0.02)


def test_questions_from_an_address_that_has_gone_are_over() -> None:
    asking = Asking()
    asking.ask(ANCHOR)
    asking.ask(ANCHOR, base=OTHER_BASE)
    asking.stun_client.keep([OTHER_BASE])
    asking.run(60.0)
    assert {probe.local for _, probe in asking.sent} == {OTHER_BASE}
    assert len(asking.silent) == 1
