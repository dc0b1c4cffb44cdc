"""What commands that change the host have in common: they end what they began, and answer one JSON result."""

from __future__ import annotations

import os
import signal
import sys

from meshctl.agent.failure import ApplyError
from meshctl.model.steps import Result, StepFailure


def answer(result: Result) -> int:
    """Print the result; the controller may be gone, which changes nothing for the host. Returns the exit status."""
    try:
        sys.stdout.write(result.to_json() + "\n")
        sys.stdout.flush()
    except OSError:
        # Python flushes again at exit and would complain: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0 if result.ok else 1


def failed(transaction_id: str, phase: str, failure: ApplyError) -> Result:
    """The result of what touched nothing."""
    return Result(transaction_id, False, phase, failure=StepFailure(failure.index, failure.kind, failure.message))


def outlive_the_connection() -> None:
    """Finish what was begun, whatever happens to the SSH session; steps inherit this."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
