"""Stock clients: WireGuard without an agent. Where they are, only anchors and peers that hear them can tell.

An anchor tells the peers that a client may reach where it sees the client. They take that for its endpoint, and send
keepalives so that the client's NAT lets them in, for as long as the client lives: one that has been silent for two
minutes is asleep, and keepalives would only wear its battery out when it wakes. An endpoint that is written down in the
inventory is nobody's to change.

A client that a node hears itself is where it is heard. When it moves, a NAT in front of the node may let nothing of it
in from there, and only the anchors know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import NamedTuple

from meshctl.core.agent.address import Address, refusal
from meshctl.core.agent.bodies import Observation, Observed
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import Action, PeerStatus, SetEndpoint, SetKeepalive
from meshctl.model.keys import PublicKey

# Without a handshake, or anything else of it, for so long a client is gone.
SILENT_S = 120.0
# A client that an anchor has heard at another IP since has moved there, if the anchor heard it before where it is heard
# here, or its keepalives are late by so much here. Not at another port: that is how its NAT may show it to the anchor.
LATE_S = 5.0
# When a client was heard is known to a second, on both sides.
ABOUT_S = 2.0
# An anchor tells again what has not changed, for who was not there the first time.
REPEAT_S = 30.0
# Behind a hard NAT each anchor sees a client elsewhere. The word of one counts, until another has heard it so much
# later: a client that lives sends its keepalives, 25 s apart by custom, to all of them.
LATER_S = 30.0
# One message holds so many; what is left goes with the next one.
MAX_OBSERVATIONS = 32


class _Signs:
    """When each client last showed that it lives: by a handshake, or by bytes that came. An idle one that sends
    keepalives renews its keys only with the first of them after two minutes."""

    def __init__(self) -> None:
        self._came: dict[PublicKey, tuple[int, float]] = {}  # bytes, and since when there were so many

    def age_s(self, status: PeerStatus, now: float) -> float:
        """Seconds since then, as this reading shows it; `inf` for one that was never here."""
        if status.handshake_age_s is None:
            return inf
        known = self._came.get(status.public_key)
        if known is None or status.rx_bytes < known[0]:
            known = self._came[status.public_key] = (status.rx_bytes, -inf)
        elif status.rx_bytes > known[0]:
            known = self._came[status.public_key] = (status.rx_bytes, now)
        return min(status.handshake_age_s, now - known[1])


class _Seen(NamedTuple):
    """Where and when the anchor whose word counts has last heard a client, and the IP at which it was before, "" for
    none."""

    by: bytes
    place: Address
    heard_at: float
    left: str


class ClientWatch:
    """On an anchor: what it sees of clients, for the peers that each of them may reach."""

    def __init__(self, config: InterfaceConfig) -> None:
        clients = (p for p in config.peers if p.kind == "client" and not p.endpoints)
        self._clients = {p.public_key: p for p in sorted(clients, key=lambda p: p.public_key)}
        self._others = [p for p in config.peers if p.kind != "client"]
        self._told: dict[str, tuple[tuple[tuple[bytes, Address], ...], float]] = {}
        self._signs = _Signs()

    def tell(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> Iterator[tuple[PeerConfig, Observed]]:
        """What is new, by who is to hear it. `statuses` is public key -> status of this interface's peers."""
        seen = list(self._seen(statuses, now))
        for peer in self._others:
            found = tuple(
                o for client, o in seen if peer.name in client.reaches and client.name in peer.reaches
            )
            places = tuple((o.node, o.address) for o in found)
            told, at = self._told.get(peer.name, ((), now))
            if places != told or (places and now - at >= REPEAT_S):
                self._told[peer.name] = places, now
                for first in range(0, len(found), MAX_OBSERVATIONS):
                    yield peer, Observed(found[first : first + MAX_OBSERVATIONS])

    def forget(self, peer: PeerConfig) -> None:
        """A peer's agent is a new one, which was told nothing."""
        self._told.pop(peer.name, None)

    def _seen(
        self, statuses: Mapping[PublicKey, PeerStatus], now: float
    ) -> Iterator[tuple[PeerConfig, Observation]]:
        """The clients that live, and where, in order."""
        for key, client in self._clients.items():
            status = statuses.get(key)
            if status is not None and status.endpoint is not None:
                age_s = self._signs.age_s(status, now)
                if age_s < SILENT_S:
                    yield client, Observation(client.id, status.endpoint, int(age_s))


