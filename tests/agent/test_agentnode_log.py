"""The log's stream fails as descriptors do: nobody reads it any more, or its reader is stuck, or its disk is full."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
import threading
import tty
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest

from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import clock


def closed_pipe() -> int:
    """What is written there comes to nobody."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("output", ["a pipe that nobody reads", "a full disk"])
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else_is(output: str) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY) if "disk" in output else closed_pipe()
    stream = os.fdopen(descriptor, "w", buffering=1)
    log = Log(clock, stream)
    for number in range(1000):  # more than the stream's buffer holds
        log.info("path", peer="ann", reason=f"the {number}th")
        log.trouble("SendProbe", f"the {number}th")
    with Path(os.devnull).open("w") as nothing:  # what is in the buffer has to go somewhere
        os.dup2(nothing.fileno(), descriptor)
    stream.close()


def test_lines_are_written_again_once_there_is_room(tmp_path: Path) -> None:
    """As on a file system that somebody has cleared."""
    path = tmp_path / "log"
    full, room = os.open("/dev/full", os.O_WRONLY), os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    stream = os.fdopen(full, "w", buffering=1)
    log = Log(clock, stream)
    log.info("path", number=1)
    os.dup2(room, full)
    os.close(room)
    log.info("path", number=2)
    assert path.read_text().endswith("info path number=2\n")
    stream.close()


def stuck(output: str, folder: Path) -> tuple[int, int]:
    """Where it is read, if somebody did, and where it is written."""
    if output in ("socket", "datagrams"):
        ends = socket.socketpair(type=socket.SOCK_DGRAM if output == "datagrams" else socket.SOCK_STREAM)
        return ends[0].detach(), ends[1].detach()
    if output == "terminal":
        here, there = pty.openpty()
        tty.setraw(there)
        return here, there
    if output == "named pipe":
        os.mkfifo(folder / "log")
        here = os.open(folder / "log", os.O_RDONLY | os.O_NONBLOCK)
        return here, os.open(folder / "log", os.O_WRONLY)
    return os.pipe()


def read(descriptor: int) -> str:
    """All that is there to be read."""
    os.set_blocking(descriptor, False)
    said = b""
    try:
        while piece := os.read(descriptor, 1 << 20):
            said += piece
    except BlockingIOError:
        pass
    return said.decode()


@pytest.mark.parametrize("size", [30, 3000, 100_000])
@pytest.mark.parametrize("output", ["socket", "datagrams", "pipe", "named pipe", "pipe of another user", "terminal"])
def test_a_reader_that_is_stuck_holds_up_nobody_and_lines_are_whole_again_once_it_reads(
    output: str, size: int, tmp_path: Path, ends: ExitStack
) -> None:
    reader, writer = stuck(output, tmp_path)
    ends.callback(os.close, reader)
    stream = ends.enter_context(os.fdopen(writer, "w"))
    if "another user" in output:
        ends.enter_context(patch.object(os, "open", side_effect=PermissionError))
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    log = Log(clock, stream)

    def write() -> None:
        for number in range(3000 if size == 30 else 300):
            log.info("path", number=number, reason="x" * size)
        ended.set()

    ended = threading.Event()
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    in_time = ended.wait(10.0)
    before = read(reader)
    while thread.is_alive():
        read(reader)
    assert in_time
    for number in (-1, -2):
        log.info("path", number=number)
    assert re.search(r"(^|\n)info path number=-1\ninfo path number=-2\n\Z", before + read(reader))
    lines = before.splitlines()
    assert all(line.startswith("info path number=") for line in lines)
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags, "they are others', too"


def test_a_log_without_an_output_is_silent() -> None:
    Log(clock, None).info("path", number=1)
