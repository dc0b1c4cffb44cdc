"""Stock clients: WireGuard without an agent. Where they are, only anchors and peers that hear them can tell.

An anchor tells the peers that a client may reach where it sees the client. They take that for its endpoint, and send
keepalives so that the client's NAT lets them in, for as long as the client lives: one that has been silent for two
minutes is asleep, and keepalives would only wear its battery out when it wakes. An endpoint that is written down in the
inventory is nobody's to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshctl.core.agent.address import Address, refusal
from meshctl.core.agent.bodies import Observation, Observed
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import Action, PeerStatus, SetEndpoint, SetKeepalive
from meshctl.model.keys import PublicKey

# Without a handshake for so long a client is gone: WireGuard makes a new one every two minutes while it has to send.
SILENT_S = 120.0
# An anchor tells again what has not changed, for who was not there the first time.
REPEAT_S = 30.0
# One message holds so many; what is left goes with the next.
MAX_OBSERVATIONS = 32


class ClientWatch:
    """On an anchor: what it sees of clients, for the peers that each of them may reach."""

    def __init__(self, config: InterfaceConfig) -> None:
        self._clients = {p.public_key: p for p in config.peers if p.kind == "client" and not p.endpoints}
        self._others = [p for p in config.peers if p.kind != "client"]
        self._told: dict[str, tuple[tuple[tuple[bytes, Address], ...], float]] = {}

    def tell(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> Iterator[tuple[PeerConfig, Observed]]:
        """What is new, by who is to hear it. `statuses` is public key -> status of this interface's peers."""
        for peer in self._others:
            found = list(self._seen_for(peer, statuses))[:MAX_OBSERVATIONS]
            places = tuple((o.node, o.address) for o in found)
            told, at = self._told.get(peer.name, ((), now))
            if places != told or (places and now - at >= REPEAT_S):
                self._told[peer.name] = places, now
                if found:
                    yield peer, Observed(tuple(found))

    def forget(self, peer: PeerConfig) -> None:
        """A peer's agent is a new one, which was told nothing."""
        self._told.pop(peer.name, None)

    def _seen_for(self, peer: PeerConfig, statuses: Mapping[PublicKey, PeerStatus]) -> Iterator[Observation]:
        for key in sorted(self._clients):
            client, status = self._clients[key], statuses.get(key)
            permitted = peer.name in client.reaches and client.name in peer.reaches
            if permitted and status is not None and status.endpoint is not None and _is_alive(status):
                yield Observation(client.id, status.endpoint, int(status.handshake_age_s or 0))


@dataclass
class _Client:
    """A client that anchors have told of. `since`: when it was last known to live."""

    since: float
    kept: bool = False


class ClientPaths:
    """On any node: endpoints and keepalives of the clients that are its peers."""

    def __init__(self, config: InterfaceConfig) -> None:
        self._alive: dict[bytes, _Client] = {}
        self.configure(config)

    def configure(self, config: InterfaceConfig) -> None:
        """The clients are these. What is known of those that stay is kept."""
        self._ranges = config.mesh_ranges
        self._keepalive_s = config.keepalive_s
        self._clients = {p.id: p for p in config.peers if p.kind == "client" and p.permitted and not p.endpoints}
        self._alive = {node: known for node, known in self._alive.items() if node in self._clients}

    def observed(
        self, body: Observed, statuses: Mapping[PublicKey, PeerStatus], now: float
    ) -> Iterator[Action]:
        """An anchor's word. A client that speaks with this node itself is where this node hears it."""
        for observation in body.observations:
            client = self._clients.get(observation.node)
            if client is None or observation.age_s >= SILENT_S:
                continue
            address = observation.address
            if refusal(address.ip, address.port, self._ranges):
                continue
            status = statuses.get(client.public_key)
            known = self._alive.setdefault(observation.node, _Client(now))
            known.since = max(known.since, now - observation.age_s)
            heard = status is not None and _is_alive(status)
            if not heard and (status is None or status.endpoint != address):
                yield SetEndpoint(client.public_key, address)
            if not known.kept:
                known.kept = True
                yield SetKeepalive(client.public_key, self._keepalive_s)

    def sample(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> Iterator[Action]:
        """One reading of the counters: who lives is kept alive, who was silent for too long is left alone."""
        for node, client in sorted(self._clients.items()):
            status = statuses.get(client.public_key)
            known = self._alive.get(node)
            if status is not None and _is_alive(status):
                known = self._alive.setdefault(node, _Client(now))
                known.since = max(known.since, now - (status.handshake_age_s or 0))
                if not known.kept:
                    known.kept = True
                    yield SetKeepalive(client.public_key, self._keepalive_s)
            elif known is not None and now - known.since >= SILENT_S:
                del self._alive[node]
                yield SetKeepalive(client.public_key, 0)


def _is_alive(status: PeerStatus) -> bool:
    return status.handshake_age_s is not None and status.handshake_age_s < SILENT_S
