"""The applier: one transaction from standard input, one JSON result on standard output, never a traceback.

Phases, each a function of its own with one journal between them: stage, snapshot, arm, converge, verify. It outlives
the SSH connection that started it: a hang-up is ignored, the result is in the journal. From `arm` on the host goes back
to the snapshot when a step fails, when the applier dies, and when nobody confirms (`deadman`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from meshctl.agent import compiled, deadman, files, goback, history, lock, process, versions
from meshctl.agent.answer import answer, failed, outlive_the_connection
from meshctl.agent.converge import Convergence
from meshctl.agent.failure import ApplyError, of_os_error, raise_for_os_error
from meshctl.agent.journal import JOURNAL_DIR, Journal, clean_after_killed_runs, has_converged, make_private_dir
from meshctl.agent.saved import ledger_at
from meshctl.agent.snapshot import note_after, snapshot
from meshctl.agent.stage import stage, unstage
from meshctl.agent.undo import UNDONE, undo
from meshctl.model.ledger import LEDGER_PATH
from meshctl.model.places import FACTS_SHELL
from meshctl.model.steps import Result, StepFailure, Transaction

FACTS_TIMEOUT_S = 60.0


def main() -> int:
    """Entry point of `meshctl-agent apply`. Exit status 0 when the transaction succeeded."""
    outlive_the_connection()
    os.umask(0o077)
    try:
        transaction = Transaction.decode(sys.stdin.buffer.read())
    except ValueError as error:
        return answer(failed("", "receive", ApplyError("protocol", str(error))))
    return answer(apply(transaction))


def apply(transaction: Transaction) -> Result:
    """Run a transaction under the host's lock; what fails is in the result."""
    try:
        held = lock.take(transaction.who)
    except ApplyError as failure:
        return failed(transaction.id, "lock", failure)
    try:
        settle()
        running = Path(sys.argv[0])
        versions.forget_old(running)
        compiled.make(running)
        return Apply(transaction).run()
    except ApplyError as failure:
        return failed(transaction.id, "lock", failure)
    except OSError as error:
        return failed(transaction.id, "lock", of_os_error(error, "looking at what applies before this one have left"))
    finally:
        os.close(held)


def settle() -> None:
    """What an apply before this one has left to be decided. Raises ApplyError: `locked` while it may still be
    confirmed, and `undone` when the host is another one now than this transaction was made for: not when the applier
    before was killed before it came to the steps."""
    pending = deadman.read()
    if pending is None:
        files.remove_quietly(deadman.PENDING)  # one that is damaged, where nothing waits
        return
    if pending.waits_s:
        raise ApplyError("locked", f"{pending.words}, and is undone in {pending.waits_s:.0f} s unless it is confirmed")
    touched = has_converged(JOURNAL_DIR / f"{pending.id}.jsonl")
    undo(pending, pending.over)
    if deadman.read() is not None:
        raise ApplyError("command", f"{deadman.PENDING} of an apply before this one cannot be removed")
    if not touched:
        return
    raise ApplyError("undone", f"an apply before this one was undone just now, for {pending.over}")


