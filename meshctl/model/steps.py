"""The wire between controller and applier: a transaction of small idempotent steps, and its result. Plain JSON.

The controller decides everything (`core.diff`, `ops`); the applier only stages, snapshots, converges and verifies.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIRE_VERSION = 4


@dataclass(frozen=True)
class Step:
    """One action on the host. `change` is the index of the Change that it serves (-1: bookkeeping).

    do = "run":     argv, stdin (may hold secrets: never logged), timeout_s
         "cleanup": argv, timeout_s: as "run", but its failure is a warning: what is taken away goes all the same
         "write":   path, content, mode, owner, group (atomic replace; staged beside the target beforehand)
         "mkdir":   path, mode, owner, group
         "link":    path, target
         "remove":  path
         "attrs":   path, mode, owner, group
         "key":     path, interface (make the private key if absent; adopt it from the live interface or conf first,
                  unless no interface is named)
         "switch":  path, target, interface: the key file `target` takes the place of `path`, and the live interface its
                  key; peers that have an address hear of it at once
         "table":   stdin (nft text), path ("inet meshctl"): load atomically, then record the listing's sha256
         "endpoint": interface, peer (public key), target (NAME:PORT), timeout_s: a name that does not resolve is a
                  warning, and the ledger then forgets the endpoint, so that the next plan asks for it again
         "ledger":  content (JSON); the applier fills in the tables' listing hashes
         "restore": argv, the ids of all transactions to be taken back, the newest first: the host is again as it was
                  before the last of them; target, the id of the one after which it was so
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
    peer: str = ""
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
        for name in ("path", "mode", "owner", "group", "target", "interface", "peer"):
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
    """One node's work. `facts_script` is run again after converging, so that the controller can verify. `confirm_s`:
    how long the node then waits to be told that all is well, before it goes back; 0 to wait for nobody. `ledger`: the
    `Ledger.digest` of the host that the steps were made for; "" when they fit any. `manual`: a person confirms it, and
    not the run itself.

    All transactions of one run have one `id`, but for those that only prepare a node for another one, which have that
    one's in `prepares`, and those that are a first part of it, which have that in `part_of`. What history shows: `who`
    runs it, from which Git `revision`, and the `changes` as the plan has them (`core.change.Change.to_json`)."""

    id: str
    node: str
    steps: tuple[Step, ...]
    facts_script: str = ""
    confirm_s: float = 0.0
    who: str = ""
    revision: str = ""
    changes: tuple[Mapping[str, Any], ...] = ()
    prepares: str = ""
    part_of: str = ""
    ledger: str = ""
    manual: bool = False
    wire_version: int = WIRE_VERSION

    def encode(self) -> bytes:
        """The document as it travels: zlib over canonical JSON."""
        document = {
            "wire_version": self.wire_version,
            "id": self.id,
            "node": self.node,
            "steps": [step.to_wire() for step in self.steps],
            "facts_script": self.facts_script,
            "confirm_s": self.confirm_s,
            "who": self.who,
            "revision": self.revision,
            "changes": list(self.changes),
            "prepares": self.prepares,
            "part_of": self.part_of,
            "ledger": self.ledger,
            "manual": self.manual,
        }
        return zlib.compress(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), 6)

    @property
    def goes_back(self) -> Step | None:
        """The step that takes other transactions back: a rollback has no other one."""
        return next((step for step in self.steps if step.do == "restore"), None)

    @classmethod
    def decode(cls, raw: bytes) -> Transaction:
        """The inverse of `encode`. Raises ValueError for anything else, another wire version included."""
        try:
            document = json.loads(zlib.decompress(raw))
            if document["wire_version"] != WIRE_VERSION:
                raise ValueError(f"wire version {document['wire_version']!r} is not {WIRE_VERSION}")
            return cls(
                id=str(document["id"]),
                node=str(document["node"]),
                steps=tuple(Step.from_wire(raw_step) for raw_step in document["steps"]),
                facts_script=str(document["facts_script"]),
                confirm_s=float(document["confirm_s"]),
                who=str(document["who"]),
                revision=str(document["revision"]),
                changes=tuple(document["changes"]),
                prepares=str(document["prepares"]),
                part_of=str(document["part_of"]),
                ledger=str(document["ledger"]),
                manual=bool(document["manual"]),
            )
        except (zlib.error, KeyError, TypeError) as error:
            raise ValueError(f"not a transaction: {error!r}") from error


@dataclass(frozen=True)
class StepFailure:
    """The step that failed: its index, what it printed (secrets removed), and a RemoteError kind."""

    index: int
    kind: str
    message: str


@dataclass(frozen=True)
class Result:
    """The applier's answer. `phase` is the last one entered: receive, lock, stage, snapshot, arm, converge, verify or
    done; confirm, hold or undo of what decides about an apply later.
    `undone`: it has failed, and the host was put back; with what could not be, in words."""

    id: str
    ok: bool
    phase: str
    done: tuple[int, ...] = ()  # indices of the steps that ran
    unresolved: tuple[int, ...] = ()  # those of them whose endpoint is a name that did not resolve
    failure: StepFailure | None = None
    facts: str = ""  # output of facts_script after converging
    undone: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> str:
        """One line of JSON."""
        failure = self.failure and [self.failure.index, self.failure.kind, self.failure.message]
        document = {
            "id": self.id, "ok": self.ok, "phase": self.phase, "done": list(self.done),
            "unresolved": list(self.unresolved), "failure": failure, "facts": self.facts,
            "undone": None if self.undone is None else list(self.undone),
            "warnings": list(self.warnings),
        }  # fmt: skip
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            document = json.loads(text)
            failure = document["failure"]
            return cls(
                id=str(document["id"]),
                ok=bool(document["ok"]),
                phase=str(document["phase"]),
                done=tuple(int(i) for i in document["done"]),
                unresolved=tuple(int(i) for i in document["unresolved"]),
                failure=None if failure is None else StepFailure(int(failure[0]), str(failure[1]), str(failure[2])),
                facts=str(document["facts"]),
                undone=None if document["undone"] is None else tuple(str(w) for w in document["undone"]),
                warnings=tuple(str(w) for w in document["warnings"]),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a result: {error!r}") from error
