"""Undoing an apply: its snapshot is put back, and the next contact is told why."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from meshctl.agent import deadman, files, history
from meshctl.agent.failure import ApplyError
from meshctl.agent.journal import Journal, clean_after_killed_runs, make_private_dir
from meshctl.agent.restore import Restore
from meshctl.agent.saved import of_one
from meshctl.agent.snapshot import SNAPSHOT_DIR
from meshctl.model.places import UNDONE_PATH

UNDONE = Path(UNDONE_PATH)


def undo(pending: deadman.Pending, why: str, *, boot: bool = False) -> tuple[str, ...]:
    """Restore the snapshot of an apply, with the host's lock held; returns what could not be put back, in words. At
    boot it is files and what starts, of which units make the rest. Never raises: there is nobody to tell."""
    journal = Journal(pending.id, pending.node, strict=False)
    try:
        journal.write("revert", why=why)
        left = _restore(SNAPSHOT_DIR / pending.id, journal, boot)
        journal.write("reverted", left=list(left))
        _tell(pending, why, left)
        deadman.disarm()
        history.forget_old()
        return left
    finally:
        journal.close()


def became_of(transaction_id: str) -> str:
    """What became of an apply that is not pending, in words."""
    try:
        told = json.loads(UNDONE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    if told.get("id") == transaction_id:
        return f"it was undone: {told['why']}"
    return "nothing of that name is to be confirmed"


def _restore(folder: Path, journal: Journal, boot: bool) -> tuple[str, ...]:
    try:
        clean_after_killed_runs()
        restore = Restore(of_one(folder), journal)
    except (OSError, ValueError, KeyError) as error:
        return (f"the snapshot {folder} cannot be read: {type(error).__name__}",)
    try:
        if boot:
            restore.before_boot()
        else:
            restore.run()
    except (ApplyError, OSError) as error:
        restore.left.append(str(error))
    return tuple(dict.fromkeys(restore.left))


def _tell(pending: deadman.Pending, why: str, left: Sequence[str]) -> None:
    told = {"id": pending.id, "why": why, "left": list(left), "time": round(time.time(), 3)}
    try:
        make_private_dir(UNDONE.parent)
        files.put(UNDONE, json.dumps(told, sort_keys=True).encode() + b"\n", 0o600)
    except OSError:  # a full disk: the journal may have it
        return
