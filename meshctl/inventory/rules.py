"""Rules about the mesh as a whole: what no single value can tell.

Each rule is a function from the resolved mesh to findings. Those under `whole` judge what is absent (an anchor, a
policy), so they run only when nothing was refused before: a refused line may be the very one that they miss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from meshctl.inventory.addresses import Prefix, is_host, literal, overlaps, parse_prefix, unusable
from meshctl.inventory.allocate import lowest_free
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.resolve import Resolved
from meshctl.inventory.rules_hosts import check_hosts, check_uris
from meshctl.inventory.rules_ssh import check_jumps
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import Mesh, Node, Permit

# Words that selectors and policies give a meaning of their own.
RESERVED = frozenset({"internet", "any", "icmp", "open", "all"})


def check_rules(resolved: Resolved, names: Names, findings: Findings, *, whole: bool) -> None:
    """Run every rule; those that judge absence only when the document was `whole`."""
    check_names(names, findings)
    check_addresses(resolved, findings)
    check_ranges(resolved, findings)
    check_endpoints(resolved, findings)
    check_gateways(resolved, names, findings)
    check_references(resolved, names, findings)
    check_clients(resolved, findings)
    check_jumps(resolved, findings)
    check_hosts(resolved, findings)
    check_uris(resolved, findings)
    check_lab(resolved, findings)
    if whole and not findings.errors:
        check_paths(resolved, findings)


def check_names(names: Names, findings: Findings) -> None:
    """Nodes, groups and networks share one namespace, because a selector's plain name may mean any of them."""
    sections = (("nodes", names.nodes), ("groups", names.groups), ("networks", names.networks))
    first: dict[str, str] = {}
    for section, known in sections:
        for name in sorted(known):
            if name in RESERVED:
                message = f"`{name}` is a reserved word in policies"
                findings.error("reserved-name", (section, name), message, "choose another name", key=True)
            elif name in first:
                place = findings.document.position((first[name], name), key=True)
                message = f"`{name}` is the name of a {first[name][:-1]} and of a {section[:-1]}"
                hint = f"the other is at {place.file}:{place.line}:{place.column}; rename one"
                findings.error("duplicate-name", (section, name), message, hint, key=True)
            first.setdefault(name, section)


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
            f"{narrow} ({kind2} of `{owner2}`) overlaps {wide} ({kind} of `{owner}`)".replace(
                "network of ", "network "
            ),
            hint,
        )


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


def check_gateways(resolved: Resolved, names: Names, findings: Findings) -> None:
    """Routes and exits are offered by gateways, and used by others."""
    nodes = resolved.mesh.nodes
    for draft in resolved.drafts.values():
        node = nodes[draft.name]
        if draft.routes and not draft.client and "gateway" not in node.roles:
            path = draft.routes[0][1][:-1]
            findings.error(
                "not-a-gateway", path, f"`{node.name}` has routes but not the role gateway", "add roles: [gateway]"
            )
        exit_node = draft.settings.get("exit_node")
        if node.exit_node and exit_node and not draft.client and "gateway" not in node.roles:
            message = f"`{node.name}` is an exit node but has not the role gateway"
            findings.error("not-a-gateway", exit_node[1], message, "add roles: [gateway]")
        exit_via = draft.settings.get("exit_via")
        if exit_via is None:
            continue
        target, path = exit_via
        exits = [n.name for n in nodes.values() if n.exit_node and n is not node]
        if target not in names.nodes:
            findings.error(
                "unknown-node", path, f"there is no node `{target}`", did_you_mean(target, exits or names.nodes)
            )
        elif target == node.name:
            findings.error("exit-loop", path, f"`{node.name}` cannot be its own exit node", did_you_mean("", exits))
        elif node.exit_node:
            message = f"`{node.name}` is an exit node, so it cannot use one"
            findings.error("exit-loop", path, message, "remove exit_via or exit_node")
        elif target in nodes and not nodes[target].exit_node:
            findings.error(
                "not-an-exit-node", path, f"`{target}` is not an exit node", f"set exit_node: true on `{target}`"
            )
        elif target in nodes and not _share(node, nodes[target]):
            findings.error(
                "no-shared-network", path, f"`{node.name}` and `{target}` share no network", "add one to both"
            )


