"""Setting one peer's endpoint or keepalive, in the kernel's WireGuard or in a userspace one.

`wg set` would make a peer that is not there, and an apply may take one away at any moment. Spoken to directly, both
know "only if it is there".
"""

from __future__ import annotations

import socket
import struct

from meshctl.agent.node.netlink import attribute, nested
from meshctl.agent.node.wglink import (
    DEVICE_PEERS,
    PEER_ENDPOINT,
    PEER_FLAGS,
    PEER_KEEPALIVE,
    PEER_PUBLIC_KEY,
    SET_DEVICE,
    command,
    converse,
    is_userspace,
)
from meshctl.core.agent.address import Address
from meshctl.model.keys import PublicKey

# linux/wireguard.h: a flag of a peer
_UPDATE_ONLY = 1 << 2


def set_peer(interface: str, peer: PublicKey, endpoint: Address | None = None, keepalive_s: int | None = None) -> None:
    """Set what is not None, if the interface has that peer. Raises OSError when there is no such interface."""
    if is_userspace(interface):
        _userspace(interface, peer, endpoint, keepalive_s)
    else:
        _kernel(interface, peer, endpoint, keepalive_s)


def _userspace(interface: str, peer: PublicKey, endpoint: Address | None, keepalive_s: int | None) -> None:
    lines = ["set=1", f"public_key={peer.raw().hex()}", "update_only=true"]
    lines += [f"endpoint={endpoint}"] if endpoint is not None else []
    lines += [f"persistent_keepalive_interval={keepalive_s}"] if keepalive_s is not None else []
    converse(interface, "\n".join(lines))


def _kernel(interface: str, peer: PublicKey, endpoint: Address | None, keepalive_s: int | None) -> None:
    fields = attribute(PEER_PUBLIC_KEY, peer.raw()) + attribute(PEER_FLAGS, struct.pack("=I", _UPDATE_ONLY))
    if endpoint is not None:
        fields += attribute(PEER_ENDPOINT, _sockaddr(endpoint))
    if keepalive_s is not None:
        fields += attribute(PEER_KEEPALIVE, struct.pack("=H", keepalive_s))
    peers = nested(DEVICE_PEERS, nested(0, fields))
    for _ in command(SET_DEVICE, interface, peers):
        pass  # it acknowledges, and says nothing


def _sockaddr(address: Address) -> bytes:
    """struct sockaddr_in or sockaddr_in6: the family in the host's order, the port in the network's."""
    if address.family == 4:
        raw = socket.inet_pton(socket.AF_INET, address.ip)
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address.port, raw)
    raw = socket.inet_pton(socket.AF_INET6, address.ip)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", address.port, 0, raw, 0)
