"""What an anchor does for others: it tells them where it sees them, and relays for pairs that have no direct path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.allowance import Allowance
from meshctl.core.agent.bodies import Body, Observation, Observed, RelayAsk, RelayRefresh, RelayRelease
from meshctl.core.agent.clients import ClientWatch
from meshctl.core.agent.config import InterfaceConfig, PeerConfig, purpose_key
from meshctl.core.agent.events import PeerStatus, RelayDatagram, SendProbe
from meshctl.core.agent.liveness import has_session
from meshctl.core.agent.nodecontext import NodeContext
from meshctl.core.agent.probes import signed
from meshctl.core.agent.relayserver import RelayServer, SessionOf
from meshctl.core.agent.state import KeptRelay
from meshctl.core.agent.stunclient import PURPOSE, read_username
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.model.keys import PublicKey

# Questions that one node may ask: a few from each of its addresses when its network changes.
QUESTIONS_PER_S, QUESTIONS_BURST = 2.0, 20.0

# What nobody acknowledges is said so many times: so long after the first, then each time after twice as long. A node
# that is cut off for longer than all of them sees itself that keepalives are missed, and asks.
TIMES, AGAIN_S = 6, 2.0

Say = Callable[[PeerConfig, Body, float], None]


class _Told(NamedTuple):
    """Where a node was told to be seen, how often it will be told again, and when."""

    address: Address
    left: int
    again_at: float


class AnchorDuty:
    """An anchor's duties on one interface. `say` tells a peer something; `their_session` gives a peer's session with
    this node, as far as it is known; `names` are the nodes whose tunnels to this anchor work, so that messages can go
    by them."""

    def __init__(self, config: InterfaceConfig, node_context: NodeContext, say: Say, their_session: SessionOf) -> None:
        self._relays = RelayServer(config, node_context.dice, node_context.relay_ports, their_session)
        self._set_peers(config)
        self._say, self._their_session, self._act = say, their_session, node_context.act
        self._told: dict[bytes, _Told] = {}
        self._asked: dict[bytes, Allowance] = {}
        self.names: list[str] = []

    def configure(self, config: InterfaceConfig) -> None:
        """Peers have come, gone or changed: relays of pairs that may not have one any more end, and of who
        has gone nothing is remembered."""
        self._set_peers(config)
        self._told = {node: told for node, told in self._told.items() if node in self._peers}
        self._asked = {node: asked for node, asked in self._asked.items() if node in self._peers}
        self._relays.configure(config)
        self._run()

    def _set_peers(self, config: InterfaceConfig) -> None:
        self._peers = {p.id: p for p in sorted(config.peers, key=lambda p: p.id) if p.kind != "client"}
        self._watch = ClientWatch(config)

    def kept(self) -> tuple[KeptRelay, ...]:
        """The relays, to be known after a restart."""
        return self._relays.kept()

    def restore(self, relays: Iterable[KeptRelay], now: float) -> None:
        """The relays of before a restart."""
        self._relays.restore(relays, now)
        self._run()

    def stop(self) -> None:
        """What it has taken for its relays is free for others; who knows them ends them, or goes on with them."""
        self._relays.stop()

    @property
    def due(self) -> float | None:
        """When `poll` has something to do."""
        return self._relays.due()

    def set_addresses(self, addresses: tuple[Address, ...]) -> None:
        """This anchor's own addresses: one of each family."""
        self._relays.set_addresses(addresses)

    def poll(self, now: float) -> None:
        """End relays that were not refreshed."""
        self._relays.expire(now)
        self._run()

    def relay_message(self, peer: PeerConfig, body: Body, now: float) -> None:
        """A message about relays; without effect if it is another one."""
        if isinstance(body, RelayAsk):
            self._tell(self._relays.ask(peer, body, now), now)
        elif isinstance(body, RelayRefresh):
            self._tell(self._relays.refresh(peer, body, now), now)
        elif isinstance(body, RelayRelease):
            self._relays.release(peer, body)
        self._run()

    def bind(self, event: RelayDatagram, now: float) -> None:
        """Something came to a relay port."""
        answer = self._relays.bind(event.port, event.remote, event.data, now)
        self._run()
        if answer is not None:
            self._act(answer)

    def relay_failed(self, port: int, now: float) -> None:
        """Nothing is forwarded at that port: its pair has to go elsewhere."""
        self._tell(self._relays.failed(port), now)
        self._run()

    def stun_request(self, received: stun.Received, local: Address, remote: Address, now: float) -> None:
        """A node asks where it is seen. Nothing is answered to anybody else."""
        try:
            node, asked_in = read_username(received.message.username or "")
        except ValueError:
            return
        peer = self._peers.get(node)
        key = purpose_key(peer.pair_key, PURPOSE) if peer is not None else b""
        if peer is None or not received.is_authentic(key):
            return
        allowance = self._asked.setdefault(node, Allowance(QUESTIONS_PER_S, QUESTIONS_BURST))
        if allowance.take(received.message, asked_in, self._their_session(node), now):
            answer = stun.success_response(received.message, TransportAddress(*remote))
            # Another port of the same address, where the node wants to know whether its NAT still lets us in.
            to = Address(remote.ip, received.message.response_port or remote.port)
            self._act(SendProbe(local, to, signed(answer, key)))

    def greet(self, peer: PeerConfig, statuses: Mapping[PublicKey, PeerStatus], now: float) -> None:
        """A node's agent is new: it has heard nothing yet."""
        self._told.pop(peer.id, None)
        self._watch.forget(peer)
        self._tell(self._relays.grants(peer), now)
        self.sample(statuses, now)

    def sample(self, statuses: Mapping[PublicKey, PeerStatus], now: float) -> None:
        """Tell nodes where WireGuard sees them, and clients that they may reach, when that is news. An endpoint that
        was written down, or is left of a tunnel that has ended, is no place where anybody is seen."""
        nodes = (peer for peer in self._peers.values() if not peer.is_anchor)
        self.names = [peer.name for peer in nodes if has_session(statuses.get(peer.public_key))]
        for node, peer in self._peers.items():
            status = statuses.get(peer.public_key)
            if status is None or status.endpoint is None or not has_session(status):
                continue
            told = self._told.get(node)
            if told is None or told.address != status.endpoint:
                told = self._told[node] = _Told(status.endpoint, TIMES, now)
            if told.left and now >= told.again_at:
                self._told[node] = _Told(told.address, told.left - 1, now + AGAIN_S * 2.0 ** (TIMES - told.left))
                age = int(status.handshake_age_s or 0)
                self._say(peer, Observed((Observation(node, status.endpoint, age),)), now)
        for peer, observed in self._watch.tell(statuses, now):
            self._say(peer, observed, now)

    def _tell(self, messages: Iterable[tuple[PeerConfig, Body]], now: float) -> None:
        for peer, body in messages:
            self._say(peer, body, now)

    def _run(self) -> None:
        for action in self._relays.actions():
            self._act(action)
