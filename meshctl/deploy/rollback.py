"""Which state each node goes back to, and what became of that. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshctl.core.change import Change
from meshctl.core.history import Entry, parts_of, since, standing, states
from meshctl.core.inverse import taken_back
from meshctl.deploy import histories
from meshctl.deploy.hints import hint
from meshctl.deploy.outcome import CHANGED, UNCHANGED, NodeOutcome
from meshctl.errors import MeshctlError, RemoteError, UsageError

History = tuple[Entry, ...]

# `--to 2` is a number of steps, for all ids begin with a year.
_STEPS = re.compile(r"[0-9]{1,2}")
_SHOWN = 5
SEE = "`meshctl history` shows what there is"


@dataclass(frozen=True)
class Way:
    """One node's way back to `state`: it takes back `entries`, the newest first; none where it is there already."""

    state: Entry
    entries: tuple[Entry, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of what it takes back, the newest first."""
        return parts_of(self.entries)

    @property
    def words(self) -> str:
        """Where it leads, and what goes with it."""
        count = f"{len(self.entries)} appl{'ies' if len(self.entries) > 1 else 'y'}"
        return f"back to {about(self.state)}, which takes back {count}"

    def changes(self) -> tuple[Change, ...]:
        """What that changes, as far as the host's journals say."""
        return taken_back([change for entry in reversed(self.entries) for change in histories.changes(entry)])


@dataclass(frozen=True)
class RollbackOutcome:
    """All nodes, by name, and where each went that had somewhere to go. `to` is the id of the run after which the mesh
    was like that."""

    to: str
    nodes: Mapping[str, NodeOutcome]
    ways: Mapping[str, Way]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every node is in that state."""
        return all(node.status in (CHANGED, UNCHANGED) for node in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """The shape of schemas/rollback.schema.json."""
        return {
            "to": self.to,
            "nodes": {name: {**node.to_json(), **_way_json(self.ways.get(name))} for name, node in self.nodes.items()},
            "warnings": list(self.warnings),
        }


def _way_json(way: Way | None) -> dict[str, Any]:
    if way is None:
        return {"state": None, "taken_back": []}
    state = way.state
    about = {"id": state.id, "time": state.time, "who": state.who, "revision": state.revision}
    return {"state": about, "taken_back": list(way.ids)}


def about(entry: Entry) -> str:
    """Which it is, when it was by this machine's clock and zone, and of what revision."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
    return f"{entry.id} ({when}{', revision ' if entry.revision else ''}{entry.revision})"


def choose(known: Mapping[str, History], to: str) -> str:
    """The id of the run to go back to: `to` is one, the beginning of one, a number of steps, or "" for one step. Steps
    are runs that have changed one of these nodes. Raises UsageError, or MeshctlError when there is nothing."""
    there = sorted({entry.id for history in known.values() for entry in states(history)}, reverse=True)
    newest = max((entry.id for history in known.values() for entry in standing(history)), default="")
    before = [name for name in there if name < newest]
    if not to or _STEPS.fullmatch(to):
        steps = int(to or 1)
        if not before:
            raise MeshctlError("there is no earlier state to go back to that is known on these nodes", hint=SEE)
        if not 1 <= steps <= len(before):
            raise UsageError(f"--to {steps}: there are 1 to {len(before)} steps to go back", hint=SEE)
        return before[steps - 1]
    found = [name for name in there if name.startswith(to)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--to {to}: begins the ids of {_listed(found)}", hint="give more of it")
    other = next((e for history in known.values() for e in history if e.id.startswith(to)), None)
    if other is not None:
        why = f": {other.why}" if other.why else ""
        raise UsageError(f"--to {to}: {other.id} is no state to go back to: {other.became}{why}", hint=SEE)
    raise UsageError(f"--to {to}: no state is called so; there is {_listed(there) or 'none'}", hint=SEE)


def way(node: str, history: History, run: str) -> Way | None:
    """To the node's newest state of that run or before; None where nothing was ever applied. Raises RemoteError of kind
    no-state when there is none that is kept."""
    if not standing(history):
        return None
    kept = states(history)
    state = next((entry for entry in kept if entry.id <= run), None)
    if state is None:
        oldest = f"the oldest that is kept is {kept[-1].id}" if kept else "none is kept"
        raise RemoteError(
            f"it has no state of {run} or before to go back to: {oldest}", node=node, kind="no-state", step="history",
            hint=hint("no-state", node),
        )  # fmt: skip
    return Way(state, tuple(since(history, state)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
