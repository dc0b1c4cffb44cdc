"""What a rotation of keys has come to, as data: the shape of schemas/keys-rotate.schema.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.errors import RemoteError

ROTATED = "rotated"  # it works with a new key
PENDING = "pending"  # both keys are valid, until a later run comes further
FAILED = "failed"  # it has its old key alone


@dataclass(frozen=True)
class NodeRotation:
    """One node's. `because` are the nodes that it waits for, itself among them where it could not be worked on, each
    with why."""

    status: str
    because: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One entry of the document's `nodes`."""
        return {"status": self.status, "because": [{"node": node, "message": why} for node, why in self.because]}


@dataclass(frozen=True)
class Rotation:
    """All nodes of a rotation, by name. `clients` are the stock clients that need a new config; `behind` the nodes that
    were not cleaned up, each with why: a peer has an old key beside the new one still."""

    nodes: Mapping[str, NodeRotation]
    clients: tuple[str, ...] = ()
    behind: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do."""
        return not self.behind and all(node.status == ROTATED for node in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "nodes": {name: node.to_json() for name, node in self.nodes.items()},
            "clients": list(self.clients),
            "behind": dict(self.behind or {}),
            "warnings": list(self.warnings),
        }


def why(error: RemoteError) -> str:
    """An error in a rotation's words."""
    return f"{error.kind}: {error.message}"
