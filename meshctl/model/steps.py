"""The wire between controller and applier: a transaction of small idempotent steps, and its result. Plain JSON.

The controller decides everything (`core.diff`, `ops`); the applier only stages, snapshots, converges and verifies.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

WIRE_VERSION = 1


@dataclass(frozen=True)
class Step:
    """One action on the host. `change` is the index of the Change that it serves (-1: bookkeeping).

    do = "run":     argv, stdin (may hold secrets: never logged), timeout_s
         "write":   path, content, mode, owner, group (atomic replace; staged beside the target beforehand)
         "mkdir":   path, mode, owner, group
         "link":    path, target
         "remove":  path
         "attrs":   path, mode, owner, group
         "key":     path, interface (make the private key if absent; adopt it from the live interface or conf first)
         "table":   stdin (nft text), path ("inet meshctl"): load atomically, then record the listing's sha256
         "ledger":  content (JSON); the applier fills in the tables' listing hashes
    """

    do: str
    change: int = -1
    argv: tuple[str, ...] = ()
    stdin: bytes | None = None
    path: str = ""
    content: bytes | None = None
    mode: str = ""
    owner: str = ""
    group: str = ""
    target: str = ""
    interface: str = ""
    timeout_s: float = 60.0

    def to_wire(self) -> dict[str, Any]:
        """JSON-able, defaults left out, bytes as base64."""
        out: dict[str, Any] = {"do": self.do}
        if self.change >= 0:
            out["change"] = self.change
        if self.argv:
            out["argv"] = list(self.argv)
        for name in ("stdin", "content"):
            value = getattr(self, name)
            if value is not None:
                out[name] = base64.b64encode(value).decode()
        for name in ("path", "mode", "owner", "group", "target", "interface"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        if self.timeout_s != 60.0:
            out["timeout_s"] = self.timeout_s
        return out

    @classmethod
    def from_wire(cls, raw: dict[str, Any]) -> Step:
        """The inverse of `to_wire`. Raises ValueError or KeyError for a malformed document."""
        values: dict[str, Any] = dict(raw)
        if "argv" in values:
            values["argv"] = tuple(values["argv"])
        for name in ("stdin", "content"):
            if name in values:
                values[name] = base64.b64decode(values[name], validate=True)
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"malformed step: {error}") from error


@dataclass(frozen=True)
class Transaction:
    """One node's work. `facts_script` is run again after converging, so that the controller can verify."""

    id: str
    node: str
    steps: tuple[Step, ...]
    facts_script: str = ""
    wire_version: int = WIRE_VERSION


@dataclass(frozen=True)
class StepFailure:
    """The step that failed: its index, what it printed (secrets removed), and a RemoteError kind."""

    index: int
    kind: str
    message: str


@dataclass(frozen=True)
class Result:
    """The applier's answer. `phase` is the last one entered: staged, converging, verified or done."""

    id: str
    ok: bool
    phase: str
    done: tuple[int, ...] = ()  # indices of the steps that ran
    failure: StepFailure | None = None
    facts: str = ""  # output of facts_script after converging
    warnings: tuple[str, ...] = field(default_factory=tuple)
