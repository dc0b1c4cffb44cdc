"""One function over many hosts, in daemon threads, with a Ctrl-C that the operator can rely on."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

R = TypeVar("R")


class Workers(Generic[R]):
    """Runs `function(name)` for every name. `function` must not raise.

    Threads are daemons of our own: an executor's are joined at exit, and one that hangs in a dead connection would
    keep the operator waiting after Ctrl-C.
    """

    def __init__(self, function: Callable[[str], R], names: Sequence[str], forks: int) -> None:
        self._function = function
        self._waiting = deque(names)
        self._count = max(1, min(forks, len(names)))
        self._lock = threading.Lock()
        self._results: queue.SimpleQueue[tuple[str, R] | None] = queue.SimpleQueue()
        self.running: set[str] = set()
        self.stopped = False

    def run(self, on_result: Callable[[str, R], None], on_interrupt: Callable[[frozenset[str]], None] | None) -> bool:
        """Work through all names; results go to `on_result` in this thread. Returns whether all were worked on.

        The first Ctrl-C stops handing out names, tells `on_interrupt` who is running and waits for those; the second
        gives up on them: `running` keeps their names. Without `on_interrupt` the first one raises KeyboardInterrupt.
        """
        for _ in range(self._count):
            threading.Thread(target=self._work, daemon=True).start()
        alive = self._count
        while alive:
            try:
                item = self._results.get()
            except KeyboardInterrupt:
                again, self.stopped = self.stopped, True
                if on_interrupt is None:
                    raise
                if again:
                    break
                with self._lock:
                    running = frozenset(self.running)
                on_interrupt(running)
                continue
            if item is None:
                alive -= 1
            else:
                on_result(*item)
        return not (self._waiting or self.running)

    def _work(self) -> None:
        while True:
            with self._lock:
                if self.stopped or not self._waiting:
                    break
                name = self._waiting.popleft()
                self.running.add(name)
            result = self._function(name)
            with self._lock:
                self.running.discard(name)
            self._results.put((name, result))
        self._results.put(None)
