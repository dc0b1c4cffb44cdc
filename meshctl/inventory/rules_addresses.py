"""Rules about addresses: of nodes, of networks and routes, of endpoints."""

from __future__ import annotations

from meshctl.inventory.addresses import Prefix, is_host, literal, overlaps, parse_prefix, unusable
from meshctl.inventory.allocate import lowest_free
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.resolve import Resolved
from meshctl.model.mesh import Mesh


def check_addresses(resolved: Resolved, findings: Findings) -> None:
    """No two nodes of a network are given the same address."""
    used = {
        n: [a for lock in resolved.lock.nodes.values() if n in lock for a in lock[n].addresses] for n in resolved.ranges
    }
    owners: dict[tuple[str, str], str] = {}
    for name, draft in resolved.drafts.items():
        for interface in draft.interfaces:
            for address in interface.given:
                owner = owners.setdefault((interface.network, str(address)), name)
                if owner == name:
                    continue
                prefix = resolved.ranges[interface.network].holding(address)
                free = lowest_free(prefix, used[interface.network]) if prefix else ""
                findings.error(
                    "duplicate-address",
                    _address_path(findings, name, str(address)),
                    f"{address} is the address of `{owner}` already",
                    f"{free} is free" if free else "",
                )


def _address_path(findings: Findings, node: str, address: str) -> Path:
    """Where a node's address was written: alone, in a list, or by network."""
    todo: list[tuple[object, Path]] = [(findings.document.data["nodes"][node]["address"], ("nodes", node, "address"))]
    while todo:
        value, path = todo.pop()
        if isinstance(value, dict):
            todo.extend((v, (*path, k)) for k, v in value.items())
        elif isinstance(value, list):
            todo.extend((v, (*path, i)) for i, v in enumerate(value))
        elif str(literal(str(value))) == address:
            return path
    return ("nodes", node, "address")


def check_ranges(resolved: Resolved, findings: Findings) -> None:
    """Networks and routes do not overlap, but for equal routes in networks that no node shares."""
    items: list[tuple[Prefix, tuple[str, str, Path]]] = []
    for network, ranges in resolved.ranges.items():
        items.extend((p, ("network", network, ("networks", network, "cidr"))) for p in ranges.prefixes())
    for draft in resolved.drafts.values():
        items.extend((parse_prefix(text), ("route", draft.name, path)) for text, path in draft.routes)
    for (wide, (kind, owner, _)), (narrow, (kind2, owner2, path2)) in overlaps(items):
        if kind == kind2 and owner == owner2:
            hint = f"{wide} covers it: remove {narrow}"
        elif kind == kind2 == "route" and not _meet(resolved.mesh, owner, owner2):
            continue
        else:
            hint = "every address must have one place in the mesh: change one of the two"
        place = path2 if kind2 == "route" or kind == "network" else ("networks", owner2, "cidr")
        findings.error(
            f"overlapping-{'networks' if kind == kind2 == 'network' else 'routes'}",
            place,
            f"{narrow} ({_whose(kind2, owner2)}) overlaps {wide} ({_whose(kind, owner)})",
            hint,
        )


def _whose(kind: str, owner: str) -> str:
    return f"network `{owner}`" if kind == "network" else f"{kind} of `{owner}`"


def _meet(mesh: Mesh, one: str, other: str) -> bool:
    """Whether some node would have to route to both gateways: they share a network, or a third node is with each."""
    mine = {a.network for a in mesh.nodes[one].attachments}
    yours = {a.network for a in mesh.nodes[other].attachments}
    if mine & yours:
        return True
    return any(
        mine & have and yours & have for have in ({a.network for a in n.attachments} for n in mesh.nodes.values())
    )


def check_endpoints(resolved: Resolved, findings: Findings) -> None:
    """An endpoint lies outside the mesh (no tunnel can carry itself), and no two interfaces share one."""
    inside = [(p, f"network `{n}`") for n, ranges in resolved.ranges.items() for p in ranges.prefixes()]
    inside += [(parse_prefix(t), f"a route of `{d.name}`") for d in resolved.drafts.values() for t, _ in d.routes]
    owners: dict[tuple[str, int], tuple[str, str]] = {}
    for draft in resolved.drafts.values():
        for interface in draft.interfaces:
            if interface.endpoint is None:
                continue
            host, port = interface.endpoint
            path = interface.endpoint_path
            address = literal(host)
            given = path[:3] == ("nodes", draft.name, "endpoint")
            for prefix, what in inside if address is not None else ():
                if address is not None and address.version == prefix.version and address in prefix:
                    hint = "name an address that is reachable without the mesh"
                    findings.error(
                        "endpoint-inside-mesh",
                        path,
                        f"endpoint {host} of `{draft.name}` is inside {prefix}, {what}: a routing loop",
                        hint if given else f"the endpoint defaults to the SSH host; set endpoint: ADDRESS:{port}",
                    )
            if address is not None and (kind := unusable(address)):
                message = f"endpoint {host} of `{draft.name}` is {kind} address: no other node can reach it"
                findings.error("bad-endpoint", path, message, f"set endpoint: ADDRESS:{port}")
            if not given and not is_host(host):
                message = f"`{host}` cannot be the endpoint of anchor `{draft.name}`"
                findings.error("bad-endpoint", path, message, "set endpoint: HOST:PORT")
            owner = owners.setdefault((host, port), (draft.name, interface.network))
            if owner != (draft.name, interface.network):
                message = f"{host}:{port} is the endpoint of `{owner[0]}` in network `{owner[1]}` already"
                findings.error("duplicate-endpoint", path, message, "two interfaces cannot share an address and port")
