"""Where something stands in the inventory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str = ""
    line: int = 0
    column: int = 0
