"""Calls that take time, in threads of their own: what each comes to is an event, for the loop to read like a socket's.

The threads are daemons: what a stranger keeps waiting does not keep the agent from ending.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from meshctl.agent.node.handler import HasFileno, Readable
from meshctl.core.agent.events import Event

Work = Callable[[], Event]
_LAST_S = 0.1


class Workers:
    """At most `threads` calls at once, and `waiting` more in a queue. What is called must not raise, and must end."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._name, self._threads, self._most = name, threads, threads + waiting
        self._open = 0  # submitted, and their events not read
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._done: deque[Event] = deque()
        self._started: list[threading.Thread] = []
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)

    def submit(self, work: Work) -> None:
        """Have it called. Raises RuntimeError when too many wait already."""
        if self._open >= self._most:
            raise RuntimeError(f"{self._open} calls wait already")
        self._open += 1
        self._queue.put(work)
        if len(self._started) < min(self._threads, self._open):
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._started.append(thread)

    @property
    def busy(self) -> bool:
        """Whether anything was submitted that nobody has read the event of."""
        return self._open > 0

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """As a handler's."""
        return ((self._here, self._read),)

    def close(self) -> None:
        """Give what was submitted a moment. What is not done by then is left to itself."""
        for _ in self._started:
            self._queue.put(None)
        ends_at = time.monotonic() + _LAST_S
        for thread in self._started:
            thread.join(max(0.0, ends_at - time.monotonic()))
        self._here.close()
        if not any(thread.is_alive() for thread in self._started):
            self._there.close()

    def _read(self, _now: float) -> list[Event]:
        with contextlib.suppress(BlockingIOError):
            self._here.recv(4096)
        events = []
        while self._done:
            events.append(self._done.popleft())
        self._open -= len(events)
        return events

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            self._done.append(work())
            with contextlib.suppress(OSError):  # the agent has ended meanwhile
                self._there.send(b"\0")
