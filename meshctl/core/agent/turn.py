"""What a node does one at a time, whichever of its peers or networks it is for."""

from __future__ import annotations


class Turn:
    """Somebody's, or nobody's."""

    def __init__(self) -> None:
        self._holder: object = None

    def take(self, who: object) -> bool:
        """Begin; False while it is another's."""
        if self._holder not in (None, who):
            return False
        self._holder = who
        return True

    def give(self, who: object) -> None:
        """Whoever has it is done."""
        if self._holder == who:
            self._holder = None
