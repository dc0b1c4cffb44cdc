"""The loop around the core, its log, and how the service starts and refuses to."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from agentnode_space import document, key, peer

from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.documentfile import MAX_BYTES
from meshctl.agent.node.handler import Handler, HasFileno, Plain, Readable
from meshctl.agent.node.log import AGAIN_S, Log
from meshctl.agent.node.loop import Loop, clock
from meshctl.core.agent.address import Address
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.document import encode
from meshctl.core.agent.events import (
    Action,
    Event,
    InstallRelay,
    InstallSplice,
    PollWg,
    RemoveSplice,
    SaveState,
    SetEndpoint,
    WgStatus,
)
from meshctl.core.agent.state import Kept, KeptPath, dump
from meshctl.core.agentcore import AgentCore

ROOT = Path(__file__).parents[2]


class Script(Plain):
    """A handler that does what a test says; counts what it was asked."""

    def __init__(self, *actions: type[Action], do: Callable[[Action], None] = lambda _: None) -> None:
        self.actions = actions
        self.done: list[Action] = []
        self.open: list[tuple[HasFileno, Readable]] = []
        self.at: float | None = None
        self.then: Callable[[float], list[Event]] = lambda _: []
        self.closed = False
        self._do = do

    def do(self, action: Action) -> None:
        self.done.append(action)
        self._do(action)

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        return self.open

    def due(self) -> float | None:
        return self.at

    def poll(self, now: float) -> list[Event]:
        if self.at is not None and now >= self.at:
            self.at = None
            return self.then(now)
        return []

    def close(self) -> None:
        self.closed = True


def loop(*handlers: Handler, state: bytes = b"") -> tuple[Loop, io.StringIO]:
    """A loop around a core, and what it logs."""
    text = io.StringIO()
    log = Log(clock, text)
    config = document(peer("ann", 2)).config
    core = AgentCore(config, random.SystemRandom(), clock(), state)
    return Loop(core, handlers, Decisions(config, log), log), text


def test_an_action_goes_to_who_handles_it_and_what_comes_of_it_to_the_core() -> None:
    def answer(_action: Action) -> None:
        wireguard.at, wireguard.then = clock(), lambda _: [WgStatus(())]

    def stop(_now: float) -> list[Event]:
        running.stop()
        return []

    wireguard, last = Script(PollWg, do=answer), Script(SaveState)
    running, text = loop(wireguard, last)
    last.at, last.then = clock() + 0.6, stop
    running.run()
    assert len(wireguard.done) >= 2, "the first answer was taken, and more was asked in time"
    assert wireguard.closed
    assert last.closed
    assert text.getvalue() == ""


def test_what_cannot_be_done_is_logged_once_and_hurts_nothing() -> None:
    def fail(_action: Action) -> None:
        raise OSError("wg is tired")

    def stop(_now: float) -> list[Event]:
        running.stop()
        raise ValueError("odd bytes")

    wireguard, last = Script(PollWg, do=fail), Script(SaveState)
    running, text = loop(wireguard, last)
    last.at, last.then = clock() + 0.6, stop
    running.run()
    assert len(wireguard.done) >= 2
    assert text.getvalue().splitlines() == [
        'warning PollWg reason="wg is tired"', 'warning read of=Script.poll reason="odd bytes"',
    ]  # fmt: skip


def test_an_action_with_two_sides_goes_to_both_who_handle_it() -> None:
    one, other = Script(PollWg), Script(PollWg)
    running, _ = loop(one, other)
    other.at, other.then = clock(), lambda _: running.stop() or []
    running.run()
    assert one.done == other.done == [PollWg()]


def test_an_action_that_nobody_handles_is_logged() -> None:
    last = Script(SaveState)
    running, text = loop(last)
    last.at, last.then = clock(), lambda _: running.stop() or []
    running.run()
    assert text.getvalue() == 'warning PollWg reason="nothing here can do this"\n'


def test_sockets_are_awaited_as_they_come_and_go() -> None:
    """The second one has the file descriptor that the first one had."""
    heard: list[int] = []
    handler = Script(PollWg)
    running, _ = loop(handler)

    def open_one() -> None:
        here, there = socket.socketpair()
        there.send(b"x")

        def receive(_now: float) -> list[Event]:
            heard.append(here.fileno())
            here.close()
            there.close()
            if len(heard) == 2:
                running.stop()
                handler.open = []
            else:
                open_one()
            return []

        handler.open = [(here, receive)]

    open_one()
    running.run()
    assert len(heard) == 2
    assert heard[0] == heard[1]


def test_an_agent_that_ends_saves_what_the_next_one_needs_and_leaves_the_rest_as_it_is() -> None:
    """A splice, of before a restart: its peer has no agent."""
    order: list[str] = []

    class Closing(Script):
        def close(self) -> None:
            order.append("closed")

    pair = Pair(Address("192.0.2.1", 20000), Address("198.51.100.1", 51820))
    state = dump(Kept(paths=(KeptPath(key("ann"), pair, spliced=True),)))
    actions = (PollWg, SaveState, InstallSplice, RemoveSplice)
    handler = Closing(*actions, do=lambda action: order.append(type(action).__name__))
    running, _ = loop(handler, state=state)
    handler.at, handler.then = clock(), lambda _: order.append("asked to stop") or running.stop() or []
    running.run()
    assert order[order.index("asked to stop") :] == ["asked to stop", "SaveState", "closed"]


def test_it_waits_no_longer_than_until_the_first_thing_is_due() -> None:
    handler, other = Script(PollWg, SaveState), Script()
    running, _ = loop(handler, other)
    now = clock()
    sooner = running._wait(now)
    assert sooner is not None
    other.at = now + sooner / 2
    assert running._wait(now) == pytest.approx(sooner / 2)
    handler.at = now - 1
    assert running._wait(now) == 0


def test_a_decision_is_one_line_however_often_it_is_carried_out() -> None:
    text = io.StringIO()
    decisions = Decisions(document(peer("ann", 2)).config, Log(clock, text))
    for place in ("192.0.2.1:1", "192.0.2.1:1", "192.0.2.2:2", "192.0.2.1:1"):
        decisions.done(SetEndpoint(key("ann"), Address.parse(place)))
    decisions.done(InstallRelay(40000, Address("192.0.2.1", 1), Address("192.0.2.2", 2)))
    assert text.getvalue().splitlines() == [
        "info endpoint peer=ann address=192.0.2.1:1", "info endpoint peer=ann address=192.0.2.2:2",
        "info endpoint peer=ann address=192.0.2.1:1", "info relay port=40000 a=192.0.2.1:1 b=192.0.2.2:2",
    ]  # fmt: skip


def test_a_signal_that_comes_while_it_waits_is_a_socket_as_any_other() -> None:
    """What another thread does in the meantime wakes it: nothing is polled for."""
    here, there = socket.socketpair()
    handler = Script(PollWg)
    running, _ = loop(handler)
    handler.open = [(here, lambda _now: running.stop() or [])]
    timer = threading.Timer(0.05, there.send, (b"x",))
    timer.start()
    with here, there:
        running.run()
    timer.join()


def test_a_trouble_is_told_once_in_a_minute_and_another_one_at_once() -> None:
    now, text = [0.0], io.StringIO()
    log = Log(lambda: now[0], text)
    for at, reason in ((0, "no way"), (1, "no way"), (2, "no name"), (AGAIN_S - 1, "no way"), (AGAIN_S, "no way")):
        now[0] = at
        log.trouble("send", reason)
    said = [line.partition("reason=")[2] for line in text.getvalue().splitlines()]
    assert said == ['"no way"', '"no name"', '"no way"']


def test_a_value_cannot_make_a_line_or_a_value_of_its_own() -> None:
    text = io.StringIO()
    Log(clock, text).info("path", peer="ann\nerror all=lost", reason="a=b", plain="10.0.0.1:1")
    assert text.getvalue() == 'info path peer="ann\\nerror all=lost" reason="a=b" plain=10.0.0.1:1\n'


def test_in_the_journal_a_line_begins_with_its_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    text = io.StringIO()
    log = Log(clock, text)
    log.info("path", state="direct")
    log.trouble("send", "no")
    log.error("document")
    assert text.getvalue() == "<6>path state=direct\n<4>send reason=no\n<3>document\n"


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshctl.agent.main", "run", *map(str, words)],
        cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("there", [True, False])
def test_a_service_without_a_usable_document_says_all_that_is_wrong_and_need_not_be_started_again(
    tmp_path: Path, there: bool
) -> None:
    path = tmp_path / "agent.json"
    if there:
        path.write_bytes(encode(document()).replace(b"51820", b"0").replace(b'"node"', b'"name"'))
    done = start("--document", path, "--state", tmp_path / "state.json")
    assert done.returncode == 78
    said = done.stderr.splitlines()
    assert len(said) == (3 if there else 1)
    assert all(line.startswith(f"error document file={path} reason=") for line in said)


UNREADABLE: dict[str, Callable[[Path], None]] = {
    "a pipe that nobody writes to": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to(os.devnull),
    "endless": lambda path: path.touch() or os.truncate(path, MAX_BYTES + 1),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_document_that_cannot_be_read_at_the_start_is_told_in_a_line_and_only_another_one_mends_it(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "agent.json"
    UNREADABLE[what](path)
    done = start("--document", path, "--state", tmp_path / "state.json")
    assert done.returncode == 78, done.stderr
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"error document file={path} reason=")
    assert said.endswith("`meshctl apply` writes the document anew\"")
    assert "JSON" not in said, "nothing was read of it"
