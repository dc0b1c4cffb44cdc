"""What `make sim` is asked, and what it says in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from meshctl.core.agent import path


def seeds_of(text: str) -> list[int]:
    """The seeds that a text names: `2000` is the first 2,000, `17,` and `17,99-120` are those themselves."""
    if text.isdigit():
        return list(range(int(text)))
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def coverage(rows: Counter[tuple[path.State, path.Trigger]]) -> Iterator[str]:
    """Which rows of the transition table were taken how often."""
    table = path.rows()
    taken = [row for row in table if rows[row[0], row[1]]]
    yield f"{len(taken)} of {len(table)} transitions"
    for state, trigger, _ in table:
        if not rows[state, trigger]:
            yield f"  never: {state.value}, {trigger.value}"
