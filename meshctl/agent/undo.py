"""Undoing an apply: its snapshot is put back, and the next contact is told why."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from meshctl.agent import deadman, files, history
from meshctl.agent.failure import ApplyError
from meshctl.agent.journal import Journal, clean_after_killed_runs, make_private_dir
from meshctl.agent.others import Others
from meshctl.agent.restore import Restore
from meshctl.agent.saved import SNAPSHOT_DIR, of_one
from meshctl.model.places import UNDONE_PATH

UNDONE = Path(UNDONE_PATH)
# What could not be put back is tried again: a program may have been interrupted, a table have changed while it was
# read. Not where it takes so long that a start that fails has its own limit: a controller waits for the answer.
TRIES, PAUSE_S, TRYING_S = 3, 2.0, 60.0


def undo(pending: deadman.Pending, why: str, *, boot: bool = False) -> tuple[str, ...]:
    """Restore the snapshot of an apply, with the host's lock held; returns what could not be put back, in words. At
    boot it is files and what starts, of which units make the rest. What fails is tried again; who is killed meanwhile
    leaves it pending, and the next one begins again."""
    journal = Journal(pending.id, pending.node, strict=False)
    try:
        journal.write("revert", why=why)
        left = _restore(SNAPSHOT_DIR / pending.id, journal, boot)
        journal.write("reverted", left=list(left))
        _tell(pending, why, left)
        try:
            deadman.disarm()
        except ApplyError as failure:
            left = (*left, failure.message)
        history.forget_old()
        return left
    finally:
        journal.close()


def became_of(transaction_id: str) -> str:
    """What became of an apply that is not pending, in words."""
    try:
        told = json.loads(UNDONE.read_text(encoding="utf-8"))
        if told["id"] == transaction_id:
            return f"it was undone: {told['why']}"
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return "nothing of that name is to be confirmed"


def _restore(folder: Path, journal: Journal, boot: bool) -> tuple[str, ...]:
    with suppress(Exception):  # whatever is wrong with other journals: this one goes back
        clean_after_killed_runs()
    try:
        restore = Restore(of_one(folder), journal, Others.of(folder))
    except Exception as error:  # of what was damaged, nothing is known
        return (f"the snapshot {folder} cannot be read: {type(error).__name__}",)
    until = time.monotonic() + TRYING_S
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        if boot:
            restore.before_boot()
        else:
            restore.run()
        if not restore.left or time.monotonic() > until:
            break
    return tuple(dict.fromkeys(restore.left))


def _tell(pending: deadman.Pending, why: str, left: Sequence[str]) -> None:
    told = {"id": pending.id, "why": why, "left": list(left), "time": round(time.time(), 3)}
    try:
        make_private_dir(UNDONE.parent)
        files.put(UNDONE, json.dumps(told, sort_keys=True).encode() + b"\n", 0o600)
    except OSError:  # a full disk: the journal may have it
        return
