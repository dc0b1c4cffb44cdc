"""One node's decisions as the parts of an nftables table: verdict maps by address, chains by what was decided.

A packet of a new connection takes the same few look-ups whatever the number of rules: its destination, its source,
then protocol and port; the last leads to the rule's own chain, which counts, limits and accepts or drops.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network

from meshctl.core.prefixes import covers, sort_prefixes, version
from meshctl.model.mesh import Mesh, Node
from meshctl.model.policy import INTERNET, Subject, is_prefix
from meshctl.model.topology import Link
from meshctl.policy.compile import Decisions
from meshctl.policy.network import NetworkPolicy
from meshctl.policy.verdicts import DecisionChain, RuleChain, Verdicts

# Linux lets an interface be called `wg+1`; nft's names are more narrow.
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+\Z")


@dataclass(frozen=True)
class AddressMap:
    """Elements `address : verdict` of one family; `nets` are those that are ranges, which need another kind of map."""

    hosts: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hosts or self.nets)


@dataclass(frozen=True)
class Lookup:
    """A chain that looks an address up, by family."""

    name: str
    v4: AddressMap
    v6: AddressMap


@dataclass(frozen=True)
class Inward:
    """How one interface's packets for the node itself are judged: by their source, when they are for its addresses."""

    interface: str
    own_v4: tuple[str, ...]
    own_v6: tuple[str, ...]
    sources: Lookup


class FirewallTable:
    """The table inet meshctl of one node, as `templates/firewall.nft.j2` writes it."""

    def __init__(self, mesh: Mesh, decisions: Decisions, links: tuple[Link, ...]) -> None:
        self._mesh = mesh
        self._policies = [(link, decisions.network(link.network)) for link in links]
        self._verdicts = Verdicts()
        self._columns: dict[tuple[tuple[str, str], ...], Lookup] = {}
        self.inward = tuple(self._inward(i, link, policy) for i, (link, policy) in enumerate(self._policies))
        self.behind = self._behind("behind")
        self.from_lan = self._from_lan("from_lan")
        self.outside = self._outside("outside")
        self.to_clients = self._to_clients("to_clients")

    @property
    def columns(self) -> tuple[Lookup, ...]:
        """Chains that judge by source, one for each kind of destination that the node forwards to."""
        return tuple(self._columns.values())

    @cached_property
    def decisions(self) -> tuple[DecisionChain, ...]:
        """The chains that judge by protocol and port."""
        return tuple(self._verdicts.chains())

    @cached_property
    def rules(self) -> tuple[RuleChain, ...]:
        """The rules that decide anything here."""
        return tuple(self._verdicts.rules())

    @property
    def forwards(self) -> bool:
        """Whether anything is forwarded."""
        return any(lookup.v4 or lookup.v6 for lookup in (self.behind, self.from_lan, self.outside))

    def _inward(self, index: int, link: Link, policy: NetworkPolicy) -> Inward:
        addresses, interface = link.attachment.addresses, link.attachment.interface
        name = f"in_{interface}" if _PLAIN.match(interface) else f"inward_{index}"
        sources = self._sources(policy, link.node)
        return Inward(
            interface=interface,
            own_v4=tuple(a for a in addresses if version(a) == 4),
            own_v6=tuple(a for a in addresses if version(a) == 6),
            sources=_lookup(name, sources),
        )

    def _sources(
        self, policy: NetworkPolicy, destination: Subject, among: Iterable[Subject] | None = None
    ) -> list[tuple[str, str]]:
        """(address or range, verdict) of everybody, or of those `among`, about whom a rule says something."""
        if among is None:
            asking = ((s, pieces) for s, pieces in policy.askers(destination) if policy.carries(s, destination))
        else:
            asking = ((s, pieces) for s in among if (pieces := policy.decide(s, destination)))
        found = [(source, self._verdicts.of(pieces)) for source, pieces in asking]
        return self._addressed(policy, found, but=policy.home(destination) or "")

    def _addressed(self, policy: NetworkPolicy, found: list[tuple[Subject, str]], but: str) -> list[tuple[str, str]]:
        """Subjects as addresses; the network's prefix where the same is decided about everybody in it `but` one."""
        nodes = {subject: verdict for subject, verdict in found if subject in policy.nodes}
        elements: list[tuple[str, str]] = []
        if len(nodes) > 1 and policy.nodes.keys() <= {*nodes, but} and len(set(nodes.values())) == 1:
            verdict = next(iter(nodes.values()))
            elements.extend((cidr, verdict) for cidr in self._mesh.networks[policy.name].cidrs)
        else:
            elements.extend((a, v) for name, v in nodes.items() for a in _addresses(policy.nodes[name], policy.name))
        elements.extend((r, v) for subject, v in found if is_prefix(subject) for r in _cell(subject, policy.prefixes))
        return elements

    def _column(self, elements: list[tuple[str, str]]) -> str:
        """The verdict that leads to the chain which judges by these sources; destinations with equal ones share it."""
        key = tuple(sorted(elements))
        if key not in self._columns:
            self._columns[key] = _lookup(f"to_{len(self._columns)}", elements)
        return f"goto {self._columns[key].name}"

    def _behind(self, name: str) -> Lookup:
        """What the node forwards from the mesh: to the prefixes behind it, and between nodes when it carries them."""
        asked = []
        for link, policy in self._policies:
            wanted = {p for p in policy.prefixes if policy.home(p) == link.node}
            carried = frozenset[str]().union(*link.carried.values())
            wanted.update(s for s in (*policy.nodes, *policy.prefixes) if policy.home(s) in carried)
            asked.append({destination: self._sources(policy, destination) for destination in sorted(wanted)})
        return self._by_column(name, asked)

    def _from_lan(self, name: str) -> Lookup:
        """What the devices behind the node may open in the mesh."""
        asked = []
        for link, policy in self._policies:
            own = [p for p in policy.prefixes if policy.home(p) == link.node]
            wanted = (*policy.nodes, *policy.prefixes) if own else ()
            asked.append({destination: self._sources(policy, destination, own) for destination in wanted})
        return self._by_column(name, asked)

    def _by_column(self, name: str, asked: list[dict[Subject, list[tuple[str, str]]]]) -> Lookup:
        """Destinations, for each of the node's networks with their sources, to the chains that judge by source.

        What is behind a gateway in two networks is one destination, since its address tells nothing of the network.
        """
        shared: dict[Subject, dict[tuple[str, str], None]] = {}
        for found in asked:
            for destination in filter(is_prefix, found):
                shared.setdefault(destination, {}).update(dict.fromkeys(found[destination]))
        elements: dict[tuple[str, str], None] = {}
        for (link, policy), found in zip(self._policies, asked, strict=True):
            judged = {destination: [*shared.get(destination, sources)] for destination, sources in found.items()}
            columns = [(destination, self._column(sources)) for destination, sources in judged.items() if sources]
            elements.update(dict.fromkeys(self._addressed(policy, columns, but=link.node)))
        return _lookup(name, elements)

    def _outside(self, name: str) -> Lookup:
        """Who may go to the internet by way of this node."""
        elements: list[tuple[str, str]] = []
        for link, policy in self._policies:
            elements.extend(self._sources(policy, INTERNET, sorted(link.exit_users)))
        return _lookup(name, elements)

    def _to_clients(self, name: str) -> Lookup:
        """What this node may open to stock clients, which have no firewall of ours: judged here, where it starts."""
        elements: list[tuple[str, str]] = []
        for link, policy in self._policies:
            for client in sorted(n.name for n in policy.nodes.values() if n.client and n.name != link.node):
                verdict = self._verdicts.of(policy.decide(link.node, client))
                elements.extend((a, verdict) for a in _addresses(policy.nodes[client], policy.name))
        return _lookup(name, elements)


