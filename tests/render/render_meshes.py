"""Meshes made by hand and the demo's with fixed keys, for tests of topology and rendering."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from meshctl import inventory
from meshctl.core.psk import PskRing
from meshctl.core.traffic import ANY
from meshctl.model.keys import PublicKey, Secret
from meshctl.model.mesh import Attachment, Mesh, Network, Node, SshSettings
from meshctl.model.policy import INTERNET, Rule, Side
from meshctl.policy import compile_mesh
from meshctl.render import Renderer

DEMO = Path(__file__).parents[2] / "inventory" / "demo" / "inventory.yml"
SECRET = Secret("golden files need a mesh secret that never changes 0123456789")

CORP = Network("corp", ("10.42.0.0/16", "fd42:42::/48"))
LAB = Network("lab", ("10.43.0.0/16",))


def key(name: str, network: str = "corp") -> PublicKey:
    """A public key that belongs to that name."""
    return PublicKey(b64encode(sha256(f"{name} {network}".encode()).digest()).decode())


def _addresses(network: str, number: int) -> tuple[str, ...]:
    return (f"10.42.0.{number}", f"fd42:42::{number:x}") if network == "corp" else (f"10.43.0.{number}",)


def node(
    name: str, number: int, *, endpoint: bool = False, networks: tuple[str, ...] = ("corp",), agent: bool = True,
    **more: Any,
) -> Node:  # fmt: skip
    """Node `number` of its networks, at 10.42.0.NUMBER and fd42:42::NUMBER; `endpoint` makes it 203.0.113.NUMBER."""
    attachments = tuple(
        Attachment(
            network=network,
            interface=f"wg{index}",
            addresses=_addresses(network, number),
            listen_port=51820 + index,
            endpoint=f"203.0.113.{number}:{51820 + index}" if endpoint else None,
            public_key=key(name, network),
        )
        for index, network in enumerate(networks)
    )
    extra = more.pop("roles", ())
    roles = () if more.get("client") else ("wireguard", "firewall", *extra, *(["agent"] if agent else []))
    return Node(name, attachments, SshSettings(name), roles=roles, **more)


def rule(sources: str, destinations: str, network: str = "corp") -> Rule:
    """Everything from these to those, names or prefixes that are given with spaces."""
    name = f"{sources}-to-{destinations}".replace(" ", "+").translate({ord("/"): "_", ord(":"): "_", ord("+"): "."})
    sides = (Side({network: frozenset(side.split())}) for side in (sources, destinations))
    return Rule(name, *sides, traffic=ANY)


def mesh(*nodes: Node, rules: tuple[Rule, ...] | None = None, base_dir: str = "/nonexistent") -> Mesh:
    """A mesh of these nodes; without rules its networks are open."""
    named = {n.name: n for n in sorted(nodes, key=lambda n: n.name)}
    used = sorted({a.network for n in nodes for a in n.attachments})
    networks = {name: {"corp": CORP, "lab": LAB}[name] for name in used}
    if rules is None:
        rules = tuple(_open(network, [n for n in nodes if n.attachment(network)]) for network in used)
    return Mesh(networks=networks, nodes=named, groups={}, rules=rules, base_dir=base_dir)


def _open(network: str, nodes: list[Node]) -> Rule:
    members = frozenset(n.name for n in nodes)
    behind = {route for n in nodes for route in n.routes}
    return Rule(f"open:{network}", Side({network: members}), Side({network: members | behind | {INTERNET}}), ANY)


def demo_mesh(folder: Path) -> Mesh:
    """The demo's mesh before any lock, read from a copy in `folder`, every node with a key that belongs to its name."""
    path = folder / "inventory.yml"
    path.write_bytes(DEMO.read_bytes())
    read = inventory.read(path)
    pairs = {(n.name, a.network): key(n.name, a.network) for n in read.mesh.nodes.values() for a in n.attachments}
    return replace(read.with_keys(pairs).mesh, base_dir=str(folder))


def renderer(mesh: Mesh) -> Renderer:
    """A renderer with the fixed secret."""
    return Renderer(compile_mesh(mesh), PskRing(SECRET))


def without_key(n: Node) -> Node:
    """The node before its first apply."""
    return replace(n, attachments=tuple(replace(a, public_key=None) for a in n.attachments))
