"""After a wave has converged: the mesh is checked from both ends, and each node confirmed over a fresh connection.

A node that nobody confirms undoes what was applied (`meshctl.agent.deadman`). So all that is done here is to find the
reasons not to confirm, and to say them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Container, Iterable, Mapping

from meshctl.deploy.applier import agent_command, read_result
from meshctl.deploy.hints import hint
from meshctl.deploy.host import LOST, Connect, Host
from meshctl.deploy.outcome import NO_WAY_IN
from meshctl.deploy.transport import Transport
from meshctl.errors import RemoteError
from meshctl.model.facts import PendingApply
from meshctl.model.places import REVERT_LINK, SEARCH_PATH
from meshctl.render.zipapp import Zipapp

# A host that has just got other routes may need a handshake before a connection comes through.
AGAIN_S = 1.0
# Beyond what the node itself waits for peers.
PROBE_TIMEOUT_S = 30.0
# An MTU that the way does not carry lets a connection be made, and stops the first packets that are full. So much is
# sent there and back, which is quick or never comes.
ECHO_BYTES, ECHO_TIMEOUT_S = 65536, 8.0
# So long it may take until the way to a host behind those that were changed carries again.
REACH_S = 8.0
_RECEIVED = f"PATH={SEARCH_PATH} wg show all transfer"
# A node takes well below a second to hold its window open.
HOLD_S = 5.0
# So long an applier is waited for whose controller has died: what apt installs takes longest.
FINISH_S = 300.0


class Gate:
    """Opens when all hosts of a wave have converged, well or not. A thread for each that is early, which sleeps nearly
    all the time, holds its node's window open; the workers go on, so a wave may have more hosts than there are."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._holding: list[threading.Thread] = []

    def arrive(self, host: Host) -> None:
        """One more has."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._open.set()
            elif host.pending and not self._open.is_set():
                thread = threading.Thread(target=self._hold, args=(host, host.pending), daemon=True)
                self._holding.append(thread)
                thread.start()

    def open(self) -> None:
        """Nobody is waited for any more."""
        self._open.set()

    def close(self) -> None:
        """Open, and no window is held any more; one that is just being held on a lost connection is not waited for."""
        self._open.set()
        until = time.monotonic() + HOLD_S
        for thread in self._holding:
            thread.join(max(0.0, until - time.monotonic()))

    def _hold(self, host: Host, pending: PendingApply) -> None:
        """Until it opens. Whether a node that could not be told to wait on is lost, the fresh connection says."""
        while not self._open.wait(pending.window_s / 3):
            with contextlib.suppress(RemoteError):
                _decide(host, pending, "hold")


def count(host: Host) -> None:
    """Note how much has come from each peer, before any host asks: who asks a moment after its peer has done so would
    else wait for that one's next keepalive. Without the numbers it does."""
    if host.transport is None:
        return
    with contextlib.suppress(RemoteError, ValueError):
        lines = host.transport.run(_RECEIVED).text().splitlines()
        rows = [line.split("\t") for line in lines]
        host.received = {(interface, key): int(received) for interface, key, received, _ in rows}


def probe(host: Host, agent: Zipapp, reached: Container[str]) -> None:
    """Note which of its peers among `reached`, which live, does not answer: of those that there is a session with, or
    whose endpoint has just been changed. One that has not this version to ask with is not asked, nor one whose
    connection has broken: whether that is lost, the fresh one says. Raises RemoteError."""
    if host.transport is None or host.facts is None or agent.hash not in host.facts.agents:
        return
    peers = {
        (w.interface, peer.public_key.text): peer.name for w in host.doc.interfaces() for peer in w.peers
        if peer.public_key and peer.name in reached
    }  # fmt: skip
    moved = {
        change.name: change.after["endpoint"] for change in host.applied
        if change.kind == "peer" and change.action == "update" and change.after and change.after.get("endpoint")
    }  # fmt: skip
    asked: dict[str, dict[str, tuple[bool, int | None]]] = {interface: {} for interface, _ in peers}
    for (interface, key), name in peers.items():
        asked[interface][key] = f"{interface} {name}" in moved, host.received.get((interface, key))
    try:
        silent, now = _ask(host.name, host.transport, agent, asked)
    except RemoteError as error:
        if error.kind in LOST or host.pending is None:
            return
        raise
    for at, name in peers.items():
        new = moved.get(f"{at[0]} {name}")
        if at in silent:
            host.broken.append(f"nothing comes from {name} ({at[0]}) any more")
        elif new is not None and _is_literal(new) and new != now.get(at) == host.endpoints.get(at):
            host.broken.append(f"{name} ({at[0]}) answers from {now[at]}, and not at {new}")


