"""What port mapping needs of the network: datagrams to routers and from them, and HTTP requests.

What comes is handed to the core as it is, with where it came from; the core believes nobody but the router. Each own
address has a socket, which is what answers come to. Routers also speak unasked, to multicast groups: that they have
restarted (UPnP's NOTIFY, PCP's ANNOUNCE), so that mappings are gone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from functools import partial

from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.httpclient import fetch
from meshctl.agent.node.watch import host_addresses
from meshctl.agent.node.workers import Workers
from meshctl.core.agent.address import Address, canonical
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import (
    Action,
    Event,
    HttpReply,
    HttpRequest,
    LocalAddresses,
    MappingDatagram,
    SendMapping,
)
from meshctl.core.wire import pcp, ssdp

# RFC 6886 section 3.2.1 and RFC 6887 section 14.1.1: where routers say by multicast that they have lost mappings.
ALL_HOSTS, ALL_HOSTS_6 = "224.0.0.1", "ff02::1"
_GROUPS = {4: ((ssdp.GROUP, ssdp.PORT), (ALL_HOSTS, pcp.ANNOUNCE_PORT)),
           6: ((ssdp.GROUP_6, ssdp.PORT), (ALL_HOSTS_6, pcp.ANNOUNCE_PORT))}  # fmt: skip
# UPnP Device Architecture 1.1 section 1.3.2 has 2, which no home needs.
_HOPS = 1
# More own addresses than the core maps ports for; when there are more, the eldest goes.
_MAX_SOCKETS = 32
# Datagrams that are read before others get their turn.
_AT_ONCE = 32
_THREADS, _WAITING = 2, 64


class Mappings(Plain):
    """For all interfaces of this node."""

    actions: tuple[type[Action], ...] = (SendMapping, HttpRequest)

    def __init__(self, document: AgentDocument) -> None:
        self._workers = Workers("http", _THREADS, _WAITING)
        self._sockets: dict[tuple[str, int], socket.socket] = {}  # by own address ("": any) and family
        self._heard: dict[tuple[str, int, int], socket.socket] = {}  # by group, port and interface
        self.configure(document, 0.0)

    def configure(self, document: AgentDocument, now: float) -> None:  # noqa: ARG002 - as Handler has it
        """See Handler. Nothing is asked by way of a mesh."""
        self._tunnels = frozenset(n.interface for n in document.config.networks)

    def do(self, action: Action) -> None:
        """See Handler."""
        if isinstance(action, SendMapping):
            self._send(action)
        elif isinstance(action, HttpRequest):
            self._workers.submit(partial(self._fetch, action))

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self._workers.busy

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        yield from self._workers.sockets()
        for (group, _, _), sock in self._heard.items():
            yield sock, partial(_receive, sock, b"NOTIFY" if group in (ssdp.GROUP, ssdp.GROUP_6) else b"")
        for sock in self._sockets.values():
            yield sock, partial(_receive, sock, b"")

    def close(self) -> None:
        """See Handler."""
        self._workers.close()
        for sock in (*self._sockets.values(), *self._heard.values()):
            sock.close()

    # Inside

    def _fetch(self, request: HttpRequest) -> HttpReply:
        """In a thread."""
        try:
            here = host_addresses(self._tunnels)
        except OSError:
            here = LocalAddresses(())
        return fetch(request, here)

    def _send(self, action: SendMapping) -> None:
        key = action.source, action.gateway.family
        if key not in self._sockets:
            self._open(*key)
        ip, port = action.gateway
        try:
            self._sockets[key].sendto(action.data, (ip, port))
        except OSError:
            # The address or its link may have gone, and come back as others.
            self._sockets.pop(key).close()
            raise

    def _open(self, source: str, family: int) -> None:
        """A socket for this own address, and ears on its link. Raises OSError."""
        interface = next((a.interface for a in host_addresses(self._tunnels).addresses if a.ip == source), "")
        sock = _socket(family, interface)
        try:
            if family == 4:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
            sock.bind((source, 0))
        except OSError:
            sock.close()
            raise
        if len(self._sockets) >= _MAX_SOCKETS:
            self._sockets.pop(next(iter(self._sockets))).close()
        self._sockets[source, family] = sock
        if interface:
            self._listen(family, interface)

    def _listen(self, family: int, interface: str) -> None:
        """Without ears mappings still work; they are only found to be lost at their renewal."""
        there = {index for index, _ in socket.if_nameindex()}
        for key in [key for key in self._heard if key[2] not in there]:
            self._heard.pop(key).close()
        with contextlib.suppress(OSError):
            index = socket.if_nametoindex(interface)
            for group, port in _GROUPS[family]:
                if (group, port, index) not in self._heard and len(self._heard) < _MAX_SOCKETS:
                    self._heard[group, port, index] = _ear(family, group, port, interface)


def _socket(family: int, interface: str) -> socket.socket:
    """One whose multicasts, and packets to link-local addresses, go to this interface ("": the kernel chooses)."""
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
    try:
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except OSError:
        sock.close()
        raise
    return sock


def _ear(family: int, group: str, port: int, interface: str) -> socket.socket:
    """Hears what is sent to the group on that link, and leaves to other programs what is sent to this host. Raises
    OSError."""
    sock = _socket(family, interface)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        index = socket.if_nametoindex(interface)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((group, port, 0, index))
            joined = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
        else:
            sock.bind((group, port))
            joined = socket.inet_aton(group) + bytes(4) + struct.pack("@i", index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    except OSError:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket, beginning: bytes, _now: float) -> list[Event]:
    """What came, of what begins so; longer than any answer is none."""
    events: list[Event] = []
    for _ in range(_AT_ONCE):
        try:
            data, sender = sock.recvfrom(ssdp.MAX_REPLY + 1)
        except BlockingIOError:
            break
        if data.startswith(beginning) and len(data) <= ssdp.MAX_REPLY:
            events.append(MappingDatagram(Address(canonical(sender[0].partition("%")[0]), sender[1]), data))
    return events
