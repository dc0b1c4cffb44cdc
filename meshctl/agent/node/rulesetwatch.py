"""What tells that somebody else has changed a table of nftables."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable

from meshctl.agent.node import netlink, nfnetlink
from meshctl.agent.node.handler import HasFileno, Readable
from meshctl.agent.node.nfnetlink import Nfnetlink
from meshctl.core.agent.events import Event

# The kernel tells of every table's changes, and other programs may change theirs all the time: so long nothing more is
# heard after each time, and what has changed then is heard at once. A restart of nftables.service flushes twice.
REST_S = 0.5
# And so long where more has changed than the kernel keeps to be heard: then the table is read, 13 ms for 300 relays.
LOST_REST_S = 5.0


class RulesetWatch:
    """Calls `changed` with `now` when a table of that name may be another one, by others than `own`."""

    def __init__(self, table: str, own: Nfnetlink, changed: Callable[[float], None]) -> None:
        self._named, self._own, self._changed = nfnetlink.naming(table), own, changed
        self._socket: socket.socket | None = None
        self._rests_until: float | None = None

    def open(self) -> None:
        """If it is not. Raises OSError where the kernel has no netfilter."""
        if self._socket is None:
            self._socket = nfnetlink.netfilter_socket(1 << (nfnetlink.GROUP_NFTABLES - 1))
            self._socket.setblocking(False)

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """As a handler's."""
        return () if self._socket is None or self._rests_until is not None else ((self._socket, self._read),)

    def due(self) -> float | None:
        """As a handler's."""
        return self._rests_until

    def poll(self, now: float) -> None:
        """As a handler's."""
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None

    def close(self) -> None:
        """Nothing is told any more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    # Inside

    def _read(self, now: float) -> list[Event]:
        self._rests_until = now + REST_S
        if self._told(now):
            self._changed(now)
        return []

    def _told(self, now: float) -> bool:
        """Read all that there is; whether anything of it matters."""
        matters = False
        while self._socket is not None:
            try:
                told = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                matters, self._rests_until = True, now + LOST_REST_S
            else:
                matters = matters or (self._named in told and netlink.ports(told) != {self._own.port})
        return matters
