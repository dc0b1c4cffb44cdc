"""A checked document and a lock to a Mesh: settings inherited, addresses allocated, policies expanded."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from meshctl.inventory.addresses import Malformed, Ranges, parse_prefix
from meshctl.inventory.allocate import Claim, NoRoom, allocate, larger
from meshctl.inventory.document import Document
from meshctl.inventory.findings import Findings
from meshctl.inventory.groups import GroupTree
from meshctl.inventory.lock import Lock
from meshctl.inventory.names import Names
from meshctl.inventory.nodes import Draft, NodeReader, endpoint_text, known_roles, lab_settings
from meshctl.inventory.policies import read_rules, read_tests
from meshctl.inventory.selectors import Scope
from meshctl.inventory.settings import Layer, Settings
from meshctl.inventory.suggest import did_you_mean
from meshctl.model.mesh import AGENT_ROLE, Attachment, Mesh, Network, Node, SecretSource

DAY_S = 86400


@dataclass(frozen=True)
class Resolved:
    """What `resolve` gives. `drafts` keep the places of settings for the rules."""

    mesh: Mesh
    lock: Lock
    drafts: Mapping[str, Draft]
    ranges: Mapping[str, Ranges]


def resolve(
    document: Document, names: Names, lock: Lock, base_dir: str, findings: Findings, today: datetime.date
) -> Resolved:
    """The mesh of a document that has passed the schema. What is wrong is reported and left out."""
    data = document.data
    raw_nodes: dict[str, dict[str, Any]] = {n: v or {} for n, v in (data.get("nodes") or {}).items()}
    raw_groups: dict[str, dict[str, Any]] = {n: v or {} for n, v in (data.get("groups") or {}).items()}
    raw_networks: dict[str, dict[str, Any]] = data.get("networks") or {}
    ranges = {name: _ranges(name, raw, findings) for name, raw in raw_networks.items()}
    tree = GroupTree(raw_groups, raw_nodes, names, findings)
    roles = known_roles(base_dir)
    reader = NodeReader(ranges, names, roles, findings)
    layering = _Layering(data, raw_groups, raw_networks, names, findings)
    drafts = {name: reader.draft(name, layering.settings(name, raw, tree)) for name, raw in sorted(raw_nodes.items())}
    new_lock = _allocate(drafts, ranges, lock, findings)
    nodes = {name: _node(draft, tree, new_lock, reader, document) for name, draft in drafts.items()}
    groups = {name: frozenset(n for n in nodes if name in nodes[n].groups) for name in sorted(raw_groups)}
    members = {
        network: frozenset(n.name for n in nodes.values() if n.attachment(network)) for network in sorted(raw_networks)
    }
    scope = Scope(nodes, groups, members, names, roles)
    secret = data.get("secret", {})
    mesh = Mesh(
        networks={
            name: Network(
                name,
                tuple(str(p) for p in ranges[name].prefixes()),
                raw.get("dns_domain", ""),
                document.position(("networks", name), key=True),
            )
            for name, raw in sorted(raw_networks.items())
        },
        nodes=nodes,
        groups=groups,
        rules=read_rules(data, scope, findings, today),
        tests=read_tests(data, scope, findings, data),
        stun=tuple(data.get("stun", ())),
        turn=tuple(data.get("turn", ())),
        secret=SecretSource(secret.get("file", ""), tuple(secret.get("command", ()))),
        lab=data.get("lab", {}),
        base_dir=base_dir,
    )
    return Resolved(mesh, new_lock, drafts, ranges)


def _ranges(name: str, raw: Mapping[str, Any], findings: Findings) -> Ranges:
    given = raw["cidr"]
    path = ("networks", name, "cidr")
    items = [(given, path)] if isinstance(given, str) else [(g, (*path, i)) for i, g in enumerate(given)]
    v4: IPv4Network | None = None
    v6: IPv6Network | None = None
    for text, place in items:
        try:
            prefix = parse_prefix(text)
        except Malformed as error:
            findings.error("bad-prefix", place, error.message, error.hint)
            if error.meant is None:
                continue
            prefix = error.meant  # so that what is inside it is not refused too
        if isinstance(prefix, IPv4Network) and v4 is None:
            v4 = prefix
        elif isinstance(prefix, IPv6Network) and v6 is None:
            v6 = prefix
        else:
            message = f"network `{name}` has two IPv{prefix.version} prefixes"
            findings.error("too-many-prefixes", place, message, "one for each family; make a network of its own for it")
    return Ranges(v4, v6)


class _Layering:
    """Builds each node's Settings; layers are shared between nodes."""

    def __init__(
        self,
        data: Mapping[str, Any],
        groups: Mapping[str, Any],
        networks: Mapping[str, Any],
        names: Names,
        findings: Findings,
    ) -> None:
        self._groups: dict[str, Layer] = {n: (g.get("vars") or {}, ("groups", n, "vars")) for n, g in groups.items()}
        self._networks: dict[str, Layer] = {n: (value, ("networks", n)) for n, value in networks.items()}
        self._defaults: tuple[Layer, ...] = ((data.get("defaults") or {}, ("defaults",)),)
        self._names = names
        self._findings = findings

    def settings(self, name: str, raw: Mapping[str, Any], tree: GroupTree) -> Settings:
        own: tuple[Layer, ...] = ((raw, ("nodes", name)), *(self._groups[g] for g in tree.order(name)))
        wanted = Settings(own, {}, self._defaults).get("networks")
        if wanted is None:
            return Settings(own, self._networks, self._defaults)
        members: dict[str, Layer] = {}
        for index, network in enumerate(wanted[0]):
            if network in self._networks:
                members[network] = self._networks[network]
            elif network not in self._names.networks:
                hint = did_you_mean(network, self._names.networks)
                self._findings.error("unknown-network", (*wanted[1], index), f"there is no network `{network}`", hint)
        return Settings(own, members, self._defaults)


