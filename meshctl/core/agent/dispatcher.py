"""Who hears of what: messages, new sessions, and anchors that have come or gone, handed to the parts they concern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.core.agent.address import Address
from meshctl.core.agent.anchorduty import AnchorDuty
from meshctl.core.agent.anchorlinks import AnchorLinks, Change
from meshctl.core.agent.bodies import Ack, Observed, Offer, RelayGrant, RelayRefuse, Splice
from meshctl.core.agent.checklist import Credentials
from meshctl.core.agent.clients import ClientPaths
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.gatherer import Gatherer
from meshctl.core.agent.interfacecontext import DUTY, GATHER, InterfaceContext
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S
from meshctl.core.agent.path import State
from meshctl.core.agent.peer import PeerPath
from meshctl.core.agent.signalling import Heard, Signalling
from meshctl.core.agent.stunport import StunPort
from meshctl.core.wire.stun import Received
from meshctl.model.keys import PublicKey

CHECK_PURPOSE = b"checks"

Statuses = Mapping[PublicKey, PeerStatus]


@dataclass(frozen=True)
class Dispatcher:
    """Of one network, between its parts. `paths` are by the peers' ids; `duty` is None where this node is no anchor."""

    context: InterfaceContext
    signalling: Signalling
    stun: StunPort
    gatherer: Gatherer
    links: AnchorLinks
    paths: Mapping[bytes, PeerPath]
    clients: ClientPaths
    duty: AnchorDuty | None

    def ask(self, peer: PeerConfig, now: float, *, opened: bool = False) -> None:
        """Have the peer's agent asked whether it lives; `opened`: there is a way to it that was not there before."""
        self.signalling.conversation(peer).ask(now, opened=opened)
        self.context.touch(peer.id)

    def seek(self, now: float) -> None:
        """There is a way for messages that was not there before: ask for those who could not be reached."""
        for path in self.paths.values():
            if path.state in (State.UNKNOWN, State.PROBING):
                self.ask(path.peer, now, opened=True)

    def tunnel_up(self, path: PeerPath, now: float) -> None:
        """A peer's tunnel has keys: its agent can be asked by it, and where no anchor is, others by way of that."""
        if not any(link.up for link in self.context.anchors.values()):
            self.seek(now)
        elif path.state in (State.UNKNOWN, State.PROBING):
            self.ask(path.peer, now, opened=True)

    def greet_anchors(self, now: float) -> None:
        """A message in each tunnel shows the anchor where this node is now; and tells whether it is heard."""
        for link in self.context.anchors.values():
            self.ask(link.peer, now)

    def links_changed(self, change: Change, now: float) -> None:
        """Anchors have come up, gone, or are nearer or farther than they were."""
        for anchor in change.came:
            self.links.measure(anchor.id, now)
            self.ask(anchor, now, opened=True)
            self.seek(now)
        if change.any:
            for path in self.paths.values():
                path.detours.anchors_changed(now)

    def gather(self, now: float) -> None:
        """It is time to ask where this node is seen, or to hear that somebody does not answer."""
        self.context.touch(GATHER)
        probe = self.gatherer.poll(now)
        if probe is not None:
            self.stun.ask(probe, self._seen)
        for server in self.gatherer.silent(now):
            self.links_changed(self.links.silent(server, now), now)

    def heard(self, heard: Heard, statuses: Statuses, now: float) -> None:
        """A message for this node; `statuses` is the last reading of WireGuard's counters."""
        self.context.touch(heard.peer.id)
        if heard.renewed or heard.revived:
            self._met(heard, statuses, now)
        if isinstance(heard.body, Observed) and heard.peer.is_anchor:
            self._observed(heard.peer, heard.body, statuses, now)
        elif heard.body is not None:
            self._message(heard, now)

    # Inside

    def _met(self, heard: Heard, statuses: Statuses, now: float) -> None:
        """There is a new session with a peer, or one that was lost is there again."""
        peer, session = heard.peer, self.signalling.conversation(heard.peer).session
        if peer.is_anchor:
            self.seek(now)
        if peer.is_anchor and heard.renewed:
            self.links.measure(peer.id, now)
            for other in self.paths.values():
                other.detours.anchor_restarted(peer, now)
        if self.duty is not None:
            self.duty.greet(peer, statuses, now)
        path = self.paths.get(peer.id)
        if path is not None:
            mine, theirs = session.mine.hex(), session.theirs.hex()
            self.stun.expect(peer.id, f"{mine}:{theirs}")
            path.session(Credentials(f"{theirs}:{mine}", session.shared_key(CHECK_PURPOSE)), now)

    def _message(self, heard: Heard, now: float) -> None:
        peer, body, path = heard.peer, heard.body, self.paths.get(heard.peer.id)
        conversation = self.signalling.conversation(peer)
        if isinstance(body, Offer):
            if not conversation.offers.take(now):
                return
            newer, ack = conversation.receiver.receive(body)
            self.signalling.answer(heard, ack)
            if newer and path is not None:
                path.offered(body, now)
        elif isinstance(body, Ack):
            conversation.sender.acknowledged(body, now)
        elif isinstance(body, Splice) and path is not None:
            path.detours.spliced(body, now)
        elif isinstance(body, (RelayGrant, RelayRefuse)) and peer.is_anchor:
            other = self.paths.get(body.peer)
            if other is not None:
                other.detours.answered(peer, body, now)
        elif self.duty is not None and body is not None:
            self.duty.relay_message(peer, body, now)
            self.context.touch(DUTY)

    def _seen(self, received: Received, local: Address, remote: Address, now: float) -> bool:
        self.context.touch(GATHER)
        seen = self.gatherer.answered(received, local, remote, now)
        if seen is not None:
            self.links_changed(self.links.answered(seen, now), now)
        return seen is not None

    def _observed(self, anchor: PeerConfig, body: Observed, statuses: Statuses, now: float) -> None:
        """An anchor's word on where it sees this node, and clients. Where it saw this node last before their tunnel
        ended says nothing of the present."""
        status = statuses.get(anchor.public_key)
        server = status.endpoint if status else None
        for observation in [o for o in body.observations if o.age_s < IDLE_HANDSHAKE_MAX_S]:
            base = self.context.own.base(observation.address.family)
            if observation.node == self.context.config.id and base and server and server.family == base.family:
                self.gatherer.seen("observed", base, server, observation.address, now)
                self.context.touch(GATHER)
        for path in self.paths.values():
            path.detours.anchor_speaks(anchor, now)
        for action in self.clients.observed(anchor.id, body, statuses, now):
            self.context.act(action)
