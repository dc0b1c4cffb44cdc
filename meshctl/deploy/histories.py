"""The history of a host, as its own journals have it, in one exec without Python. What a host answers is believed as
far as it has the right form, and never drives a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from meshctl.core.change import Change
from meshctl.core.history import TELLING, Entry, armed, entries
from meshctl.deploy.hints import hint
from meshctl.deploy.transport import Transport
from meshctl.errors import RemoteError
from meshctl.inventory.report import printable
from meshctl.model.places import PENDING_PATH

# `J` begins a journal, the rest of which follows; `S` names a snapshot, `P` has the apply that waits to be confirmed:
# one line, whatever a damaged disk has made of it. Snapshots come first, for one that is just made has its journal.
SCRIPT = f"""\
for s in /var/lib/meshctl/snapshots/*/manifest.json; do [ -e "$s" ] && echo "S $s"; done
for j in /var/lib/meshctl/journal/*.jsonl; do
  [ -e "$j" ] && echo J && grep -aE '^[{{]"event":"({'|'.join(TELLING)})"' "$j"
done
[ -e {PENDING_PATH} ] && echo "P $(tr -d '\\000-\\037' <{PENDING_PATH})"
exit 0
"""


def read(node: str, transport: Transport) -> tuple[Entry, ...]:
    """The newest first. Raises RemoteError."""
    completed = transport.run("exec sh", SCRIPT.encode())
    if completed.status != 0:
        raise RemoteError(
            f"reading its history ended with status {completed.status}: {printable(completed.last_line())}",
            node=node, kind="command", step="history", hint=hint("protocol", node),
        )  # fmt: skip
    try:
        return parse(completed.text())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise RemoteError(
            f"its history cannot be read ({type(error).__name__})", node=node, kind="protocol", step="history",
            hint=hint("protocol", node),
        ) from error  # fmt: skip


def parse(text: str) -> tuple[Entry, ...]:
    """The newest first. Raises ValueError, KeyError, TypeError, AttributeError, IndexError or RecursionError for what
    the script has not printed."""
    journals: list[list[Mapping[str, Any]]] = []
    kept: set[str] = set()
    pending, damaged = None, False
    for line in text.splitlines():
        if line == "J":
            journals.append([])
        elif line.startswith("S "):
            kept.add(line.split("/")[-2])
        elif line.startswith("P "):
            pending = _event(line[2:]).get("id")
            damaged = not isinstance(pending, str)
        elif event := _event(line):
            journals[-1].append(event)
    found = entries(journals, kept, armed(journals, kept) if damaged else pending)
    for entry in found:
        changes(entry)
    return found


def changes(entry: Entry) -> tuple[Change, ...]:
    """As `plan` had them. Raises TypeError or KeyError."""
    return tuple(
        Change(str(c["node"]), str(c["kind"]), str(c["action"]), str(c["name"]), c["before"], c["after"])
        for c in entry.changes
    )


def _event(line: str) -> dict[str, Any]:
    """Nothing for a line that a power cut has cut short, or that is noise."""
    try:
        event = _clean(json.loads(line))
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _clean(value: Any) -> Any:
    """Every text in it as one that may be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {printable(str(name)): _clean(item) for name, item in value.items()}
    return value
