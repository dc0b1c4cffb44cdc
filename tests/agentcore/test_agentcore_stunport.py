"""STUN on WireGuard's port: whose question it is, and who waits for the answer. Hunted: an answer that somebody forged
and that takes the true one's place."""

from __future__ import annotations

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import Action, Datagram, SendProbe
from meshctl.core.agent.probes import signed
from meshctl.core.agent.stunport import MAX_AWAITED, StunPort
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress

HERE, THERE = Address("192.168.1.5", 51820), Address("203.0.113.1", 51820)
KEY = b"k" * 32


class Asker:
    """Somebody who asks by the port, and takes answers that are signed with KEY."""

    def __init__(self) -> None:
        self.done: list[Action] = []
        self.answers: list[stun.Message] = []
        self.port = StunPort(self.done.append)

    def ask(self, transaction: bytes) -> stun.Message:
        request = stun.Message(stun.Class.REQUEST, transaction)
        self.port.ask(SendProbe(HERE, THERE, signed(request, KEY)), self._take)
        return request

    def answer(self, request: stun.Message, key: bytes) -> None:
        answer = stun.success_response(request, TransportAddress(*HERE))
        assert self.port.receive(Datagram(HERE, THERE, signed(answer, key)), 0.0) is None

    def _take(self, received: stun.Received, local: Address, remote: Address, _now: float) -> bool:
        assert (local, remote) == (HERE, THERE)
        if not received.is_authentic(KEY):
            return False
        self.answers.append(received.message)
        return True


def test_an_answer_goes_to_who_asked_once() -> None:
    asker = Asker()
    request = asker.ask(b"1" * 12)
    asker.answer(request, KEY)
    asker.answer(request, KEY)
    assert [answer.transaction for answer in asker.answers] == [b"1" * 12]


def test_a_forged_answer_counts_as_never_received() -> None:
    asker = Asker()
    request = asker.ask(b"1" * 12)
    asker.answer(request, b"guessed" * 5)
    assert asker.answers == []
    asker.answer(request, KEY)
    assert len(asker.answers) == 1


def test_of_too_many_questions_without_an_answer_the_oldest_are_forgotten() -> None:
    asker = Asker()
    requests = [asker.ask(n.to_bytes(12, "big")) for n in range(MAX_AWAITED + 1)]
    asker.answer(requests[0], KEY)
    assert asker.answers == []
    asker.answer(requests[1], KEY)
    assert len(asker.answers) == 1


def test_questions_and_indications_are_given_back_and_noise_is_not() -> None:
    port = StunPort(lambda _: None)
    for kind in (stun.Class.REQUEST, stun.Class.INDICATION):
        data = signed(stun.Message(kind, b"2" * 12), KEY)
        received = port.receive(Datagram(HERE, THERE, data), 0.0)
        assert received is not None
        assert received.message.message_class is kind
        assert port.receive(Datagram(HERE, THERE, data[:-1]), 0.0) is None
