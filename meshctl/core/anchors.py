"""Which anchor carries whom, and how stock clients ask for it."""

from __future__ import annotations

from meshctl.core.reachability import BLOCKED, KINDS, nat_of
from meshctl.model.mesh import Mesh, Node

# `vars: {client_profile: routed}` sends everything of a stock client by its anchor. It is in the inventory, not an
# option of `client show` alone, because the client's peers must expect its packets from that anchor too.
CLIENT_PROFILE = "client_profile"

# Rank of an anchor that a node does not list under `anchors:`: behind every one that it lists.
UNLISTED = 1 << 16


def client_profile(node: Node) -> str:
    """`direct` or `routed`: whether a stock client has direct peers beside its anchor."""
    return "routed" if node.vars.get(CLIENT_PROFILE) == "routed" else "direct"


def anchor_rank(anchor: Node, one: Node, other: Node) -> tuple[int, int, str]:
    """Sort key of an anchor for a pair, the same from both sides: listed first, then region, then name."""
    listed = min(n.anchors.index(anchor.name) if anchor.name in n.anchors else UNLISTED for n in (one, other))
    near = bool(anchor.region) and anchor.region in (one.region, other.region)
    return listed, 0 if near else 1, anchor.name


def home_anchor(mesh: Mesh, client: Node, network: str) -> str | None:
    """The anchor that carries a stock client wherever it has no direct peer; None when the network has no anchor."""
    usable = [n for n in mesh.nodes.values() if is_usable_anchor(n, network)]
    return min(usable, key=lambda anchor: anchor_rank(anchor, client, client)).name if usable else None


def is_usable_anchor(node: Node, network: str) -> bool:
    """Whether the node carries others in this network: it has the role, and an endpoint there."""
    attachment = node.attachment(network)
    return node.is_anchor and not node.revoked and attachment is not None and attachment.endpoint is not None


def without_udp(mesh: Mesh, node: Node) -> bool:
    """Whether the node is declared to have no UDP at all, and so can neither introduce nor relay."""
    nat = nat_of(mesh, node)
    return nat is not None and KINDS[nat] is BLOCKED


def serving_anchors(mesh: Mesh, network: str) -> tuple[Node, ...]:
    """The anchors that introduce and relay in this network."""
    return tuple(n for n in mesh.nodes.values() if is_usable_anchor(n, network) and not without_udp(mesh, n))
