"""The agent's log: one line a decision, `level what key=value …`, for journald and for people."""

from __future__ import annotations

import contextlib
import json
import os
import re
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
    """Writes to `stream`. `clock` says when a trouble was told last."""

    def __init__(self, clock: Callable[[], float], stream: TextIO = sys.stderr) -> None:
        self._clock = clock
        self._stream = stream
        self._journal = "JOURNAL_STREAM" in os.environ
        self._told: dict[tuple[str, str], float] = {}

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
        # A reader that has gone, or a full disk: paths are kept alive unheard.
        with contextlib.suppress(OSError):
            print(" ".join([head, *words]), file=self._stream, flush=True)


def _quoted(text: str) -> str:
    """A name from elsewhere may not start a line or another value of its own."""
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)
