"""What templates see of an interface and of the firewall (documented in docs/roles.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from meshctl.core.prefixes import DEFAULT_ROUTES, host_prefix, merge_prefixes, sort_prefixes, version
from meshctl.core.wgconf import StanzaCache
from meshctl.model.keys import SecretRow
from meshctl.model.mesh import Mesh
from meshctl.model.resources import Peer
from meshctl.model.topology import Link

KEY_FOLDER = "/etc/wireguard"


class Interface:
    """One WireGuard interface. The peers' texts are made when a template asks for them."""

    def __init__(
        self,
        mesh: Mesh,
        link: Link,
        psks: SecretRow,
        wg_stanzas: StanzaCache,
        wg_quick_stanzas: StanzaCache,
        networkd_stanzas: StanzaCache,
    ) -> None:
        self.interface = link.attachment.interface
        self.network = link.network
        self.cidrs = mesh.networks[link.network].cidrs
        self.addresses = link.addresses
        self.listen_port = link.attachment.listen_port
        self.mtu = link.attachment.mtu
        self.endpoint = link.attachment.endpoint
        self.public_key = link.attachment.public_key
        self.fwmark = link.fwmark
        self.default_route = link.default_route
        self.routes = link.routes
        self.key_file = f"{KEY_FOLDER}/{self.interface}.key"
        self.peers: tuple[Peer, ...] = link.peers
        self._psks = psks
        self._wg_stanzas = wg_stanzas
        self._wg_quick_stanzas = wg_quick_stanzas
        self._networkd_stanzas = networkd_stanzas

    def __repr__(self) -> str:
        return f"Interface({self.interface})"

    @property
    def default_routes(self) -> tuple[str, ...]:
        """`0.0.0.0/0` and `::/0` for the families that the interface has."""
        return tuple(DEFAULT_ROUTES[v] for v in sorted({version(a) for a in self.addresses}))

    @property
    def families(self) -> str:
        """systemd.network(5)'s word for the interface's families: ipv4, ipv6 or both."""
        found = sorted({version(a) for a in self.addresses})
        return "both" if len(found) == 2 else f"ipv{found[0]}"

    @cached_property
    def peers_text(self) -> str:
        """The [Peer] sections of wg(8), each after an empty line."""
        return self._wg_stanzas.text(self.peers, self._psks)

    @cached_property
    def wg_quick_peers_text(self) -> str:
        """The same without the endpoints of `peers_apart`."""
        return self._wg_quick_stanzas.text(self.peers, self._psks)

    @property
    def peers_apart(self) -> list[Peer]:
        """Peers whose endpoint is a name, which is set after the interface is up, so that it may fail."""
        return self._wg_quick_stanzas.apart(self.peers) if self.wg_quick_peers_text else []

    @cached_property
    def networkd_peers_text(self) -> str:
        """The [WireGuardPeer] sections of systemd.netdev(5), each after an empty line."""
        return self._networkd_stanzas.text(self.peers, self._psks)


class Firewall:
    """The sets of the table inet meshctl for one node: prefixes, or `prefix . prefix` pairs, in canonical order."""

    def __init__(self, mesh: Mesh, links: tuple[Link, ...], sizes: Mapping[str, int]) -> None:
        self._mesh = mesh
        self._sizes = sizes
        self._links = links
        self.interfaces = tuple(link.attachment.interface for link in links)
        self.cidrs_v4, self.cidrs_v6 = _split(c for link in links for c in mesh.networks[link.network].cidrs)
        self.has_v6 = bool(self.cidrs_v6)
        self.exit_mark = links[0].fwmark if links else 0
        self.allow_v4, self.allow_v6 = _split(x for link in links for x in self._sources(link, link.incoming))
        self.exit_v4, self.exit_v6 = _split(x for link in links for x in self._sources(link, link.exit_users))
        used = [link for link in links if link.route_users]
        self.routes_v4, self.routes_v6 = _split(merge_prefixes(mesh.nodes[used[0].node].routes) if used else ())
        self.masquerades = bool(used or self.exit_v4 or self.exit_v6)
        pairs = [pair for link in links for pair in self._pairs(link)]
        self.forward_v4 = tuple(f"{a} . {b}" for a, b in pairs if version(a) == 4)
        self.forward_v6 = tuple(f"{a} . {b}" for a, b in pairs if version(a) == 6)
        self.forwards = bool(pairs)

    def _sources(self, link: Link, names: frozenset[str]) -> tuple[str, ...]:
        """The nodes' addresses, or the network's prefixes when that is everybody else in it."""
        names -= {link.node}
        if not names:
            return ()
        if len(names) == self._sizes[link.network] - 1:
            return self._mesh.networks[link.network].cidrs
        return tuple(host_prefix(x) for name in names for x in self._addresses(name, link.network))

    def _addresses(self, name: str, network: str) -> tuple[str, ...]:
        attachment = self._mesh.nodes[name].attachment(network)
        return attachment.addresses if attachment else ()

    def _pairs(self, link: Link) -> list[tuple[str, str]]:
        """(source, destination) prefixes of one family each that this node forwards, without duplicates."""
        pairs: set[tuple[str, str]] = set()
        nodes = self._mesh.nodes
        if link.forwards_all:
            pairs.update(_products(self._mesh.networks[link.network].cidrs, self._carried_everything(link)))
        for source, destination in link.forwards:
            targets = merge_prefixes(
                (*(host_prefix(x) for x in self._addresses(destination, link.network)), *nodes[destination].routes)
            )
            pairs.update(_products([host_prefix(x) for x in self._addresses(source, link.network)], targets))
        if link.route_users:
            pairs.update(_products(self._sources(link, link.route_users), merge_prefixes(nodes[link.node].routes)))
        order = {prefix: rank for rank, prefix in enumerate(sort_prefixes(p for pair in pairs for p in pair))}
        return sorted(pairs, key=lambda pair: (order[pair[0]], order[pair[1]]))

    def _carried_everything(self, link: Link) -> tuple[str, ...]:
        """The network itself, and what its members have behind them as far as this anchor routes there."""
        return merge_prefixes((*self._mesh.networks[link.network].cidrs, *link.routes))


def _products(sources: tuple[str, ...] | list[str], targets: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(a, b) for a in sources for b in targets if version(a) == version(b)]


def _split(prefixes: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """IPv4 and IPv6 prefixes apart, each in canonical order."""
    ordered = sort_prefixes(prefixes)
    v4 = tuple(p for p in ordered if version(p) == 4)
    return v4, ordered[len(v4):]
