"""When each part of the core has something to do: the next one is known at once, however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class Timers(Generic[Owner]):
    """One timer for each owner, which is hashable. Those due at one moment come in the order in which they were set."""

    def __init__(self) -> None:
        self._set: dict[Owner, tuple[float, int, str]] = {}
        self._heap: list[tuple[float, int, Owner]] = []
        self._count = 0

    def set(self, owner: Owner, when: float | None, reason: str = "") -> None:
        """Wake the owner then, and not when it was to be woken before; None: not at all."""
        known = self._set.get(owner)
        if when is None:
            self._set.pop(owner, None)
            return
        if known is not None and known[0] == when:
            self._set[owner] = (when, known[1], reason)
            return
        self._count += 1
        self._set[owner] = (when, self._count, reason)
        heapq.heappush(self._heap, (when, self._count, owner))
        if len(self._heap) > 2 * len(self._set) + 16:
            self._heap = [(at, count, who) for who, (at, count, _) in self._set.items()]
            heapq.heapify(self._heap)

    def next(self) -> tuple[float, str] | None:
        """The earliest time that is set, and why."""
        self._drop_stale()
        return (self._heap[0][0], self._set[self._heap[0][2]][2]) if self._heap else None

    def due(self, now: float) -> Iterator[Owner]:
        """The owners whose time has come; their timers are off then."""
        while True:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now:
                return
            _, _, owner = heapq.heappop(self._heap)
            del self._set[owner]
            yield owner

    def _drop_stale(self) -> None:
        heap, known = self._heap, self._set
        while heap:
            _, count, owner = heap[0]
            if owner in known and known[owner][1] == count:
                return
            heapq.heappop(heap)
