"""Addresses that the lab hands out by itself: to routers, LANs and hosts for which the inventory names none.

Each is drawn by a hash of the owner's name, so that adding a node to the inventory moves nobody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from meshctl.lab.names import LabError

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

# Public IPv4 addresses. Not a documentation range: miniupnpd refuses reserved external addresses (RECIPES), and the
# lab is closed, so nobody's real 11/8 is ever asked.
PUBLIC4 = IPv4Network("11.0.0.0/16")
# LANs: RFC 1918, the block that inventories use least. Behind a carrier: RFC 6598.
LAN4 = IPv4Network("172.16.0.0/12")
CARRIER4 = IPv4Network("100.64.0.0/10")
# Documentation (RFC 9637): LANs in the first /32, public hosts in the second.
LAN6 = IPv6Network("3fff::/32")
PUBLIC6 = IPv6Network("3fff:1::/32")
# Hosts of a LAN are numbered from here; below are the router and room for its own kin.
FIRST_HOST, LAST_HOST = 10, 250


class Pools:
    """Draws addresses and prefixes that overlap neither the inventory's own nor each other."""

    def __init__(self, busy: Iterable[str]) -> None:
        self._busy: list[Prefix] = [ip_network(text, strict=False) for text in busy]
        self._hosts: dict[str, set[int]] = {}

    def public4(self, owner: str) -> str:
        """A public IPv4 address for `owner`."""
        octets = 254 * 256
        return self._draw(owner, octets, lambda i: ip_network(PUBLIC4[(i // 254) * 256 + 1 + i % 254]))

    def public6(self, owner: str) -> str:
        """A public IPv6 address for `owner`."""
        return self._draw(owner, 1 << 16, lambda i: ip_network(PUBLIC6[(i << 64) + 1]))

    def lan4(self, owner: str, *, carrier: bool) -> IPv4Network:
        """A /24 for the LAN of router `owner`."""
        pool = CARRIER4 if carrier else LAN4
        count = 1 << (24 - pool.prefixlen)
        text = self._draw(owner, count, lambda i: IPv4Network((int(pool.network_address) + (i << 8), 24)))
        return IPv4Network(f"{text}/24")

    def lan6(self, owner: str) -> IPv6Network:
        """A /64 for the LAN of router `owner`."""
        text = self._draw(owner, 1 << 16, lambda i: IPv6Network((int(LAN6.network_address) + (i << 64), 64)))
        return IPv6Network(f"{text}/64")

    def number(self, router: str, owner: str) -> int:
        """The host number of `owner` in the LAN of `router`."""
        taken = self._hosts.setdefault(router, set())
        size = LAST_HOST - FIRST_HOST + 1
        for offset in range(size):
            number = FIRST_HOST + (_hash(owner) + offset) % size
            if number not in taken:
                taken.add(number)
                return number
        raise LabError(f"more than {size} hosts behind one router", where=router, hint="spread them over more routers")

    def _draw(self, owner: str, count: int, item: Callable[[int], Prefix]) -> str:
        start = _hash(owner)
        for offset in range(count):
            prefix = item((start + offset) % count)
            if not any(prefix.version == b.version and prefix.overlaps(b) for b in self._busy):
                self._busy.append(prefix)
                return str(prefix.network_address)
        raise LabError("no free address is left for the lab", where=owner)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def literal(text: str) -> Address | None:
    """`text` as an IP address, or None when it is a name."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def lan_pair(prefix: Prefix) -> tuple[str, str, str]:
    """For a LAN behind a gateway: (the gateway's address, the device's, the device's default route).

    The gateway is the first host of the prefix and the device the tenth (`.10`, `::10`). A prefix too small for that
    gives the device its last usable address; one of a single address gives it that and a link-local gateway.
    """
    size = prefix.num_addresses
    if size < 4:
        near = "169.254.1.1" if prefix.version == 4 else "fe80::1"
        return f"{near}/{prefix.max_prefixlen}", f"{prefix[-1]}/{prefix.max_prefixlen}", near
    number = (10 if prefix.version == 4 else 0x10) if size > 32 else size - 2
    return f"{prefix[1]}/{prefix.prefixlen}", f"{prefix[number]}/{prefix.prefixlen}", str(prefix[1])
