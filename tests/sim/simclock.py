"""Virtual time: what is to happen, in order; at the same moment, in the order in which it was asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """`now` is in seconds from the start of the world."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at that time; at once, but after what is due, when it has passed."""
        self._asked += 1
        heapq.heappush(self._queue, (when if when > self.now else self.now, self._asked, call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call after so many seconds."""
        self.at(self.now + delay_s, call)

    def run(self, until: float) -> None:
        """Everything that is due up to `until`, which is the time afterwards."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, call = heapq.heappop(queue)
            call()
        self.now = until
