"""Connections on which somebody asks one thing and is answered. The loop never waits for them.

An answer is handed to the kernel whole: the socket's buffer is made as large as that. Who is slow to ask is let go
after a while; who is slow to read keeps nothing but the kernel's buffer, and a TCP connection not for long.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from meshctl.agent.node.handler import HasFileno, Readable
from meshctl.agent.node.sockopt import SO_SNDBUFFORCE
from meshctl.core.agent.events import Event

# At once; who comes then waits in the kernel's queue.
MAX_CLIENTS = 32
# Of one address; what it opens beyond that is closed, so that others need not wait behind it in the queue.
MAX_OF_ONE = 8
MAX_REQUEST_BYTES = 4096
PATIENCE_S = 5.0
# Without a descriptor left a listener stays readable: so long nobody is let in then.
REST_S = 1.0
# The kernel counts what is around each piece of data as well.
_OVERHEAD, _LEAST_BYTES = 4, 1 << 16
_TCP_USER_TIMEOUT = 18  # linux/tcp.h

# What came so far, now -> the answer and what the core is to hear; None while the request is not whole.
Answer = Callable[[bytes, float], "tuple[bytes, list[Event]] | None"]


@dataclass
class _Client:
    sock: socket.socket
    source: str  # its IP; "" on this host's own socket
    ends_at: float
    said: bytes = b""


class Clients:
    """All of one kind, whatever listener they come from."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open: list[_Client] = []
        self._rests_until: float | None = None

    def sockets(self, listeners: Iterable[socket.socket]) -> list[tuple[HasFileno, Readable]]:
        """As a handler's. `listeners` do not block."""
        found: list[tuple[HasFileno, Readable]] = [(c.sock, partial(self._read, c)) for c in self._open]
        if len(found) < MAX_CLIENTS and self._rests_until is None:
            found += [(listener, partial(self._accept, listener)) for listener in listeners]
        return found

    def due(self) -> float | None:
        """As a handler's."""
        times = [client.ends_at for client in self._open]
        return min([*times, self._rests_until] if self._rests_until is not None else times, default=None)

    def poll(self, now: float) -> None:
        """Let those go who take too long."""
        for client in [client for client in self._open if now >= client.ends_at]:
            self._end(client)
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None

    def close(self) -> None:
        """Let all go."""
        for client in list(self._open):
            self._end(client)

    # Inside

    def _accept(self, listener: socket.socket, now: float) -> list[Event]:
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return []
        except OSError:
            self._rests_until = now + REST_S
            raise
        source = address[0] if listener.family != socket.AF_UNIX else ""
        if source and sum(client.source == source for client in self._open) >= MAX_OF_ONE:
            sock.close()
            return []
        sock.setblocking(False)
        self._open.append(_Client(sock, source, now + PATIENCE_S))
        return []

    def _read(self, client: _Client, now: float) -> list[Event]:
        try:
            piece = client.sock.recv(MAX_REQUEST_BYTES + 1 - len(client.said))
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        client.said += piece
        if not piece or len(client.said) > MAX_REQUEST_BYTES:
            self._end(client)
            return []
        answer = self._answer(client.said, now)
        if answer is None:
            return []
        _send(client.sock, answer[0])
        self._end(client)
        return answer[1]

    def _end(self, client: _Client) -> None:
        client.sock.close()
        self._open.remove(client)


def _send(sock: socket.socket, answer: bytes) -> None:
    """Hand it to the kernel; if it does not take it, the other end sees that it was cut short."""
    room = max(_OVERHEAD * len(answer), _LEAST_BYTES)
    with contextlib.suppress(OSError):
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(PATIENCE_S * 1000))
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, room)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        sock.send(answer)
