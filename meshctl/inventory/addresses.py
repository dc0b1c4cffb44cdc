"""Addresses and prefixes: `ipaddress` parses (strictly, with good errors), netaddr computes with sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar, Union

HIGHEST_PORT = 65535
Prefix = Union[IPv4Network, IPv6Network]
Address = Union[IPv4Address, IPv6Address]
T = TypeVar("T")

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?\Z"
)


class Malformed(ValueError):  # noqa: N818 - becomes a Diagnostic
    """A text is not what it should be. `hint` says what to write instead; `meant` is that, where it is certain."""

    def __init__(self, message: str, hint: str = "", meant: Prefix | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.meant = meant


def parse_prefix(text: str) -> Prefix:
    """`10.42.0.0/16`. Raises Malformed, with the corrected text as hint where host bits are set."""
    if "/" not in text:
        try:
            address = ip_address(text)
        except ValueError:
            raise Malformed(f"`{text}` is not a prefix", "write ADDRESS/LENGTH, as in 10.42.0.0/16") from None
        raise Malformed(f"`{text}` has no prefix length", f"one address alone is {address}/{address.max_prefixlen}")
    try:
        prefix = ip_network(text)
    except ValueError as error:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise Malformed(f"`{text}` is not a prefix", _reason(error)) from None
        raise Malformed(f"`{text}` has host bits set", f"write {meant}", meant) from None
    if kind := unusable(prefix):
        raise Malformed(f"`{text}` is {kind} range", "choose from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fd00::/8")
    return prefix


def unusable(place: Prefix | Address) -> str:
    """Why nothing can be sent there from afar (`a loopback`, …), or ""."""
    kinds = {
        "a multicast": place.is_multicast,
        "a loopback": place.is_loopback,
        "a link-local": place.version == 6 and place.is_link_local,
        "the unspecified": place.is_unspecified,
    }
    return next((kind for kind, applies in kinds.items() if applies), "")


def parse_address(text: str) -> Address:
    """`10.42.0.11`. Raises Malformed."""
    try:
        address = _address(text)
    except ValueError as error:
        if "/" in text and _is_address(text.split("/")[0]):
            raise Malformed(f"`{text}` is a prefix, not an address", f"write {text.split('/')[0]}") from None
        raise Malformed(f"`{text}` is not an IP address", _reason(error)) from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise Malformed(f"`{text}` has a zone", f"write {text.split('%')[0]}")
    return address


def parse_endpoint(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as (host, port); an IPv6 host without brackets. Raises Malformed."""
    host, colon, port_text = text.rpartition(":")
    if text.count(":") > 1 and _is_address(text):  # every IPv6 address has two
        raise Malformed(f"`{text}` has no port", f"write [{text}]:51820, with the port that is reachable")
    if not colon or not port_text:
        raise Malformed(f"`{text}` has no port", f"write {text.rstrip(':')}:51820, with the port that is reachable")
    if not port_text.isascii() or not port_text.isdigit() or not 0 < int(port_text[:6]) <= HIGHEST_PORT:
        raise Malformed(f"`{port_text}` is not a port", f"ports are numbers from 1 to {HIGHEST_PORT}")
    if host.startswith("[") and host.endswith("]"):
        if not _is_address(host[1:-1]) or ":" not in host:
            raise Malformed(f"`{host}` is not an IPv6 address", "brackets are for IPv6: [2001:db8::1]:51820")
        return host[1:-1], int(port_text)
    if ":" in host:
        hint = f"write [{host}]:{port_text}" if _is_address(host) else "write HOST:PORT or [IPV6]:PORT"
        raise Malformed(f"`{text}` is ambiguous", hint)
    if not is_host(host):
        raise Malformed(f"`{host}` is neither a host name nor an address", "write HOST:PORT or [IPV6]:PORT")
    return host, int(port_text)


def is_host(text: str) -> bool:
    """Whether `text` is an IP address or a DNS name. What ends in digits alone must be an address."""
    if _is_address(text):
        return True
    return bool(_HOST_NAME.match(text)) and not text.rstrip(".").rsplit(".", 1)[-1].isdigit()


def join_endpoint(host: str, port: int) -> str:
    """The inverse of parse_endpoint."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def literal(host: str) -> Address | None:
    """The address that `host` is, or None for a name."""
    try:
        return _address(host)
    except ValueError:
        return None


# The same few texts are asked for by one rule after the other. The bound holds those of the largest fleets that one
# run handles (10,000 nodes with an endpoint and an address of each family).
@lru_cache(maxsize=1 << 16)
def _address(text: str) -> Address:
    """By family, because ip_address() does not say why it refuses. Raises ValueError."""
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def _is_address(text: str) -> bool:
    return literal(text) is not None


def _reason(error: ValueError) -> str:
    """ipaddress's reason without the text that it repeats."""
    text = str(error)
    if "Leading zeros" in text:
        return "leading zeros are not permitted: they are octal to some programs"
    return "write an IPv4 or IPv6 address" if "does not appear" in text or "octets" in text else text


@dataclass(frozen=True)
class Ranges:
    """The prefixes of one network. Either may be absent, not both."""

    v4: IPv4Network | None = None
    v6: IPv6Network | None = None

    def prefixes(self) -> tuple[Prefix, ...]:
        """IPv4 first."""
        return tuple(p for p in (self.v4, self.v6) if p is not None)

    def holding(self, address: Address) -> Prefix | None:
        """The prefix that holds `address`, or None."""
        return next((p for p in self.prefixes() if p.version == address.version and address in p), None)


def overlaps(items: Iterable[tuple[Prefix, T]]) -> Iterator[tuple[tuple[Prefix, T], tuple[Prefix, T]]]:
    """Every pair of overlapping prefixes, wider first. Sorted sweep: n log n and the number of pairs."""
    ordered = sorted(items, key=lambda item: (item[0].version, int(item[0].network_address), item[0].prefixlen))
    open_: list[tuple[Prefix, T]] = []
    for item in ordered:
        # Prefixes nest or are disjoint, so what does not hold this one holds none after it.
        while open_ and not _holds(open_[-1][0], item[0]):
            open_.pop()
        for wider in open_:
            yield wider, item
        open_.append(item)


def _holds(wide: Prefix, narrow: Prefix) -> bool:
    return wide.version == narrow.version and wide.network_address <= narrow.network_address <= wide.broadcast_address  # type: ignore[operator]
