"""Rules about the mesh as a whole: what no single value can tell.

Each rule is a function from the resolved mesh to findings. Those under `whole` judge what is absent (an anchor, a
policy), so they run only when nothing was refused before: a refused line may be the very one that they miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshctl.inventory.addresses import Malformed, parse_address
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.resolve import Resolved
from meshctl.inventory.rules_addresses import check_addresses, check_endpoints, check_ranges
from meshctl.inventory.rules_hosts import check_hosts, check_uris
from meshctl.inventory.rules_paths import check_paths
from meshctl.inventory.rules_policies import check_policies, check_tests
from meshctl.inventory.rules_ssh import check_jumps
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import Node
from meshctl.policy import compile_policies

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
    check_settings(resolved, findings)
    check_jumps(resolved, findings)
    check_hosts(resolved, findings)
    check_uris(resolved, findings)
    check_lab(resolved, findings)
    check_tests(resolved.mesh, findings)
    # A rule that has expired is still there to be weighed against the others.
    if whole and all(d.severity != "error" or d.code in ("policy-expired", "contradiction") for d in findings.items):
        decisions = compile_policies(resolved.mesh)
        check_policies(decisions, findings)
        if not findings.errors:
            check_paths(resolved, decisions, findings)


def _is_address(name: str) -> bool:
    try:
        parse_address(name)
    except Malformed:
        return False
    return True


def check_names(names: Names, findings: Findings) -> None:
    """Nodes, groups and networks share one namespace, because a selector's plain name may mean any of them."""
    sections = (("nodes", names.nodes), ("groups", names.groups), ("networks", names.networks))
    first: dict[str, str] = {}
    for section, known in sections:
        for name in sorted(known):
            if name in RESERVED:
                message = f"`{name}` is a reserved word in policies"
                findings.error("reserved-name", (section, name), message, "choose another name", key=True)
            elif _is_address(name):
                message = f"`{name}` is an address, which means who has it"
                findings.error("bad-name", (section, name), message, "choose another name", key=True)
            elif name in first:
                place = findings.document.position((first[name], name), key=True)
                message = f"`{name}` is the name of a {first[name][:-1]} and of a {section[:-1]}"
                hint = f"the other is at {place.file}:{place.line}:{place.column}; rename one"
                findings.error("duplicate-name", (section, name), message, hint, key=True)
            first.setdefault(name, section)


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
        if exit_via := draft.settings.get("exit_via"):
            _check_exit(node, *exit_via, nodes, names, findings)


def _check_exit(
    node: Node, target: str, path: Path, nodes: Mapping[str, Node], names: Names, findings: Findings
) -> None:
    """`exit_via` names another node that is an exit node of a network of this one."""
    exits = [n.name for n in nodes.values() if n.exit_node and n is not node]
    if target not in names.nodes:
        findings.error("unknown-node", path, f"there is no node `{target}`", did_you_mean(target, exits or names.nodes))
    elif target == node.name:
        findings.error("exit-loop", path, f"`{node.name}` cannot be its own exit node", did_you_mean("", exits))
    elif node.exit_node:
        message = f"`{node.name}` is an exit node, so it cannot use one"
        findings.error("exit-loop", path, message, "remove exit_via or exit_node")
    elif target in nodes and not nodes[target].exit_node:
        message = f"`{target}` is not an exit node"
        findings.error("not-an-exit-node", path, message, f"set exit_node: true on `{target}`")
    elif target in nodes and not _share(node, nodes[target]):
        message = f"`{node.name}` and `{target}` share no network"
        findings.error("no-shared-network", path, message, "add one to both")


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


def check_settings(resolved: Resolved, findings: Findings) -> None:
    """Settings that a stock client cannot have, and those that mean nothing for such a node."""
    for draft in resolved.drafts.values():
        own = draft.settings.own[0][0]
        if not draft.client:
            if "peers" in own:
                message = f"`{draft.name}` is not a client, so `peers` has no effect"
                findings.warning(
                    "ignored-setting", (*draft.path, "peers"), message, "write a policy, or set client: true", key=True
                )
            if "relay_limit" in own and "anchor" not in draft.roles:
                message = f"`{draft.name}` is no anchor and relays for nobody: `relay_limit` has no effect"
                hint = "remove it, or set roles: [anchor]"
                findings.warning("ignored-setting", (*draft.path, "relay_limit"), message, hint, key=True)
            continue
        for key in ("ssh", "roles", "backend", "relay_limit"):
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
