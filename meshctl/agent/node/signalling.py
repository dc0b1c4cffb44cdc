"""Signalling: UDP on the node's mesh addresses, and through its WireGuard interfaces alone.

WireGuard vouches for who sends: a packet that comes out of a tunnel has a source address of that tunnel's peer
(AllowedIPs). So each socket is bound to its interface, and what comes by another one is not heard.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from functools import partial

from meshctl.agent.node.handler import Plain, Readable
from meshctl.core.agent.address import canonical
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, SendSignal, Signal

# More than a message of ours has (docs/signalling.md); what is longer is cut, and then it is none.
_ROOM = 1281
_AT_ONCE = 64
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h: bind before the interface has the address
# Peers without an endpoint or a key as yet, or no tunnel at all: the core hears of it by silence.
_NO_WAY = (
    errno.EDESTADDRREQ, errno.ENOKEY, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV,
    errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED,
)  # fmt: skip


class Signalling(Plain):
    """One socket for each mesh address of each network, as long as its interface is there."""

    actions = (SendSignal,)

    def __init__(self, document: AgentDocument) -> None:
        self._open: dict[tuple[str, str], tuple[int, socket.socket]] = {}  # (interface, own address) -> its index
        self._configure(document)

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        if self._port != document.signalling_port:
            self.close()
        self._configure(document)

    def _configure(self, document: AgentDocument) -> None:
        networks = document.config.networks
        self._wanted = [(n.interface, address) for n in networks for address in n.mesh_addresses]
        self._port = document.signalling_port
        self._own = {  # (peer's address) -> own interface and address of the same family
            address: (n.interface, own)
            for n in networks
            for peer in n.peers
            for address in peer.mesh_addresses
            for own in n.mesh_addresses
            if (":" in own) == (":" in address)
        }
        self.refresh()

    def refresh(self) -> None:
        """Interfaces may have come, gone, or been made anew."""
        indices = {name: index for index, name in socket.if_nameindex()}
        for key in list(self._open):
            if key not in self._wanted or self._open[key][0] != indices.get(key[0]):
                self._open.pop(key)[1].close()
        for interface, own in self._wanted:
            if interface in indices and (interface, own) not in self._open:
                with contextlib.suppress(OSError):  # it went a moment ago: again at the next change
                    self._open[interface, own] = indices[interface], _listen(interface, own, self._port)

    def do(self, action: Action) -> None:
        """See Handler. Raises ValueError for an address that is no peer's, OSError."""
        if not isinstance(action, SendSignal):
            return
        if action.mesh_ip not in self._own:
            raise ValueError(f"{action.mesh_ip} is no peer's mesh address")
        opened = self._open.get(self._own[action.mesh_ip])
        if opened is None:
            return
        try:
            opened[1].sendto(action.data, (action.mesh_ip, self._port))
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise

    def sockets(self) -> Iterable[tuple[socket.socket, Readable]]:
        """See Handler."""
        return [(sock, partial(_receive, sock)) for _, sock in self._open.values()]

    def close(self) -> None:
        """See Handler."""
        for _, sock in self._open.values():
            sock.close()
        self._open.clear()


def _listen(interface: str, own: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((own, port))
    except OSError:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket, _now: float) -> list[Event]:
    found: list[Event] = []
    for _ in range(_AT_ONCE):
        try:
            data, source = sock.recvfrom(_ROOM)
        except OSError:  # nothing more, or an ICMP error for something that was sent
            break
        if len(data) < _ROOM and "%" not in source[0]:
            found.append(Signal(canonical(source[0]), data))
    return found
