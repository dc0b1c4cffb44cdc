"""Mutual exclusion among a node's peers and networks, for what it can do for one of them at a time. Nothing blocks: who
does not get it tries again later."""

from __future__ import annotations


class Mutex:
    """Held by one of those that share it, or by nobody."""

    def __init__(self) -> None:
        self._holder: object = None

    def acquire(self, who: object) -> bool:
        """Whether `who` holds it now; False while another does."""
        if self._holder not in (None, who):
            return False
        self._holder = who
        return True

    def release(self, who: object) -> None:
        """`who` is done; without effect if it does not hold it."""
        if self._holder == who:
            self._holder = None
