"""What `make sim` is asked, and what it says in the end."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator

from meshctl.core.agent import path


def seeds_of(text: str) -> list[int]:
    """The seeds that a text names: `2000` is the first 2,000, `17,` and `17,99-120` are those themselves. Raises
    argparse.ArgumentTypeError where it names none."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        found = list(range(int(text)))
    elif re.fullmatch(r"\d+(-\d+)?(,(\d+(-\d+)?)?)*", text, re.ASCII):
        ends = [part.split("-") for part in filter(None, text.split(","))]
        found = [seed for each in ends for seed in range(int(each[0]), int(each[-1]) + 1)]
    else:
        found = []
    if not found:
        raise ArgumentTypeError(f"{text!r} names no seed: give a number of worlds (2000), or a list such as 17,99-120")
    return found


def count_of(text: str) -> int:
    """A whole number, 0 too. Raises argparse.ArgumentTypeError for anything else."""
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def coverage(rows: Counter[tuple[path.State, path.Trigger]]) -> Iterator[str]:
    """Which rows of the transition table were taken how often."""
    table = path.rows()
    taken = [row for row in table if rows[row[0], row[1]]]
    yield f"{len(taken)} of {len(table)} transitions"
    for state, trigger, _ in table:
        if not rows[state, trigger]:
            yield f"  never: {state.value}, {trigger.value}"


def told(copies: Counter[str]) -> Iterator[str]:
    """What the attacker of the twins has delivered."""
    if copies:
        yield "twins: " + ", ".join(f"{count} × {what}" for what, count in sorted(copies.items()))
