"""Numbers of messages that have come, so that none counts twice (RFC 6479)."""

from __future__ import annotations


class Window:
    """The highest number seen, and a bit for each of the `size` up to it; what is older counts as seen."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.highest = 0
        self.seen = 0  # bit n: highest - n was seen

    def accept(self, sequence: int) -> bool:
        """Whether the number is new; it is not a second time. Numbers start at 1."""
        ahead = sequence - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead) & (2**self.size - 1) if ahead < self.size else 0) | 1
            self.highest = sequence
            return True
        if ahead <= -self.size or sequence < 1 or self.seen >> -ahead & 1:
            return False
        self.seen |= 1 << -ahead
        return True
