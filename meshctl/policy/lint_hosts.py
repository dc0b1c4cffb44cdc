"""Findings of lint about single nodes: what they forward, how many peers they have, how they are logged in to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from meshctl.core.anchors import without_udp
from meshctl.core.traffic import parse_ports
from meshctl.errors import Diagnostic
from meshctl.model.mesh import Node
from meshctl.policy.compile import Compiled

_SSH_PORT = 22
# So many names are listed in a finding.
_LISTED = 5


def about(node: Node, code: str, message: str, hint: str, *, severity: str = "warning") -> Diagnostic:
    """A finding with the place of the node that it is about."""
    at = node.position
    return Diagnostic(
        code, message, at.file, at.line, at.column, f"nodes.{node.name}", hint, node.name, severity
    )  # fmt: skip


def listed(names: Iterable[str]) -> str:
    """The first names, the rest counted."""
    found = list(names)
    shown = ", ".join(f"`{name}`" for name in found[:_LISTED])
    return f"{shown} and {len(found) - _LISTED} more" if len(found) > _LISTED else shown


def exits(compiled: Compiled) -> Iterator[Diagnostic]:
    """Nodes that do not get the exit node that they ask for."""
    for name, warnings in compiled.topology.warnings.items():
        for warning in warnings:
            yield about(compiled.mesh.nodes[name], "no-exit", warning, "without it the node uses its own way out")


def capacities(compiled: Compiled) -> Iterator[Diagnostic]:
    """Nodes with more peers than they are declared to take."""
    for node in compiled.mesh.nodes.values():
        count = sum(len(link.peers) for link in compiled.topology.links[node.name])
        if node.capacity is not None and count > node.capacity:
            message = f"`{node.name}` has {count} peers, more than its capacity of {node.capacity}"
            yield about(node, "over-capacity", message, "narrow the policies that permit it peers, or raise capacity")


def anchors_without_udp(compiled: Compiled) -> Iterator[Diagnostic]:
    """Anchors that are declared to have no UDP: of all that an anchor is for, they can do nothing."""
    for node in compiled.mesh.nodes.values():
        if node.is_anchor and without_udp(compiled.mesh, node):
            message = f"`{node.name}` is an anchor without UDP: it introduces nobody, and carries nobody's packets"
            hint = "remove its role anchor, or correct what `nat` or `lab` say of it"
            yield about(node, "anchor-without-udp", message, hint)


def forwarding(compiled: Compiled) -> Iterator[Diagnostic]:
    """Nodes that forward: a packet must be accepted by every table at the hook, not by ours alone."""
    for node in compiled.mesh.nodes.values():
        links = compiled.topology.links[node.name]
        work = [
            *(["as gateway"] if node.routes else []),
            *(["as exit node"] if any(link.exit_users for link in links) else []),
            *(["as anchor"] if any(link.carried for link in links) else []),
        ]
        if not work or node.client:
            continue
        interfaces = ", ".join(link.attachment.interface for link in links)
        message = (
            f"`{node.name}` forwards {' and '.join(work)}: where docker or firewalld run, "
            "their forward policy drops what ours accepts"
        )
        hint = (
            f"with docker, accept {interfaces} (in and out) in its chain DOCKER-USER; "
            f"with firewalld, let a policy accept between the zone of {interfaces} and the others"
        )
        yield about(node, "forward-policy", message, hint, severity="note")


def inputs(compiled: Compiled) -> Iterator[Diagnostic]:
    """One note for all nodes that take packets from outside: another firewall's input must accept those too."""
    names = [n.name for n in compiled.mesh.managed() if _is_called(compiled, n)]
    if names:
        nodes = f"{len(names)} node{'' if len(names) == 1 else 's'}: {listed(names)}"
        message = f"where firewalld runs, its zone refuses what policies let in and what comes to an endpoint; {nodes}"
        hint = (
            "put the WireGuard interface into zone trusted, for meshctl's own table judges what comes by it, "
            "and open the listen port (UDP) in the zone of the node's uplink"
        )
        file = compiled.mesh.nodes[names[0]].position.file
        yield Diagnostic("input-policy", message, file, path="nodes", hint=hint, severity="note")


def _is_called(compiled: Compiled, node: Node) -> bool:
    """Whether the node has an endpoint, or policy lets anybody open anything to it."""
    if any(attachment.endpoint for attachment in node.attachments):
        return True
    for attachment in node.attachments:
        policy = compiled.decisions.network(attachment.network)
        for source, pieces in policy.askers(node.name):
            if policy.home(source) != node.name and any(not piece.rule.deny for piece in pieces):
                return True
    return False


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """A host as the address that it spells, None for a name. What maps an IPv4 address (RFC 4291) is that address."""
    try:
        found = ip_address(host.strip("[]"))
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def logins(compiled: Compiled) -> Iterator[Diagnostic]:
    """Nodes that SSH reaches by their mesh address, where policy lets nobody in: one apply, and it is locked."""
    for node in compiled.mesh.nodes.values():
        host = str(literal(node.ssh.host))  # an attachment's addresses are canonical
        network = next((a.network for a in node.attachments if host in a.addresses), None)
        if network is not None:
            yield from _denied_login(compiled, node, network)


def _denied_login(compiled: Compiled, node: Node, network: str) -> Iterator[Diagnostic]:
    policy, ssh = compiled.decisions.network(network), node.ssh
    port = ssh.port or _SSH_PORT
    point = parse_ports(f"tcp/{port}")[0]
    jump = ssh.jump[-1] if ssh.jump and ssh.jump[-1] in compiled.mesh.nodes else None
    sources = (jump,) if jump else tuple(policy.source)
    if jump and jump not in policy.nodes:
        why = f"its jump host `{jump}` is not in network `{network}`"
        hint = f"put `{jump}` into the network, or set ssh.host to an address outside the mesh"
    elif not any(low <= point <= high for s in sources for low, high in policy.allowed(s, node.name)):
        why = f"no policy lets {f'its jump host `{jump}`' if jump else 'anybody'} open tcp/{port} to it"
        hint = "allow it, or set ssh.host to an address outside the mesh"
    else:
        return
    message = f"`{node.name}` is logged in to at its mesh address; {why}"
    yield about(node, "login-denied", message, hint, severity="error")
