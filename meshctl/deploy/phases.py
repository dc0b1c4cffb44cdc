"""One piece of work over many hosts in parallel: a failure stays with its host, progress is told, Ctrl-C is heard."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from select import select

from meshctl.deploy.host import Host
from meshctl.deploy.outcome import CHANGED, FAILED
from meshctl.deploy.parallel import Interrupts, Workers
from meshctl.deploy.progress import Progress
from meshctl.errors import RemoteError

# Between two looks whether a question was interrupted.
ASK_S = 0.2


class Phases:
    """The phases of one run. `interrupted` is set by the first Ctrl-C during a phase that is finished in order; no
    phase begins after it. A context manager: the signals are its own for so long."""

    def __init__(self, forks: int, progress: Progress) -> None:
        self.interrupted = False
        self._forks = forks
        self._progress = progress
        self._interrupts = Interrupts()

    def __enter__(self) -> Phases:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.__exit__()

    def each(
        self, phase: str, hosts: Sequence[Host], work: Callable[[Host], None], *, finish: bool = False,
        last: bool = False,
    ) -> None:  # fmt: skip
        """`work` for every host in parallel; its RemoteErrors become the hosts'.

        With `finish`, Ctrl-C lets running hosts end and starts no new ones; without, it raises KeyboardInterrupt.
        `last` ends what has begun, and so is done after a Ctrl-C, too.
        """
        if not hosts or (self.interrupted and not last):
            return
        named = {host.name: host for host in hosts}
        heard = self._interrupts.count if last else 0
        workers = Workers(lambda name: guarded(named[name], work), list(named), self._forks, self._interrupts, heard)
        self._progress.begin(phase, tuple(named))
        try:
            workers.run(
                lambda name, _: self._progress.done(phase, name, _word(phase, named[name])),
                self._stop if finish else None,
            )
        finally:
            self._progress.end()
        _mark_abandoned(workers.running, named)

    def note(self, text: str) -> None:
        """Tell the operator."""
        self._progress.note(text)

    def ask(self, question: str) -> bool:
        """Whether the operator, at a terminal, says yes. A Ctrl-C is no, and counts as during a phase."""
        self._progress.note(question)
        while not self._interrupts.count:
            if select([sys.stdin], [], [], ASK_S)[0]:
                return sys.stdin.readline().strip().lower() in ("y", "yes")
        self.interrupted = True
        return False

    def _stop(self, running: frozenset[str]) -> None:
        self.interrupted = True
        self._progress.note(
            f"Interrupted: waiting for {', '.join(sorted(running)) or 'nothing'}; "
            "Ctrl-C again leaves them to finish by themselves."
        )


def guarded(host: Host, work: Callable[[Host], None]) -> None:
    """`work(host)`, its time added to the host's and its failure kept there. Never raises."""
    started = time.monotonic()
    try:
        work(host)
    except RemoteError as error:
        host.error = error
    except Exception as error:
        # A worker thread must never end in a traceback; a bug is reported like a failed host. The place only: an
        # exception's text may quote a secret.
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        host.error = RemoteError(
            f"internal error: {type(error).__name__} at {' < '.join(places[-1:-4:-1])}", node=host.name,
            kind="protocol", hint="please report it",
        )  # fmt: skip
    host.duration_s += time.monotonic() - started


def _mark_abandoned(names: set[str], hosts: Mapping[str, Host]) -> None:
    for name in names:
        hosts[name].error = RemoteError(
            "interrupted: was being applied, the node finishes or undoes it by itself", node=name, kind="interrupted",
            hint="run plan to see what became of it",
        )  # fmt: skip


def _word(phase: str, host: Host) -> str:
    if host.error is not None:
        return f"{FAILED}: {host.error.message}"
    if phase == "applying":
        return CHANGED
    if phase == "reading":
        return f"{len(host.changes)} to do" if host.changes else "as wanted"
    return "ok"
