"""Setting one peer's endpoint, keepalive or AllowedIPs, in the kernel's WireGuard or in a userspace one.

`wg set` would make a peer that is not there, and an apply may take one away at any moment. Spoken to directly, both
know "only if it is there".
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_network

from meshctl.agent.node.netlink import attribute, nested
from meshctl.agent.node.wglink import (
    DEVICE_PEERS,
    PEER_ALLOWED_IPS,
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

# linux/wireguard.h: flags of a peer, and attributes of an allowed IP
_REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1 << 1, 1 << 2
_FAMILY, _ADDRESS, _LENGTH = 1, 2, 3


def set_peer(interface: str, peer: PublicKey, endpoint: Address | None = None, keepalive_s: int | None = None) -> None:
    """Set what is not None, if the interface has that peer. Raises OSError when there is no such interface."""
    if is_userspace(interface):
        _userspace(interface, peer, endpoint, keepalive_s)
    else:
        _kernel(interface, peer, endpoint, keepalive_s)


def take_allowed_ips(interface: str, peer: PublicKey, allowed_ips: Sequence[str]) -> None:
    """These prefixes are the peer's alone from now on, if the interface has it: whoever had them has them no more, and
    there is no moment between. Raises OSError when there is no such interface."""
    if is_userspace(interface):
        lines = ["set=1", f"public_key={peer.raw().hex()}", "update_only=true", "replace_allowed_ips=true"]
        converse(interface, "\n".join([*lines, *(f"allowed_ip={prefix}" for prefix in allowed_ips)]))
        return
    fields = attribute(PEER_PUBLIC_KEY, peer.raw())
    fields += attribute(PEER_FLAGS, struct.pack("=I", _UPDATE_ONLY | _REPLACE_ALLOWED_IPS))
    fields += nested(PEER_ALLOWED_IPS, b"".join(nested(0, _allowed_ip(prefix)) for prefix in allowed_ips))
    for _ in command(SET_DEVICE, interface, nested(DEVICE_PEERS, nested(0, fields))):
        pass


def _allowed_ip(prefix: str) -> bytes:
    network = ip_network(prefix)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    fields = attribute(_FAMILY, struct.pack("=H", family)) + attribute(_ADDRESS, network.network_address.packed)
    return fields + attribute(_LENGTH, struct.pack("=B", network.prefixlen))


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
