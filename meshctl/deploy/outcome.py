"""What a run found and did, as data: the shapes of schemas/plan.schema.json and schemas/apply.schema.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.core.change import Change, digest
from meshctl.errors import RemoteError

CHANGED = "changed"
CONFIRMED = "confirmed"
UNCHANGED = "unchanged"
FAILED = "failed"
UNREACHABLE = "unreachable"
SKIPPED = "skipped"

# Kinds that mean: we did not get in, so nothing was touched.
NO_WAY_IN = frozenset({"unreachable", "refused", "timeout", "auth", "host-key"})


@dataclass(frozen=True)
class FileDiff:
    """A file's old and new text for `--diff`."""

    node: str
    path: str
    before: str
    after: str


@dataclass(frozen=True)
class PlanOutcome:
    """Changes in node order, and the hosts whose state is not known."""

    changes: tuple[Change, ...]
    errors: tuple[RemoteError, ...] = ()
    warnings: tuple[str, ...] = ()
    diffs: tuple[FileDiff, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for equal work from an equal state."""
        return digest(self.changes)

    def to_json(self) -> dict[str, Any]:
        """The plan document."""
        return {
            "digest": self.digest,
            "changes": [change.to_json() for change in self.changes],
            "unreachable": [error.to_json() for error in self.errors],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class NodeOutcome:
    """One node after an apply. `changes` are those that were applied; `waiting` says that an endpoint is not set,
    because its name does not resolve: a warning, for the next apply to try again."""

    status: str
    changes: tuple[Change, ...] = ()
    error: RemoteError | None = None
    duration_s: float = 0.0
    waiting: bool = False

    def to_json(self) -> dict[str, Any]:
        """One entry of the apply document's `nodes`."""
        e = self.error
        return {
            "status": self.status,
            "changes": [change.to_json() for change in self.changes],
            "error": e and {"kind": e.kind, "message": e.message, "hint": e.hint, "step": e.step},
            "duration_s": round(self.duration_s, 3),
        }


@dataclass(frozen=True)
class ApplyOutcome:
    """All nodes of a run, by name."""

    nodes: Mapping[str, NodeOutcome]
    warnings: tuple[str, ...] = ()
    diffs: tuple[FileDiff, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every node is as the inventory says."""
        return all(n.status in (CHANGED, CONFIRMED, UNCHANGED) for n in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """The apply document."""
        return {
            "nodes": {name: outcome.to_json() for name, outcome in self.nodes.items()},
            "warnings": list(self.warnings),
        }


def status_of(error: RemoteError, reached: bool) -> str:
    """`unreachable` when we did not get in, `skipped` when the run did not come to it, else `failed`."""
    if error.kind == SKIPPED:
        return SKIPPED
    return UNREACHABLE if not reached and error.kind in NO_WAY_IN else FAILED
