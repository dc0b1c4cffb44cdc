"""Mesh and topology to one `NodeDoc` per node, through roles and templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshctl.core.psk import PskRing
from meshctl.core.wgconf import NETWORKD_SECTION, StanzaCache
from meshctl.errors import RenderError
from meshctl.model.keys import PublicKey, SecretRow
from meshctl.model.mesh import Node
from meshctl.model.resources import (
    File,
    Handler,
    Nftables,
    NodeDoc,
    Peer,
    Resource,
    Service,
    Sysctl,
    WireGuard,
    awaited_name,
)
from meshctl.model.topology import Link
from meshctl.policy import Compiled
from meshctl.render.engine import did_you_mean
from meshctl.render.roles import Role, RoleLibrary
from meshctl.render.tasks import Evaluator
from meshctl.render.views import KEY_FOLDER, Agent, Firewall, Interface

NETWORKD = "systemd-networkd"
# Names that a variable must not take: templates would no longer see the thing itself.
RESERVED = ("node", "mesh", "interfaces", "firewall", "agent", "vars", "item")


class Renderer:
    """Renders nodes one at a time; what they share (roles, templates, peers' stanzas) is made once."""

    def __init__(self, compiled: Compiled, ring: PskRing | None = None, agents: Compiled | None = None) -> None:
        """`agents` is what agents are told of, where that is another mesh."""
        self._agents = agents or compiled
        self._compiled = compiled
        self.mesh = compiled.mesh
        self.topology = compiled.topology
        self.library = RoleLibrary(self.mesh.base_dir)
        self._ring = ring
        nodes = self.mesh.nodes.values()
        self._without_psk = frozenset(name for n in nodes if not n.psk for name in (n.name, awaited_name(n.name)))
        self._rotating = frozenset(a.network for node in nodes for a in node.attachments if a.next_public_key)
        self._awaited: dict[PublicKey, Peer] = {}
        self._wg_stanzas = StanzaCache()
        self._wg_quick_stanzas = StanzaCache(names_apart=True)
        self._networkd_stanzas = StanzaCache(NETWORKD_SECTION)
        self._resolved: dict[tuple[str, ...], tuple[Role, ...]] = {}

    def node(self, name: str) -> NodeDoc:
        """The node's document. Raises RenderError (template), InventoryError (role), KeyError (no such node)."""
        node = self.mesh.nodes[name]
        if node.client:
            message = "a stock client has no document: nothing is installed on it"
            raise RenderError(message, where=name, hint=f"`meshctl client show {name}` renders its config")
        links = self._links(name)
        psks = {link.attachment.interface: self.psks(link) for link in links}
        context = self._context(node, links, psks)
        wireguard = _WireGuardMaker(node, links, psks)
        resources: dict[tuple[str, str], tuple[Resource, str]] = {}
        handlers: list[Handler] = []
        for role in self._roles(node.roles):
            scope = self.scope(role, node, context)
            for resource in Evaluator(role, scope, name, wireguard.make).resources():
                _add(resources, resource, role, name)
            handlers.extend(self._handlers(role, scope, name))
        found = tuple(resource for resource, _ in resources.values())
        notified = {h for resource in found for h in resource.notify}
        return NodeDoc(
            node=name,
            resources=found,
            handlers=tuple(h for h in dict.fromkeys(handlers) if h.name in notified),
            warnings=self.topology.warnings.get(name, ()),
        )

    def config(self, name: str) -> dict[str, bytes]:
        """The node's WireGuard configs alone (path to content): the files that the role `wireguard` writes."""
        node = self.mesh.nodes[name]
        links = self._links(name)
        psks = {link.attachment.interface: self.psks(link) for link in links}
        role = self.library.role("wireguard")
        scope = self.scope(role, node, self._context(node, links, psks))
        found = Evaluator(role, scope, name, _WireGuardMaker(node, links, psks).make).resources(files_only=True)
        return {file.path: file.content for file in found if isinstance(file, File) and file.content is not None}

    def _links(self, name: str) -> tuple[Link, ...]:
        """The node's links as it has them: with peers under their next keys, too."""
        links = self.topology.interfaces(name)
        return tuple(self._with_awaited(link) if link.network in self._rotating else link for link in links)

    def _with_awaited(self, link: Link) -> Link:
        peers: list[Peer] = []
        for peer in link.peers:
            peers.append(peer)
            if peer.public_key and peer.next_key:
                if peer.next_key not in self._awaited:
                    self._awaited[peer.next_key] = peer.awaited()
                peers.append(self._awaited[peer.next_key])
        return replace(link, peers=tuple(peers))

    def psks(self, link: Link) -> SecretRow:
        """The pre-shared keys of a link's peers, in their order; None where either side has none."""
        own, ring, without = link.attachment.public_key, self._ring, self._without_psk
        if ring is None or own is None or link.node in without:
            return SecretRow((None,) * len(link.peers))
        if not without:
            return ring.psks(own, [peer.public_key for peer in link.peers])
        return ring.psks(own, [None if peer.name in without else peer.public_key for peer in link.peers])

    def interface(self, link: Link, psks: SecretRow) -> Interface:
        """What templates see of a link."""
        return Interface(self.mesh, link, psks, self._wg_stanzas, self._wg_quick_stanzas, self._networkd_stanzas)

    def scope(self, role: Role, node: Node, context: Mapping[str, Any]) -> dict[str, Any]:
        """A role's variables: node.vars over the role's defaults, with the things themselves over both."""
        variables = {**role.defaults, **node.vars}
        for name in RESERVED:
            if name in variables:
                place = f"{role.label}/defaults/main.yml" if name in role.defaults else f"nodes.{node.name}.vars"
                raise RenderError(f"`{name}` is not free as a variable's name", where=place, hint="rename it")
        return {**variables, **context, "vars": variables}

    def _roles(self, names: tuple[str, ...]) -> tuple[Role, ...]:
        if names not in self._resolved:
            self._resolved[names] = self.library.resolve(names)
        return self._resolved[names]

    def _context(
        self, node: Node, links: tuple[Link, ...], psks: Mapping[str, SecretRow]
    ) -> dict[str, Any]:
        return {
            "node": node,
            "mesh": self.mesh,
            "interfaces": tuple(self.interface(link, psks[link.attachment.interface]) for link in links),
            "agent": Agent(self._agents, self._ring, node.name),
            "firewall": Firewall(self.mesh, self._compiled.decisions, links),
        }

    def _handlers(self, role: Role, scope: Mapping[str, Any], node: str) -> list[Handler]:
        return [
            Handler(h.name, role.engine.text(h.service, scope, node=node, where=h.where), h.action)
            for h in role.handlers
        ]


class _WireGuardMaker:
    """Makes the WireGuard resources of one node."""

    def __init__(
        self, node: Node, links: tuple[Link, ...], psks: Mapping[str, SecretRow]
    ) -> None:
        self._node = node
        self._links = {link.attachment.interface: link for link in links}
        self._psks = psks

    def make(self, interface: str, notify: tuple[str, ...], where: str) -> WireGuard:
        """The resource of one interface. Raises RenderError for a name that the node does not have."""
        link = self._links.get(interface)
        if link is None:
            message = f"{self._node.name} has no interface `{interface}`{did_you_mean(interface, self._links)}"
            raise RenderError(message, where=f"{where} (node {self._node.name})", hint="loop over `{{ interfaces }}`")
        networkd = self._node.backend == NETWORKD
        return WireGuard(
            interface=interface,
            network=link.network,
            backend=self._node.backend,
            addresses=link.addresses,
            listen_port=link.attachment.listen_port,
            mtu=link.attachment.mtu,
            key_file=f"{KEY_FOLDER}/{interface}.key",
            public_key=link.attachment.public_key,
            peers=link.peers,
            psks=tuple(self._psks[interface]),
            routes=link.routes,
            fwmark=link.fwmark,
            key_mode="0640" if networkd else "0600",
            key_group="systemd-network" if networkd else "root",
            default_route=link.default_route,
            next_public_key=link.attachment.next_public_key,
            notify=notify,
        )


def _identity(resource: Resource) -> tuple[str, str]:
    kind = type(resource).__name__
    if isinstance(resource, File):
        return kind, resource.path
    if isinstance(resource, (Sysctl, Service)):
        return kind, resource.name
    if isinstance(resource, Nftables):
        return kind, f"{resource.family} {resource.table}"
    if isinstance(resource, WireGuard):
        return kind, resource.interface
    return kind, " ".join(resource.names)


def _add(resources: dict[tuple[str, str], tuple[Resource, str]], resource: Resource, role: Role, node: str) -> None:
    """Two roles may ask for the same thing, in the same words; they must not disagree."""
    key = _identity(resource)
    if key not in resources:
        resources[key] = resource, role.name
        return
    before, other = resources[key]
    if replace(before, notify=()) != replace(resource, notify=()):
        kind, name = key
        message = f"roles {other} and {role.name} want {kind.lower()} {name} differently"
        raise RenderError(message, where=f"node {node}", hint="let one role own it, or make it a dependency of both")
    notify = tuple(dict.fromkeys((*before.notify, *resource.notify)))
    resources[key] = replace(before, notify=notify), other
