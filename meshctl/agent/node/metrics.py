"""Metrics for Prometheus: a text file, for node_exporter's textfile collector, and HTTP on the mesh addresses.

Whoever the mesh's policies let open TCP to the port may read them. The server knows one thing, `GET /metrics`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

from meshctl.agent.files import make_public_dir, remove_quietly
from meshctl.agent.node.clients import Clients
from meshctl.agent.node.exposition import exposition
from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.meshsockets import MeshSockets
from meshctl.agent.node.report import Report
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Event

_MODE = 0o644  # who collects is not root
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"
# So long an answer serves others too: it is work for the loop, and a peer may ask as often as it likes.
FRESH_S = 1.0


class MetricsFile(Plain):
    """Written every `every_s`, whole or not at all; gone when the agent ends, for old values say nothing."""

    def __init__(self, path: Path, report: Report, every_s: float, now: float) -> None:
        self._path, self._report, self._every_s = path, report, every_s
        self._due = now

    def due(self) -> float | None:
        """See Handler."""
        return self._due

    def poll(self, now: float) -> list[Event]:
        """See Handler. Raises OSError when it cannot be written."""
        if now >= self._due:
            self._due = now + self._every_s
            self._write(exposition(self._report, now))
        return []

    def close(self) -> None:
        """See Handler."""
        remove_quietly(self._path)

    def _write(self, text: bytes) -> None:
        make_public_dir(self._path.parent)
        # Collectors read *.prom.
        temp = self._path.with_name(f".{self._path.name}.new")
        remove_quietly(temp)
        # Not synced: who loses power starts with a new one.
        with os.fdopen(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
            os.fchmod(file.fileno(), _MODE)  # whatever the umask is
            file.write(text)
        temp.replace(self._path)


class MetricsServer(Plain):
    """On `port` of each mesh address."""

    def __init__(self, document: AgentDocument, port: int, report: Report) -> None:
        self._port, self._report = port, report
        self._clients = Clients(self._answer)
        self._listeners = MeshSockets(socket.SOCK_STREAM)
        self._listeners.configure(document, port)
        self._text, self._stale_at = b"", float("-inf")

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        self._listeners.configure(document, self._port)

    def refresh(self) -> None:
        """Interfaces may have come or gone."""
        self._listeners.refresh()

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return self._clients.sockets(self._listeners.all())

    def due(self) -> float | None:
        """See Handler."""
        return self._clients.due()

    def poll(self, now: float) -> list[Event]:
        """See Handler."""
        self._clients.poll(now)
        return []

    def close(self) -> None:
        """See Handler."""
        self._clients.close()
        self._listeners.close()

    def _answer(self, said: bytes, now: float) -> tuple[bytes, list[Event]] | None:
        head, end, _ = said.replace(b"\r\n", b"\n").partition(b"\n\n")
        if not end:
            return None
        method, _, target = head.partition(b"\n")[0].partition(b" ")
        if method != b"GET":
            return _http("405 Method Not Allowed", b"GET alone\n"), []
        if target.partition(b" ")[0].partition(b"?")[0] != b"/metrics":
            return _http("404 Not Found", b"/metrics alone\n"), []
        if now >= self._stale_at:
            self._text, self._stale_at = exposition(self._report, now), now + FRESH_S
        return _http("200 OK", self._text), []


def _http(status: str, body: bytes) -> bytes:
    kind = _CONTENT if status.startswith("200") else "text/plain"
    return f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
