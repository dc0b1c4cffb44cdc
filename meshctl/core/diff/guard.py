"""What needs `--allow-destructive`. Pure: the caller knows the whole mesh, this knows the rules."""

from __future__ import annotations

from collections.abc import Collection

from meshctl.model.facts import HostFacts
from meshctl.model.resources import NodeDoc

# Removing more of the nodes than this in one go is more often a mistake in a merge than a wish.
MAX_REMOVED_SHARE = 0.30


def peers_after(doc: NodeDoc) -> int:
    """How many peers the node's interfaces will have together, foreign ones aside."""
    return sum(len(want.peers) for want in doc.interfaces())


def peers_before(facts: HostFacts) -> int:
    """How many peers of meshctl's making the node's interfaces have together."""
    return sum(
        1
        for name, record in facts.ledger.interfaces.items()
        if name in facts.interfaces
        for key in facts.interfaces[name].peers
        if key.text in record.peers
    )


def destructive_node(doc: NodeDoc, facts: HostFacts) -> tuple[str, ...]:
    """Reasons, one sentence each, why applying `doc` to this host needs a confirmation; usually none."""
    before = peers_before(facts)
    if before and not peers_after(doc):
        peers = "its only peer" if before == 1 else f"all of its {before} peers"
        return (f"{facts.node} loses {peers}",)
    return ()


def destructive_mesh(
    before: Collection[str], after: Collection[str], anchors_before: Collection[str], anchors_after: Collection[str]
) -> tuple[str, ...]:
    """The same for the mesh: node names as the hosts' peers know them now, and as the inventory has them.

    `anchors_before` are the anchors in use, or what cannot be told from one once it has left the inventory: nodes
    that others reach at an endpoint of the inventory's.
    """
    reasons = []
    removed = sorted(set(before) - set(after))
    if removed and len(removed) > MAX_REMOVED_SHARE * len(before):
        share = f"{len(removed)} of {len(before)} nodes are removed, more than {MAX_REMOVED_SHARE:.0%}"
        reasons.append(f"{share}: {', '.join(removed)}")
    used = sorted(set(anchors_before) - set(anchors_after))
    reasons.extend(f"{name} is removed while others use its endpoint" for name in used)
    return tuple(reasons)
