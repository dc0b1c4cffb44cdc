"""The control socket: root of this host asks, one line of JSON, and is answered by one. docs/agent-commands.md."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from meshctl.agent.files import make_public_dir, remove_quietly
from meshctl.agent.node.ask import answers
from meshctl.agent.node.clients import Clients
from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.options import AUTO, MODES
from meshctl.agent.node.report import Document, Report
from meshctl.core.agent.events import Event, Override, Rebind

# Who is not root may not even ask: answers name every peer and where it is, and an override moves traffic.
MODE = 0o660
_BACKLOG = 16
# How often it is looked whether the socket is still where commands look for it.
LOOK_S = 5.0
# The unit may write to that one folder of /run, and to none that is made in its place.
_FOLDER_GONE = "its folder was removed, and only a start makes it anew: systemctl restart meshctl-agent"


class RequestError(ValueError):
    """What was asked makes no sense; says why."""


class Control(Plain):
    """At `path`. Where the socket cannot be made, or is there no more, the agent runs without it: that is tried every
    LOOK_S, and each failure is an OSError of `poll`."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report = path, report
        self._clients = Clients(self._answer)
        self._failure: OSError | None = None
        self._listener: socket.socket | None = None
        self._place: tuple[int, int] | None = None  # of the listener
        self._look_at: float | None = None
        self._requests: dict[str, Callable[[Document, float], tuple[Document, list[Event]]]] = {
            "status": lambda _request, now: (report.status(now), []),
            "paths": lambda _request, now: (report.paths(now), []),
            "events": self._events,
            "nat": lambda _request, now: (report.nat(now), []),
            "rebind": lambda _request, now: (report.done("everything is found out anew", now), [Rebind()]),
            "override": self._override,
        }
        try:
            self._listener, self._place = _listen(path)
        except OSError as error:
            self._failure = error

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return self._clients.sockets([self._listener] if self._listener is not None else [])

    def due(self) -> float | None:
        """See Handler."""
        times = self._clients.due(), self._look_at
        return min((at for at in times if at is not None), default=None)

    def poll(self, now: float) -> list[Event]:
        """See Handler."""
        self._clients.poll(now)
        looks = self._look_at is not None and now >= self._look_at
        if looks or self._look_at is None:
            self._look_at = now + LOOK_S
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if looks and not self._is_there():
            self._listen()
        return []

    def close(self) -> None:
        """See Handler."""
        self._clients.close()
        if self._is_there():
            remove_quietly(self._path)
        if self._listener is not None:
            self._listener.close()

    # Inside

    def _listen(self) -> None:
        before = self._listener
        self._listener, self._place = _listen(self._path)
        if before is not None:
            before.close()

    def _is_there(self) -> bool:
        """Whether who asks at the path asks this agent. A place is nobody else's while the listener is open."""
        return self._place is not None and _place(self._path) == self._place

    def _answer(self, said: bytes, now: float) -> tuple[bytes, list[Event]] | None:
        if b"\n" not in said:
            return None
        try:
            document, events = self._answer_to(said, now)
        except RequestError as error:
            document, events = {"error": str(error)}, []
        return json.dumps(document).encode() + b"\n", events

    def _answer_to(self, said: bytes, now: float) -> tuple[Document, list[Event]]:
        try:
            request: Any = json.loads(said)
        except (ValueError, RecursionError):
            raise RequestError("that is no JSON") from None
        name = request.get("request") if isinstance(request, dict) else None
        if not isinstance(name, str) or name not in self._requests:
            raise RequestError(f"the request is none of {', '.join(self._requests)}")
        return self._requests[name](request, now)

    def _events(self, request: Document, now: float) -> tuple[Document, list[Event]]:
        after = request.get("after", 0.0)
        if isinstance(after, bool) or not isinstance(after, (int, float)):
            raise RequestError("`after` is no number")
        return self._report.events(now, after), []

    def _override(self, request: Document, now: float) -> tuple[Document, list[Event]]:
        peer, mode = request.get("peer"), request.get("mode")
        keys = self._report.peer(peer) if isinstance(peer, str) else []
        if not keys:
            raise RequestError(f"this node has no path to a peer {peer!r}")
        if mode not in MODES:
            raise RequestError(f"`mode` is none of {', '.join(MODES)}")
        mode = "" if mode == AUTO else mode
        words = f"{peer}: {mode}, until the agent ends" if mode else f"{peer}: as it finds best"
        return self._report.done(words, now), [Override(key, mode) for key in keys]


def _place(path: Path) -> tuple[int, int] | None:
    """What tells apart what is at `path` now, not at the end of a link, and what is there at another time."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _listen(path: Path) -> tuple[socket.socket, tuple[int, int] | None]:
    """A socket at `path`, in place of one that an agent has left that was killed, and its place. Raises OSError;
    EADDRINUSE where another agent runs, EROFS in a folder that is not the one that the agent was started with."""
    if answers(path):
        raise OSError(errno.EADDRINUSE, "another agent answers", str(path))
    try:
        make_public_dir(path.parent)
        return _put(path)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise OSError(errno.EROFS, _FOLDER_GONE, str(path)) from error


def _put(path: Path) -> tuple[socket.socket, tuple[int, int] | None]:
    temp = path.with_name(f".{path.name}.new")
    remove_quietly(temp)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(str(temp))
        os.chmod(temp, MODE)  # noqa: PTH101 - as bind, by the same text
        sock.listen(_BACKLOG)
        place = _place(temp)
        temp.replace(path)
    except OSError:
        sock.close()
        remove_quietly(temp)
        raise
    return sock, place
