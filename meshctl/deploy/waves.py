"""Which hosts of an apply go together, and in which order. Pure.

A host is never in one wave with a host that its SSH connection goes through, and goes before it. Who is lost when a
change is bad, is lost alone that way, and the way to all others stays as it was: a jump host or anchor is changed last,
when the change has been tried, and confirmed, on everything behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, repeat

from meshctl.core.anchors import is_usable_anchor
from meshctl.core.prefixes import covers, host_prefix
from meshctl.errors import UsageError
from meshctl.model.mesh import Mesh, Node

_SHARE = re.compile(r"(\d{1,9})(%?)\Z")

# node -> the host that SSH connects to, and the jump hosts before it, nearest first
Ways = Mapping[str, tuple[str, tuple[str, ...]]]
Through = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Share:
    """A number of hosts, or percent of them."""

    value: int
    percent: bool = False

    def of(self, total: int) -> int:
        """How many of `total`, rounded down."""
        return self.value * total // 100 if self.percent else self.value

    def __str__(self) -> str:
        return f"{self.value}{'%' if self.percent else ''}"


def share(text: str, option: str) -> Share:
    """`5` or `10%`. Raises UsageError that names the option."""
    found = _SHARE.match(text.strip())
    if found is None or (found[2] and int(found[1]) > 100):
        raise UsageError(f"{option}: {text!r} is not a number of hosts or percent of them", hint="as in 1 or 10%")
    return Share(int(found[1]), bool(found[2]))


def serial(text: str) -> tuple[Share, ...]:
    """`1,10%,100%`: the sizes of the waves. Raises UsageError."""
    shares = tuple(share(part, "--serial") for part in text.split(","))
    if any(not each.value for each in shares):
        raise UsageError("--serial: a wave has at least one host", hint="as in 1,10%,100%")
    return shares


def through(mesh: Mesh, ways: Ways) -> dict[str, frozenset[str]]:
    """The nodes that each node's SSH connection goes through, as far as the inventory knows: its jump hosts and theirs,
    and what carries the mesh there, where it is a mesh's address, or one behind a gateway, that SSH connects to."""
    nearest = {name: _nearest(mesh, mesh.nodes[name], *way) for name, way in ways.items()}
    return {name: frozenset(_closure(name, nearest.get)) - {name} for name in nearest}


def waves(names: Collection[str], path: Through, sizes: Iterator[int]) -> list[list[str]]:
    """All of `names`, those behind others first, then by name; no wave is bigger than the next of `sizes`, nor has two
    nodes of which one is on the other's `path`."""
    found: list[list[str]] = []
    left = set(names)
    behind: dict[str, set[str]] = {name: set() for name in left}
    for name in left:
        for node in path.get(name, frozenset()) & left:
            # Two anchors that are each reached by the other: who goes first is the same.
            if name not in path.get(node, ()):
                behind[node].add(name)
    while left:
        size = next(sizes)
        wave: list[str] = []
        for name in sorted(left):
            if len(wave) < size and behind[name].isdisjoint(left) and path.get(name, frozenset()).isdisjoint(wave):
                wave.append(name)
        left.difference_update(wave)
        found.append(wave)
    return found


def sizes_of(shares: Sequence[Share], total: int) -> Iterator[int]:
    """The sizes of waves of `total` hosts, one host at least, the last one again and again."""
    counts = [max(1, each.of(total)) for each in shares]
    return chain(counts, repeat(counts[-1]))


def _nearest(mesh: Mesh, node: Node, host: str, jumps: tuple[str, ...]) -> set[str]:
    """The jump hosts, and what carries packets to the host from the last of them (or from here)."""
    found = {jump for jump in jumps if jump in mesh.nodes}
    try:
        place = host_prefix(str(ip_address(host)))
    except ValueError:
        return found  # a name: where it leads, only the name server knows
    found |= {n.name for n in mesh.nodes.values() if any(covers(prefix, place) for prefix in n.routes)}
    last = mesh.nodes.get(jumps[-1]) if jumps else None
    for name, network in mesh.networks.items():
        if any(covers(cidr, place) for cidr in network.cidrs) and not (last and _meet(last, node, name)):
            found |= {n.name for n in mesh.nodes.values() if is_usable_anchor(n, name)}
    return found


def _meet(one: Node, other: Node, network: str) -> bool:
    """Whether both are in the network and need no anchor to meet, for one of them has an endpoint."""
    ends = one.attachment(network), other.attachment(network)
    return all(ends) and any(end is not None and end.endpoint for end in ends)


def _closure(name: str, nearest: Callable[[str], set[str] | None]) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        fresh = (nearest(todo.pop()) or set()) - found
        found |= fresh
        todo += fresh
    return found
