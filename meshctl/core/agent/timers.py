"""When each part of the core has something to do: the next one is known at once, however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Owner = TypeVar("Owner")

# [when, its number, owner, reason, whether it still counts]: heaps compare lists as fast as they can, and no two have
# one number.
_Entry = list[Any]


class Timers(Generic[Owner]):
    """One timer for each owner, which is hashable. Those due at one moment come in the order in which they were set."""

    def __init__(self) -> None:
        self._set: dict[Owner, _Entry] = {}
        self._heap: list[_Entry] = []
        self._count = 0

    def set(self, owner: Owner, when: float | None, reason: str = "") -> None:
        """Wake the owner then, and not when it was to be woken before; None: not at all."""
        known = self._set.get(owner)
        if known is not None:
            if known[0] == when:
                known[3] = reason
                return
            known[4] = False
        if when is None:
            self._set.pop(owner, None)
            return
        self._count += 1
        self._set[owner] = entry = [when, self._count, owner, reason, True]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._set) + 16:
            self._heap = [each for each in self._heap if each[4]]
            heapq.heapify(self._heap)

    def next(self) -> tuple[float, str] | None:
        """The earliest time that is set, and why."""
        first = self._first()
        return (first[0], first[3]) if first is not None else None

    def due(self, now: float) -> Iterator[Owner]:
        """The owners whose time has come; their timers are off then."""
        while (first := self._first()) is not None and first[0] <= now:
            heapq.heappop(self._heap)
            del self._set[first[2]]
            yield first[2]

    def _first(self) -> _Entry | None:
        heap = self._heap
        while heap:
            if heap[0][4]:
                return heap[0]
            heapq.heappop(heap)
        return None
