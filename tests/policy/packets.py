"""One node in a network namespace with TUN devices, into which packets are put as frames and judged by the kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from meshctl.lab.netns import within

T = TypeVar("T")
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001  # linux/if_tun.h
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132, "other": 253}
SELF = "self"  # in place of a device: the node itself sends
_SENTINEL = ("198.51.100.1", "198.51.100.2")  # the node's and a neighbour's address on lan0
_LIMIT_S = 5.0
_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.icmp_ratemask": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.conf.default.accept_dad": "0",
}


class Host:
    """The node. `wg` are its WireGuard interfaces as name -> addresses with prefix length; lan0 is all the rest."""

    def __init__(self, wg: dict[str, list[str]], routes: dict[str, str]) -> None:
        self.name = f"packets-{uuid.uuid4().hex[:8]}"
        self.serial = 1024
        run("ip", "netns", "add", self.name)
        for key, value in _SYSCTLS.items():
            self.run("sysctl", "-qw", f"{key}={value}")
        self._tuns = {name: self._tun(name) for name in (*wg, "lan0")}
        self._own = {4: self.within(_raw_v4), 6: self.within(_raw_v6)}
        lan = [f"{_SENTINEL[0]}/24", "2001:db8:1::1/64"]
        self._lines("link set lo up", *(f"link set {name} up" for name in self._tuns))
        for name, addresses in {**wg, "lan0": lan}.items():
            self._lines(*(f"addr add {a} dev {name} {'nodad' if ':' in a else ''}" for a in addresses))
        self._lines(*(f"route add {prefix} dev {name}" for prefix, name in routes.items()))

    def close(self) -> None:
        """Take everything down."""
        for tun in self._tuns.values():
            os.close(tun)
        for own in self._own.values():
            own.close()
        run("ip", "netns", "del", self.name)

    def run(self, *command: str, text: str = "") -> str:
        """A command's output inside the namespace."""
        return run("ip", "netns", "exec", self.name, *command, text=text)

    def load(self, table: str) -> None:
        """Replace the table, as the boot file does, in one transaction."""
        self.run("nft", "-f", "-", text=f"table inet meshctl\ndelete table inet meshctl\n{table}")

    def passes(self, device: str, source: str, destination: str, protocol: str, port: int, again: int = 0) -> str:
        """The device at which the packet, or the node's own answer to it, came out; empty: nowhere.

        It opens a connection of its own, unless it belongs to that of an earlier `serial` (`again`).
        """
        self.serial = again or (self.serial + 1 if self.serial < 60000 else 1024)
        if protocol == "other":
            # It has no ports that would tell its connections apart, nor those of the other direction.
            self.run("conntrack", "-F")
        packet = frame(source, destination, protocol, self.serial, port)
        if device == SELF:
            self._send(packet, destination)
        else:
            os.write(self._tuns[device], packet)
        os.write(self._tuns["lan0"], frame(_SENTINEL[1], _SENTINEL[0], "icmp", self.serial, 0))
        for came_out, packet in self._until_sentinel():
            forwarded, answered = _ends(packet)[1] == destination, _ends(packet) == (destination, source)
            if struct.pack("!H", self.serial) in packet and (forwarded or answered):
                return came_out
        return ""

    def _until_sentinel(self) -> list[tuple[str, bytes]]:
        """What came out before the sentinel's answer. A TUN's packets are handled within write(), one by one."""
        found: list[tuple[str, bytes]] = []
        answered = False
        while True:
            ready = select.select(list(self._tuns.values()), [], [], 0 if answered else _LIMIT_S)[0]
            if not ready:
                assert answered, "the sentinel was not answered"
                return found
            for device, tun in self._tuns.items():
                if tun in ready:
                    packet = os.read(tun, 65535)
                    answered = answered or (_ends(packet) == _SENTINEL and struct.pack("!H", self.serial) in packet)
                    found.append((device, packet))

    def _send(self, packet: bytes, destination: str) -> None:
        """Send as a program on the node does: by way of the output hook, which answers a drop with EPERM."""
        with contextlib.suppress(PermissionError):
            self._own[ip_address(destination).version].sendto(packet, (destination, 0))

    def within(self, make: Callable[[], T]) -> T:
        """What `make` returns, called in the namespace."""
        return within(Path("/run/netns") / self.name, make)

    def _tun(self, name: str) -> int:
        def opened() -> int:
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
            return tun

        return self.within(opened)

    def _lines(self, *lines: str) -> None:
        self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")


def _raw_v4() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _raw_v6() -> socket.socket:
    return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stderr, text)
    return done.stdout


def frame(source: str, destination: str, protocol: str, serial: int, port: int) -> bytes:
    """An IP packet: a TCP SYN, a UDP datagram, an SCTP INIT, an echo request, or bytes of an unassigned protocol."""
    one, other = ip_address(source), ip_address(destination)
    number = 58 if protocol == "icmp" and one.version == 6 else PROTOCOLS[protocol]
    body = _body(protocol, one.version, serial, port)
    pseudo = one.packed + other.packed + struct.pack("!LL", len(body), number)
    at = {"tcp": 16, "udp": 6, "icmp": 2}.get(protocol)
    if at is not None:
        summed = checksum(body if number == 1 else pseudo + body)
        body = body[:at] + struct.pack("!H", summed) + body[at + 2 :]
    if one.version == 6:
        return struct.pack("!LHBB", 6 << 28, len(body), number, 64) + one.packed + other.packed + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), serial, 0, 64, number, 0) + one.packed + other.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def _body(protocol: str, version: int, serial: int, port: int) -> bytes:
    if protocol == "tcp":
        return struct.pack("!HHLLBBHHH", serial, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    if protocol == "udp":
        return struct.pack("!HHHH", serial, port, 12, 0) + b"test"
    if protocol == "icmp":
        return struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, serial, 1) + b"test"
    if protocol == "sctp":
        return _sctp_init(serial, port)
    return struct.pack("!HH", serial, port)


def _sctp_init(serial: int, port: int) -> bytes:
    """RFC 9260: the common header without a verification tag, and an INIT chunk."""
    init = struct.pack("!BBHLLHHL", 1, 0, 20, serial, 65535, 1, 1, 1)
    crc = crc32c(struct.pack("!HHLL", serial, port, 0, 0) + init)
    return struct.pack("!HHL", serial, port, 0) + struct.pack("<L", crc) + init


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A: CRC with the Castagnoli polynomial, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ends(packet: bytes) -> tuple[str, str]:
    at, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    return str(ip_address(packet[at : at + size])), str(ip_address(packet[at + size : at + 2 * size]))
