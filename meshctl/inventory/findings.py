"""The collector that every check reports to, so that one run tells everything."""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.errors import Diagnostic
from meshctl.inventory.document import Document, Path
from meshctl.model.policy import whose

# A file with more faults than this is not an inventory; explaining each would take minutes.
MAX_FINDINGS = 500
# Values that could not be read; what stands in for them is not the author's, so nothing more is said of it.
_UNREAD = ("bad-number", "yaml-tag")


class Findings:
    """Diagnostics about one document, placed by path. Keeps the first MAX_FINDINGS and counts the rest."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.items: list[Diagnostic] = []
        self.errors = 0
        self._seen: set[tuple[str, str, int, int, str]] = set()
        self._unread: set[tuple[str, int, int]] = set()

    def error(self, code: str, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Report what must be corrected. `key`: the place is the key at `path`, not its value."""
        self._add(code, path, message, hint, key=key, severity="error")

    def warning(self, code: str, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Report what is allowed but looks unintended."""
        self._add(code, path, message, hint, key=key, severity="warning")

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Take over findings that have their place already."""
        for diagnostic in diagnostics:
            self.errors += diagnostic.severity == "error"
            if diagnostic.code in _UNREAD:
                self._unread.add((diagnostic.file, diagnostic.line, diagnostic.column))
            if not self.full:
                self.items.append(diagnostic)

    @property
    def full(self) -> bool:
        """Whether further findings would only be counted."""
        return len(self.items) >= MAX_FINDINGS

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All findings by file and place; one more at the end when some were left out."""
        items = sorted(self.items, key=lambda d: (d.file, d.line, d.column, d.code))
        if self.full:
            items.append(
                Diagnostic("too-many-errors", f"only the first {MAX_FINDINGS} findings are shown", self.document.file)
            )
        return tuple(items)

    def _add(self, code: str, path: Path, message: str, hint: str, *, key: bool, severity: str) -> None:
        if severity == "error":
            self.errors += 1
        if self.full:
            return
        where = self.document.position(path, key=key)
        message += self._whose(path)
        mark = (code, where.file, where.line, where.column, message)
        if mark in self._seen:  # a group's setting is met once for every node that inherits it
            return
        if (where.file, where.line, where.column) in self._unread:
            return
        self._seen.add(mark)
        self.items.append(
            Diagnostic(
                code,
                message,
                where.file,
                where.line,
                where.column,
                dotted(path),
                hint,
                self.document.text(path, key=key),
                severity,
            )
        )

    def _whose(self, path: Path) -> str:
        """Whose policy it is about, and why there is one; so every report carries it."""
        if len(path) < 2 or path[0] != "policies" or not isinstance(path[1], int):
            return ""
        policies = self.document.data.get("policies")
        policy = policies[path[1]] if isinstance(policies, list) and path[1] < len(policies) else None
        return whose(policy.get("owner"), policy.get("reason")) if isinstance(policy, dict) else ""


def dotted(path: Path) -> str:
    """`nodes.web1.routes[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
