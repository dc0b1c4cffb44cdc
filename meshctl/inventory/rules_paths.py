"""Rules about who can meet whom; they judge what is absent (see `rules`)."""

from __future__ import annotations

from collections import defaultdict

from meshctl.inventory.findings import Findings
from meshctl.inventory.resolve import Resolved
from meshctl.model.mesh import Mesh, Permit

_ANCHOR_HINT = "give a node with a public address roles: [anchor] and an endpoint"


def check_paths(resolved: Resolved, findings: Findings) -> None:
    """Permitted pairs have a way to meet, and clients have somebody to talk to."""
    mesh = resolved.mesh
    reach: dict[str, set[str]] = defaultdict(set)  # client -> nodes that it may talk to
    clients = {n.name for n in mesh.nodes.values() if n.client}
    for permit in mesh.permits:
        for client in clients & permit.sources:
            reach[client] |= permit.destinations
        for client in clients & permit.destinations:
            reach[client] |= permit.sources
    for name in sorted(clients):
        node, path = mesh.nodes[name], ("nodes", name)
        if not reach[name] - {name} and not node.peers:
            message = f"client `{name}` has no peer: no `peers`, and no policy permits it anything"
            findings.error("client-without-peer", path, message, "add a policy with it in `from`", key=True)
            continue
        found = resolved.drafts[name].settings.get("peers")
        for index, peer in enumerate(node.peers):
            if found and peer not in reach[name]:
                message = f"`{name}` names `{peer}` as peer, but no policy permits the two to talk"
                findings.warning("peer-not-permitted", (*found[1], index), message, "add a policy")
    for network in mesh.networks:
        _check_anchor(mesh, network, findings)


def _check_anchor(mesh: Mesh, network: str, findings: Findings) -> None:
    members = [n for n in mesh.nodes.values() if n.attachment(network)]
    if any(n.is_anchor for n in members):
        return
    hidden = {n.name for n in members if (a := n.attachment(network)) and a.endpoint is None}
    routed = sorted(n.name for n in members if n.client and n.relay == "routed")
    if routed:
        message = f"client `{routed[0]}` has relay: routed, but network `{network}` has no anchor"
        findings.error("no-anchor", ("nodes", routed[0]), message, _ANCHOR_HINT, key=True)
        return
    for permit in mesh.permits:
        pair = _hidden_pair(permit, hidden) if permit.network == network else None
        if pair:
            message = (
                f"`{pair[0]}` and `{pair[1]}` may talk ({permit.policy}), neither has an endpoint, "
                f"and network `{network}` has no anchor to introduce them"
            )
            findings.error("no-anchor", ("nodes", pair[0]), message, _ANCHOR_HINT, key=True)
            return


def _hidden_pair(permit: Permit, hidden: set[str]) -> tuple[str, str] | None:
    sources, destinations = sorted(permit.sources & hidden), sorted(permit.destinations & hidden)
    for source in sources[:2]:  # two are enough: one of them differs from any destination
        for destination in destinations[:2]:
            if source != destination:
                return source, destination
    return None
