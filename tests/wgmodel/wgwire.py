"""The internet between hosts whose only device is a TUN: it delays packets, writes them down, and loses or holds them.

Standard library alone, as `wgstage`.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wgstage import DELAY_S, PORT

_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001  # linux/if_tun.h
_UDP = 17
_PACKET_BYTES = 65_536
_IP, _PORTS = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!HHHH")
_HEADERS = _IP.size + _PORTS.size


@dataclass(frozen=True)
class Datagram:
    """An IPv4 packet with UDP in it: its addresses, and WireGuard's message."""

    source: str
    destination: str
    payload: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Datagram | None:
        """What WireGuard sent; None for anything else that a kernel says by itself."""
        if len(packet) <= _HEADERS or packet[0] != 0x45 or packet[9] != _UDP:
            return None
        if _PORTS.unpack_from(packet, _IP.size)[0] != PORT:
            return None
        return cls(socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), packet[_HEADERS:])

    def pack(self) -> bytes:
        """The packet; without a checksum of UDP, which IPv4 allows (RFC 768)."""
        ends = socket.inet_aton(self.source), socket.inet_aton(self.destination)
        udp = _PORTS.pack(PORT, PORT, _PORTS.size + len(self.payload), 0)
        head = _IP.pack(0x45, 0, _HEADERS + len(self.payload), 0, 0, 64, _UDP, 0, *ends)
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head = _IP.pack(0x45, 0, _HEADERS + len(self.payload), 0, 0, 64, _UDP, ~(total + (total >> 16)) & 0xFFFF, *ends)
        return head + udp + self.payload


@dataclass
class Port:
    """One host's TUN, its addresses there and that of a NAT in front of it, and what is done to its messages."""

    tun: int
    addresses: list[str]
    outside: str = ""
    lost: tuple[int, ...] = ()
    hold: bool = False
    held: list[Datagram] = field(default_factory=list)
    first: dict[int, Datagram] = field(default_factory=dict)


class Wire(threading.Thread):
    """Moves packets from the start until `stop`. `seen(node, time, datagram)` is called in this thread.

    `inner` are sockets inside tunnels, read here too: `got(node, time, source, bytes)`.
    """

    def __init__(
        self, ports: dict[str, Port], inner: dict[str, socket.socket],
        seen: Callable[[str, float, Datagram], None], got: Callable[[str, float, str, int], None],
    ) -> None:  # fmt: skip
        super().__init__(name="wire", daemon=True)
        self.ports = ports
        self._inner = inner
        self._seen, self._got = seen, got
        self._way: list[tuple[float, int, Datagram]] = []
        self._asked = 0
        self._lock = threading.Lock()
        self._wake = os.pipe()

    def stop(self) -> None:
        """End the thread."""
        os.close(self._wake[1])
        self.join()
        os.close(self._wake[0])

    def carry(self, datagram: Datagram) -> None:
        """Put a datagram on its way; any thread may."""
        with self._lock:
            self._asked += 1
            heapq.heappush(self._way, (time.monotonic() + DELAY_S, self._asked, datagram))
        os.write(self._wake[1], b".")

    def run(self) -> None:
        """Until the pipe is closed at its other end."""
        tuns = {port.tun: (node, port) for node, port in self.ports.items()}
        sockets = {sock.fileno(): (node, sock) for node, sock in self._inner.items()}
        while True:
            ready, _, _ = select.select([self._wake[0], *tuns, *sockets], [], [], self._deliver())
            for descriptor in ready:
                if descriptor in tuns:
                    self._take(*tuns[descriptor])
                elif descriptor in sockets:
                    node, sock = sockets[descriptor]
                    data, source = sock.recvfrom(_PACKET_BYTES)
                    self._got(node, time.monotonic(), source[0], len(data))
                elif not os.read(self._wake[0], 4096):
                    return

    def _take(self, node: str, port: Port) -> None:
        datagram = Datagram.parse(os.read(port.tun, _PACKET_BYTES))
        if datagram is None:
            return
        kind = datagram.payload[0]
        datagram = replace(datagram, source=port.outside or datagram.source)
        self._seen(node, time.monotonic(), datagram)
        port.first.setdefault(kind, datagram)
        if port.hold:
            port.hold = False
            port.held.append(datagram)
        elif kind not in port.lost:
            self.carry(datagram)

    def _deliver(self) -> float | None:
        """Write what is due; the seconds until more is."""
        with self._lock:
            while self._way and self._way[0][0] <= time.monotonic():
                _, _, datagram = heapq.heappop(self._way)
                for port in self.ports.values():
                    if datagram.destination == port.outside:
                        os.write(port.tun, replace(datagram, destination=port.addresses[0]).pack())
                    elif datagram.destination in port.addresses and not port.outside:
                        os.write(port.tun, datagram.pack())
            return max(0.0, self._way[0][0] - time.monotonic()) if self._way else None


def open_tun(name: str) -> int:
    """A TUN device in the caller's namespace."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    return tun
