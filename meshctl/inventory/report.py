"""Diagnostics for people and as JSON. The formats of pipelines are in meshctl.reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshctl.errors import Diagnostic
from meshctl.inventory.files import MAX_BYTES
from meshctl.inventory.yaml_source import LINE_BREAK

_RED, _YELLOW, _CYAN, _BOLD, _RESET = "\033[31m", "\033[33m", "\033[36m", "\033[1m", "\033[0m"
# By severity, the gravest first.
_TONES = {"error": _RED, "warning": _YELLOW, "note": _CYAN}
# A source line longer than this is shown as a window around the column.
_WINDOW = 120


def to_json(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """The shape of schemas/validate.schema.json."""
    found = by_severity(diagnostics)
    return {"valid": not found["error"], "errors": found["error"], "warnings": found["warning"]}


def by_severity(diagnostics: Iterable[Diagnostic]) -> dict[str, list[dict[str, Any]]]:
    """Each severity's findings as JSON has them."""
    found: dict[str, list[dict[str, Any]]] = {severity: [] for severity in _TONES}
    for d in diagnostics:
        found[d.severity].append(
            {
                "file": d.file,
                "line": d.line,
                "column": d.column,
                "path": d.path,
                "code": d.code,
                "message": d.message,
                "hint": d.hint,
            }
        )
    return found


def to_human(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """`file:line:col: error[code]: message`, the source line with a caret, the hint."""
    sources: dict[str, list[str]] = {}
    return "".join(_human(d, colour, sources) for d in diagnostics)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    counts = Counter(d.severity for d in diagnostics)
    found = [f"{n} {word}{'' if n == 1 else 's'}" for word in _TONES if (n := counts[word])]
    return ", ".join(found) or "no errors"


def _human(d: Diagnostic, colour: bool, sources: dict[str, list[str]]) -> str:
    tone = _TONES[d.severity]

    def paint(text: str, *codes: str) -> str:
        return f"{''.join(codes)}{text}{_RESET}" if colour else text

    place = f"{d.where()}: " if d.file else ""
    lines = [f"{paint(printable(place), _BOLD)}{paint(f'{d.severity}[{d.code}]', tone, _BOLD)}: {printable(d.message)}"]
    if d.file not in sources:
        sources[d.file] = _lines(d.file)
    source = sources[d.file][d.line - 1] if 0 < d.line <= len(sources[d.file]) else ""
    if source.strip():
        from meshctl.inventory.sensitive import mask  # here, for an inventory without findings shows no source

        start = max(0, d.column - 1 - _WINDOW // 2) if len(source) > _WINDOW else 0
        shown = printable(mask(source, d.path)[start : start + _WINDOW].replace("\t", " "))
        width = max(1, min(len(d.text.split("\n")[0]), len(shown) - (d.column - 1 - start)))
        lines += [f"    {shown}", f"    {' ' * (d.column - 1 - start)}{paint('^' * width, tone)}"]
    if d.hint:
        lines.append(f"    {paint('hint', _CYAN)}: {printable(d.hint)}")
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """`text` with control characters shown as `?`: a file must not be able to drive the reader's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _lines(file: str) -> list[str]:
    """The file's lines as the parser counted them; none when it is gone meanwhile."""
    try:
        with Path(file).open("rb") as stream:  # /dev/zero has no end
            return LINE_BREAK.split(stream.read(MAX_BYTES).decode("utf-8-sig", errors="replace"))
    except OSError:
        return []
