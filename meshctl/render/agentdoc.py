"""What a node's agent is told: its document, from the compiled mesh."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from meshctl.core.agent.config import AgentConfig, Endpoint, InterfaceConfig, PeerConfig, pair_key
from meshctl.core.agent.document import AgentDocument, parse_endpoint
from meshctl.core.anchors import is_usable_anchor
from meshctl.core.psk import PskRing
from meshctl.errors import RenderError
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Node
from meshctl.model.resources import Peer
from meshctl.model.topology import NOBODY, Link, Names, Reach
from meshctl.policy import Compiled

STUN_PORT = 3478  # RFC 8489 section 16


def is_known(compiled: Compiled, ring: PskRing | None, name: str) -> bool:
    """Whether `agent_document` has all that it needs: the node's own keys, and the secret if there are peers."""
    links = compiled.topology.interfaces(name)
    has_keys = all(link.attachment.public_key is not None for link in links)
    return has_keys and (ring is not None or not any(link.peers for link in links))


def agent_document(compiled: Compiled, ring: PskRing | None, name: str) -> AgentDocument:
    """The document of a managed node. Peers whose public key is not known yet are left out.

    The keys by which agents know each other's messages are those of pairs, also where WireGuard itself uses no
    pre-shared key. Raises RenderError without a mesh secret, or for a node whose own key is not known.
    """
    if ring is None and any(link.peers for link in compiled.topology.interfaces(name)):
        hint = "set MESHCTL_SECRET, or `secret:` in the inventory"
        raise RenderError("agents need the mesh's secret to know each other by", where=name, hint=hint)
    ranges = tuple(cidr for network in compiled.mesh.networks.values() for cidr in network.cidrs)
    networks = tuple(_interface(compiled, ring, link, ranges) for link in compiled.topology.interfaces(name))
    servers = [uri.partition(":")[2] for uri in compiled.mesh.stun if uri.startswith("stun:")]  # stuns: is over TLS
    config = AgentConfig(name, networks, tuple(map(_stun_server, servers)))
    limit = compiled.mesh.nodes[name].relay_limit if any(n.is_anchor for n in networks) else None
    return AgentDocument(config, relay_limit=limit or 0)


def _stun_server(text: str) -> Endpoint:
    """Of the rest of a `stun:` URI (RFC 7064), whose port may be left out."""
    has_port = ":" in text and not text.endswith("]")
    return parse_endpoint(text if has_port else f"{text}:{STUN_PORT}")


def _interface(compiled: Compiled, ring: PskRing | None, link: Link, ranges: tuple[str, ...]) -> InterfaceConfig:
    node, attached = compiled.mesh.nodes[link.node], link.attachment
    own = attached.public_key
    if own is None:
        raise RenderError(f"the public key for network {link.network} is not known yet", where=link.node)
    known = [(peer, peer.public_key) for peer in link.peers if peer.public_key is not None]
    psks = ring.psks(own, [key for _, key in known]) if ring else ()
    reaches = compiled.decisions.reaches[link.network]
    shared = _Shared(reaches, frozenset(peer.name for peer, _ in known))
    return InterfaceConfig(
        network=link.network,
        interface=attached.interface,
        public_key=own,
        mesh_addresses=attached.addresses,
        listen_port=attached.listen_port,
        mesh_ranges=ranges,
        keepalive_s=attached.keepalive_s,
        peers=tuple(
            _peer(
                compiled.mesh.nodes[peer.name], link.network, peer, key,
                pair_key=pair_key(base64.b64decode(psk.reveal())),
                permitted=peer.name in reaches[link.node].peers,
                reaches=shared.of(peer.name),
            )
            for (peer, key), psk in zip(known, psks, strict=True)
            if psk is not None
        ),
        is_anchor=is_usable_anchor(node, link.network),
    )  # fmt: skip


def _peer(node: Node, network: str, peer: Peer, public_key: PublicKey, *, pair_key: bytes, permitted: bool,
          reaches: Names) -> PeerConfig:  # fmt: skip
    attached = node.attachment(network)
    assert attached is not None  # noqa: S101 - a peer is in the network
    kind = "client" if not node.has_agent else "anchor" if is_usable_anchor(node, network) else "node"
    return PeerConfig(
        name=peer.name,
        public_key=public_key,
        mesh_addresses=attached.addresses,
        pair_key=pair_key,
        kind=kind,
        endpoints=(parse_endpoint(peer.endpoint),) if peer.endpoint else (),
        permitted=permitted,
        reaches=reaches,
    )


class _Shared:
    """Whom peers reach, among the peers of one node: one set for all of whom policy says the same."""

    def __init__(self, reaches: Mapping[str, Reach], known: Names) -> None:
        self._reaches, self._known = reaches, known
        self._sets: dict[Names, Names] = {}

    def of(self, name: str) -> Names:
        everybody = self._reaches[name].peers if name in self._reaches else NOBODY
        if everybody not in self._sets:
            self._sets[everybody] = everybody & self._known
        return self._sets[everybody]
