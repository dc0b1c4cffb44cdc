"""Rules about who can meet whom; they judge what is absent (see `rules`)."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.inventory.findings import Findings
from meshctl.inventory.resolve import Resolved
from meshctl.model.mesh import Mesh
from meshctl.model.topology import Reach
from meshctl.policy import Decisions

_ANCHOR_HINT = "give a node with a public address roles: [anchor] and an endpoint"


def check_paths(resolved: Resolved, decisions: Decisions, findings: Findings) -> None:
    """Permitted pairs have a way to meet, and clients have somebody to talk to."""
    mesh = resolved.mesh
    reaches = decisions.reaches
    for node in mesh.nodes.values():
        if not node.client:
            continue
        met = frozenset[str]().union(*(reaches[a.network][node.name].peers for a in node.attachments))
        if not met - {node.name} and not node.peers:
            message = f"client `{node.name}` has no peer: no `peers`, and no policy permits it anything"
            hint = "add a policy with it in `from`"
            findings.error("client-without-peer", ("nodes", node.name), message, hint, key=True)
            continue
        found = resolved.drafts[node.name].settings.get("peers")
        for index, peer in enumerate(node.peers):
            if found and peer not in met:
                message = f"`{node.name}` names `{peer}` as peer, but no policy permits the two to talk"
                findings.warning("peer-not-permitted", (*found[1], index), message, "add a policy")
    for network, of_node in reaches.items():
        _check_anchor(mesh, network, of_node, findings)


def _check_anchor(mesh: Mesh, network: str, reaches: Mapping[str, Reach], findings: Findings) -> None:
    members = [n for n in mesh.nodes.values() if n.attachment(network)]
    if any(n.is_anchor for n in members):
        return
    routed = sorted(n.name for n in members if n.client and n.relay == "routed")
    if routed:
        message = f"client `{routed[0]}` has relay: routed, but network `{network}` has no anchor"
        findings.error("no-anchor", ("nodes", routed[0]), message, _ANCHOR_HINT, key=True)
        return
    hidden = frozenset(n.name for n in members if (a := n.attachment(network)) and a.endpoint is None)
    for name in sorted(hidden):
        met = sorted((reaches[name].peers & hidden) - {name})
        if met:
            message = (
                f"`{name}` and `{met[0]}` may talk, neither has an endpoint, "
                f"and network `{network}` has no anchor to introduce them"
            )
            findings.error("no-anchor", ("nodes", name), message, _ANCHOR_HINT, key=True)
            return
