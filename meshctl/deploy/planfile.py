"""A plan that was written with `plan -o json`: recognised by its content, compared with the state of now."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshctl.deploy.outcome import PlanOutcome
from meshctl.errors import MeshctlError

_SHOWN = 10


class StalePlanError(MeshctlError):
    """The hosts or the inventory have moved since the plan was made."""


@dataclass(frozen=True)
class StoredPlan:
    """The part of a plan file that counts. `changes` are canonical JSON texts, one a change."""

    digest: str
    changes: tuple[str, ...]


def read_plan(path: str) -> StoredPlan | None:
    """The plan in this file, or None when the file is something else (an inventory)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("digest"), str):
        return None
    changes = document.get("changes")
    if not isinstance(changes, list):
        return None
    return StoredPlan(document["digest"], tuple(_canonical(change) for change in changes))


def check_fresh(stored: StoredPlan, now: PlanOutcome) -> None:
    """Raises StalePlanError that lists the differences when the plan is not what would be done now."""
    if stored.digest == now.digest:
        return
    old, new = Counter(stored.changes), Counter(_canonical(change.to_json()) for change in now.changes)
    lines = [f"no longer to do: {_words(text)}" for text in sorted((old - new).elements())]
    lines += [f"now also to do: {_words(text)}" for text in sorted((new - old).elements())]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    what = "\n  ".join(["", *lines[:_SHOWN], *more]) if lines else " its digest is another one"
    raise StalePlanError(
        f"the plan is stale, nothing was applied:{what}\n ", hint="make a new plan and look at it again"
    )


def _canonical(change: Any) -> str:
    return json.dumps(change, sort_keys=True)


def _words(text: str) -> str:
    change = json.loads(text)
    if not isinstance(change, dict):
        return "?"
    return " ".join(str(change.get(name, "?")) for name in ("node", "action", "kind", "name"))
