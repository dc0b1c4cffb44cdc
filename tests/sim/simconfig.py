"""Keys and configurations of a world's nodes; nothing in them is secret."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from simnat import Place
from simspec import NodeSpec, WorldSpec

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.config import AgentConfig, Endpoint, InterfaceConfig, PeerConfig
from meshctl.model.keys import PublicKey

PORT = 51820
MESH = "10.42.0.0/16"
NETWORK, INTERFACE = "corp", "wg0"
KEEPALIVE_S = 25
STUN_SERVER: Place = ("85.66.0.1", 3478)


@cache
def public_key(name: str) -> PublicKey:
    """A public key that nobody has the private half of."""
    return PublicKey(base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


@cache
def pair_key(a: str, b: str) -> bytes:
    """The 32 bytes that a pair shares."""
    return hashlib.sha256("|".join(sorted((a, b))).encode()).digest()


def wg_key(name: str) -> bytes:
    """The key as the model of WireGuard has it."""
    return public_key(name).raw()[:16]


def wg_secret(a: str, b: str) -> bytes:
    """What makes a pair's packets authentic there."""
    return pair_key(a, b)[:16]


def mesh_ip(node: NodeSpec) -> str:
    """The address inside the mesh."""
    return f"10.42.{node.number // 250}.{node.number % 250 + 1}"


def public_ips(node: NodeSpec) -> tuple[str, ...]:
    """The addresses of a host that is on the internet itself."""
    net = 80 if node.kind == "anchor" else 82
    four = (f"{net}.{node.number // 250}.{node.number % 250}.1",) if node.v4 else ()
    return (*four, f"2a0{net % 10}:{node.number + 1:x}::1") if node.v6 else four


def anchor_name(node: NodeSpec) -> NamedEndpoint:
    """The DNS name of an anchor, in worlds that use names."""
    return NamedEndpoint(f"{node.name}.example", PORT)


def anchor_places(node: NodeSpec) -> tuple[Place, ...]:
    """Where an anchor listens, as the inventory has it."""
    places = tuple(Address(ip, PORT) for ip in public_ips(node))
    return tuple((*place,) for place in places if node.written in (0, place.family))


def links(spec: WorldSpec, name: str) -> tuple[NodeSpec, ...]:
    """The peers of a node, in order: every anchor, and who policy permits; an anchor has everybody."""
    me = spec.node(name)
    everybody = me.kind == "anchor"
    return tuple(
        n for n in spec.nodes if n.name != name and (everybody or n.kind == "anchor" or spec.permits(name, n.name))
    )


def agent_config(spec: WorldSpec, name: str) -> AgentConfig:
    """What the repository would say for this node."""
    me = spec.node(name)
    peers = links(spec, name)
    servers = (Address(*STUN_SERVER),) if spec.stun else ()
    return AgentConfig(
        name,
        (
            InterfaceConfig(
                NETWORK, INTERFACE, public_key(name), (mesh_ip(me),), PORT, (MESH,), KEEPALIVE_S,
                peers=tuple(_peer(spec, me, peer, peers) for peer in peers), is_anchor=me.kind == "anchor",
            ),
        ),
        servers,
    )  # fmt: skip


def _peer(spec: WorldSpec, me: NodeSpec, peer: NodeSpec, peers: tuple[NodeSpec, ...]) -> PeerConfig:
    endpoints: tuple[Endpoint, ...] = ()
    if peer.kind == "anchor":
        endpoints = tuple(Address(*place) for place in anchor_places(peer))
        if spec.named_anchors:
            endpoints = (anchor_name(peer),)
    if peer.is_fixed:
        endpoints = tuple(Address(*place) for place in anchor_places(peer))
    override = next((mode for node, other, mode in spec.overrides if (node, other) == (me.name, peer.name)), "")
    return PeerConfig(
        peer.name, public_key(peer.name), (mesh_ip(peer),), pair_key(me.name, peer.name),
        kind={"malicious": "node"}.get(peer.kind, peer.kind), endpoints=endpoints,
        permitted=spec.permits(me.name, peer.name), override=override,
        reaches=frozenset(n.name for n in peers if spec.permits(peer.name, n.name)),
    )  # fmt: skip