def _addresses(node: Node, network: str) -> tuple[str, ...]:
    attachment = node.attachment(network)
    return attachment.addresses if attachment else ()


def _cell(prefix: str, prefixes: Iterable[str]) -> tuple[str, ...]:
    """A prefix without the subjects inside it, as ranges: the elements of a map must not overlap."""
    net = ip_network(prefix)
    kind = type(net.network_address)
    start, end = int(net.network_address), int(net.broadcast_address)
    ranges = []
    for inner in map(ip_network, sort_prefixes(p for p in prefixes if p != prefix and covers(prefix, p))):
        first, last = int(inner.network_address), int(inner.broadcast_address)
        if first > start:
            ranges.append((start, first - 1))
        start = max(start, last + 1)
    if not ranges and start == int(net.network_address):
        return (prefix,)
    if start <= end:
        ranges.append((start, end))
    return tuple(str(kind(low)) if low == high else f"{kind(low)}-{kind(high)}" for low, high in ranges)


def _lookup(name: str, elements: Iterable[tuple[str, str]]) -> Lookup:
    """(address, prefix or range; verdict) by family and by kind of map."""
    maps: dict[int, tuple[list[str], list[str]]] = {4: ([], []), 6: ([], [])}
    for address, verdict in elements:
        hosts, nets = maps[version(address)]
        host = address.removesuffix("/128" if ":" in address else "/32")
        (nets if "/" in host or "-" in host else hosts).append(f"{host} : {verdict}")
    v4, v6 = (AddressMap(tuple(hosts), tuple(nets)) for hosts, nets in (maps[4], maps[6]))
    return Lookup(name, v4, v6)
