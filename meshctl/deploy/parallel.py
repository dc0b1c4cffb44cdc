"""One function over many hosts, in daemon threads, with a Ctrl-C that the operator can rely on."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Generic, TypeVar

R = TypeVar("R")
# CI systems cancel a job with SIGTERM.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Ctrl-C and SIGTERM as a count that is looked at, where an exception could come between any two lines.

    A context manager; it does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self) -> None:
        self.count = 0
        self.wake: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pause(self, seconds: float) -> bool:
        """Wait, but not after one has come. Whether one has."""
        # Of all that wakes a thread this alone may be called from a signal handler: one that comes while this thread
        # holds the lock of an Event would wait for it for ever.
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.wake = lambda: woken.put(None)
        if not self.count:
            with contextlib.suppress(queue.Empty):
                woken.get(timeout=seconds)
        self.wake = None
        return self.count > 0

    def _received(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.count += 1
        if self.wake is not None:
            self.wake()


_AWAKE = ("", None)


class Workers(Generic[R]):
    """Runs `function(name)` for every name. `function` must not raise. So many interrupts as `heard` are known already.

    Threads are daemons of our own: an executor's are joined at exit, and one that hangs in a dead connection would
    keep the operator waiting after Ctrl-C.
    """

    def __init__(
        self, function: Callable[[str], R], names: Sequence[str], forks: int, interrupts: Interrupts, heard: int = 0
    ) -> None:
        self._interrupts, self._heard = interrupts, heard
        self._function = function
        self._waiting = deque(names)
        self._count = max(1, min(forks, len(names)))
        self._lock = threading.Lock()
        self._results: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self.running: set[str] = set()
        self.stopped = False

    def run(self, on_result: Callable[[str, R], None], on_interrupt: Callable[[frozenset[str]], None] | None) -> bool:
        """Work through all names; results go to `on_result` in this thread. Returns whether all were worked on.

        The first Ctrl-C stops handing out names, tells `on_interrupt` who is running and waits for those; the second
        gives up on them: `running` keeps their names. Without `on_interrupt` the first one raises KeyboardInterrupt.
        """
        # SimpleQueue.put may be called from a signal handler; this item only ends the waiting.
        self._interrupts.wake = lambda: self._results.put(_AWAKE)
        try:
            return self._collect(on_result, on_interrupt)
        finally:
            self._interrupts.wake = None

    def _collect(
        self, on_result: Callable[[str, R], None], on_interrupt: Callable[[frozenset[str]], None] | None
    ) -> bool:
        heard = self._heard
        alive = 0
        while True:
            if self._interrupts.count > heard:
                heard = self._interrupts.count
                if on_interrupt is None:
                    self._stop()
                    raise KeyboardInterrupt
                again = self.stopped
                running = self._stop()
                if again:
                    break
                on_interrupt(running)
            if not alive and not self.stopped and self._waiting:
                alive = self._start()
            if not alive:
                break
            item = self._results.get()
            if item is None:
                alive -= 1
            elif item != _AWAKE:
                on_result(*item)
        return not (self._waiting or self.running)

    def _start(self) -> int:
        for _ in range(self._count):
            threading.Thread(target=self._work, daemon=True).start()
        return self._count

    def _stop(self) -> frozenset[str]:
        """Hand out no more names; who is being worked on."""
        with self._lock:
            self.stopped = True
            return frozenset(self.running)

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
