"""The log's stream fails as descriptors do: nobody reads it any more, or its disk is full."""

from __future__ import annotations

import os
from pathlib import Path

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
