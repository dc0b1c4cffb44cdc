"""IP addresses as canonical text and as bytes on the wire."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from meshctl.core.wire.error import WireError

# ::ffff:0:0/96, an IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
MAPPED_PREFIX = bytes(10) + b"\xff\xff"


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
