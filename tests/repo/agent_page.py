"""Write what docs/agent.md has from the code, the path's table and the constants' values: `make docs` runs this, a test
holds the page to it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from meshctl.core.agent.path import State, rows

PAGE = Path(__file__).parents[2] / "docs" / "agent.md"
BEGIN, END = "<!-- path: made by make docs -->", "<!-- path: end -->"
# A row of a table of constants: `module.NAME`, its value, what it is.
CONSTANT = re.compile(r"^\| `(\w+)\.([A-Z0-9_]+)` \|[^|\n]*\|", re.MULTILINE)


def diagram() -> str:
    """The changes of state as Mermaid draws them: one arrow between two states, whatever leads that way."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for before, trigger, found in rows():
        if found.state is not before:
            arrows.setdefault((before, found.state), []).append(trigger.value)
    lines = [f"    {a.value} --> {b.value}: {' / '.join(triggers)}" for (a, b), triggers in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {State.UNKNOWN.value}", *lines, "```"])


def table() -> str:
    """Every row of the table; – where nothing changes or nothing is done."""
    lines = ["| state | what happens | becomes | what is done |", "|---|---|---|---|"]
    for before, trigger, found in rows():
        after = "–" if found.state is before else found.state.value
        effects = "; ".join(effect.value for effect in found.effects) or "–"
        lines.append(f"| {before.value} | {trigger.value} | {after} | {effects} |")
    return "\n".join(lines)


def value(module: str, name: str) -> str:
    """A constant's value as the page shows it; its name says the unit. Raises AttributeError when there is none."""
    found = getattr(importlib.import_module(f"meshctl.core.agent.{module}"), name)
    numbers = found if isinstance(found, tuple) else (found,)
    return ", ".join(f"{number:,g}" for number in numbers) + (" s" if name.endswith("_S") else "")


def page(text: str) -> str:
    """The page with everything in it that comes from the code as it is now."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{before}{BEGIN}\n{diagram()}\n\n{table()}\n{END}{after}"
    return CONSTANT.sub(lambda row: f"| `{row[1]}.{row[2]}` | {value(row[1], row[2])} |", made)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
