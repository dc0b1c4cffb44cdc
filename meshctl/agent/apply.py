"""The applier: one transaction from standard input, one JSON result on standard output, never a traceback.

Phases, each a function of its own with one journal between them: stage, snapshot, converge, verify. It outlives the
SSH connection that started it: a hang-up is ignored, the result is in the journal.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from meshctl.agent import compiled, process, versions
from meshctl.agent.converge import Convergence
from meshctl.agent.failure import NO_STEP, ApplyError, raise_for_os_error
from meshctl.agent.journal import JOURNAL_DIR, Journal, clean_after_killed_runs, forget_old, make_private_dir
from meshctl.agent.snapshot import snapshot
from meshctl.agent.stage import stage, unstage
from meshctl.model.places import FACTS_SHELL
from meshctl.model.steps import Result, StepFailure, Transaction

LOCK_PATH = Path("/run/meshctl/apply.lock")
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


def answer(result: Result) -> int:
    """Print the result; the controller may be gone, which changes nothing for the host."""
    try:
        sys.stdout.write(result.to_json() + "\n")
        sys.stdout.flush()
    except OSError:
        # Python flushes again at exit and would complain: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0 if result.ok else 1


def outlive_the_connection() -> None:
    """Finish what was begun, whatever happens to the SSH session; steps inherit this."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def apply(transaction: Transaction) -> Result:
    """Run a transaction under the host's lock. Never raises."""
    try:
        lock = take_lock()
    except ApplyError as failure:
        return failed(transaction.id, "lock", failure)
    try:
        running = Path(sys.argv[0])
        versions.forget_old(running)
        compiled.make(running)
        return Apply(transaction).run()
    finally:
        os.close(lock)


def failed(transaction_id: str, phase: str, failure: ApplyError) -> Result:
    """The result of a transaction that touched nothing."""
    return Result(transaction_id, False, phase, failure=StepFailure(failure.index, failure.kind, failure.message))


class Apply:
    """One transaction on its way through the phases; `phase` and `convergence` are what a failure reports."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._phase = "stage"
        self._convergence: Convergence | None = None

    def run(self) -> Result:
        """All phases with the journal around them. Never raises."""
        journal: Journal | None = None
        try:
            journal = self._open_journal()
            result = self._phases(journal)
        except ApplyError as failure:
            result = self._result(failure=failure)
        except Exception as error:
            # Our own bug. Places only: an exception's text may quote a secret.
            import traceback  # takes milliseconds to import, hardly ever needed

            places = [[f.filename, f.lineno, f.name] for f in traceback.extract_tb(error.__traceback__)]
            if journal is not None:
                journal.write("error", type=type(error).__name__, traceback=places)
            message = f"internal error ({type(error).__name__}); see {JOURNAL_DIR} on the node"
            result = self._result(failure=ApplyError("protocol", message))
        if journal is not None:
            self._end_journal(journal, result)
        return result

    def _open_journal(self) -> Journal:
        try:
            make_private_dir(JOURNAL_DIR)
            clean_after_killed_runs()
            return Journal(self._transaction.id, self._transaction.node)
        except OSError as error:
            raise_for_os_error(error, f"opening the journal in {JOURNAL_DIR}")

    def _phases(self, journal: Journal) -> Result:
        journal.write("phase", phase="stage")
        staged = stage(self._transaction, journal)
        try:
            self._enter("snapshot", journal)
            snapshot(self._transaction)
            self._enter("converge", journal)
            self._convergence = Convergence(self._transaction, staged, journal)
            self._convergence.run()
        finally:
            unstage(staged)
        self._enter("verify", journal)
        facts = verify(self._transaction)
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
            forget_old(JOURNAL_DIR, ".jsonl")
        except OSError:
            return
        finally:
            journal.close()


def verify(transaction: Transaction) -> str:
    """Phase 4: the facts as they are now, for the controller to compare."""
    if not transaction.facts_script:
        return ""
    ran = process.run(("sh", "-c", FACTS_SHELL), transaction.facts_script.encode(), FACTS_TIMEOUT_S)
    if ran.status != 0:
        raise ApplyError("command", f"the facts script ended with status {ran.status}")
    return ran.stdout


def take_lock() -> int:
    """The host's apply lock as an open file. Raises ApplyError of kind locked, naming the holder."""
    try:
        LOCK_PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise_for_os_error(error, f"opening {LOCK_PATH}", NO_STEP)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(fd, 200).decode(errors="replace").strip()
        os.close(fd)
        raise ApplyError("locked", f"another apply is running ({holder or 'just started'})") from error
    os.ftruncate(fd, 0)
    os.write(fd, f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S %Z')}".encode())
    return fd
