"""The applier's journal: one file a transaction, one JSON object a line, on disk before the thing that it announces.

    {"event": "begin", "id": …, "node": …, "pid": …, "time": …}  who comes back to a journal begins again; the first
                                                       one has what history shows: "who", "revision", "changes", and
                                                       "prepares", "part_of" and "to": ids of others, or "";
                                                       and "number", one more than any journal of the host has
    {"event": "temp", "path": …}                       a temporary file is about to be made
    {"event": "phase", "phase": …}
    {"event": "step", "index": …, "do": …, "what": …}  about to run; "done" follows when it succeeded
    {"event": "done", "index": …}
    {"event": "error", "type": …, "traceback": [[file, line, function], …]}  a bug of ours
    {"event": "confirmed"}                             the apply stays
    {"event": "revert", "why": …}                      it is about to be undone; "reverted" follows, with what is left
    {"event": "restore", "argv": …, "status": …}       a command of the undoing has run
    {"event": "end", "ok": …, "phase": …, "done": [INDEX…], "failure": null | [index, kind, message], "warnings": […]}

Each has its "time" in Unix seconds. No file content, standard input or secret is ever written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

JOURNAL_DIR = Path("/var/lib/meshctl/journal")


class Journal:
    """An open journal. Each `write` is on disk when it returns. Raises OSError when the disk is full; without `strict`
    nothing is written then, for what it goes with has to be done in any case."""

    def __init__(self, transaction_id: str, node: str, *, strict: bool = True, **about: Any) -> None:
        self._strict = strict
        self.path = JOURNAL_DIR / f"{transaction_id}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            make_private_dir(JOURNAL_DIR)
            self._fd = os.open(self.path, flags, 0o600)
        except OSError:
            if strict:
                raise
            self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.write("begin", id=transaction_id, node=node, pid=os.getpid(), **about)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event and wait for the disk."""
        line = json.dumps({"event": event, **fields, "time": round(time.time(), 3)}, separators=(",", ":"))
        try:
            os.write(self._fd, line.encode() + b"\n")
            os.fsync(self._fd)
        except OSError:
            if self._strict:
                raise

    def close(self) -> None:
        """Close the file; the journal stays."""
        os.close(self._fd)


def make_private_dir(path: Path) -> None:
    """Make a directory of ours (and its parents), for root alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def clean_after_killed_runs() -> list[str]:
    """Remove the temporary files of transactions that never ended; returns their paths. Nothing that is wrong with a
    journal is a reason not to go on: a file that is left does no harm.

    Call it with the lock held: only then is a journal without an end a dead one.
    """
    removed = []
    for path in sorted(JOURNAL_DIR.glob("*.jsonl")):
        with contextlib.suppress(OSError):
            events = read_events(path)
            if not any(event.get("event") == "end" for event in events):
                removed += [name for event in events if event.get("event") == "temp" and (name := _removed(event))]
    return removed


def has_converged(path: Path) -> bool:
    """Whether the transaction of this journal came to its steps, or may have: there is no journal."""
    try:
        events = read_events(path)
    except OSError:
        return True
    return not events or any(event.get("event") == "phase" and event.get("phase") == "converge" for event in events)


def read_events(path: Path) -> list[dict[str, Any]]:
    """A journal's events. A last line that power loss cut short is left out, and so is whatever else is none, of a
    damaged disk. Raises OSError."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return events


def read_all() -> dict[Path, list[dict[str, Any]]]:
    """The events of all journals that can be read, by file, in the order of their names."""
    found = {}
    for path in sorted(JOURNAL_DIR.glob("*.jsonl")):
        with contextlib.suppress(OSError):
            found[path] = read_events(path)
    return found


def _removed(event: dict[str, Any]) -> str:
    """The path of the temporary file of this event, which is gone now; "" where nothing was removed."""
    name = str(event.get("path", ""))
    try:
        Path(name).unlink()
    except (OSError, ValueError):  # it is not there; or this is no path
        return ""
    return name
