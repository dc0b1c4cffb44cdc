"""Refusing what is probably a mistake before anything is touched (`--allow-destructive`); the rules are core.diff's."""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.core.diff.guard import destructive_mesh, destructive_node
from meshctl.deploy.host import Host
from meshctl.errors import MeshctlError
from meshctl.inventory import Inventory


class DestructiveError(MeshctlError):
    """The plan destroys more than an ordinary change does."""


def destructive(hosts: Iterable[Host], inventory: Inventory) -> tuple[str, ...]:
    """Reasons to refuse, in words. What the mesh was, the lock on disk says."""
    reached = [host for host in hosts if host.facts is not None]
    reasons = [
        reason for host in reached if host.facts is not None for reason in destructive_node(host.doc, host.facts)
    ]
    before = inventory.disk.nodes if inventory.disk else {}
    names = {
        entry.public_key.text: node
        for node in inventory.removed for entry in before[node].values() if entry.public_key
    }  # fmt: skip
    anchors = {names[key] for host in reached for key in _in_use_by_endpoint(host) if key in names}
    return (*destructive_mesh(tuple(before), tuple(inventory.mesh.nodes), anchors, ()), *reasons)


def refuse(reasons: tuple[str, ...]) -> None:
    """Raises DestructiveError when there are reasons."""
    if reasons:
        raise DestructiveError(
            "refused, nothing was applied: " + "; ".join(reasons),
            hint="look at the plan, then use --allow-destructive",
        )


def _in_use_by_endpoint(host: Host) -> Iterable[str]:
    """Public keys of peers that the repository gave an endpoint, as it does to anchors, and that have answered."""
    if host.facts is None:
        return
    for name, record in host.facts.ledger.interfaces.items():
        live = host.facts.interfaces.get(name)
        for key, peer in (live.peers if live else {}).items():
            kept = record.peers.get(key.text)
            if kept and kept.endpoint and peer.latest_handshake:
                yield key.text
