"""What the agent tells of itself, as documents for JSON: schemas/agent-answer.schema.json has their shapes.

No key, token or other secret is in any of them. Times are the host's wall clock, RFC 3339, and ages in seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from meshctl import __version__
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.loop import Counts
from meshctl.agent.node.relays import RelayCount
from meshctl.core.agent.address import Address
from meshctl.core.agent.candidate import Candidate
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.nat import Filtering, Mapping
from meshctl.core.agent.path import State
from meshctl.core.agent.state import KeptRelay
from meshctl.core.agent.status import Candidates, NatStatus, NetworkView, PathStatus, TunnelStatus
from meshctl.core.agentcore import AgentCore
from meshctl.model.keys import PublicKey

Document = dict[str, Any]
# The words of RFC 4787.
_MAPPING = {
    Mapping.UNKNOWN: "unknown", Mapping.NO_NAT: "no-nat", Mapping.ENDPOINT_INDEPENDENT: "endpoint-independent",
    Mapping.ADDRESS_DEPENDENT: "address-dependent", Mapping.ADDRESS_AND_PORT_DEPENDENT: "address-and-port-dependent",
}  # fmt: skip
_FILTERING = {
    Filtering.UNKNOWN: "unknown", Filtering.ENDPOINT_INDEPENDENT: "endpoint-independent",
    Filtering.ADDRESS_DEPENDENT: "address-dependent",
}  # fmt: skip
# The inventory's word (`nat:`) for a NAT that maps independently of the endpoint and filters so.
_EASY = {
    Filtering.UNKNOWN: "easy", Filtering.ENDPOINT_INDEPENDENT: "full-cone",
    Filtering.ADDRESS_DEPENDENT: "address-dependent",
}  # fmt: skip


class Report:
    """`core`, `decisions` and `counts` are the running agent's; `relays` tells what an anchor's relays have carried;
    `now` of the calls is the core's time, `started` when the agent began by it."""

    def __init__(
        self, core: AgentCore, decisions: Decisions, counts: Counts, relays: Callable[[], Iterable[RelayCount]],
        started: float,
    ) -> None:  # fmt: skip
        self.core, self.decisions, self.counts = core, decisions, counts
        self._relays, self.started = relays, started

    def status(self, now: float) -> Document:
        """The node in short."""
        views = self.core.views(now)
        states = Counter((path.network, state_of(path)) for path in self.core.paths())
        states.update((v.config.network, tunnel_state(t)) for v in views for t in v.tunnels)
        carried = {(c.port, c.source): c for c in self.relay_counts()}
        networks = [_network(v, {s: states[v.config.network, s] for s in STATES}) for v in views]
        relays = [_relay(v, r, carried) for v in views for r in v.relays]
        return {
            **self._head(now), "since": wall(self.started, now), "age_s": int(now - self.started),
            "networks": networks, "relays": relays,
            "events": dict(sorted(self.counts.events.items())), "failures": dict(sorted(self.counts.failures.items())),
        }  # fmt: skip

    def paths(self, now: float) -> Document:
        """Every peer's path, by network and name."""
        candidates, none = self.core.candidates(), Candidates((), {})
        rows = [path_row(path, candidates.get(path.public_key, none), now) for path in self.core.paths()]
        rows += [tunnel_row(v.config.network, tunnel) for v in self.core.views(now) for tunnel in v.tunnels]
        return {**self._head(now), "paths": sorted(rows, key=lambda row: (row["network"], row["peer"]))}

    def events(self, now: float, after: float) -> Document:
        """The last decisions about all peers, the oldest first; those alone that were not made before `after`, which is
        `next` of the answer before. What is decided at this very moment may not be all yet: it comes with the next."""
        found = []
        for path in self.core.paths():
            for d in self.core.history(path.public_key):
                if after <= d.at < now:
                    row = {"at": wall(d.at, now), "age_s": int(now - d.at), "network": path.network, "peer": path.peer}
                    row |= {"before": d.before.value, "after": d.after.value, "event": d.trigger.value}
                    found.append((d.at, path.network, path.peer, {**row, "reason": d.reason}))
        found.sort(key=lambda entry: entry[:3])
        return {**self._head(now), "events": [entry[3] for entry in found], "next": now}

    def nat(self, now: float) -> Document:
        """What is known of the NATs in front of this node, and what its routers map."""
        mapped, unmapped = self.core.mappings()
        return {
            **self._head(now),
            "networks": [_knowledge(view) for view in self.core.views(now)],
            "mappings": [
                {"gateway": m.held.gateway, "protocol": m.held.protocol, "address": str(m.held.internal),
                 "external": str(m.external), "expires_s": max(0, int(m.expires_at - now))} for m in mapped
            ],
            "unmapped": [{"gateway": g, "address": str(a), "reason": why} for g, a, why in unmapped],
        }  # fmt: skip

    def done(self, what: str, now: float) -> Document:
        """Something was asked for that has no other answer."""
        return {**self._head(now), "done": what}

    def peer(self, name: str) -> list[PublicKey]:
        """The peer's keys: one for each network in which this node has a path to it."""
        return [path.public_key for path in self.core.paths() if path.peer == name and path.kind == "node"]

    def relay_counts(self) -> list[RelayCount]:
        """Of what cannot be counted now (no nftables, say) nothing."""
        try:
            return list(self._relays())
        except (OSError, RuntimeError):
            return []

    # Inside

    def _head(self, now: float) -> Document:
        return {"node": self.core.name, "version": __version__, "at": wall(now, now)}


