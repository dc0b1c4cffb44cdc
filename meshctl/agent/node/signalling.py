"""Signalling: UDP on the node's mesh addresses, and through its WireGuard interfaces alone (`meshsockets`)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from functools import partial

from meshctl.agent.node.handler import Plain, Readable
from meshctl.agent.node.meshsockets import MeshSockets
from meshctl.core.agent.address import canonical
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, SendSignal, Signal

# More than a message of ours has (docs/signalling.md); what is longer is cut, and then it is none.
_ROOM = 1281
_AT_ONCE = 64
# Peers without an endpoint or a key as yet, or no tunnel at all: the core hears of it by silence.
_NO_WAY = (
    errno.EDESTADDRREQ, errno.ENOKEY, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV,
    errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED,
)  # fmt: skip


class Signalling(Plain):
    """One socket for each mesh address of each network, as long as its interface is there."""

    actions = (SendSignal,)

    def __init__(self, document: AgentDocument) -> None:
        self._sockets = MeshSockets(socket.SOCK_DGRAM)
        self.refresh = self._sockets.refresh
        self._configure(document)

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        self._configure(document)

    def _configure(self, document: AgentDocument) -> None:
        self._port = document.signalling_port
        self._own = {  # (peer's address) -> own interface and address of the same family
            address: (n.interface, own)
            for n in document.config.networks
            for peer in n.peers
            for address in peer.mesh_addresses
            for own in n.mesh_addresses
            if (":" in own) == (":" in address)
        }
        self._sockets.configure(document, self._port)

    def do(self, action: Action) -> None:
        """See Handler. Raises ValueError for an address that is no peer's, OSError."""
        if not isinstance(action, SendSignal):
            return
        if action.mesh_ip not in self._own:
            raise ValueError(f"{action.mesh_ip} is no peer's mesh address")
        sock = self._sockets.get(*self._own[action.mesh_ip])
        if sock is None:
            return
        try:
            sock.sendto(action.data, (action.mesh_ip, self._port))
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise

    def sockets(self) -> Iterable[tuple[socket.socket, Readable]]:
        """See Handler."""
        return [(sock, partial(_receive, sock)) for sock in self._sockets.all()]

    def close(self) -> None:
        """See Handler."""
        self._sockets.close()


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
