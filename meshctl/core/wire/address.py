"""IP addresses as canonical text and as bytes on the wire, and which of them the internet can reach."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from meshctl.core.wire.error import WireError

# ::ffff:0:0/96, an IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
MAPPED_PREFIX = bytes(10) + b"\xff\xff"

# What is not reached from the internet and is still some network's own: RFC 1918, RFC 6598 (carrier-grade NAT),
# RFC 3927, RFC 7335 (464XLAT), RFC 6333 (DS-Lite).
INNER_NETWORKS = tuple(
    IPv4Network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24")
)
# What no router has on any side: unspecified, loopback, multicast, reserved, broadcast.
IMPOSSIBLE_NETWORKS = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))
# RFC 4193 and RFC 4291 section 2.5.6.
INNER_NETWORKS_6 = tuple(IPv6Network(text) for text in ("fc00::/7", "fe80::/10"))
# The only IPv6 unicast that IANA gives out for the internet.
GLOBAL_UNICAST = IPv6Network("2000::/3")


class TransportAddress(NamedTuple):
    """An IP address as canonical text and a UDP port (RFC 8445 section 4). IPv4-mapped IPv6 is written as IPv4."""

    host: str
    port: int


# Holds the addresses of the servers, anchors and peers that one node deals with.
@lru_cache(maxsize=4096)
def pack_ip(host: str) -> bytes:
    """4 or 16 bytes. Raises WireError; an address with a zone (`fe80::1%eth0`) means nothing to another host."""
    try:
        if ":" not in host:
            return IPv4Address(host).packed
        if "%" in host:
            raise WireError("an IPv6 address with a zone cannot be sent")
        return IPv6Address(host).packed
    except AddressValueError:
        raise WireError("not an IP address") from None


def unpack_ip(packed: bytes) -> str:
    """The text of 4 or 16 bytes, the same on every Python (which differ in how they print IPv4-mapped addresses)."""
    if len(packed) == 4:
        return ".".join(map(str, packed))
    if len(packed) != 16:
        raise WireError("an IP address has 4 or 16 bytes")
    if packed.startswith(MAPPED_PREFIX):
        return ".".join(map(str, packed[12:]))
    return str(IPv6Address(packed))


def canonical_ip(text: str) -> str:
    """The canonical form of an address in text. Raises WireError."""
    return unpack_ip(pack_ip(text))


def pack_mapped(host: str) -> bytes:
    """16 bytes; an IPv4 address as an IPv4-mapped one, which is how PCP writes it (RFC 6887 section 5)."""
    packed = pack_ip(host)
    return packed if len(packed) == 16 else MAPPED_PREFIX + packed


class Reach(Enum):
    """From where an address can be reached."""

    GLOBAL = "global"  # the internet; documentation ranges count, for labs are made of them
    INNER = "inner"  # its own network: a router that has it outside is behind another NAT
    NONE = "none"  # nowhere: a router that says this has no address yet


def reach(host: str) -> Reach:
    """Of an address in text. Raises WireError."""
    packed = pack_ip(host)
    if len(packed) == 16:
        address = IPv6Address(packed)
        if address in GLOBAL_UNICAST:
            return Reach.GLOBAL
        return Reach.INNER if any(address in network for network in INNER_NETWORKS_6) else Reach.NONE
    if any(IPv4Address(packed) in network for network in INNER_NETWORKS):
        return Reach.INNER
    return Reach.NONE if any(IPv4Address(packed) in network for network in IMPOSSIBLE_NETWORKS) else Reach.GLOBAL
