"""Every failure that meshctl explains to a person: one root, with a place and a remedy.

Two families never mix: `MeshctlError` and its plain subclasses are the operator's or our own fault and stop
the run; `RemoteError` is one host's fault, is reported for that host, and lets the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass

# Exit codes of the command line (DESIGN section 5). 2 is kept for `plan --detailed-exitcode`.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CHANGES = 2
EXIT_USAGE = 64
EXIT_INVENTORY = 65


@dataclass(frozen=True)
class Diagnostic:
    """One finding about an input file. `line` and `column` count from 1; 0 means the whole file.

    `path` is the place inside the document as a dotted path (`nodes.web1.listen_port`), `code` a stable
    kebab-case name of the rule, `text` the offending source text where there is one.
    """

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str = ""
    text: str = ""
    severity: str = "error"  # or "warning", or "note": nothing to mend, only to know

    def where(self) -> str:
        """`file:line:column`, shortened to what is known."""
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        head = f"{self.where()}: " if self.file else ""
        tail = f" ({self.hint})" if self.hint else ""
        return f"{head}{self.message}{tail}"


class MeshctlError(Exception):
    """Root of all explained failures. `where` is a place (file, node, step), `hint` the next thing to do."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: " if self.where else ""
        tail = f"; {self.hint}" if self.hint else ""
        return f"{head}{self.message}{tail}"


class UsageError(MeshctlError):
    """The command line does not make sense."""

    exit_code = EXIT_USAGE


class InventoryError(MeshctlError):
    """The inventory (or lock, or role) is wrong. Carries every finding of the run, not the first alone."""

    exit_code = EXIT_INVENTORY

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        count = sum(1 for d in diagnostics if d.severity == "error")
        super().__init__(f"{count} error{'s' if count != 1 else ''} in the inventory")
        self.diagnostics = diagnostics


class RenderError(MeshctlError):
    """A role or template does not render. `where` names template:line and the node."""

    exit_code = EXIT_INVENTORY


class RemoteError(MeshctlError):
    """A host's fault. `kind` is stable and machine-readable, `step` says what was being done.

    Kinds: unreachable, refused, timeout, auth, host-key, sudo, python, wireguard, disk-full, package-lock,
    key-mismatch, revoked, rotated, locked, moved, protocol, command, not-converged, broken, unconfirmed, undone,
    confirmed, skipped, interrupted, no-state, no-agent.
    """

    def __init__(self, message: str, *, node: str, kind: str, step: str = "", hint: str = "") -> None:
        super().__init__(message, where=node, hint=hint)
        self.node = node
        self.kind = kind
        self.step = step

    def to_json(self) -> dict[str, str]:
        """As the documents of commands list it."""
        return {"node": self.node, "kind": self.kind, "message": self.message, "hint": self.hint}
