"""What `make sim` is asked, and what it says in the end."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator

from meshctl.core.agent import path

# So many worlds take all rows of the transition table.
MANY = 2000
# So many worlds take two days.
MOST = 1_000_000


def seeds_of(text: str) -> list[int]:
    """The seeds that a text names, each once: `2000` is the first 2,000, `17,` and `17,99-120` are those themselves.
    Raises argparse.ArgumentTypeError where it names none, or more than MOST."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        named = [range(int(text))]
    elif re.fullmatch(r"\d+(-\d+)?(,(\d+(-\d+)?)?)*", text, re.ASCII):
        ends = [part.split("-") for part in filter(None, text.split(","))]
        named = [range(int(each[0]), int(each[-1]) + 1) for each in ends]
    else:
        named = []
    if not any(named):
        raise ArgumentTypeError(f"{text!r} names no seed: give a number of worlds (2000), or a list such as 17,99-120")
    if any(each.stop - each.start > MOST for each in named):
        raise ArgumentTypeError(f"{text!r} names more than {MOST:,} seeds, which would take days: name a part of them")
    return list(dict.fromkeys(seed for each in named for seed in each))


def count_of(text: str) -> int:
    """A whole number, 0 too. Raises argparse.ArgumentTypeError for anything else."""
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def missing(rows: Counter[tuple[path.State, path.Trigger]]) -> list[tuple[path.State, path.Trigger]]:
    """The rows of the transition table that were never taken."""
    return [(state, trigger) for state, trigger, _ in path.rows() if not rows[state, trigger]]


def coverage(rows: Counter[tuple[path.State, path.Trigger]]) -> Iterator[str]:
    """How many rows were taken, and which never."""
    never, all_rows = missing(rows), len(path.rows())
    yield f"{all_rows - len(never)} of {all_rows} transitions"
    for state, trigger in never:
        yield f"  never: {state.value}, {trigger.value}"


def is_green(found: int, worlds: int, rows: Counter[tuple[path.State, path.Trigger]]) -> bool:
    """Whether so many findings in so many worlds are a success: of many worlds, some must take each row."""
    return not found and (worlds < MANY or not missing(rows))


def told(copies: Counter[str]) -> Iterator[str]:
    """What the attacker of the twins has delivered."""
    if copies:
        yield "twins: " + ", ".join(f"{count} × {what}" for what, count in sorted(copies.items()))
