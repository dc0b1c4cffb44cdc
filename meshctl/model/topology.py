"""The compiled inventory: what each node's WireGuard interfaces connect to, as `core.topology` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.model.mesh import Attachment
from meshctl.model.resources import Peer

Names = frozenset[str]
NOBODY: Names = frozenset()


@dataclass(frozen=True)
class Link:
    """One WireGuard interface of one node.

    `addresses` carry the network's prefix length. `peers` are sorted by name. `routes` are the prefixes of their
    AllowedIPs that the interface's own prefixes do not cover. `fwmark` is 0 unless the node uses an exit node.

    `incoming` names who may open connections to this node (the node itself may be among them), `routed` maps a peer
    to the anchor that carries the pair, `forwards` are the (source, destination) pairs that this anchor carries
    (answers follow by connection tracking), `route_users` and `exit_users` are the nodes that this gateway forwards.
    """

    node: str
    network: str
    attachment: Attachment
    addresses: tuple[str, ...]
    peers: tuple[Peer, ...]
    routes: tuple[str, ...] = ()
    fwmark: int = 0
    default_route: bool = False
    incoming: Names = NOBODY
    routed: Mapping[str, str] = field(default_factory=dict)
    forwards: tuple[tuple[str, str], ...] = ()
    forwards_all: bool = False  # stands for the pairs of a network in which all may talk to all
    route_users: Names = NOBODY
    exit_users: Names = NOBODY


@dataclass(frozen=True)
class Topology:
    """Every node's links, clients' included. `warnings` maps a node to what could not be had as asked."""

    links: Mapping[str, tuple[Link, ...]]
    warnings: Mapping[str, tuple[str, ...]]

    def interfaces(self, node: str) -> tuple[Link, ...]:
        """The node's links in the order of its attachments. Raises KeyError for an unknown node."""
        return self.links[node]
