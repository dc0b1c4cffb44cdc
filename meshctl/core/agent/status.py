"""What there is to see of the core: values that `status` and its kin show. Looking changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Lookup
from dataclasses import dataclass
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.anchorlink import AnchorLink
from meshctl.core.agent.candidate import Candidate
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.liveness import has_session
from meshctl.core.agent.nat import Filtering, Mapping
from meshctl.core.agent.network import Network
from meshctl.core.agent.path import State
from meshctl.core.agent.peer import PeerPath
from meshctl.core.agent.relaychoice import FAR_S
from meshctl.core.agent.state import KeptRelay
from meshctl.core.agent.statemachine import DIRECT, RELAYED
from meshctl.model.keys import PublicKey


class PathStatus(NamedTuple):
    """One peer's path, as `status` shows it. `relay` is the anchor's name while it carries the packets, else "";
    `rtt_s` of a relayed path is both ends' way to the anchor and back; `reason` says why the state is what it is;
    `alive`: WireGuard has a session with the peer."""

    network: str
    peer: str
    public_key: PublicKey
    state: State
    endpoint: Address | None
    relay: str
    rtt_s: float | None
    since: float
    reason: str
    kind: str
    alive: bool


@dataclass(frozen=True)
class TunnelStatus:
    """A peer for which the core has no path to find: WireGuard alone knows of it. `status` is its last reading."""

    peer: PeerConfig
    status: PeerStatus | None
    alive: bool


class Candidates(NamedTuple):
    """A peer's, best first, and those that it offered and that are nobody's endpoint, with the reason."""

    usable: tuple[Candidate, ...]
    refused: Lookup[Address, str]


@dataclass(frozen=True)
class NatStatus:
    """The NAT in front of one own address and port. `contradicted`: a server says other than most; `preserves_port`
    and `hairpins` are None where that is not known; `seen` is server -> where it sees this node."""

    base: Address
    mapping: Mapping
    filtering: Filtering
    preserves_port: bool | None
    hairpins: bool | None
    port_step: int
    contradicted: bool
    seen: Lookup[Address, Address]


@dataclass(frozen=True)
class NetworkView:
    """One network. `survived_s` is the longest silence that a NAT's mapping outlived, `lost_s` the shortest after which
    one was gone; `relays` are those that this anchor forwards."""

    config: InterfaceConfig
    tunnels: tuple[TunnelStatus, ...]
    own: tuple[Candidate, ...]
    nats: tuple[NatStatus, ...]
    keepalive_s: int
    survived_s: float
    lost_s: float | None
    relays: tuple[KeptRelay, ...]


def path_statuses(network: Network) -> list[PathStatus]:
    """Every peer that has an agent, by name; to who is an anchor, the link to it."""
    found = [_path(network, path) for path in network.paths.values()]
    found += [_link(network, link) for link in network.context.anchors.values()]
    return sorted(found, key=lambda status: status.peer)


def path_states(network: Network) -> Iterator[tuple[State, float]]:
    """The states of the same, and since when; in no order, but always in the same until peers are others."""
    for path in network.paths.values():
        yield path.state, path.since
    for link in network.context.anchors.values():
        yield _link_state(link), link.since


def view(network: Network, now: float) -> NetworkView:
    """What there is to see of a network besides the paths."""
    context, config = network.context, network.config
    survived_s, lost_s = context.lifetime.known_s
    others = (p for p in config.peers if p.id not in network.paths and p.id not in context.anchors)
    statuses = network.statuses
    return NetworkView(
        config,
        tuple(TunnelStatus(p, (s := statuses.get(p.public_key)), has_session(s)) for p in others),
        context.own.all(),
        tuple(_nat(network, base, now) for base in context.own.bases()),
        context.lifetime.keepalive_s,
        survived_s,
        lost_s,
        network.kept_relays(),
    )


def peer_candidates(network: Network) -> dict[PublicKey, Candidates]:
    """Where each peer may be reached to which there is a path to find."""
    remotes = {path.peer.public_key: path.work.negotiation.remote for path in network.paths.values()}
    return {key: Candidates(remote.all(), remote.refused) for key, remote in remotes.items()}


def _path(network: Network, path: PeerPath) -> PathStatus:
    work, peer = path.work, path.peer
    anchor = work.relay.used_anchor if path.state in RELAYED else None
    rtt_s = path.rtt_s if anchor is None else _relayed_rtt_s(network, path, anchor)
    endpoint = work.tunnel.endpoint
    relay = anchor.name if anchor else "" if path.state in DIRECT else _relaying(network, endpoint)
    return PathStatus(
        network.config.network, peer.name, peer.public_key, path.state, endpoint, relay,
        rtt_s, path.since, path.history.why, peer.kind, work.tunnel.alive,
    )  # fmt: skip


def _relaying(network: Network, endpoint: Address | None) -> str:
    """The anchor whose relay that is, "" where it is none: before this agent began, or the peer's agent was gone."""
    if endpoint is None:
        return ""
    return next((link.peer.name for link in network.context.anchors.values() if link.relays_at(endpoint)), "")


def _relayed_rtt_s(network: Network, path: PeerPath, anchor: PeerConfig) -> float | None:
    """As far as both ends have measured it."""
    link = network.context.anchors.get(anchor.id)
    theirs = next((d.rtt_ms / 1000 for d in path.work.offer.relays if d.anchor == anchor.id), FAR_S)
    return link.rtt_s + theirs if link is not None and link.rtt_s is not None and theirs < FAR_S else None


def _link(network: Network, link: AnchorLink) -> PathStatus:
    reason = "an anchor's own endpoint" if link.up else "no handshake"
    return PathStatus(
        network.config.network, link.peer.name, link.peer.public_key, _link_state(link),
        link.status.endpoint if link.status else None, "", link.rtt_s, link.since, reason, link.peer.kind, link.up,
    )  # fmt: skip


def _link_state(link: AnchorLink) -> State:
    return State.DIRECT if link.up else State.UNKNOWN


def _nat(network: Network, base: Address, now: float) -> NatStatus:
    nat = network.context.nat
    return NatStatus(
        base, nat.mapping(base, now), nat.filtering(base, now), nat.preserves_port(base, now),
        nat.hairpins(base, now), nat.port_step(base, now), nat.contradicted(base, now), nat.seen(base, now),
    )  # fmt: skip
