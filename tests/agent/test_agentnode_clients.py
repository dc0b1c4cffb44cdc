"""Answers to who is slow, or reads nothing: the loop does not wait for them."""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from meshctl.agent.node.clients import MAX_CLIENTS, MAX_OF_ONE, PATIENCE_S, REST_S, Clients
from meshctl.core.agent.events import Event

# More than any socket's buffer holds unless it is made so large.
ANSWER = bytes(range(256)) * 16384


@pytest.fixture(params=["unix", "tcp"], name="listener")
def _listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    sock = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
    with closing(sock):
        sock.bind(str(tmp_path / "sock") if request.param == "unix" else ("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        yield sock


def answer(said: bytes, _now: float) -> tuple[bytes, list[Event]] | None:
    return (ANSWER, []) if b"\n" in said else None


def connect(listener: socket.socket, source: int = 1) -> socket.socket:
    """From 127.0.0.`source`, where that is asked over TCP."""
    sock = socket.socket(listener.family)
    sock.settimeout(5)
    if listener.family != socket.AF_UNIX:
        sock.bind((f"127.0.0.{source}", 0))
    sock.connect(listener.getsockname())
    return sock


def turn(clients: Clients, listener: socket.socket, now: float) -> float:
    """One of the loop's; how long it took."""
    reads: dict[socket.socket, Callable[[float], list[Event]]] = dict(clients.sockets([listener]))
    ready, _, _ = select.select(list(reads), [], [], 0.2)
    began = time.monotonic()
    for sock in ready:
        reads[sock](now)
    clients.poll(now)
    return time.monotonic() - began


def test_a_long_answer_is_whole_though_the_other_end_reads_it_later(listener: socket.socket) -> None:
    clients = Clients(answer)
    with connect(listener) as sock:
        sock.sendall(b"please")
        took = [turn(clients, listener, 0.0) for _ in range(3)]
        sock.sendall(b"\n")
        took.append(turn(clients, listener, 0.0))
        assert max(took) < 0.5
        assert clients.due() is None, "nothing is kept of it"
        assert b"".join(iter(lambda: sock.recv(1 << 20), b"")) == ANSWER


def test_more_clients_than_there_is_room_for_wait_until_others_are_let_go(listener: socket.socket) -> None:
    clients = Clients(answer)
    silent = [connect(listener, 2 + number // MAX_OF_ONE) for number in range(MAX_CLIENTS)]
    with connect(listener) as late:
        late.sendall(b"\n")
        for _ in range(MAX_CLIENTS + 2):
            turn(clients, listener, 1.0)
        assert clients.due() == 1.0 + PATIENCE_S
        assert not select.select([late], [], [], 0)[0]
        turn(clients, listener, 1.0 + PATIENCE_S)
        for _ in range(2):
            turn(clients, listener, 1.0 + PATIENCE_S)
        assert late.recv(4) == ANSWER[:4]
    assert [sock.recv(1) for sock in silent] == [b""] * MAX_CLIENTS
    for sock in silent:
        sock.close()


@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
def test_who_opens_hundreds_and_says_nothing_keeps_nobody_else_waiting(listener: socket.socket) -> None:
    listener.listen(300)
    clients = Clients(answer)
    silent = [connect(listener, 2) for _ in range(300)]
    with connect(listener, 3) as other:
        other.sendall(b"\n")
        for _ in range(302):
            turn(clients, listener, 1.0)
        assert other.recv(4) == ANSWER[:4]
    assert [sock for sock in silent if not select.select([sock], [], [], 0)[0]] == silent[:MAX_OF_ONE]
    turn(clients, listener, 1.0 + PATIENCE_S)
    with connect(listener, 2) as again:
        again.sendall(b"\n")
        for _ in range(2):
            turn(clients, listener, 2.0 + PATIENCE_S)
        assert again.recv(4) == ANSWER[:4], "it may come back"
    for sock in silent:
        sock.close()


def test_without_a_descriptor_left_nobody_is_let_in_for_a_second_and_the_loop_rests(listener: socket.socket) -> None:
    clients = Clients(answer)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connect(listener) as sock:
        sock.sendall(b"\n")
        ((_, accept),) = clients.sockets([listener])
        resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                accept(1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert clients.sockets([listener]) == [], "or else it would be readable all the time"
        clients.poll(1.5)
        assert (clients.sockets([listener]), clients.due()) == ([], 1.0 + REST_S)
        clients.poll(1.0 + REST_S)
        for _ in range(2):
            turn(clients, listener, 2.5)
        assert sock.recv(4) == ANSWER[:4]
    assert clients.due() is None


def test_a_client_that_goes_in_between_is_forgotten(listener: socket.socket) -> None:
    clients = Clients(answer)
    with connect(listener) as sock:
        turn(clients, listener, 0.0)
        sock.sendall(b"ple")
    turn(clients, listener, 0.0)
    turn(clients, listener, 0.0)
    assert clients.due() is None
