"""The compiled inventory: what each node's WireGuard interfaces connect to, as `core.topology` makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshctl.model.mesh import Attachment
from meshctl.model.resources import Peer

Names = frozenset[str]
NOBODY: Names = frozenset()


@dataclass(frozen=True)
class Reach:
    """What policy lets one node have to do with in one network; nodes of which the same is said share one.

    `peers` are the nodes with which it, or what is behind it, may exchange anything in either direction; its own name
    may be among them. `prefixes` maps a gateway among them to what is behind it and meant. `exit_via` is the way to
    the internet that policy lets it use, `exit_users` are those who use its own.
    """

    peers: Names = NOBODY
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exit_via: str | None = None
    exit_users: Names = NOBODY


@dataclass(frozen=True)
class Link:
    """One WireGuard interface of one node.

    `addresses` carry the network's prefix length. `peers` are sorted by name. `routes` are the prefixes of their
    AllowedIPs that the interface's own prefixes do not cover. `fwmark` is 0 unless the node uses an exit node.

    `routed` maps a peer to the anchor that carries the pair, `carried` is source -> destinations of the pairs that this
    anchor carries, `exit_users` are the nodes that go to the internet through this one.
    """

    node: str
    network: str
    attachment: Attachment
    addresses: tuple[str, ...]
    peers: tuple[Peer, ...]
    routes: tuple[str, ...] = ()
    fwmark: int = 0
    default_route: bool = False
    routed: Mapping[str, str] = field(default_factory=dict)
    carried: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exit_users: Names = NOBODY


@dataclass(frozen=True)
class Topology:
    """Every node's links, clients' included. `warnings` maps a node to what could not be had as asked."""

    links: Mapping[str, tuple[Link, ...]]
    warnings: Mapping[str, tuple[str, ...]]

    def interfaces(self, node: str) -> tuple[Link, ...]:
        """The node's links in the order of its attachments. Raises KeyError for an unknown node."""
        return self.links[node]