def _allocate(drafts: Mapping[str, Draft], ranges: Mapping[str, Ranges], lock: Lock, findings: Findings) -> Lock:
    addresses: dict[str, dict[str, tuple[str, ...]]] = {}
    for network, prefixes in ranges.items():
        claims = [
            Claim(name, interface.given, lock.addresses(name, network))
            for name, draft in drafts.items()
            for interface in draft.interfaces
            if interface.network == network
        ]
        try:
            addresses[network] = allocate(network, prefixes, claims)
        except NoRoom as error:
            hint = f"use {larger(error.prefix, error.nodes)}"
            findings.error("no-room", ("networks", network, "cidr"), str(error), hint)
            addresses[network] = {}
    return Lock(
        {
            name: {
                i.network: replace(lock.entry(name, i.network), addresses=addresses[i.network].get(name, ()))
                for i in draft.interfaces
            }
            for name, draft in drafts.items()
        },
        lock.revoked,
    )


def _bytes_s(text: str | None) -> int | None:
    """Of `100Mbit/s`."""
    bits = {"kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
    return None if text is None else int(text[:-6]) * bits[text[-6:]] // 8


def _age_s(text: str | None) -> int | None:
    """Of `90d` or `12w`."""
    return None if text is None else int(text[:-1]) * {"d": DAY_S, "w": 7 * DAY_S}[text[-1]]


def _node(draft: Draft, tree: GroupTree, lock: Lock, reader: NodeReader, document: Document) -> Node:
    settings = draft.settings
    attachments = tuple(
        Attachment(
            network=i.network,
            interface=i.name,
            addresses=lock.entry(draft.name, i.network).addresses,
            listen_port=i.port,
            mtu=i.mtu,
            endpoint=endpoint_text(i),
            keepalive_s=i.keepalive,
            public_key=lock.entry(draft.name, i.network).public_key,
            next_public_key=lock.entry(draft.name, i.network).next_public_key,
        )
        for i in draft.interfaces
    )
    return Node(
        name=draft.name,
        attachments=attachments,
        ssh=reader.ssh(draft),
        roles=draft.roles,
        groups=frozenset(tree.order(draft.name)),
        tags=frozenset(settings.added("tags")),
        region=settings.value("region", ""),
        backend=settings.value("backend", "wg-quick"),
        client=draft.client,
        revoked=lock.is_revoked(draft.name),
        peers=tuple(settings.value("peers", ())) if draft.client else (),
        routes=tuple(route for route, _ in draft.routes),
        exit_node=settings.value("exit_node", False),
        exit_via=settings.value("exit_via", None),
        relay=settings.value("relay", "auto" if AGENT_ROLE in draft.roles or draft.client else "routed"),
        relay_limit=_bytes_s(settings.value("relay_limit", None)),
        anchors=tuple(settings.value("anchors", ())),
        psk=settings.value("psk", True),
        nat=settings.value("nat", None),
        capacity=settings.value("capacity", None),
        rotate_every_s=_age_s(settings.value("keys", {}).get("rotate_every")),
        vars={key: value for key, (value, _) in settings.merged("vars").items()},
        lab=lab_settings({key: value for key, (value, _) in settings.merged("lab").items()}),
        position=document.position(draft.path, key=True),
    )
