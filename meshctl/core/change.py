"""One difference between what a host has and what it should have, in a form that can be shown and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Kinds: package, file, sysctl, unit, key, interface, address, route, mtu, listen-port, peer, table, handler; `revoked`,
# of a key, is the ledger's alone.
# Actions are Terraform's: create, update, delete; `run` for handlers.


@dataclass(frozen=True)
class Change:
    """`before` and `after` are JSON-able maps of just the fields that differ (None: the thing is absent).

    Secrets appear as `(sensitive FINGERPRINT)`, file contents as their sha256, an unknown value as
    `(known after apply)`. `resource` is the index of the NodeDoc resource that asks for it, -1 for removals.
    """

    node: str
    kind: str
    action: str
    name: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    resource: int = -1

    def to_json(self) -> dict[str, Any]:
        """The shape of schemas/plan.schema.json."""
        return {
            "node": self.node,
            "kind": self.kind,
            "action": self.action,
            "name": self.name,
            "before": None if self.before is None else dict(self.before),
            "after": None if self.after is None else dict(self.after),
        }


def digest(changes: Iterable[Change]) -> str:
    """sha256 over the changes in canonical JSON: equal digests mean the same work from the same state."""
    text = json.dumps([c.to_json() for c in changes], sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