STATES = ("direct", "relayed", "down")


def path_row(path: PathStatus, candidates: Candidates, now: float) -> Document:
    """One path: where its packets go, told by whether WireGuard has a session by it."""
    reason = path.reason or "its agent has not been heard"
    return {
        "network": path.network, "peer": path.peer, "kind": path.kind, "state": state_of(path),
        "phase": path.state.value, "endpoint": _text(path.endpoint), "relay": path.relay or None,
        "rtt_ms": None if path.rtt_s is None else round(path.rtt_s * 1000, 1),
        "since": wall(path.since, now), "age_s": int(now - path.since),
        "reason": reason if path.alive else f"WireGuard has no session; {reason}", **_candidates(candidates),
    }  # fmt: skip


def state_of(path: PathStatus) -> str:
    """One of STATES."""
    if not path.alive:
        return "down"
    return "relayed" if path.relay or path.state in (State.RELAYED, State.SPLICING) else "direct"


def tunnel_state(tunnel: TunnelStatus) -> str:
    """One of STATES."""
    return "direct" if tunnel.alive else "down"


def tunnel_row(network: str, tunnel: TunnelStatus) -> Document:
    """A peer that WireGuard alone knows of: a stock client; to an anchor, each node."""
    status = tunnel.status
    if status is None or status.handshake_age_s is None:
        reason = "no handshake yet"
    else:
        reason = f"WireGuard's last handshake was {status.handshake_age_s:.0f} s ago"
    return {
        "network": network, "peer": tunnel.peer.name, "kind": tunnel.peer.kind,
        "state": tunnel_state(tunnel), "phase": None, "endpoint": _text(status and status.endpoint),
        "relay": None, "rtt_ms": None, "since": None, "age_s": None, "reason": reason,
        **_candidates(Candidates((), {})),
    }  # fmt: skip


def wall(at: float, now: float) -> str:
    """A time of the core's clock as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(time.time() - (now - at), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def kind_of(nat: NatStatus) -> str:
    """What the inventory would call this NAT (`nat:`); `unknown` where that cannot be told."""
    if nat.mapping.is_hard:
        return "symmetric-sequential" if nat.port_step else "symmetric"
    if nat.mapping is Mapping.ENDPOINT_INDEPENDENT:
        return _EASY[nat.filtering]
    return "none" if nat.mapping is Mapping.NO_NAT else "unknown"


def _network(view: NetworkView, states: Document) -> Document:
    config = view.config
    return {
        "network": config.network, "interface": config.interface, "role": "anchor" if config.is_anchor else "node",
        "addresses": list(config.mesh_addresses), "listen_port": config.listen_port, "peers": states,
    }  # fmt: skip


def _relay(view: NetworkView, relay: KeptRelay, carried: dict[tuple[int, Address], RelayCount]) -> Document:
    names = {peer.public_key: peer for peer in view.config.peers}
    ends = []
    for end in (relay.a, relay.b):
        count = carried.get((relay.port, end.place))
        ends.append({
            "peer": _name(names.get(end.peer)), "address": str(end.place),
            "packets": count.packets if count else 0, "bytes": count.bytes if count else 0,
        })  # fmt: skip
    kernel = all(c.kernel for (port, _), c in carried.items() if port == relay.port)
    return {
        "network": view.config.network, "port": relay.port, "by": "kernel" if kernel else "agent", "ends": ends,
    }  # fmt: skip


def _knowledge(view: NetworkView) -> Document:
    return {
        "network": view.config.network, "interface": view.config.interface, "keepalive_s": view.keepalive_s,
        "survived_s": round(view.survived_s, 1), "lost_s": None if view.lost_s is None else round(view.lost_s, 1),
        "nats": [
            {
                "address": str(nat.base), "kind": kind_of(nat), "mapping": _MAPPING[nat.mapping],
                "filtering": _FILTERING[nat.filtering], "preserves_port": nat.preserves_port,
                "hairpins": nat.hairpins,
                "port_step": nat.port_step, "contradicted": nat.contradicted,
                "seen": [{"server": str(server), "address": str(at)} for server, at in sorted(nat.seen.items())],
            }
            for nat in view.nats
        ],
        "candidates": [_candidate(candidate) for candidate in view.own],
    }  # fmt: skip


def _candidates(found: Candidates) -> Document:
    return {
        "candidates": [_candidate(candidate) for candidate in found.usable],
        "refused": [{"address": str(address), "reason": why} for address, why in sorted(found.refused.items())],
    }


def _candidate(candidate: Candidate) -> Document:
    return {"kind": candidate.kind, "address": str(candidate.address)}


def _name(peer: PeerConfig | None) -> str | None:
    return peer.name if peer is not None else None


def _text(address: Address | None) -> str | None:
    return str(address) if address is not None else None
