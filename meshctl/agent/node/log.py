"""The agent's log: one line a decision, `level what key=value …`, for journald and for people."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import socket
import stat
import sys
from collections.abc import Callable
from typing import TextIO

# systemd takes a line's priority from this (sd-daemon(3)).
_PREFIX = {"error": "<3>", "warning": "<4>", "info": "<6>"}
# The same trouble is told once in this time: what is tried again each second fails each second.
AGAIN_S = 60.0
# Different troubles that are remembered for that.
_REMEMBERED = 256
_PLAIN = re.compile(r"[^\s\"=\\]+\Z")


class Log:
    """Writes to `stream`, which is None where standard error is closed. `clock` says when a trouble was told last."""

    def __init__(self, clock: Callable[[], float], stream: TextIO | None = sys.stderr) -> None:
        self._clock = clock
        self._stream = stream
        self._journal = "JOURNAL_STREAM" in os.environ
        self._told: dict[tuple[str, str], float] = {}
        self._cut = False  # the last line that was written, somewhere in it

    def info(self, what: str, **values: object) -> None:
        """Something was decided or done."""
        self._write("info", what, values)

    def error(self, what: str, **values: object) -> None:
        """Something is wrong, and somebody should mend it."""
        self._write("error", what, values)

    def trouble(self, what: str, reason: str, **values: object) -> None:
        """Something did not work that is tried again or not needed: told once in AGAIN_S for each reason."""
        now = self._clock()
        if now - self._told.get((what, reason), now - AGAIN_S) < AGAIN_S:
            return
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[what, reason] = now
        self._write("warning", what, {**values, "reason": reason})

    def _write(self, level: str, what: str, values: dict[str, object]) -> None:
        words = [f"{name}={_quoted(str(value))}" for name, value in values.items()]
        head = f"{_PREFIX[level]}{what}" if self._journal else f"{level} {what}"
        # A reader that has gone, or is stuck, or a full disk: paths are kept alive unheard.
        with contextlib.suppress(OSError):
            self._put(" ".join([head, *words]) + "\n")

    def _put(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:  # it is no file's
            self._stream.write(line)
            return
        data = ("\n" * self._cut + line).encode(errors="backslashreplace")
        self._cut = _written(descriptor, data) < len(data)


def _written(descriptor: int, data: bytes) -> int:
    """Write what is taken without a wait, and say how much that is. Whether writing waits is a flag of the open file,
    and so everybody's who has it: for a terminal, the shell's; it stays as it is. Raises OSError."""
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        sock = socket.socket(fileno=descriptor)
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        finally:
            sock.detach()
    if stat.S_ISREG(kind):
        return os.write(descriptor, data)
    # A pipe, or a terminal: opened once more, it has flags of its own.
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if not ready.poll(0):
            raise
        return os.write(descriptor, data[: select.PIPE_BUF])
    try:
        return os.write(own, data)
    finally:
        os.close(own)


def _quoted(text: str) -> str:
    """A name from elsewhere may not start a line or another value of its own."""
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)
