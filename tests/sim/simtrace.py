"""What happened, a line each, for people; and a hash over all of it, the same on every Python version."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshctl.core.agent import statemachine
from meshctl.core.agent.history import Decision, History
from meshctl.core.agent.path import State, Step, Trigger

KEPT = 600


class Trace:
    """The newest lines, and the digest of all. Times are whole milliseconds, so that no float is ever formatted."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lines: deque[str] = deque(maxlen=kept)
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, now: float, who: str, words: str) -> None:
        """One line."""
        millis = int(now * 1000 + 0.5)
        line = f"{millis // 1000:5d}.{millis % 1000:03d}  {who:7s} {words}"
        self.count += 1
        self._lines.append(line)
        self._hash.update(line.encode() + b"\n")

    def text(self) -> str:
        """The lines that are kept, with a note of how many are not."""
        left_out = self.count - len(self._lines)
        return "\n".join([*([f"… {left_out} lines before"] if left_out else []), *self._lines])

    @property
    def digest(self) -> str:
        """SHA-256 of all lines, in hex."""
        return self._hash.hexdigest()


Watcher = Callable[[History, Decision], None]
Stepper = Callable[[State, Trigger], None]


@contextmanager
def watching(watcher: Watcher, stepper: Stepper) -> Iterator[None]:
    """Tell of every decision of every agent in this process while it is made (histories themselves are bounded), and
    of every row of the table that is taken."""
    original, step = History.add, statemachine.step

    def stepping(state: State, trigger: Trigger) -> Step:
        found = step(state, trigger)
        stepper(state, trigger)
        return found

    def add(history: History, decision: Decision) -> None:
        original(history, decision)
        watcher(history, decision)

    History.add, statemachine.step = add, stepping  # type: ignore[method-assign]
    try:
        yield
    finally:
        History.add, statemachine.step = original, step  # type: ignore[method-assign]


class Meter:
    """How often something happened: in all, and the most in one second for any one key."""

    def __init__(self) -> None:
        self.total = 0
        self.most = 0
        self.busiest: object = None
        self._seconds: dict[object, list[int]] = {}

    def add(self, key: object, now: float) -> None:
        """It happened once, with this key."""
        self.total += 1
        second = int(now)
        cell = self._seconds.get(key)
        if cell is None or cell[0] != second:
            if len(self._seconds) > 1000:
                self._seconds = {k: c for k, c in self._seconds.items() if c[0] == second}
            cell = self._seconds[key] = [second, 0]
        cell[1] += 1
        if cell[1] > self.most:
            self.most, self.busiest = cell[1], key
