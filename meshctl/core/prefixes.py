"""Prefixes as canonical text: order, coverage and merging. Text because a large mesh has millions of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


def version(address: str) -> int:
    """4 or 6, of an address or prefix."""
    return 6 if ":" in address else 4


def host_prefix(address: str) -> str:
    """`10.42.0.5` as `10.42.0.5/32`, `fd42::5` as `fd42::5/128`."""
    return f"{address}/128" if ":" in address else f"{address}/32"


# The bound holds the addresses of the largest fleets that one run handles (10,000 nodes, two families, and routes).
@lru_cache(maxsize=1 << 16)
def _parse(prefix: str) -> IPv4Network | IPv6Network:
    return ip_network(prefix)


@lru_cache(maxsize=1 << 16)
def _order(prefix: str) -> tuple[int, int, int]:
    net = _parse(prefix)
    return net.version, int(net.network_address), net.prefixlen


def sort_prefixes(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Canonical order of AllowedIPs: IPv4 before IPv6, then by number; no duplicates."""
    return tuple(sorted(set(prefixes), key=_order))


def merge_prefixes(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The same addresses in as few prefixes as possible, in canonical order."""
    nets = [_parse(p) for p in set(prefixes)]
    v4 = collapse_addresses(n for n in nets if isinstance(n, IPv4Network))
    v6 = collapse_addresses(n for n in nets if isinstance(n, IPv6Network))
    return tuple(str(n) for n in (*v4, *v6))


def covers(outer: str, inner: str) -> bool:
    """Whether every address of `inner` is in `outer`."""
    a, b = _parse(outer), _parse(inner)
    if isinstance(a, IPv4Network):
        return isinstance(b, IPv4Network) and b.subnet_of(a)
    return isinstance(b, IPv6Network) and b.subnet_of(a)


def without_covered(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Those of which anything is left when the narrower ones among them are taken out, in canonical order."""
    found = sort_prefixes(prefixes)
    left = []
    for index, outer in enumerate(found):
        end = index + 1  # what is inside a prefix follows it
        while end < len(found) and covers(outer, found[end]):
            end += 1
        if merge_prefixes(found[index + 1 : end]) != (outer,):
            left.append(outer)
    return tuple(left)


def overlap(one: str, other: str) -> bool:
    """Whether two prefixes have an address in common."""
    return _parse(one).overlaps(_parse(other)) if version(one) == version(other) else False
