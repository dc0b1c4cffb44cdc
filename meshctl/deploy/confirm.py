"""After a wave has converged: each node is confirmed over a fresh connection, unless `check` has found why not.

A node that nobody confirms undoes what was applied (`meshctl.agent.deadman`). So all that is done here is to find the
reasons not to confirm, and to say them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable

from meshctl.deploy.applier import agent_command, read_result
from meshctl.deploy.check import AGAIN_S, Check, echo
from meshctl.deploy.hints import hint
from meshctl.deploy.host import LOST, Connect, Host
from meshctl.deploy.outcome import NO_WAY_IN
from meshctl.errors import RemoteError
from meshctl.model.facts import PendingApply
from meshctl.model.places import REVERT_LINK

# A node takes well below a second to hold its window open; where this is too short, the next try has time left.
HOLD_S = 5.0
# So long an applier is waited for whose controller has died: what apt installs takes longest.
FINISH_S = 300.0
_BUT = "applied, but "


class Windows:
    """Held open: those of the hosts that have converged, until each is let go to be confirmed or undone. A thread for
    each, which sleeps nearly all the time, holds its node's; the workers go on, so a wave may have more hosts than
    there are. A context manager, at the end of which none is held."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[threading.Event, threading.Thread]] = {}
        self._lock, self._over = threading.Lock(), False

    def __enter__(self) -> Windows:
        return self

    def __exit__(self, *_: object) -> None:
        until = time.monotonic() + HOLD_S
        with self._lock:  # a host that the operator has given up on may converge yet
            self._over = True
        for gone, _thread in self._held.values():
            gone.set()
        for _gone, thread in self._held.values():
            thread.join(max(0.0, until - time.monotonic()))

    def hold(self, host: Host) -> None:
        """Its window, if one is open and not held yet."""
        with self._lock:
            if host.pending is not None and host.name not in self._held and not self._over:
                gone = threading.Event()
                thread = threading.Thread(target=_hold, args=(host, host.pending, gone), daemon=True)
                self._held[host.name] = gone, thread
                thread.start()

    def let_go(self, host: Host) -> None:
        """Its window is not held any more; one that is just being held on a lost connection is not waited for."""
        if host.name in self._held:
            gone, thread = self._held[host.name]
            gone.set()
            thread.join(HOLD_S)


def _hold(host: Host, pending: PendingApply, gone: threading.Event) -> None:
    """Until it is let go. Whether a node that could not be told to wait on is lost, the fresh connection says."""
    again_s = pending.window_s / 3
    while not gone.wait(again_s):
        try:
            _decide(host, pending, "hold", HOLD_S)
            again_s = pending.window_s / 3
        except RemoteError as error:
            if error.kind == "undone":
                return
            again_s = AGAIN_S


def settle(host: Host, fresh: Connect, check: Check) -> None:
    """Confirm over a fresh connection, or have the node undo it where there is a reason to. Raises RemoteError: nothing
    is applied then."""
    host.error = host.error or check.against(host)
    shut = None
    if host.error is None:
        try:
            shut = _insist(host, "confirm", fresh, check)
        except RemoteError as error:
            if error.step != "check":
                host.applied = []
                raise
            host.error = error
    applied, host.applied = host.applied, []
    if host.error is not None:
        became = _undone(host, fresh)
        host.applied = applied if host.confirmed else []
        why = host.error
        raise RemoteError(f"{why.message}; {became}", node=host.name, kind=why.kind, step=why.step, hint=why.hint)
    if shut is not None:
        raise RemoteError(
            f"applied, but there is no way in any more: {shut.message}; the node undoes it by itself", node=host.name,
            kind="unconfirmed", step="confirm", hint=hint("unconfirmed", host.name),
        )  # fmt: skip
    host.pending, host.confirmed, host.applied = None, True, applied


def _undone(host: Host, fresh: Connect) -> str:
    """Have the node go back at once; what became of that, in words."""
    shut: RemoteError | None = None
    try:
        if (host.error is not None and host.error.kind in LOST) or not _tell_undo(host):
            shut = _insist(host, "undo", fresh)
    except RemoteError as error:
        shut = error
    if shut is not None and shut.kind == "confirmed":
        host.pending, host.confirmed = None, True
        return f"somebody has confirmed it meanwhile, so it stays: `meshctl rollback {host.name}` takes it back"
    if shut is not None and (shut.kind in NO_WAY_IN or shut.kind == "locked"):
        return f"the node undoes it by itself ({shut.message})"
    if shut is not None and shut.kind != "undone":
        return f"whether the node undoes it is not known ({shut.message}): `meshctl history {host.name}` says it"
    host.pending = None
    return shut.message.removeprefix(_BUT) if shut is not None else "it was undone"


def _tell_undo(host: Host) -> bool:
    """Over the connection that there is. False if it has broken. Raises RemoteError."""
    try:
        _decide_own(host, "undo")
    except RemoteError as error:
        if error.kind not in LOST:
            raise
        return False
    return True


def _insist(host: Host, what: str, fresh: Connect, check: Check | None = None) -> RemoteError | None:
    """Tell the node so over a new connection, again and again for its window; what was in the way until then, if it is.
    Raises RemoteError for what does not pass, of the step `check` for what speaks against it."""
    until = time.monotonic() + (host.pending.window_s if host.pending else 0.0)
    shut: RemoteError | None = None
    while shut is None or time.monotonic() < until:
        try:
            host.transport = fresh()
            if check is not None:
                echo(host.name, host.transport)
                _ask_late(host, check)
            _decide_own(host, what)
            return None
        except RemoteError as error:
            if error.kind == "undone" and shut is not None:
                return error if what == "undo" else shut
            if error.step == "check" or (error.kind not in NO_WAY_IN and error.kind != "locked"):
                raise
            shut = shut or error
        time.sleep(AGAIN_S)
    return shut


