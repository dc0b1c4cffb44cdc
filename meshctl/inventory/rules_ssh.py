"""Rules about jump hosts.

A jump is a node of the inventory, or a host outside it: `user@host:port`, a DNS name, an address, or a bare word that
ssh_config may know as an alias. A bare word that is nearly a node's name is warned about, not refused.
"""

from __future__ import annotations

from meshctl.inventory.addresses import Malformed, is_host, parse_endpoint
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.resolve import Resolved
from meshctl.inventory.suggest import nearest


def check_jumps(resolved: Resolved, findings: Findings) -> None:
    """Every jump can be read, and no node is reached by way of itself."""
    nodes = resolved.mesh.nodes
    places: dict[str, Path] = {}
    for name, draft in resolved.drafts.items():
        found = draft.settings.merged("ssh").get("jump")
        if found is None or draft.client:
            continue
        places[name] = found[1]
        for index, jump in enumerate(nodes[name].ssh.jump):
            path = found[1] if isinstance(found[0], str) else (*found[1], index)
            if jump in nodes:
                if nodes[jump].client:
                    findings.error(
                        "bad-jump", path, f"`{jump}` is a client, which cannot be a jump host", "name another"
                    )
                elif nodes[jump].revoked and not nodes[name].revoked:
                    message = f"`{name}` is reached by way of `{jump}`, which was revoked"
                    findings.warning("revoked-jump", path, message, "name another jump host")
            else:
                _check_outside(jump, path, list(nodes), findings)
    _check_loops(resolved, places, findings)


def _check_outside(jump: str, path: Path, nodes: list[str], findings: Findings) -> None:
    host = jump.rpartition("@")[2]
    if ":" in host:
        try:
            parse_endpoint(host)
        except Malformed as error:
            findings.error("bad-jump", path, f"`{jump}` is not a jump host: {error.message}", "write USER@HOST:PORT")
    elif not is_host(host):
        findings.error("bad-jump", path, f"`{jump}` is not a jump host", "write a node's name or USER@HOST:PORT")
    elif "." not in host and "@" not in jump:
        near = nearest(jump, nodes)
        if near:
            message = f"`{jump}` is not a node; it is taken as a host outside the mesh"
            findings.warning("jump-not-a-node", path, message, f"did you mean `{near}`?")


def _check_loops(resolved: Resolved, places: dict[str, Path], findings: Findings) -> None:
    nodes = resolved.mesh.nodes
    for start in places:
        trail: list[str] = []
        todo: list[tuple[str, tuple[str, ...]]] = [(start, (start,))]
        while todo and not trail:
            name, way = todo.pop()
            for jump in nodes[name].ssh.jump if name in places else ():
                if jump == start:
                    trail = [*way, jump]
                elif jump in nodes and jump not in way:
                    todo.append((jump, (*way, jump)))
        if trail and start == min(trail):
            message = f"`{start}` is reached by way of itself: {' → '.join(trail)}"
            findings.error("jump-loop", places[start], message, "remove one of the jumps")