class ClientPaths:
    """On any node: endpoints and keepalives of the clients that are its peers."""

    def __init__(self, config: InterfaceConfig) -> None:
        self._alive: dict[bytes, float] = {}  # when each was last known to live
        self._seen: dict[bytes, _Seen] = {}
        self._signs = _Signs()
        self.configure(config)

    def configure(self, config: InterfaceConfig) -> None:
        """The clients are these. What is known of those that stay is kept."""
        self._ranges = config.mesh_ranges
        self._keepalive_s = config.keepalive_s
        clients = [p for p in config.peers if p.kind == "client" and not p.endpoints]
        self._clients = {p.id: p for p in sorted(clients, key=lambda p: p.id) if p.permitted}
        self._forbidden = [p for p in clients if not p.permitted]  # which may have been permitted
        self._alive = {node: since for node, since in self._alive.items() if node in self._clients}
        self._seen = {node: seen for node, seen in self._seen.items() if node in self._clients}

    def observed(
        self, anchor: bytes, body: Observed, statuses: Mapping[PublicKey, PeerStatus], now: float
    ) -> Iterator[Action]:
        """An anchor's word."""
        for observation in body.observations:
            client = self._clients.get(observation.node)
            if client is None or observation.age_s >= SILENT_S:
                continue
            address = observation.address
            if refusal(address.ip, address.port, self._ranges):
                continue
            status = statuses.get(client.public_key)
            heard_at = now - observation.age_s
            self._lives(observation.node, heard_at)
            self._note(observation.node, anchor, address, heard_at)
            if status is None:
                yield SetEndpoint(client.public_key, address)
            else:
                yield from self._follow(client, status, now)
            yield from self._keep(client, status, self._keepalive_s)

    def sample(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> Iterator[Action]:
        """One reading of the counters: who lives is kept alive, who was silent for too long is left alone."""
        for node, client in self._clients.items():
            status = statuses.get(client.public_key)
            age_s = self._signs.age_s(status, now) if status is not None else inf
            if status is not None:
                yield from self._follow(client, status, now)
            if age_s < SILENT_S:
                self._lives(node, now - age_s)
                yield from self._keep(client, status, self._keepalive_s)
            elif now - self._alive.get(node, -inf) >= SILENT_S:
                self._alive.pop(node, None)
                yield from self._keep(client, status, 0)
        for client in self._forbidden:
            yield from self._keep(client, statuses.get(client.public_key), 0)

    def _note(self, node: bytes, anchor: bytes, address: Address, heard_at: float) -> None:
        """Take the anchor's word, unless another one's counts, or one that is newer."""
        before = self._seen.get(node, _Seen(anchor, address, -inf, ""))
        if heard_at >= before.heard_at + (0.0 if anchor == before.by else LATER_S):
            left = before.left if address.ip == before.place.ip else before.place.ip
            self._seen[node] = _Seen(anchor, address, heard_at, left)

    def _follow(self, client: PeerConfig, status: PeerStatus, now: float) -> Iterator[Action]:
        """To where an anchor has heard it, unless it is heard here."""
        seen = self._seen.get(client.id)
        if seen is None or seen.place == status.endpoint or now - seen.heard_at >= SILENT_S:
            return
        age_s = self._signs.age_s(status, now)
        if age_s >= SILENT_S or (status.endpoint is not None and self._moved(seen, status.endpoint, now - age_s, now)):
            yield SetEndpoint(client.public_key, seen.place)

    def _moved(self, seen: _Seen, here: Address, heard_here_at: float, now: float) -> bool:
        """Whether the client is where an anchor has heard it, and not where this node did last."""
        if seen.place.ip == here.ip or seen.heard_at + ABOUT_S < heard_here_at:
            return False
        return seen.left == here.ip or now - heard_here_at > self._keepalive_s + LATE_S

    def _lives(self, node: bytes, when: float) -> None:
        self._alive[node] = max(when, self._alive.get(node, -inf))

    @staticmethod
    def _keep(client: PeerConfig, status: PeerStatus | None, keepalive_s: int) -> Iterator[Action]:
        """What WireGuard does counts, not what it was told: another agent may have told it, or the interface is new."""
        if keepalive_s != (status.keepalive_s if status is not None else 0):
            yield SetKeepalive(client.public_key, keepalive_s)
