"""Setting one peer's endpoint or keepalive, in the kernel's WireGuard or in a userspace one.

`wg set` would make a peer that is not there, and an apply may take one away at any moment. So WireGuard is spoken to
directly: both interfaces know "only if it is there".
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from meshctl.agent.node import netlink
from meshctl.agent.node.netlink import attribute, attributes, messages, nested
from meshctl.core.agent.address import Address
from meshctl.model.keys import PublicKey

# Where userspace implementations listen (wireguard.com/xplatform).
SOCKETS = Path("/var/run/wireguard")
TIMEOUT_S = 2.0
_READ_BYTES = 1 << 14

_NETLINK_GENERIC = 16  # linux/netlink.h
_GENERIC_HEADER = struct.Struct("=BBH")  # command, version
_CTRL_FAMILY, _CTRL_GETFAMILY, _CTRL_ATTR_ID, _CTRL_ATTR_NAME = 0x10, 3, 1, 2  # linux/genetlink.h
# linux/wireguard.h
_SET_DEVICE, _VERSION = 1, 1
_DEVICE_IFNAME, _DEVICE_PEERS = 2, 8
_PEER_PUBLIC_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 3, 4, 5
_UPDATE_ONLY = 1 << 2


def set_peer(interface: str, peer: PublicKey, endpoint: Address | None = None, keepalive_s: int | None = None) -> None:
    """Set what is not None, if the interface has that peer. Raises OSError when there is no such interface."""
    if is_userspace(interface):
        _userspace(_control(interface), peer, endpoint, keepalive_s)
    else:
        _kernel(interface, peer, endpoint, keepalive_s)


def is_userspace(interface: str) -> bool:
    """Whether the interface is not the kernel's."""
    return _control(interface).exists()


def _control(interface: str) -> Path:
    return SOCKETS / f"{interface}.sock"


def _userspace(control: Path, peer: PublicKey, endpoint: Address | None, keepalive_s: int | None) -> None:
    lines = ["set=1", f"public_key={peer.raw().hex()}", "update_only=true"]
    lines += [f"endpoint={endpoint}"] if endpoint is not None else []
    lines += [f"persistent_keepalive_interval={keepalive_s}"] if keepalive_s is not None else []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(control))
        sock.sendall("\n".join([*lines, "", ""]).encode())
        answer = sock.recv(_READ_BYTES)
    code = -int(answer.strip().partition(b"errno=")[2] or b"-5")  # 5: EIO, for who ends without an answer
    if code:
        raise OSError(abs(code), os.strerror(abs(code)))


def _kernel(interface: str, peer: PublicKey, endpoint: Address | None, keepalive_s: int | None) -> None:
    fields = attribute(_PEER_PUBLIC_KEY, peer.raw()) + attribute(_PEER_FLAGS, struct.pack("=I", _UPDATE_ONLY))
    if endpoint is not None:
        fields += attribute(_PEER_ENDPOINT, _sockaddr(endpoint))
    if keepalive_s is not None:
        fields += attribute(_PEER_KEEPALIVE, struct.pack("=H", keepalive_s))
    peers = nested(_DEVICE_PEERS, nested(0, fields))
    device = attribute(_DEVICE_IFNAME, interface.encode() + b"\0") + peers
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as sock:
        sock.settimeout(TIMEOUT_S)
        family = _ask(sock, _CTRL_FAMILY, _CTRL_GETFAMILY, attribute(_CTRL_ATTR_NAME, b"wireguard\0"))
        found = dict(attributes(family[_GENERIC_HEADER.size :]))
        number = int(struct.unpack("=H", found[_CTRL_ATTR_ID])[0])
        _ask(sock, number, _SET_DEVICE, device)


def _ask(sock: socket.socket, family: int, command: int, content: bytes) -> bytes:
    """The answer, if there is one before the acknowledgement. Raises OSError when the kernel says no."""
    body = _GENERIC_HEADER.pack(command, _VERSION, 0) + content
    sock.send(netlink.message(family, netlink.ACK, body))
    answer = b""
    while True:
        for kind, found in messages(sock.recv(_READ_BYTES)):
            if kind != netlink.ERROR:
                answer = found
                continue
            failure = netlink.failure(found)
            if failure.errno:
                raise failure
            return answer


def _sockaddr(address: Address) -> bytes:
    """struct sockaddr_in or sockaddr_in6: the family in the host's order, the port in the network's."""
    if address.family == 4:
        raw = socket.inet_pton(socket.AF_INET, address.ip)
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address.port, raw)
    raw = socket.inet_pton(socket.AF_INET6, address.ip)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", address.port, 0, raw, 0)
