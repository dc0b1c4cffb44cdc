"""Configs of stock clients: phones and laptops that have the WireGuard app and nothing of ours.

A client has its direct peers, and one anchor that carries everything else: the anchor's AllowedIPs are the whole
network, so that the config outlives nodes that come and go.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address, ip_network

from meshctl.core.anchors import CLIENT_PROFILE, home_anchor
from meshctl.core.prefixes import covers, sort_prefixes
from meshctl.errors import MeshctlError, UsageError
from meshctl.inventory.addresses import HIGHEST_PORT
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.mesh import Mesh, Node
from meshctl.model.resources import Peer
from meshctl.model.topology import Link
from meshctl.render.renderer import Renderer

# WireGuard's usual port, which an inventory gives to every interface that names no other.
USUAL_PORT = 51820


def new_key_pair() -> tuple[Secret, PublicKey]:
    """A fresh X25519 pair from the system's randomness."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    raw = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Secret(b64encode(raw).decode()), PublicKey(b64encode(public).decode())


def find_client(mesh: Mesh, name: str) -> Node:
    """The client of that name. Raises UsageError with the clients that there are."""
    node = mesh.nodes.get(name)
    if node is not None and node.client:
        return node
    clients = [n.name for n in mesh.nodes.values() if n.client]
    hint = f"clients: {', '.join(clients)}" if clients else "mark a node with `client: true`"
    reason = "is not a stock client" if node else "is not in the inventory"
    raise UsageError(f"{name} {reason}", hint=hint)


def find_network(node: Node, network: str | None) -> str:
    """The network whose config is meant: the named one, or the only one. Raises UsageError."""
    names = [a.network for a in node.attachments]
    if network in names:
        return str(network)
    if network is None and len(names) == 1:
        return names[0]
    problem = f"{node.name} is not in network {network}" if network else f"{node.name} is in several networks"
    raise UsageError(problem, hint=f"give --network, one of {', '.join(names)}: each has a config of its own")


def listen_port(mesh: Mesh, name: str, network: str) -> int:
    """The client's UDP port: the inventory's where it names one, else one of its own, derived from its address.

    Clients with ports of their own can share a NAT that keeps ports. Two addresses that lead to the same port are
    told apart by taking the next free one, in the order of the addresses.
    """
    fixed: dict[str, int] = {}
    derived: list[tuple[int, str]] = []
    for node in mesh.nodes.values():
        attachment = node.attachment(network)
        if not node.client or attachment is None:
            continue
        if attachment.listen_port != USUAL_PORT:
            fixed[node.name] = attachment.listen_port
        else:
            derived.append((_offset(mesh, network, attachment.addresses[0]), node.name))
    if name in fixed:
        return fixed[name]
    taken = {USUAL_PORT, *fixed.values()}
    span = HIGHEST_PORT - USUAL_PORT
    for offset, client in sorted(derived):
        step = next(i for i in range(span) if USUAL_PORT + 1 + (offset + i) % span not in taken)
        port = USUAL_PORT + 1 + (offset + step) % span
        if client == name:
            return port
        taken.add(port)
    raise KeyError(name)


def _offset(mesh: Mesh, network: str, address: str) -> int:
    host = ip_address(address)
    cidr = next(c for c in map(ip_network, mesh.networks[network].cidrs) if c.version == host.version)
    return int(host) - int(cidr.network_address)


def check_profile(mesh: Mesh, node: Node, link: Link, wanted: str | None) -> None:
    """Refuse `--profile routed` for a client whose peers expect it directly. Raises UsageError."""
    home = home_anchor(mesh, node, link.network)
    direct = [peer.name for peer in link.peers if peer.name != home and not mesh.nodes[peer.name].is_anchor]
    if wanted == "routed" and direct:
        hint = f"set `vars: {{{CLIENT_PROFILE}: routed}}` on {node.name}, apply, and show it again"
        raise UsageError(f"{', '.join(direct)} would still answer {node.name} directly", hint=hint)


def render_client(renderer: Renderer, name: str, network: str, private_key: Secret) -> Secret:
    """The client's config. Its public key must already be in the renderer's mesh, for the pre-shared keys.

    Raises RenderError, and MeshctlError where the client has nobody to talk to.
    """
    mesh = renderer.mesh
    node = find_client(mesh, name)
    link = next(x for x in renderer.topology.interfaces(name) if x.network == network)
    peers = client_peers(mesh, node, link)
    link = replace(link, peers=peers, attachment=replace(link.attachment, listen_port=listen_port(mesh, name, network)))
    role = renderer.library.role("client")
    interface = renderer.interface(link, renderer.psks(link))
    scope = renderer.scope(role, node, {"node": node, "mesh": mesh, "interface": interface})
    text = role.engine.template(
        "client.conf.j2", {**scope, "private_key": private_key.reveal()}, node=name, where=f"{role.label}/templates"
    )
    return Secret(text)


def client_peers(mesh: Mesh, node: Node, link: Link) -> tuple[Peer, ...]:
    """The peers that the config names: those with an endpoint, the home anchor's AllowedIPs widened.

    Raises MeshctlError when a peer's key is not known yet, or there is no peer.
    """
    home = home_anchor(mesh, node, link.network)
    peers = []
    for peer in link.peers:
        if peer.endpoint is None:
            continue
        if peer.public_key is None:
            hint = "run `meshctl apply`: nodes make their keys then"
            raise MeshctlError(f"the public key of its peer {peer.name} is not known yet", where=node.name, hint=hint)
        if peer.name == home:
            cidrs = mesh.networks[link.network].cidrs
            beyond = [p for p in peer.allowed_ips if not any(covers(c, p) for c in cidrs)]
            peer = replace(peer, allowed_ips=sort_prefixes((*cidrs, *beyond)))
        peers.append(peer)
    if not peers:
        hint = "give the network an anchor, or a peer with an endpoint that a policy lets it reach"
        raise MeshctlError("this client has no peer that it could reach", where=node.name, hint=hint)
    return tuple(peers)
