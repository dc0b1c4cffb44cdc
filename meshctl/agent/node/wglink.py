"""Talking to WireGuard: generic netlink to the kernel's (linux/wireguard.h), a socket of its own to a userspace one.

`wg` would be one way for both, and a process for each reading: at a hundred peers eight times the CPU.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from meshctl.agent.node import netlink
from meshctl.agent.node.netlink import attribute, attributes, messages

# Where userspace implementations listen (wireguard.com/xplatform).
SOCKETS = Path("/var/run/wireguard")
# Either answers in milliseconds. One that hangs must not hang the agent with it.
TIMEOUT_S = 2.0
_READ_BYTES = 1 << 16

_NETLINK_GENERIC = 16  # linux/netlink.h
_GENERIC_HEADER = struct.Struct("=BBH")  # command, version
_CTRL_FAMILY, _CTRL_GETFAMILY, _CTRL_ATTR_ID, _CTRL_ATTR_NAME = 0x10, 3, 1, 2  # linux/genetlink.h
_VERSION = 1
# linux/wireguard.h: commands, and attributes of a device and of one of its peers
GET_DEVICE, SET_DEVICE = 0, 1
_DEVICE_IFNAME = 2
DEVICE_LISTEN_PORT, DEVICE_FWMARK, DEVICE_PEERS = 6, 7, 8
PEER_PUBLIC_KEY, PEER_FLAGS, PEER_ENDPOINT, PEER_KEEPALIVE = 1, 3, 4, 5
PEER_HANDSHAKE, PEER_RX_BYTES, PEER_TX_BYTES, PEER_ALLOWED_IPS = 6, 7, 8, 9


def is_userspace(interface: str) -> bool:
    """Whether the interface is not the kernel's."""
    return _control(interface).exists()


def converse(interface: str, request: str) -> str:
    """What a userspace WireGuard answers to `get=1` or `set=1` and the lines after it, without its error number. Raises
    OSError when that is not 0, and when it does not listen or does not answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(_control(interface)))
        sock.sendall(request.encode() + b"\n\n")
        answer = bytearray()
        while not answer.endswith(b"\n\n"):
            part = sock.recv(_READ_BYTES)
            if not part:
                break
            answer += part
    content, ended, code = answer.rpartition(b"errno=")
    number = abs(int(code)) if ended else errno.EIO
    if number:
        raise OSError(number, os.strerror(number))
    return content.decode()


def command(number: int, interface: str, device: bytes = b"", *, dump: bool = False) -> Iterator[bytes]:
    """The attributes of each of the kernel's answers to a command for an interface; `device`: attributes beside its
    name. Raises OSError when it says no."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as sock:
        sock.settimeout(TIMEOUT_S)
        name = attribute(_CTRL_ATTR_NAME, b"wireguard\0")
        (family,) = _ask(sock, _CTRL_FAMILY, netlink.ACK, _CTRL_GETFAMILY, name)
        kind = int(struct.unpack("=H", dict(attributes(family))[_CTRL_ATTR_ID])[0])
        device = attribute(_DEVICE_IFNAME, interface.encode() + b"\0") + device
        yield from _ask(sock, kind, netlink.DUMP if dump else netlink.ACK, number, device)


def _control(interface: str) -> Path:
    return SOCKETS / f"{interface}.sock"


def _ask(sock: socket.socket, kind: int, flags: int, number: int, content: bytes) -> Iterator[bytes]:
    """All answers, up to the acknowledgement or the end of a dump. A dump of two moments is an error: peers may be
    missing in it that were there all the time."""
    sock.send(netlink.message(kind, flags, _GENERIC_HEADER.pack(number, _VERSION, 0) + content))
    while True:
        data = sock.recv(_READ_BYTES)
        if netlink.interrupted(data):
            raise InterruptedError(errno.EINTR, "WireGuard has changed while it was read")
        for found, body in messages(data):
            if found == netlink.DONE:
                return
            if found != netlink.ERROR:
                yield body[_GENERIC_HEADER.size :]
                continue
            failure = netlink.failure(body)
            if failure.errno:
                raise failure
            return