def _ask_late(host: Host, check: Check) -> None:
    """A host whose connection broke when it changed has not been asked yet what it hears, and has more reason to be
    than any other. Raises RemoteError."""
    if check.is_asked(host):
        return
    try:
        _decide_own(host, "hold")
    except RemoteError as error:
        if error.kind != "confirmed":  # by somebody else, meanwhile
            raise
    check.ask(host, host.transport)
    against = check.against(host)
    if against is not None:
        raise against


def report_open(hosts: Iterable[Host]) -> None:
    """Who was not come to, because the operator has gone, is not as wanted: its node undoes it."""
    for host in hosts:
        if host.pending and host.error is None:
            host.applied = []
            host.error = RemoteError(
                "interrupted: applied and not confirmed, so the node undoes it by itself", node=host.name,
                kind="interrupted", step="confirm", hint=hint("unconfirmed", host.name),
            )  # fmt: skip


def runs_of(hosts: Iterable[Host]) -> frozenset[str]:
    """The ids of the runs that somebody may come to confirm: for which hosts wait; or, where none does, of the last one
    that a host has undone."""
    known = [host.facts for host in hosts if host.facts]
    waiting = frozenset(facts.pending.id for facts in known if facts.pending)
    return waiting or frozenset(sorted(f.undone.id for f in known if f.undone and not f.undone.damaged)[-1:])


def find(host: Host, runs: Collection[str], *, unchecked: bool) -> None:
    """What waits there for a person is `pending`, and so, if `unchecked`, is what waits for its own run. Raises
    RemoteError for what nobody may confirm, or what was undone of these runs."""
    waits, undone = (host.facts.pending, host.facts.undone) if host.facts else (None, None)
    if waits is None and undone is not None and undone.id in runs:
        raise RemoteError(undone.words, node=host.name, kind="undone", step="confirm", hint=hint("undone", host.name))
    if waits and waits.damaged:
        raise RemoteError(
            f"{waits.words}, cannot be confirmed any more", node=host.name, kind="undone", step="confirm",
            hint="the node undoes it: apply again",
        )  # fmt: skip
    if waits and not waits.manual and not unchecked:
        raise RemoteError(
            f"{waits.words}, is still being checked by that run, which confirms or undoes it", node=host.name,
            kind="locked", step="confirm", hint="wait for it; --yes keeps it all the same, whatever it finds",
        )  # fmt: skip
    host.pending = waits


def keep(host: Host) -> None:
    """What waits to be confirmed stays. Raises RemoteError."""
    _decide_own(host, "confirm")
    host.pending, host.confirmed = None, True


def take_up(host: Host) -> None:
    """Have the apply that waits there, of a controller that is gone, wait for us, when its applier has ended; and read
    the host anew. `pending` is None where it was undone before we came. Raises RemoteError."""
    host.pending = host.facts.pending if host.facts else None
    until = time.monotonic() + FINISH_S
    while host.pending is not None:
        try:
            _decide_own(host, "hold")
            break
        except RemoteError as error:
            if error.kind in ("undone", "confirmed"):
                host.pending = None
            elif error.kind != "locked" or time.monotonic() > until:
                raise
        time.sleep(AGAIN_S)
    host.read()


def end_abandoned(host: Host) -> None:
    """Have the node undo what nobody may confirm any more, which it does when it is asked to wait on, and read it anew.
    One whose applier is at work after all, or that cannot do it, says so again when it is applied to. Raises
    RemoteError."""
    if host.facts is None or host.facts.pending is None:
        raise RuntimeError("there is nothing that is abandoned")
    with contextlib.suppress(RemoteError):
        if host.facts.pending.damaged:
            undo_damaged(host)
        else:
            _decide(host, host.facts.pending, "hold")
    host.read()


def undecided(host: Host) -> RemoteError:
    """Why nothing is to be built upon a host as it is now."""
    if host.facts is None or host.facts.pending is None:
        raise RuntimeError("nothing waits to be decided")
    return RemoteError(
        f"{host.facts.pending.words}, waits to be confirmed there", node=host.name, kind="locked",
        hint=hint("locked", host.name),
    )


def undo_damaged(host: Host) -> None:
    """Have the node undo what waits to be confirmed by a file that only the node itself can make something of. Raises
    RemoteError."""
    if host.transport is None:
        raise RuntimeError("undo comes after read")
    host.transport.run(agent_command(REVERT_LINK, "revert"), timeout_s=FINISH_S)


def go_back(host: Host) -> None:
    """Have the node undo what waits to be confirmed, and read it anew. Raises RemoteError."""
    _decide_own(host, "undo")
    host.pending = None
    host.read()


def _decide_own(host: Host, what: str) -> None:
    if host.pending is None:
        raise RuntimeError("there is nothing to be confirmed")
    _decide(host, host.pending, what)


def _decide(host: Host, pending: PendingApply, what: str, timeout_s: float | None = None) -> None:
    if host.transport is None:
        raise RuntimeError("decide comes after read")
    completed = host.transport.run(agent_command(REVERT_LINK, what, pending.id), timeout_s=timeout_s)
    result = read_result(host.name, completed)
    if result.failure is not None:
        raise RemoteError(
            f"{_BUT}{result.failure.message}", node=host.name, kind=result.failure.kind, step=what,
            hint=hint(result.failure.kind, host.name),
        )  # fmt: skip
