"""The special-purpose ranges of addresses (RFC 6890), and all that is decided by them: what can be an endpoint, what is
another host in another network, and from where an address is reached.

The ranges are written out: `ipaddress.is_private` and its kin answer differently from one Python version to the next.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Network, ip_address, ip_network
from typing import NamedTuple

from meshctl.core.wire.address import pack_ip


class Reach(Enum):
    """From where an address can be reached."""

    GLOBAL = "global"  # the internet; documentation ranges count, for labs are made of them
    INNER = "inner"  # its own network: a router that has it outside is behind another NAT
    NONE = "none"  # nowhere: a router that says this has no address yet


class SpecialRange(NamedTuple):
    """`endpoint`: whether an address of it may be somebody's endpoint."""

    prefix: str
    word: str
    reach: Reach
    endpoint: bool = False

    @property
    def private(self) -> bool:
        """Whether the same address is another host's in another network, so that a candidate from it is worth less."""
        return self.endpoint and self.reach is Reach.INNER


SPECIAL_RANGES = (
    SpecialRange("0.0.0.0/8", "unspecified", Reach.NONE),
    SpecialRange("10.0.0.0/8", "private (RFC 1918)", Reach.INNER, endpoint=True),
    SpecialRange("100.64.0.0/10", "shared, behind a CGNAT (RFC 6598)", Reach.INNER, endpoint=True),
    SpecialRange("127.0.0.0/8", "loopback", Reach.NONE),
    SpecialRange("169.254.0.0/16", "link-local", Reach.INNER),
    SpecialRange("172.16.0.0/12", "private (RFC 1918)", Reach.INNER, endpoint=True),
    SpecialRange("192.0.0.0/24", "of 464XLAT and DS-Lite (RFC 7335, RFC 6333)", Reach.INNER, endpoint=True),
    SpecialRange("192.168.0.0/16", "private (RFC 1918)", Reach.INNER, endpoint=True),
    SpecialRange("224.0.0.0/4", "multicast", Reach.NONE),
    SpecialRange("240.0.0.0/4", "reserved", Reach.NONE),
    SpecialRange("::/128", "unspecified", Reach.NONE),
    SpecialRange("::1/128", "loopback", Reach.NONE),
    SpecialRange("fc00::/7", "unique local (RFC 4193)", Reach.INNER, endpoint=True),
    # Says nothing without a scope, and a scope means nothing to another host.
    SpecialRange("fe80::/10", "link-local", Reach.INNER),
    SpecialRange("ff00::/8", "multicast", Reach.NONE),
)
# The only IPv6 unicast that IANA gives out for the internet.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_REACHES = tuple((ip_network(special.prefix), special.reach) for special in SPECIAL_RANGES)


def reach(host: str) -> Reach:
    """Of an address in text. Raises WireError."""
    address = ip_address(pack_ip(host))
    elsewhere = Reach.GLOBAL if address.version == 4 or address in _GLOBAL_UNICAST else Reach.NONE
    return next((where for network, where in _REACHES if address in network), elsewhere)