def _ask(
    node: str, transport: Transport, agent: Zipapp, asked: Mapping[str, Mapping[str, tuple[bool, int | None]]]
) -> tuple[set[tuple[str, str]], dict[tuple[str, str], str]]:
    """Which peers, by interface and key, are silent, and where WireGuard sends to each (`meshctl.agent.probe`)."""
    completed = transport.run(agent_command(agent.path, "probe"), json.dumps(asked).encode(), PROBE_TIMEOUT_S)
    try:
        found = json.loads(completed.text())
        silent = {(interface, key) for interface, keys in found["silent"].items() for key in keys}
        now = {(interface, key): at for interface, ends in found["endpoints"].items() for key, at in ends.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RemoteError(
            f"asking its peers ended with status {completed.status}: {completed.last_line()}", node=node,
            kind="command", step="check", hint=hint("command", node),
        ) from None  # fmt: skip
    return silent, now


def _is_literal(endpoint: str) -> bool:
    """Whether it is an address, and no name, which may lead where WireGuard sends."""
    return endpoint[:1] == "[" or endpoint.rpartition(":")[0].replace(".", "").isdigit()


def settle(host: Host, fresh: Connect) -> None:
    """Confirm over a fresh connection, or have the node undo it where there is a reason to. Raises RemoteError: nothing
    is applied then."""
    applied, host.applied = host.applied, []
    if host.error is None and host.broken:
        words = "; ".join(host.broken)
        host.error = RemoteError(words, node=host.name, kind="broken", step="check", hint=hint("broken", host.name))
    if host.error is not None:
        became = _undone(host, fresh)
        host.applied = applied if host.confirmed else []
        why = host.error
        raise RemoteError(f"{why.message}; {became}", node=host.name, kind=why.kind, step=why.step, hint=why.hint)
    shut = _insist(host, "confirm", fresh)
    if shut is not None:
        raise RemoteError(
            f"applied, but there is no way in any more: {shut.message}; the node undoes it by itself", node=host.name,
            kind="unconfirmed", step="confirm", hint=hint("unconfirmed", host.name),
        )  # fmt: skip
    host.pending, host.confirmed, host.applied = None, True, applied


def _undone(host: Host, fresh: Connect) -> str:
    """Have the node go back at once; what became of that, in words."""
    lost = host.error is not None and host.error.kind in LOST
    try:
        if lost:
            shut = _insist(host, "undo", fresh)
        else:
            shut = None
            _decide_own(host, "undo")
    except RemoteError as error:
        shut = error
    if shut is not None and shut.kind == "confirmed":
        host.pending, host.confirmed = None, True
        return f"somebody has confirmed it meanwhile, so it stays: `meshctl rollback {host.name}` takes it back"
    if shut is not None and shut.kind != "undone":
        return f"the node undoes it by itself ({shut.message})"
    host.pending = None
    return "it was undone"


def _insist(host: Host, what: str, fresh: Connect) -> RemoteError | None:
    """Tell the node so over a new connection, again and again for its window; what was in the way until then, if it is.
    Raises RemoteError for what does not pass."""
    until = time.monotonic() + (host.pending.window_s if host.pending else 0.0)
    shut: RemoteError | None = None
    while shut is None or time.monotonic() < until:
        try:
            host.transport = fresh()
            if what == "confirm":
                _echo(host.name, host.transport)
            _decide_own(host, what)
            return None
        except RemoteError as error:
            if error.kind == "undone" and shut is not None:
                return None if what == "undo" else shut
            if error.kind not in NO_WAY_IN and error.kind != "locked":
                raise
            shut = shut or error
        time.sleep(AGAIN_S)
    return shut


def reach(host: Host, fresh: Connect) -> None:
    """Look whether the host, which is reached through others that were just changed, still is; what is in the way is
    `cut_off`. Never raises."""
    until = time.monotonic() + REACH_S
    while True:
        try:
            _echo(host.name, fresh())
            return
        except RemoteError as error:
            if time.monotonic() > until:
                host.cut_off = error.message
                return
        time.sleep(AGAIN_S)


def _echo(node: str, transport: Transport) -> None:
    """Raises RemoteError unless packets of full size come through, there and back."""
    try:
        came = transport.run("cat", bytes(ECHO_BYTES), ECHO_TIMEOUT_S).stdout
    except RemoteError as error:
        if error.kind != "timeout":
            raise
        came = b""
    if len(came) != ECHO_BYTES:
        raise RemoteError(
            "it can be connected to, but large packets do not come through (is an MTU too large?)", node=node,
            kind="timeout", step="confirm",
        )  # fmt: skip


def report_open(hosts: Iterable[Host]) -> None:
    """Who was not come to, because the operator has gone, is not as wanted: its node undoes it."""
    for host in hosts:
        if host.pending and host.error is None:
            host.applied = []
            host.error = RemoteError(
                "interrupted: applied and not confirmed, so the node undoes it by itself", node=host.name,
                kind="interrupted", step="confirm", hint=hint("unconfirmed", host.name),
            )  # fmt: skip


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


def go_back(host: Host) -> None:
    """Have the node undo what waits to be confirmed, and read it anew. Raises RemoteError."""
    _decide_own(host, "undo")
    host.pending = None
    host.read()


def _decide_own(host: Host, what: str) -> None:
    if host.pending is None:
        raise RuntimeError("there is nothing to be confirmed")
    _decide(host, host.pending, what)


def _decide(host: Host, pending: PendingApply, what: str) -> None:
    if host.transport is None:
        raise RuntimeError("decide comes after read")
    completed = host.transport.run(agent_command(REVERT_LINK, what, pending.id))
    result = read_result(host.name, completed)
    if result.failure is not None:
        raise RemoteError(
            f"applied, but {result.failure.message}", node=host.name, kind=result.failure.kind, step=what,
            hint=hint(result.failure.kind, host.name),
        )  # fmt: skip
