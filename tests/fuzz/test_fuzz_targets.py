"""`make fuzz-parsers` begins with inputs that its targets read: one that fails by itself would hide all else, and from
one that is refused a fuzzer does not find what is behind the refusal."""

from __future__ import annotations

import fuzzcore
import fuzzmessages
import pytest
from fuzztargets import TARGETS

from meshctl.core.agent import bodies
from meshctl.core.agent.path import State
from meshctl.core.agent.signal import MessageType
from meshctl.core.agent.signalling import Heard, Signalling


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_what_it_begins_with_and_bears_the_halves_of_it(name: str) -> None:
    target = TARGETS[name]
    read = []
    for data in (b"", *target.begin()):
        read.append(target.run(data[: target.max_bytes]))
        target.run(data[: len(data) // 2])
    assert any(read)


@pytest.mark.parametrize("name", ["signal", "fields"])
def test_a_target_of_messages_reads_one_of_each_type(name: str) -> None:
    read = [TARGETS[name].run(data) for data in TARGETS[name].begin()]
    assert read == [True] * len(MessageType)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_says_when_it_refuses(name: str) -> None:
    assert TARGETS[name].run(b"\xff\xff\xff") is False


def test_the_core_takes_what_its_peers_say_for_theirs() -> None:
    agent = fuzzcore.Agent(is_anchor=False)
    assert next(path for path in agent.core.paths() if path.peer == "bob").state is not State.UNKNOWN


@pytest.mark.parametrize("body", fuzzmessages.BODIES, ids=lambda body: type(body).__name__)
def test_the_core_believes_a_message_of_each_type_of_both_peers(
    body: bodies.Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Heard | None] = []
    receive = Signalling.receive

    def seen(*of: object) -> Heard | None:
        heard.append(receive(*of))
        return heard[-1]

    agent = fuzzcore.Agent(is_anchor=False)
    monkeypatch.setattr(Signalling, "receive", seen)
    for name in ("hub", "bob"):
        agent.give(agent.said(name, fuzzcore.spoken(body, 2)))
    done_with = isinstance(body, (bodies.Hello, bodies.HelloAck))  # by the session itself
    assert [one.body for one in heard if one] == [None if done_with else body] * 2
