"""`meshctl-agent revert`, `confirm`, `hold` and `undo`: what becomes of an apply after it has answered."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from meshctl.agent import deadman, files, history, lock
from meshctl.agent.answer import answer, failed, outlive_the_connection
from meshctl.agent.failure import ApplyError
from meshctl.agent.journal import JOURNAL_DIR, Journal
from meshctl.agent.undo import UNDONE, became_of, undo
from meshctl.model.steps import Result

# Between two looks whether it is still to be waited.
_LOOK_S = 1.0


def revert(arguments: Sequence[str]) -> int:
    """Entry point of `meshctl-agent revert [--boot]`: restore what nobody has confirmed, when it is time."""
    boot = "--boot" in arguments
    if boot and deadman.read() is not None and not deadman.holds_up_boot():
        deadman.undo_soon()
        return 0
    while True:
        held = _wait_for_lock()
        try:
            pending = deadman.read()
            if pending is None:
                return 0
            waits_s = pending.waits_s
            if not waits_s:
                undo(pending, pending.over, boot=boot)
                return 0
        finally:
            os.close(held)
        until = time.monotonic() + waits_s
        while deadman.PENDING.exists() and time.monotonic() < until:
            time.sleep(min(waits_s, _LOOK_S))


def _wait_for_lock() -> int:
    """Who has it is at work on the apply that is pending, and says in its journal how far it has come."""
    pending = deadman.read()

    def progress() -> int:
        try:
            return (JOURNAL_DIR / f"{pending.id}.jsonl").stat().st_size if pending else 0
        except OSError:
            return 0

    return lock.wait(pending.patience_s if pending else deadman.PATIENCE_S, progress)


def decide(what: str, transaction_id: str) -> int:
    """Entry point of `meshctl-agent confirm|hold|undo ID`: the apply stays, may be confirmed for another window, or is
    undone now. One JSON result on standard output; who asks for a second time, for the answer was lost, gets the same
    one."""
    outlive_the_connection()
    try:
        held = lock.take()
    except ApplyError as failure:
        return answer(failed(transaction_id, what, failure))
    try:
        pending = deadman.read()
        if pending is None or pending.id != transaction_id:
            return answer(_decided(what, transaction_id))
        if not pending.waits_s:  # the timer is about to see it
            undo(pending, pending.over)
            return answer(failed(transaction_id, what, ApplyError("undone", became_of(transaction_id))))
        return answer(_DECISIONS[what](pending))
    finally:
        os.close(held)


def _decided(what: str, transaction_id: str) -> Result:
    """The answer about an apply that does not wait any more."""
    if not history.was_confirmed(transaction_id):
        return failed(transaction_id, what, ApplyError("undone", became_of(transaction_id)))
    if what == "confirm":
        return Result(transaction_id, True, what)
    return failed(transaction_id, what, ApplyError("confirmed", "it was confirmed, and stays"))


def _wait_anew(pending: deadman.Pending) -> Result:
    deadman.await_confirmation()
    return Result(pending.id, True, "hold")


def _keep(pending: deadman.Pending) -> Result:
    try:
        deadman.disarm()
    except ApplyError as failure:
        return failed(pending.id, "confirm", failure)
    journal = Journal(pending.id, pending.node, strict=False)
    try:
        journal.write("confirmed")
    finally:
        journal.close()
    files.remove_quietly(UNDONE)
    history.forget_old()
    return Result(pending.id, True, "confirm")


def _undo_now(pending: deadman.Pending) -> Result:
    left = undo(pending, "the controller wanted so")
    return Result(pending.id, not left, "undo", undone=left)


_DECISIONS = {"confirm": _keep, "hold": _wait_anew, "undo": _undo_now}
