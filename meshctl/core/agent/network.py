"""One network of this node: its peers' paths, its links to anchors, and what an anchor does for others, wired together.

Nothing is decided here but which part an event is for, and who hears of what it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf

from meshctl.core.agent.address import Address, LocalAddress, refusal
from meshctl.core.agent.anchorduty import AnchorDuty
from meshctl.core.agent.anchorlinks import AnchorLinks
from meshctl.core.agent.bodies import WISHES, Body
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.clients import ClientPaths
from meshctl.core.agent.config import InterfaceConfig, PeerConfig, node_id
from meshctl.core.agent.dispatcher import Dispatcher
from meshctl.core.agent.events import Datagram, PeerStatus, RelayDatagram, RelayFailed, Signal
from meshctl.core.agent.gatherer import Gatherer
from meshctl.core.agent.interfacecontext import DUTY, GATHER, SILENCE, InterfaceContext
from meshctl.core.agent.liveness import has_session
from meshctl.core.agent.nodecontext import NodeContext
from meshctl.core.agent.path import State
from meshctl.core.agent.peer import PeerPath
from meshctl.core.agent.signalling import Signalling
from meshctl.core.agent.silence import Silence
from meshctl.core.agent.state import NOTHING, Kept, KeptPath, KeptRelay
from meshctl.core.agent.stunclient import USERNAME, Server
from meshctl.core.agent.stunport import StunPort
from meshctl.core.agent.timers import Timers
from meshctl.core.wire import stun
from meshctl.model.keys import PublicKey

# A timer besides those of what can be touched.
_CHANGE = b"change"
# With a peer's id behind it: its endpoint is set again and again for a while, and that is all that is due then.
_ENDPOINT = b"endpoint of "
INSISTING = "the endpoint once more"


class Network:
    """One interface of this node. `kept`: what was known before a restart."""

    def __init__(self, config: InterfaceConfig, node_context: NodeContext, now: float, kept: Kept = NOTHING) -> None:
        self.config = config
        dice, act = node_context.dice, node_context.act
        self._act, self._slot, self._handshakes = act, node_context.slot, node_context.handshakes
        self._stun = StunPort(act)
        self._touched: dict[bytes, None] = {}
        self.unsaved = True  # what is to outlive a restart may be another than before
        self.statuses: dict[PublicKey, PeerStatus] = {}
        self.timers: Timers[bytes] = Timers()
        own = LocalCandidates(config.mesh_ranges)
        self.signalling = Signalling(config, dice, act, self._up, self._carried)
        self.context = InterfaceContext(
            config, own, dice, node_context.pace, act, self._stun.ask, self._say, self._touch,
            self.signalling.my_session,
        )  # fmt: skip
        self.gatherer = Gatherer(own, self.context.nat, self.context.transactions)
        self._links = AnchorLinks(self.context, self.gatherer)
        self._silence = Silence(
            self.context, node_context.silence, lambda: self._links.place_for_silence(node_context.slot.taken), now
        )
        self.paths: dict[bytes, PeerPath] = {}
        self._in_session: dict[bytes, PeerPath] = {}  # those whose tunnels had keys in the last reading
        self._clients = ClientPaths(config)
        self._duty: AnchorDuty | None = None
        if config.is_anchor:
            self._duty = AnchorDuty(config, node_context, self._say, self.signalling.their_session)
        self._dispatcher = Dispatcher(
            self.context, self.signalling, self._stun, self.gatherer, self._links, self.paths, self._clients, self._duty
        )
        self._set_peers(now)
        for known in kept.paths:
            path = self.paths.get(node_id(known.peer))
            if path is not None:
                path.restore(known, now)
        if self._duty is not None:
            self._duty.restore([relay for relay in kept.relays if relay.network == config.network], now)
            self._touch(DUTY)

    def replaces(self, config: InterfaceConfig) -> bool:
        """Whether this configuration is of the same interface as the one before, so that `configure` can take it."""
        return self.config.public_key == config.public_key and self._is_here(config)

    def has_another_key(self, config: InterfaceConfig) -> bool:
        """Whether this node's key is all that keeps `configure` from taking the configuration: the paths are the ones
        that there were, then, and are taken over as after a restart."""
        return self.config.public_key != config.public_key and self._is_here(config)

    def _is_here(self, config: InterfaceConfig) -> bool:
        fixed = ("interface", "listen_port", "is_anchor")
        return all(getattr(self.config, name) == getattr(config, name) for name in fixed)

    def configure(self, config: InterfaceConfig, now: float) -> None:
        """Peers have come, gone or changed, and what holds for all of them. Whatever stays is left alone."""
        ranges, self.config = self.config.mesh_ranges, config
        self.context.configure(config)
        if config.mesh_ranges != ranges:
            self.addresses(self.context.hosts, self.context.gateways, now)
        self.signalling.configure(config)
        self._clients.configure(config)
        if self._duty is not None:
            self._duty.configure(config)
        for peer in self._set_peers(now):
            # Of what was said before, for the path that there was or without one, the new path has heard nothing.
            self.signalling.begin_anew(peer)
            self._dispatcher.ask(peer, now, opened=True)

    def _set_peers(self, now: float) -> list[PeerConfig]:
        """Links to anchors and paths to nodes, as the configuration has them. Whose path is a new one."""
        peers = {peer.id: peer for peer in self.signalling.peers()}
        anchors = {key: peer for key, peer in peers.items() if peer.is_anchor}
        self._links.configure(anchors)
        self._silence.keep({peer.public_key for peer in anchors.values()}, now)
        for path in self.paths.values():
            path.detours.keep_anchors(anchors, now)
        # Who speaks with an anchor does so at its own endpoint.
        nodes = {} if self.config.is_anchor else {k: p for k, p in peers.items() if p.permitted and not p.is_anchor}
        left: dict[str, KeptPath] = {}
        for key in [k for k, path in self.paths.items() if k not in nodes or not path.stays(nodes[k])]:
            self._in_session.pop(key, None)
            path = self.paths.pop(key)
            if path.kept is not None:
                left[path.peer.name] = path.kept
            path.stop(now)
        new = [peer for key, peer in sorted(nodes.items()) if key not in self.paths]
        for key, peer in sorted(nodes.items()):
            if key not in self.paths:
                self.paths[key] = PeerPath(peer, self.context, self._slot, self._dispatcher.ask, now)
                if peer.name in left:  # the same node, which has rotated its key: it is where it was
                    self.paths[key].restore(replace(left[peer.name], peer=peer.public_key), now)
            else:
                self.paths[key].configure(peer, now)
            self._touch(key)
        return new

    # What comes in

    def addresses(self, addresses: Iterable[LocalAddress], gateways: tuple[str, ...], now: float) -> None:
        """The host's own, and its default gateways'."""
        self.context.hosts, self.context.gateways = tuple(sorted(addresses)), gateways
        self.gatherer.set_hosts(self.context.hosts, self.config.listen_port, now, gateways)
        self._touch(GATHER)
        if self._duty is not None:
            self._duty.set_addresses(self.context.bases)
        if self.gatherer.moved:
            self._silence.stop(now)
            self._links.hurry(now)

    def endpoints(self, addresses: Callable[[PeerConfig], tuple[Address, ...]], stun_servers: tuple[Address, ...],
                  now: float) -> None:  # fmt: skip
        """Where static endpoints and STUN servers are, as far as they are resolved."""
        strangers = [Server(address) for address in stun_servers]
        self.gatherer.set_servers([*strangers, *self._links.set_endpoints(addresses)], now)
        self._touch(GATHER)
        for key, path in self.paths.items():
            path.static(addresses(path.peer), now)
            self._touch(key)

    def mapped(self, mappings: Iterable[tuple[Address, Address, float]], now: float) -> None:
        """What routers have promised, of all ports: (external, own address, its end)."""
        port = self.config.listen_port
        self.gatherer.mapped([m for m in mappings if m[1].port == port], now)
        self._touch(GATHER)

    def status(self, statuses: dict[PublicKey, PeerStatus], now: float) -> None:
        """One reading of WireGuard's counters; of peers of other networks too."""
        self.statuses = statuses
        self._dispatcher.links_changed(self._links.sample(statuses, now), now)
        for key, path in self.paths.items():
            known = statuses.get(path.peer.public_key)
            if has_session(known):
                if key not in self._in_session:
                    self._dispatcher.tunnel_up(path, now)
                self._in_session[key] = path
            else:
                self._in_session.pop(key, None)
            path.sample(known, now)
        if self._duty is not None:
            self._duty.sample(statuses, now)
        for action in self._clients.sample(statuses, now):
            self._act(action)

    def datagram(self, event: Datagram, now: float) -> None:
        """A STUN message to WireGuard's port, or to one that this network has opened."""
        received = self._stun.receive(event, now)
        if received is None:
            return
        username, pair = received.message.username or "", Pair(event.local, event.remote)
        is_request = received.message.message_class is stun.Class.REQUEST
        if username.startswith(USERNAME):
            if self._duty is not None and is_request:
                self._duty.stun_request(received, event.local, event.remote, now)
            return
        path = self.paths.get(self._stun.whose(username) or b"")
        if path is None or refusal(*event.remote, self.config.mesh_ranges):  # no way may lead through the mesh itself
            return
        if received.is_authentic(path.work.negotiation.key):
            heard = path.check_received if is_request else path.indicated
            if heard(received.message, pair, now):
                self._touch(path.peer.id)

    def relay_datagram(self, event: RelayDatagram, now: float) -> None:
        """On an anchor: a STUN message to a relay port."""
        if self._duty is not None:
            self._duty.bind(event, now)
            self._touch(DUTY)

    def relay_failed(self, event: RelayFailed, now: float) -> None:
        """On an anchor: nothing is forwarded at a port."""
        if self._duty is not None:
            self._duty.relay_failed(event.port, now)
            self._touch(DUTY)

    def signal(self, event: Signal, now: float) -> None:
        """A signalling message."""
        heard = self.signalling.receive(event, now)
        if heard is not None:
            self._dispatcher.heard(heard, self.statuses, now)

    def owns_port(self, port: int) -> bool:
        """Whether what comes to this local port is this network's: WireGuard's own, or one that it has opened."""
        if port == self.config.listen_port or port in self._silence.ports:
            return True
        return any(port in path.work.splice.ports for path in self.paths.values())

    def busy(self, now: float) -> bool:
        """Whether a path is in use or in doubt, so that its counters matter at once."""
        return any(path.busy(now) for path in self.paths.values())

    def dead(self) -> Iterator[PeerConfig]:
        """Peers that are reached in no way."""
        yield from (link.peer for link in self.context.anchors.values() if not link.up)
        for path in self.paths.values():
            if path.state in (State.UNKNOWN, State.PROBING) and not path.work.tunnel.alive:
                yield path.peer

    def clock_stepped(self, now: float) -> None:
        """The host slept: every mapping may be gone, and WireGuard's keys may be too old. A message in each tunnel has
        it make new ones."""
        self.gatherer.slept(now)
        self._touch(GATHER)
        for path in self.paths.values():
            path.work.negotiation.slept()
            if path.state is not State.UNKNOWN:
                self.signalling.knock(path.peer)
        self._links.hurry(now)
        self._silence.stop(now)

    def stop(self, now: float) -> None:
        """Undo what must not outlive it. An anchor forwards on, by the relays that are kept."""
        for path in self.paths.values():
            path.stop(now)
        self._silence.stop(now)
        if self._duty is not None:
            self._duty.stop()

    def kept_relays(self) -> tuple[KeptRelay, ...]:
        """On an anchor: the relays, to be known after a restart."""
        return self._duty.kept() if self._duty is not None else ()

    def kept_paths(self) -> tuple[KeptPath, ...]:
        """The direct paths, to be known after a restart."""
        found = (path.kept for path in self.paths.values())
        return tuple(kept for kept in found if kept is not None)

    def override(self, peer: PublicKey, mode: str, now: float) -> None:
        """An operator's word, if the peer is one of this network's."""
        path = self.paths.get(node_id(peer))
        if path is not None:
            path.override(WISHES[mode], now)
            self._touch(path.peer.id)

    def poll(self, now: float) -> None:
        """Do what is due."""
        for owner in list(self.timers.due(now)):
            if owner == GATHER:
                self._dispatcher.gather(now)
            elif owner == DUTY and self._duty is not None:
                self._duty.poll(now)
                self._touch(DUTY)
            elif owner == SILENCE:
                self._silence.poll(now)
            elif owner.startswith(_ENDPOINT):
                self._insist(owner[len(_ENDPOINT) :], now)
            elif owner != _CHANGE:  # which `settle` sees to
                self._poll_peer(owner, now)

    def settle(self, now: float) -> None:
        """Tell those whom it concerns what has changed, and set the timers: at the end of each event."""
        changed, moved = self.gatherer.take_change(now)
        if changed:
            self._touch(GATHER)
            for key, each in self.paths.items():
                each.network_changed(now, moved=moved)
                self._touch(key)
            if moved:
                self._dispatcher.greet_anchors(now)
        while self._touched:
            key, _ = self._touched.popitem()
            if key == GATHER:
                self.timers.set(GATHER, self.gatherer.due, "where this node is seen")
                self.timers.set(_CHANGE, self.gatherer.changed_at, "peers are to hear of a change")
            elif key == DUTY and self._duty is not None:
                self.timers.set(DUTY, self._duty.due, "a relay ends")
            elif key == SILENCE:
                self.timers.set(SILENCE, self._silence.due(), "how long the NAT keeps mappings")
            else:
                self._settle_peer(key, now)

    # Inside

    def _touch(self, peer: bytes) -> None:
        """Something about this peer may be another than before."""
        self._touched[peer] = None
        self.unsaved = True

    def _settle_peer(self, key: bytes, now: float) -> None:
        """Offer the peer what there is, if it is news, and set its timer."""
        path, link = self.paths.get(key), self.context.anchors.get(key)
        conversation = self.signalling.conversation_by_id(key)
        due = path.work.due if path is not None else None
        when, reason = due if due is not None else (inf, "")
        if path is not None and conversation is not None:
            path.work.offer_by(conversation.sender, now)
        if conversation is not None and conversation.due is not None and conversation.due < when:
            when, reason = conversation.due, "a message"
        if link is not None and link.due is not None and link.due < when:
            when, reason = link.due, "an anchor in doubt"
        self.timers.set(key, when if when < inf else None, reason)
        self._set_insist(key)

    def _insist(self, key: bytes, now: float) -> None:
        if key in self.paths:
            self.paths[key].work.tunnel.insist(now)
            self._set_insist(key)

    def _set_insist(self, key: bytes) -> None:
        when = self.paths[key].work.tunnel.insist_at if key in self.paths else None
        self.timers.set(_ENDPOINT + key, when, INSISTING)

    def _say(self, peer: PeerConfig, body: Body, now: float) -> None:
        """Tell a peer something; its timer is another when there is no session yet."""
        if not self.signalling.say(peer, body, now):
            self._touch(peer.id)

    def _carried(self, peer: PeerConfig, size: int, sent: bool) -> None:
        path, link = self.paths.get(peer.id), self.context.anchors.get(peer.id)
        if not sent:
            self._handshakes.heard(peer.public_key)
        if path is not None:
            path.work.liveness.signalled(size, sent=sent)
        elif link is not None and not sent:
            link.told(size)

    def _up(self) -> frozenset[str]:
        """Names of the peers whose tunnels work; when no anchor's does, each may."""
        nodes = [path.peer.name for path in self._in_session.values() if path.usable]
        return frozenset([*nodes, *self._links.names, *(self._duty.names if self._duty is not None else ())])

    def _poll_peer(self, key: bytes, now: float) -> None:
        self._touch(key)
        conversation, path = self.signalling.conversation_by_id(key), self.paths.get(key)
        failures = conversation.failures if conversation is not None else 0
        if conversation is not None:
            self.signalling.poll(conversation.peer, now)
        if conversation is not None and self._links.poll(key, now):
            self._touch(GATHER)
            # An anchor that was off answers, and has no keys: WireGuard sees it when something is not answered.
            self.signalling.knock(conversation.peer)
        if path is not None:
            if conversation is not None and conversation.failures > failures:
                path.session_lost(now)
            path.poll(now)
