"""STUN from WireGuard's own port, while WireGuard uses it: raw sockets, one for each family.

A raw socket gets a copy of every UDP packet of the host, after the firewall's input hook and whether or not somebody
has bound the port; its filter (`bpf`) lets through what the core is to see. What it sends leaves from any port.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from functools import partial

from meshctl.agent.node import bpf
from meshctl.agent.node.handler import Plain, Readable
from meshctl.agent.node.sockopt import SO_MARK, SO_RCVBUFFORCE
from meshctl.core.agent.address import Address, canonical
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Datagram, Event, OpenPorts, RelayDatagram, SendProbe
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.wire.demux import Protocol, classify
from meshctl.model.keys import PublicKey

# What the core takes from the network: more than any of its messages has, and what every IPv6 path carries.
MAX_BYTES = 1280
_UDP = struct.Struct("!HHHH")
_ROOM = 60 + _UDP.size + MAX_BYTES + 1  # an IPv4 header at its longest before it; a byte more shows what is too long
_ANCILLARY = 256
# Packets that are read before others get their turn.
_AT_ONCE = 64
_RECEIVE_BUFFER = 1 << 20  # 256 guesses at a splice's ports come within a second
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

IP_PKTINFO = 8  # linux/in.h
IPV6_CHECKSUM = 7  # linux/in6.h
_PKTINFO4 = struct.Struct("I4s4s")  # struct in_pktinfo: interface, own address, destination
_PKTINFO6 = struct.Struct("16sI")  # struct in6_pktinfo: own address, interface
_IPV6_CHECKSUM_AT = 6


class RawUdp(Plain):
    """Sends and receives for all of a node's interfaces. `marks` has the fwmark of each WireGuard port: with another
    mark policy routing might take another way than WireGuard's packets do."""

    actions = (SendProbe, OpenPorts)

    def __init__(self, document: AgentDocument, marks: Mapping[int, int]) -> None:
        self._marks = marks
        self._opened: dict[PublicKey, tuple[int, ...]] = {}
        self._sockets = _open_all()
        self._marked = dict.fromkeys(self._sockets, 0)
        self._configure(document.config)

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        self._configure(document.config)

    def _configure(self, config: AgentConfig) -> None:
        self._ports = {n.listen_port for n in config.networks}
        self._port_of = {p.public_key: n.listen_port for n in config.networks for p in n.peers}
        self._relaying = any(n.is_anchor for n in config.networks)
        self._tunnels = frozenset(n.interface for n in config.networks)
        self._opened = {peer: ports for peer, ports in self._opened.items() if peer in self._port_of}
        self._filter()

    def do(self, action: Action) -> None:
        """See Handler."""
        if isinstance(action, SendProbe):
            self._send(action)
        elif isinstance(action, OpenPorts):
            self._opened[action.peer] = action.ports
            if not action.ports:
                del self._opened[action.peer]
            self._filter()

    def sockets(self) -> Iterable[tuple[socket.socket, Readable]]:
        """See Handler."""
        return [(sock, partial(self._receive, family)) for family, sock in self._sockets.items()]

    def close(self) -> None:
        """See Handler."""
        for sock in self._sockets.values():
            sock.close()

    def _filter(self) -> None:
        wanted = bpf.ranges([*self._ports, *(port for ports in self._opened.values() for port in ports)])
        if self._relaying:
            wanted.append((RELAY_PORTS[0], RELAY_PORTS[-1]))
        for family, sock in self._sockets.items():
            bpf.attach(sock, bpf.program(family, wanted))

    def _send(self, probe: SendProbe) -> None:
        family = probe.remote.family
        sock = self._sockets.get(family)
        if sock is None:
            raise OSError("this host has no IPv6")
        mark = self._mark(probe.local.port)
        if mark != self._marked[family]:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            self._marked[family] = mark
        # Checksum 0 is none, over IPv4 (RFC 768); over IPv6 the kernel fills it in. STUN's own tag protects the rest.
        header = _UDP.pack(probe.local.port, probe.remote.port, _UDP.size + len(probe.data), 0)
        # Full buffers lose a probe as networks do; where there is no way now, the core hears of it by silence.
        with contextlib.suppress(BlockingIOError):
            sock.sendmsg([header, probe.data], _source(family, probe.local.ip), 0, (probe.remote.ip, 0))

    def _mark(self, port: int) -> int:
        if port not in self._marks:
            peer = next((peer for peer, ports in self._opened.items() if port in ports), None)
            port = self._port_of[peer] if peer is not None else next(iter(self._marks), 0)
        return self._marks.get(port, 0)

    def _receive(self, family: int, _now: float) -> list[Event]:
        found: list[Event] = []
        for _ in range(_AT_ONCE):
            try:
                packet, ancillary, flags, source = self._sockets[family].recvmsg(_ROOM, _ANCILLARY)
            except BlockingIOError:
                break
            event = None if flags & socket.MSG_TRUNC else self._event(family, packet, ancillary, source[0])
            if event is not None:
                found.append(event)
        return found

    def _event(self, family: int, packet: bytes, ancillary: list[tuple[int, int, bytes]], source: str) -> Event | None:
        """None for what is too long, no STUN, or came out of a tunnel: probes are about what is under it."""
        udp = packet[(packet[0] & 0xF) * 4 :] if family == 4 else packet
        if len(udp) < _UDP.size:
            return None
        source_port, port, length, _ = _UDP.unpack_from(udp)
        data = udp[_UDP.size : length]
        if not _UDP.size <= length <= len(udp) or len(data) > MAX_BYTES or classify(data) is not Protocol.STUN:
            return None
        local = _arrived_at(ancillary)
        if local is None or _name(local[1]) in self._tunnels:
            return None
        # A link-local sender has a scope, and is nobody's endpoint.
        if "%" in source:
            return None
        remote = Address(canonical(source), source_port)
        if self._relaying and port in RELAY_PORTS and port not in self._ports:
            return RelayDatagram(port, remote, data)
        return Datagram(Address(local[0], port), remote, data)


def _open(family: int) -> socket.socket:
    sock = socket.socket(_FAMILIES[family], socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_UDP)
    bpf.attach(sock, bpf.program(family, ()))  # nothing, until it is known what
    with contextlib.suppress(PermissionError):  # beyond what net.core.rmem_max lets others have
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, _IPV6_CHECKSUM_AT)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return sock


def _open_all() -> dict[int, socket.socket]:
    """By family; a kernel may do without IPv6. Raises OSError."""
    sockets = {4: _open(4)}
    try:
        sockets[6] = _open(6)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    return sockets


def _source(family: int, ip: str) -> list[tuple[int, int, bytes]]:
    """Ancillary data that sends from this own address; without one the kernel chooses."""
    if not ip:
        return []
    raw = socket.inet_pton(_FAMILIES[family], ip)
    if family == 4:
        return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO4.pack(0, raw, bytes(4)))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(raw, 0))]


def _arrived_at(ancillary: list[tuple[int, int, bytes]]) -> tuple[str, int] | None:
    """The own address that a packet came to, and the interface's index."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            index, _own, destination = _PKTINFO4.unpack_from(value)
            return socket.inet_ntop(socket.AF_INET, destination), index
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            raw, index = _PKTINFO6.unpack_from(value)
            return socket.inet_ntop(socket.AF_INET6, raw), index
    return None


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
