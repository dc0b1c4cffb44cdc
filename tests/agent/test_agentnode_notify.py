"""What systemd hears from the agent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agentnode_stage import Stage

from meshctl.agent.node.notify import AGAIN_S, Systemd

NOW = 1000.0
INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid: {roles: [anchor], endpoint: "203.0.113.10:51820"}
"""


@pytest.fixture(name="systemd")
def _systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Its socket, which the environment names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def heard(systemd: socket.socket) -> bytes | None:
    """The next word that has come already."""
    systemd.settimeout(0)
    try:
        return systemd.recv(100)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_and_the_agents_programs_know_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    address = f"@meshctl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0", 1))
        systemd.settimeout(1)
        for name, value in (("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "60"), ("WATCHDOG_PID", str(os.getpid()))):
            monkeypatch.setenv(name, value)
        Systemd(NOW).ready()
        assert systemd.recv(100) == b"READY=1"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    nobody = Systemd(NOW)
    nobody.ready()
    assert nobody.due() is None


def test_with_the_units_minute_it_says_that_it_lives_once_in_20_s_and_once_a_turn(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    told = Systemd(NOW)
    assert told.due() == NOW + 20
    told.poll(NOW + 19.9)
    assert heard(systemd) is None
    for _ in range(3):  # a turn that does not come to its end polls again and again, and its time stays
        told.poll(NOW + 20.5)
    assert (heard(systemd), heard(systemd)) == (b"WATCHDOG=1", None)
    assert told.due() == NOW + 40.5


@pytest.mark.parametrize(
    "asked", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
def test_nobody_is_told_who_has_not_asked_this_process(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    told = Systemd(NOW)
    assert told.due() is None
    told.poll(NOW + 100)
    assert heard(systemd) is None


def test_a_systemd_that_does_not_read_is_not_waited_for_and_told_again_soon(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others, suppress(BlockingIOError):
        others.setblocking(False)
        while True:  # the queue holds net.unix.max_dgram_qlen of them
            others.sendto(b"READY=1", systemd.getsockname())
    told, now = Systemd(NOW), NOW + 20
    with pytest.raises(BlockingIOError):
        told.poll(now)
    assert told.due() == now + AGAIN_S
    while heard(systemd):
        pass
    told.poll(now + AGAIN_S)
    assert heard(systemd) == b"WATCHDOG=1"


@pytest.mark.lab
def test_an_agent_says_that_it_lives_from_its_turns_and_one_that_is_stopped_does_not(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    span_s = 1.5
    monkeypatch.setenv("WATCHDOG_USEC", str(int(span_s * 1e6)))
    with Stage(f"pytest{os.getpid()}-alive", INVENTORY, tmp_path) as stage:
        stage.start("mid")
        systemd.settimeout(10)
        assert systemd.recv(100) == b"READY=1"
        systemd.settimeout(span_s)
        for _ in range(6):
            assert systemd.recv(100) == b"WATCHDOG=1"
        stage.signal("mid", signal.SIGSTOP)
        while heard(systemd):
            pass
        systemd.settimeout(span_s)
        with pytest.raises(TimeoutError):
            systemd.recv(100)
