"""Who is whose peer, with which AllowedIPs: the resolved inventory compiled to one `Link` per interface.

Nodes of which policy says the same see the same peers, so the work is done once for all of them and the `Peer` objects
are shared; a full mesh of a thousand nodes is a thousand tuples of the same thousand objects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from meshctl.core.anchors import anchor_rank, client_profile, is_usable_anchor
from meshctl.core.prefixes import DEFAULT_ROUTES, covers, host_prefix, merge_prefixes, sort_prefixes, version
from meshctl.model.mesh import Mesh, Network, Node
from meshctl.model.resources import Peer
from meshctl.model.topology import NOBODY, Link, Names, Reach, Topology


def compile_topology(mesh: Mesh, reaches: Mapping[str, Mapping[str, Reach]]) -> Topology:
    """Compile a resolved mesh; `reaches` is what policy permits (`policy.Decisions.reaches`), network -> node -> Reach.

    Pure; the result depends on the inventory alone, not on the order of its sets.
    """
    claimed: set[tuple[str, str]] = set()
    by_network = {
        name: _NetworkCompiler(mesh, net, reaches[name], claimed).links() for name, net in sorted(mesh.networks.items())
    }
    links: dict[str, tuple[Link, ...]] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    for name, node in mesh.nodes.items():
        own = tuple(by_network[a.network][name] for a in node.attachments)
        links[name] = _mark_all(own)
        if node.exit_via and not any(link.default_route for link in own):
            warnings[name] = (_no_exit(mesh, node, own),)
    return Topology(links=links, warnings=warnings)


def _mark_all(own: tuple[Link, ...]) -> tuple[Link, ...]:
    """With an exit node on one interface, the encrypted packets of all of them must stay out of that tunnel."""
    mark = next((link.attachment.listen_port for link in own if link.default_route), 0)
    return tuple(replace(link, fwmark=mark) for link in own) if mark else own


def _no_exit(mesh: Mesh, node: Node, own: tuple[Link, ...]) -> str:
    carrier = next((link.routed[str(node.exit_via)] for link in own if node.exit_via in link.routed), None)
    if carrier:
        return f"exit node {node.exit_via} is only reached through anchor {carrier}; give {node.exit_via} an endpoint"
    if node.exit_via not in mesh.nodes:
        return f"exit node {node.exit_via} is not in the inventory"
    return f"no policy lets {node.name} open connections to the internet by {node.exit_via}; add one"


class _NetworkCompiler:
    """The state of compiling one network: who is in it, who has an endpoint, which variants of a peer exist.

    `claimed` holds (node, prefix) and (node, "") pairs that an earlier network served: two interfaces of one node
    cannot both have the route to a prefix behind a gateway, or the default route ("").
    """

    def __init__(
        self, mesh: Mesh, network: Network, reaches: Mapping[str, Reach], claimed: set[tuple[str, str]]
    ) -> None:
        self.network = network
        self.reaches = reaches
        self.claimed = claimed
        self.nodes = {n.name: n for n in mesh.nodes.values() if n.attachment(network.name) is not None}
        self.attached = {n.name: a for n in self.nodes.values() for a in n.attachments if a.network == network.name}
        self.own = {name: tuple(host_prefix(x) for x in a.addresses) for name, a in self.attached.items()}
        self.lengths = {version(cidr): cidr.rsplit("/", 1)[1] for cidr in network.cidrs}
        self._classify()
        self._peers: dict[tuple[str, tuple[str, ...], int], Peer] = {}
        self._best: dict[tuple[object, ...], str] = {}
        self._directs: dict[tuple[Names, Names, Names], Names] = {}
        self._bases: dict[tuple[Names, int], tuple[list[str], list[Peer]]] = {}
        self.routed = {name: self._routed(name) for name in self.nodes}
        self.infrastructure = {name: self._infrastructure(name) for name in self.nodes}
        self.clients_at = self._invert({n: self.infrastructure[n] for n in self.nodes if self.nodes[n].client})

    def _classify(self) -> None:
        """The kinds of node that decide a pair's path."""
        nodes = self.nodes.values()
        self.managed: Names = frozenset(n.name for n in nodes if not n.client)
        self.anchors = [n for n in nodes if is_usable_anchor(n, self.network.name)]
        self.anchor_names: Names = frozenset(a.name for a in self.anchors)
        self.by_anchor: Names = frozenset(n.name for n in nodes if n.client and client_profile(n) == "routed")
        self.endpointed: Names = frozenset(n for n, a in self.attached.items() if a.endpoint) - self.by_anchor
        self.routed_only: Names = frozenset(
            n.name for n in nodes if n.name not in self.endpointed and (n.client or n.relay == "routed")
        )

    def links(self) -> dict[str, Link]:
        """Every member's link, by node name."""
        routes_of = self._claim_routes()
        exits = self._claim_exits()
        exit_users = self._invert({name: frozenset({via}) for name, via in exits.items()})
        carried = self._carried(routes_of)
        out = {}
        for name in self.nodes:
            routes = merge_prefixes(prefix for prefixes in routes_of[name].values() for prefix in prefixes)
            out[name] = Link(
                node=name,
                network=self.network.name,
                attachment=self.attached[name],
                addresses=tuple(f"{x}/{self.lengths[version(x)]}" for x in self.attached[name].addresses),
                peers=self._peers_of(name, routes_of[name], exits.get(name)),
                routes=tuple(r for r in routes if not any(covers(c, r) for c in self.network.cidrs)),
                default_route=name in exits,
                routed=self.routed[name],
                carried=carried.get(name, {}),
                exit_users=exit_users.get(name, NOBODY),
            )
        return out

    def _routed(self, name: str) -> dict[str, str]:
        """The permitted peers of `name` that an anchor carries, each with its anchor."""
        both = self.reaches[name].peers
        if not self.anchors or name in self.anchor_names:
            return {}
        if name in self.by_anchor:
            others = both - self.anchor_names
        elif name in self.endpointed:
            others = both & self.by_anchor
        elif name in self.routed_only:
            others = both - self.endpointed
        else:
            others = both & self.routed_only
        return {other: self._anchor_for(name, other) for other in sorted(others) if other != name}

    def _anchor_for(self, one: str, other: str) -> str:
        a, b = self.nodes[one], self.nodes[other]
        if a.client != b.client:  # a client falls back to one anchor, so that its config outlives changes of the mesh
            a = b = a if a.client else b
        key = (a.anchors, a.region, b.anchors, b.region)
        if key not in self._best:
            self._best[key] = min(self.anchors, key=lambda anchor: anchor_rank(anchor, a, b)).name
        return self._best[key]

    def _infrastructure(self, name: str) -> Names:
        """The anchors that `name` has as peers without any policy; a client has those alone that it needs."""
        if not self.nodes[name].client:
            return self.anchor_names
        home = {self._anchor_for(name, name)} if self.anchors else set()
        return NOBODY.union(home, self.routed[name].values())

    @staticmethod
    def _invert(relation: Mapping[str, Names]) -> dict[str, Names]:
        inverse: dict[str, set[str]] = defaultdict(set)
        for name, others in relation.items():
            for other in others:
                inverse[other].add(name)
        return {name: frozenset(others) for name, others in inverse.items()}

    def _claim(self, name: str, what: str) -> bool:
        if (name, what) in self.claimed:
            return False
        self.claimed.add((name, what))
        return True

    def _claim_routes(self) -> dict[str, dict[str, list[str]]]:
        """node -> gateway -> what of the prefixes behind it the node has on this interface."""
        return {
            name: {
                gateway: [p for p in prefixes if self._claim(name, p)]
                for gateway, prefixes in self.reaches[name].prefixes.items()
                if gateway != name
            }
            for name in self.nodes
        }

    def _claim_exits(self) -> dict[str, str]:
        """node -> its exit node, where that is a peer here."""
        exits = {}
        for name in self.nodes:
            via = self.reaches[name].exit_via
            if via and via not in self.routed[name] and self._claim(name, ""):
                exits[name] = via
        return exits

    def _carried(self, routes_of: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
        """anchor -> source -> destinations that it carries. Gives the anchors the routes that they need for that."""
        carried: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for name, routed in self.routed.items():
            for other, anchor in routed.items():
                carried[anchor].setdefault(name, []).append(other)
            for gateway, prefixes in routes_of[name].items():
                anchor = routed.get(gateway, "")
                if anchor:
                    fresh = [p for p in prefixes if self._claim(anchor, p)]
                    routes_of[anchor].setdefault(gateway, []).extend(fresh)
        return carried

    def _peers_of(
        self, name: str, routes_of: Mapping[str, list[str]], exit_via: str | None
    ) -> tuple[Peer, ...]:
        attached, routed = self.attached[name], self.routed[name]
        keepalive = 0 if attached.endpoint else attached.keepalive_s
        direct = self._direct(self.reaches[name].peers, self.infrastructure[name], self._signalled(name))
        names, shared = self._base(direct.difference(routed) if routed else direct, keepalive)
        peers = list(shared)
        extra: dict[str, list[str]] = defaultdict(list)
        for gateway, prefixes in routes_of.items():
            extra[routed.get(gateway, gateway)].extend(merge_prefixes(prefixes))
        for other, anchor in routed.items():
            extra[anchor].extend(self.own[other])
        if exit_via:
            extra[exit_via].extend(DEFAULT_ROUTES[family] for family in sorted(self.lengths))
        for other, prefixes in extra.items():
            allowed = sort_prefixes((*self.own[other], *prefixes))
            peers[bisect_left(names, other)] = self._peer(other, allowed, keepalive)
        at = bisect_left(names, name)
        if at < len(names) and names[at] == name:
            del peers[at]
        return tuple(peers)

    def _signalled(self, name: str) -> Names:
        """Whom an anchor has as peers without any policy: all nodes, and the clients that need it."""
        if name not in self.anchor_names:
            return NOBODY
        return self.managed | self.clients_at.get(name, NOBODY)

    def _direct(self, permitted: Names, infrastructure: Names, signalled: Names) -> Names:
        """Everybody that a node has to do with, made once for a group of nodes: the set's hash is then known too."""
        key = (permitted, infrastructure, signalled)
        if key not in self._directs:
            self._directs[key] = permitted | infrastructure | signalled
        return self._directs[key]

    def _base(self, direct: Names, keepalive: int) -> tuple[list[str], list[Peer]]:
        """Sorted names and plain peers of a set of direct peers, made once for all nodes that share it."""
        key = (direct, keepalive)
        if key not in self._bases:
            names = sorted(direct)
            self._bases[key] = names, [self._peer(n, self.own[n], keepalive) for n in names]
        return self._bases[key]

    def _peer(self, name: str, allowed: tuple[str, ...], keepalive: int) -> Peer:
        attached = self.attached[name]
        key = (name, allowed, keepalive if attached.endpoint else 0)
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = Peer(
                name, attached.public_key, allowed, attached.endpoint, key[2], attached.next_public_key
            )
        return peer
