"""What templates see of an interface, of the agent and of the firewall (documented in docs/roles.md)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from meshctl.core.agent.document import SIGNALLING_PORT, encode
from meshctl.core.prefixes import DEFAULT_ROUTES, merge_prefixes, sort_prefixes, version
from meshctl.core.psk import PskRing
from meshctl.core.wgconf import StanzaCache
from meshctl.model.keys import SecretRow
from meshctl.model.mesh import Mesh
from meshctl.model.resources import Peer
from meshctl.model.topology import Link
from meshctl.policy import Compiled, Decisions
from meshctl.policy.firewall import FirewallTable
from meshctl.render import zipapp
from meshctl.render.agentdoc import agent_document, is_known

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


class Agent:
    """The node's agent: where its zipapp stands on the node, and `document`, which is for root alone."""

    signalling_port = SIGNALLING_PORT

    def __init__(self, compiled: Compiled, ring: PskRing | None, node: str) -> None:
        self._compiled = compiled
        self._ring = ring
        self._node = node

    def __repr__(self) -> str:
        return f"Agent({self._node})"

    @property
    def zipapp(self) -> str:
        """The path of this version's zipapp, the one that the applier runs from."""
        return zipapp.build().path

    @cached_property
    def document(self) -> str:
        """What the agent is told; empty in a plan before the node has its key, never in an apply."""
        if not is_known(self._compiled, self._ring, self._node):
            return ""
        return encode(agent_document(self._compiled, self._ring, self._node)).decode()


class Firewall:
    """What templates see of the table inet meshctl; prefixes are in canonical order."""

    def __init__(self, mesh: Mesh, decisions: Decisions, links: tuple[Link, ...]) -> None:
        self._mesh = mesh
        self._decisions = decisions
        self._links = links
        self.interfaces = tuple(link.attachment.interface for link in links)
        self.cidrs_v4, self.cidrs_v6 = _split(c for link in links for c in mesh.networks[link.network].cidrs)
        self.has_v6 = bool(self.cidrs_v6)
        self.exit_mark = links[0].fwmark if links else 0
        self.routes_v4, self.routes_v6 = _split(merge_prefixes(mesh.nodes[links[0].node].routes) if links else ())
        self.masquerades = bool(self.routes_v4 or self.routes_v6 or any(link.exit_users for link in links))

    @cached_property
    def table(self) -> FirewallTable:
        """Verdict maps and chains: what policies decide here. Made when a template asks for it."""
        return FirewallTable(self._mesh, self._decisions, self._links)


def _split(prefixes: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """IPv4 and IPv6 prefixes apart, each in canonical order."""
    ordered = sort_prefixes(prefixes)
    v4 = tuple(p for p in ordered if version(p) == 4)
    return v4, ordered[len(v4):]
