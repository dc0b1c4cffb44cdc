"""GitHub's workflow commands, which it shows as annotations on the changed lines (ten of a severity a step)."""

from __future__ import annotations

from meshctl.inventory.report import printable
from meshctl.reports.report import Report, message_of

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def write(report: Report) -> str:
    """One command a line."""
    lines = []
    for d in report.placed().findings:
        place = {"file": printable(d.file), "line": d.line, "col": d.column, "title": d.code}
        properties = ",".join(f"{key}={_property(str(value))}" for key, value in place.items())
        lines.append(f"::{_COMMANDS[d.severity]} {properties}::{_data(message_of(d))}\n")
    return "".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
