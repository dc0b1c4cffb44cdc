"""Mesh addresses: given, pinned in the lock, or derived from the node's name.

A free node's place is a hash of its name, not its rank in a list: without a lock, or when two branches each add a
node, nobody else moves, but for the rare pair whose hashes collide. With a lock nobody moves at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from meshctl.inventory.addresses import Address, Prefix, Ranges

# Host parts are hashed into 32 bits at most: wide enough that 10,000 nodes have a collision once in a hundred fleets,
# and fd42:42::9f3a:22c1 can still be read out over a telephone.
HASH_BITS = 32


@dataclass(frozen=True)
class Claim:
    """One node's wish in one network: `given` by the inventory, `pinned` by the lock. Already checked for range."""

    node: str
    given: tuple[Address, ...] = ()
    pinned: tuple[Address, ...] = ()


class NoRoom(Exception):  # noqa: N818 - becomes a Diagnostic
    """A prefix has fewer host addresses than the network has nodes."""

    def __init__(self, prefix: Prefix, nodes: int) -> None:
        super().__init__(f"{prefix} has {capacity(prefix)} host addresses for {nodes} nodes")
        self.prefix = prefix
        self.nodes = nodes


def allocate(network: str, ranges: Ranges, claims: Iterable[Claim]) -> dict[str, tuple[str, ...]]:
    """Node -> its address in each family of `ranges`, IPv4 first. Raises NoRoom.

    Deterministic, whatever the order of `claims`. Given addresses come first, then the lock's, then hashes by name.
    """
    claims = sorted(claims, key=lambda claim: claim.node)
    placed: dict[str, list[str]] = {claim.node: [] for claim in claims}
    for prefix in ranges.prefixes():
        for node, number in _place(network, prefix, claims).items():
            placed[node].append(str(IPv4Address(number) if prefix.version == 4 else IPv6Address(number)))
    return {node: tuple(addresses) for node, addresses in placed.items()}


def _place(network: str, prefix: Prefix, claims: list[Claim]) -> dict[str, int]:
    if len(claims) > capacity(prefix):
        raise NoRoom(prefix, len(claims))
    result: dict[str, int] = {}
    taken: set[int] = set()
    for claim in claims:
        for address in claim.given:
            if address.version == prefix.version and address in prefix:
                result[claim.node] = int(address)
                taken.add(int(address))
    for claim in claims:
        for address in claim.pinned:
            number = int(address)
            if claim.node not in result and number not in taken and is_host_address(address, prefix):
                result[claim.node] = number
                taken.add(number)
    first, size = _host_range(prefix)
    for claim in claims:
        if claim.node not in result:
            offset = _hash(network, claim.node) % size
            while first + offset in taken:  # ends: there are at least as many addresses as claims
                offset = (offset + 1) % size
            result[claim.node] = first + offset
            taken.add(first + offset)
    return result


def _hash(network: str, node: str) -> int:
    from hashlib import blake2b  # here, for it loads OpenSSL, and a node in the lock has its address already

    digest = blake2b(f"{network}/{node}".encode(), digest_size=HASH_BITS // 8).digest()
    return int.from_bytes(digest, "big")


def _host_range(prefix: Prefix) -> tuple[int, int]:
    """(first host address, number of host addresses). /31 and /127 have two (RFC 3021, RFC 6164)."""
    first, size = int(prefix.network_address), prefix.num_addresses
    if size <= 2:
        return first, size
    if isinstance(prefix, IPv4Network):
        return first + 1, size - 2  # without network and broadcast address
    return first + 1, size - 1  # without the subnet-router anycast address (RFC 4291 section 2.6.1)


def capacity(prefix: Prefix) -> int:
    """How many nodes a prefix can hold."""
    return _host_range(prefix)[1]


def is_host_address(address: Address, prefix: Prefix) -> bool:
    """Whether a node may have `address` in `prefix`: inside, and neither network nor broadcast address."""
    if address.version != prefix.version:
        return False
    first, size = _host_range(prefix)
    return first <= int(address) < first + size


def lowest_free(prefix: Prefix, used: Iterable[str]) -> str:
    """The lowest host address of `prefix` that is not in `used`, or "" when there is none."""
    from netaddr import IPAddress, IPRange, IPSet  # here, for it costs 32 ms and serves only hints

    first, size = _host_range(prefix)
    hosts = IPRange(IPAddress(first, prefix.version), IPAddress(first + size - 1, prefix.version))
    free = IPSet(hosts) - IPSet(IPAddress(address) for address in used)
    return str(next(iter(free))) if free else ""


def larger(prefix: Prefix, nodes: int) -> str:
    """The narrowest prefix around `prefix` that has room for `nodes`, two reserved addresses included."""
    from netaddr import IPNetwork

    wider = IPNetwork(str(prefix))
    while wider.prefixlen and wider.size - 2 < nodes:
        wider = wider.supernet(wider.prefixlen - 1)[0]
    return str(wider.cidr)