def _share(one: Node, other: Node) -> bool:
    return any(other.attachment(a.network) for a in one.attachments)


def check_references(resolved: Resolved, names: Names, findings: Findings) -> None:
    """`anchors` and `peers` name nodes that can serve."""
    nodes = resolved.mesh.nodes
    anchors = [n.name for n in nodes.values() if n.is_anchor]
    for draft in resolved.drafts.values():
        for key in ("anchors", "peers"):
            found = draft.settings.get(key)
            for index, name in enumerate(found[0] if found else ()):
                path = (*found[1], index) if found else ()
                known = anchors if key == "anchors" else names.nodes
                if name not in names.nodes:
                    findings.error("unknown-node", path, f"there is no node `{name}`", did_you_mean(name, known))
                elif key == "anchors" and name in nodes and name not in anchors:
                    message = f"`{name}` is not an anchor"
                    findings.error(
                        "not-an-anchor", path, message, did_you_mean(name, anchors) or "give it the role anchor"
                    )
                elif (
                    key == "peers"
                    and name in nodes
                    and name != draft.name
                    and not _share(nodes[draft.name], nodes[name])
                ):
                    message = f"`{draft.name}` and `{name}` share no network"
                    findings.error("no-shared-network", path, message, "add one to both")


def check_clients(resolved: Resolved, findings: Findings) -> None:
    """Settings that a stock client cannot have, and `peers` where it means nothing."""
    for draft in resolved.drafts.values():
        own = draft.settings.own[0][0]
        if not draft.client:
            if "peers" in own:
                message = f"`{draft.name}` is not a client, so `peers` has no effect"
                findings.warning(
                    "ignored-setting", (*draft.path, "peers"), message, "write a policy, or set client: true", key=True
                )
            continue
        for key in ("ssh", "roles", "backend"):
            if key in own:
                message = f"`{draft.name}` is a client, which is never contacted: `{key}` has no effect"
                findings.warning("ignored-setting", (*draft.path, key), message, "remove it", key=True)
        for key in ("routes", "exit_node", "endpoint"):
            if own.get(key):
                message = f"`{draft.name}` is a client and cannot have `{key}`"
                findings.error(
                    "client-setting", (*draft.path, key), message, "remove it, or make it a managed node", key=True
                )


def check_lab(resolved: Resolved, findings: Findings) -> None:
    """`behind` names a router of the twin, and routers do not stand behind each other in a ring."""
    routers = resolved.mesh.lab.get("routers", {})
    for draft in resolved.drafts.values():
        behind = draft.settings.merged("lab").get("behind")
        if behind and behind[0] not in routers:
            findings.error(
                "unknown-router", behind[1], f"there is no router `{behind[0]}`", _routers_hint(behind[0], routers)
            )
    for name, router in routers.items():
        path = ("lab", "routers", name, "behind")
        trail = [name]
        while (behind := routers.get(trail[-1], {}).get("behind")) in routers and behind not in trail:
            trail.append(behind)
        if behind == name and name == min(trail):
            findings.error(
                "router-cycle", path, f"router `{name}` stands behind itself: {' → '.join([*trail, name])}", ""
            )
        elif "behind" in router and router["behind"] not in routers:
            message = f"there is no router `{router['behind']}`"
            findings.error("unknown-router", path, message, _routers_hint(router["behind"], routers))


def _routers_hint(name: str, routers: Iterable[str]) -> str:
    return did_you_mean(name, routers) or "define it in lab.routers"


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


_ANCHOR_HINT = "give a node with a public address roles: [anchor] and an endpoint"


def _hidden_pair(permit: Permit, hidden: set[str]) -> tuple[str, str] | None:
    sources, destinations = sorted(permit.sources & hidden), sorted(permit.destinations & hidden)
    for source in sources[:2]:  # two are enough: one of them differs from any destination
        for destination in destinations[:2]:
            if source != destination:
                return source, destination
    return None
