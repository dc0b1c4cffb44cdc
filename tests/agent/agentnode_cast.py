"""The nodes of a stage: an inventory with keys that are drawn for it, and what is made of both."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from agentnode_scene import Scene, Tunnel

from meshctl import inventory
from meshctl.core.agent.document import AgentDocument
from meshctl.core.psk import PskRing
from meshctl.core.wgconf import stanza
from meshctl.lab.blueprint import Router
from meshctl.lab.design import design
from meshctl.model.keys import PublicKey, Secret
from meshctl.policy import compile_mesh
from meshctl.render.agentdoc import agent_document

SECRET = Secret("the secret of a mesh that lives for a test 0123456789")


class Cast:
    """The inventory TEXT, which is written into the folder. Each node is in one network.

    Interfaces get names that no other cast has had: wireguard-go's control sockets lie in one folder of the machine,
    and `wg show interfaces`, elsewhere, removes one that it saw before it was in use again.
    """

    def __init__(self, text: str, folder: Path) -> None:
        self._path = folder / "inventory.yml"
        self._private: dict[tuple[str, str], str] = {}
        self._ring = PskRing(SECRET)
        tag = secrets.token_hex(3)
        self._interfaces = (f"wg{tag}{number:x}" for number in count())
        self._take(yaml.safe_load(text))

    def _take(self, document: dict[str, Any]) -> None:
        """Another inventory; what had an interface or a key keeps it."""
        for node in document["nodes"].values():
            if "interface" not in node:
                node["interface"] = next(self._interfaces)
        self._path.write_text(yaml.safe_dump(document, sort_keys=False))
        read = inventory.read(self._path)
        self._private = {pair: self._private.get(pair) or _wg("genkey").strip() for pair in read.missing_keys}
        public = {pair: PublicKey(_wg("pubkey", text=key).strip()) for pair, key in self._private.items()}
        self.mesh = read.with_keys(public).mesh
        self.compiled = compile_mesh(self.mesh)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the inventory, as parsed from YAML."""
        document = yaml.safe_load(self._path.read_text())
        change(document)
        self._take(document)

    def scene(self) -> Scene:
        """What is to be built; anchors first, whom others greet."""
        nodes = sorted(self.mesh.nodes, key=lambda n: not self.mesh.nodes[n].is_anchor)
        return Scene(design(self.mesh), tuple(tunnel for node in nodes for tunnel in self._tunnels(node)))

    def router(self, name: str) -> Router:
        """One of the lab's: `NODE-router` is a node's own."""
        found = self.scene().blueprint.router(name)
        assert found, name
        return found

    def outside(self, router: str) -> str:
        """The address that the router gives to all behind it."""
        return self.router(router).wan

    def _tunnels(self, node: str) -> list[Tunnel]:
        made = []
        for link in self.compiled.topology.interfaces(node):
            own = link.attachment.public_key
            keyed = [(peer, peer.public_key) for peer in link.peers if peer.public_key]
            peers = [f"{stanza(p)}PresharedKey = {self._ring.psk(own, key).reveal()}\n" for p, key in keyed if own]
            head = f"[Interface]\nPrivateKey = {self._private[node, link.network]}\n"
            config = "".join([head, f"ListenPort = {link.attachment.listen_port}\n", *peers])
            made.append(Tunnel(node, link.attachment.interface, config, tuple(link.addresses)))
        return made

    def content(self, node: str) -> AgentDocument:
        """What the repository tells the node's agent."""
        return agent_document(self.compiled, self._ring, node)

    def interface(self, node: str) -> str:
        """The node's WireGuard interface."""
        return self.mesh.nodes[node].attachments[0].interface

    def key(self, node: str) -> str:
        """Its public key there."""
        return str(self.mesh.nodes[node].attachments[0].public_key)

    def mesh_ip(self, node: str) -> str:
        """Its address there."""
        return self.mesh.nodes[node].attachments[0].addresses[0]


def _wg(*words: str, text: str = "") -> str:
    return subprocess.run(["wg", *words], input=text, text=True, capture_output=True, check=True).stdout
