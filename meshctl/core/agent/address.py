"""Addresses of the underlay, and what their ranges say of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from meshctl.core.prefixes import covers, host_prefix
from meshctl.core.wire.specialranges import SPECIAL_RANGES

_NEVER = {special.prefix: special.word for special in SPECIAL_RANGES if not special.endpoint}
_PRIVATE = tuple(special.prefix for special in SPECIAL_RANGES if special.private)


@lru_cache(maxsize=1 << 14)
def canonical(ip: str) -> str:
    """The one text of an IP address: lower case, shortest, an IPv4-mapped one (RFC 4291 2.5.5.2) as the IPv4 address.

    Raises ValueError, for a scoped address (`fe80::1%eth0`) too.
    """
    if "%" in ip:
        raise ValueError(f"{ip!r} has a scope")
    parsed = ipaddress.ip_address(ip)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


class Address(NamedTuple):
    """An IP address in canonical text and a UDP port. `Address.of` makes one of whatever text there is."""

    ip: str
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> Address:
        """The canonical address. Raises ValueError for what is no address, and for a port outside 0–65535."""
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"{port} is not a port")
        return cls(canonical(ip), port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of `192.0.2.1:51820` or `[2001:db8::1]:51820`, as `wg show` prints it. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or bracketed != (":" in host) or not (port.isascii() and port.isdigit()):
            raise ValueError(f"{text!r} is not an address and a port")
        return cls.of(host[1:-1] if bracketed else host, int(port))

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.ip else 4

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.family == 6 else f"{self.ip}:{self.port}"


class NamedEndpoint(NamedTuple):
    """An endpoint that is a DNS name. Port 0: the port comes from the name's SRV record."""

    host: str
    port: int


class LocalAddress(NamedTuple):
    """An address of this host (not of a mesh interface): canonical text, prefix length, the interface's name."""

    ip: str
    prefix_length: int
    interface: str

    @property
    def prefix(self) -> str:
        """The prefix that the address stands in, as `core.prefixes` writes it."""
        return _network(self.ip, self.prefix_length)


@lru_cache(maxsize=1 << 12)
def _network(ip: str, length: int) -> str:
    return str(ipaddress.ip_network(f"{ip}/{length}", strict=False))


@lru_cache(maxsize=1 << 14)
def within(ip: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a canonical address is in one of the prefixes."""
    return any(covers(prefix, host_prefix(ip)) for prefix in prefixes)


def is_private(ip: str) -> bool:
    """Whether the address means something else in another place (`specialranges`)."""
    return within(ip, _PRIVATE)


def refusal(ip: str, port: int, mesh_ranges: tuple[str, ...]) -> str:
    """Why this is nobody's endpoint, in a word or two; "" when it may be one.

    An address inside a mesh range would send the tunnel through itself. `ip` need not be canonical.
    """
    try:
        address = Address.of(ip, port)
    except ValueError:
        return "not an address"
    if not address.port:
        return "port 0"
    if within(address.ip, mesh_ranges):
        return "mesh range"
    return next((word for prefix, word in _NEVER.items() if within(address.ip, (prefix,))), "")


def ways_out(addresses: Iterable[LocalAddress], gateways: Iterable[str]) -> frozenset[str]:
    """Those of a host's addresses by which it leaves its networks: a default gateway stands in their prefix, or, where
    it is named by its link-local address (`fe80::1%eth0`), at their interface."""
    routers = [gateway.partition("%")[::2] for gateway in gateways]
    return frozenset(
        own.ip
        for own in addresses
        for ip, interface in routers
        if (interface == own.interface and ":" in own.ip if interface else within(canonical(ip), (own.prefix,)))
    )


def shared_prefix(ip: str, local: Iterable[LocalAddress]) -> bool:
    """Whether a canonical address is in a prefix that this host stands in. /32 and /128 are shared with nobody."""
    return any(
        own.ip != ip and own.prefix_length < (128 if ":" in own.ip else 32) and within(ip, (own.prefix,))
        for own in sorted(local)
    )