class Apply:
    """One transaction on its way through the phases; `phase` and `convergence` are what a failure reports."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._phase = "stage"
        self._convergence: Convergence | None = None

    def run(self) -> Result:
        """All phases with the journal around them; what fails is in the result, and undone where there is a window."""
        journal: Journal | None = None
        try:
            journal = self._open_journal()
            result = self._phases(journal)
        except ApplyError as failure:
            result = self._result(failure=failure)
        except OSError as error:  # of the journal: all else says where it was
            result = self._result(failure=of_os_error(error, f"writing to {JOURNAL_DIR}"))
        except Exception as error:
            # Our own bug. Places only: an exception's text may quote a secret.
            import traceback  # takes milliseconds to import, hardly ever needed

            places = [[f.filename, f.lineno, f.name] for f in traceback.extract_tb(error.__traceback__)]
            if journal is not None:
                journal.write("error", type=type(error).__name__, traceback=places)
            message = f"internal error ({type(error).__name__}); see {JOURNAL_DIR} on the node"
            result = self._result(failure=ApplyError("protocol", message))
        if journal is not None:
            result = self._undone(result)
            self._end_journal(journal, result)
        if result.ok and not self._transaction.confirm_s and not self._transaction.prepares:
            files.remove_quietly(UNDONE)  # with a window, its confirmation does so
        return result

    def _undone(self, result: Result) -> Result:
        """The result, once a host that was touched is back where it was, unless all went well."""
        pending = deadman.read()
        if result.failure is None or pending is None or pending.id != result.id:
            return result
        return replace(result, undone=undo(pending, f"it failed: {result.failure.message}"))

    def _open_journal(self) -> Journal:
        try:
            make_private_dir(JOURNAL_DIR)
            clean_after_killed_runs()
            work = self._transaction
            back = work.goes_back
            return Journal(
                work.id, work.node, who=work.who, revision=work.revision, changes=list(work.changes),
                prepares=work.prepares, part_of=work.part_of, to=back.target if back else "",
                number=history.next_number(),
            )  # fmt: skip
        except OSError as error:
            raise_for_os_error(error, f"opening the journal in {JOURNAL_DIR}")

    def _phases(self, journal: Journal) -> Result:
        work = self._transaction
        journal.write("phase", phase="stage")
        refuse_moved(work)
        past = goback.stage(work.goes_back) if work.goes_back else None
        staged = stage(work, journal, past)
        try:
            if not work.prepares:  # a key is nothing to go back from
                self._enter("snapshot", journal)
                snapshot(work, past)
            if work.confirm_s:
                self._enter("arm", journal)
                deadman.arm(deadman.Pending.of(work), Path(sys.argv[0]))
            self._enter("converge", journal)
            self._convergence = Convergence(work, staged, journal, past)
            self._convergence.run()
        finally:
            unstage(staged)
        self._enter("verify", journal)
        note_after(work)
        facts = verify(work)
        deadman.await_confirmation()
        self._phase = "done"
        return self._result(facts=facts)

    def _enter(self, phase: str, journal: Journal) -> None:
        self._phase = phase
        journal.write("phase", phase=phase)

    def _result(self, facts: str = "", failure: ApplyError | None = None) -> Result:
        run = self._convergence
        return Result(
            id=self._transaction.id,
            ok=failure is None,
            phase=self._phase,
            done=tuple(run.done) if run else (),
            unresolved=tuple(run.unresolved) if run else (),
            failure=None if failure is None else StepFailure(failure.index, failure.kind, failure.message),
            facts=facts,
            warnings=tuple(run.warnings) if run else (),
        )

    def _end_journal(self, journal: Journal, result: Result) -> None:
        """The host is as it is now; a journal that cannot be ended only means one more clean-up next time."""
        try:
            failure = result.failure and [result.failure.index, result.failure.kind, result.failure.message]
            journal.write(
                "end", ok=result.ok, phase=result.phase, done=list(result.done), failure=failure,
                warnings=list(result.warnings),
            )  # fmt: skip
            history.forget_old()
        except OSError:
            return
        finally:
            journal.close()


def refuse_moved(transaction: Transaction) -> None:
    """Raises ApplyError of kind moved when somebody has applied here since the host was read: the steps, and the ledger
    with which they end, would take that back, or forget it."""
    if transaction.ledger and ledger_at(Path(LEDGER_PATH)).digest != transaction.ledger:
        raise ApplyError("moved", "somebody else has applied to this host since it was read; nothing was touched")


def verify(transaction: Transaction) -> str:
    """Phase 5: the facts as they are now, for the controller to compare."""
    if not transaction.facts_script:
        return ""
    ran = process.run(("sh", "-c", FACTS_SHELL), transaction.facts_script.encode(), FACTS_TIMEOUT_S)
    if ran.status != 0:
        raise ApplyError("command", f"the facts script ended with status {ran.status}")
    return ran.stdout
