"""A socket for each mesh address of this node, on its WireGuard interface and for as long as that is there.

WireGuard vouches for who sends: a packet that comes out of a tunnel has a source address of that tunnel's peer
(AllowedIPs). So each socket is bound to its interface, and what comes by another one is not heard.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from meshctl.core.agent.document import AgentDocument

IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h: bind before the interface has the address

_GONE = (errno.ENODEV, errno.EADDRNOTAVAIL)  # the interface went a moment ago: again at the next change


class MeshSockets:
    """UDP sockets, or TCP sockets that listen; none of them blocks."""

    def __init__(self, kind: socket.SocketKind) -> None:
        self._kind = kind
        self._wanted: list[tuple[str, str]] = []
        self._port = 0
        self._open: dict[tuple[str, str], tuple[int, socket.socket]] = {}  # (interface, own address) -> its index

    def configure(self, document: AgentDocument, port: int) -> None:
        """The interfaces are these, and the port."""
        if self._port != port:
            self.close()
        self._port = port
        self._wanted = [(n.interface, address) for n in document.config.networks for address in n.mesh_addresses]
        self._open_wanted()

    def refresh(self) -> None:
        """Interfaces may have come, gone, or been made anew. Raises OSError for what cannot be opened though its
        interface is there: another program has the port, say."""
        failures = self._open_wanted()
        if failures:
            raise OSError("; ".join(failures))

    def _open_wanted(self) -> list[str]:
        """What cannot be opened, and why."""
        failures = []
        indices = {name: index for index, name in socket.if_nameindex()}
        for key in list(self._open):
            if key not in self._wanted or self._open[key][0] != indices.get(key[0]):
                self._open.pop(key)[1].close()
        for interface, own in self._wanted:
            if interface in indices and (interface, own) not in self._open:
                try:
                    opened = _bound(self._kind, interface, own, self._port)
                except OSError as error:
                    if error.errno not in _GONE:
                        failures.append(f"{interface}, {own} port {self._port}: {error.strerror}")
                else:
                    self._open[interface, own] = indices[interface], opened
        return failures

    def all(self) -> Iterable[socket.socket]:
        """Those that are open."""
        return [sock for _, sock in self._open.values()]

    def get(self, interface: str, own: str) -> socket.socket | None:
        """The one of this address, if it is open."""
        opened = self._open.get((interface, own))
        return opened[1] if opened is not None else None

    def close(self) -> None:
        """All of them."""
        for sock in self.all():
            sock.close()
        self._open.clear()


def _bound(kind: socket.SocketKind, interface: str, own: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if kind is socket.SOCK_STREAM:  # connections of an agent before this one may still be ending
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((own, port))
        if kind is socket.SOCK_STREAM:
            sock.listen()
    except OSError:
        sock.close()
        raise
    return sock
