"""Signalling in one network: who is spoken with, which way messages take, and what comes in for whom."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from meshctl.core.agent.bodies import Body
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.conversation import Conversation
from meshctl.core.agent.events import Action, SendSignal, Signal
from meshctl.core.agent.router import Local, Onward, Router
from meshctl.core.agent.session import Verdict
from meshctl.core.agent.signal import NO_SESSION

# What changes nothing, so that nothing is to be settled after it either.
_NOTHING = (Verdict.REFUSED, Verdict.FOREIGN, Verdict.DUPLICATE)


class Heard(NamedTuple):
    """What a message for this node means. `body` is None when it was about the session alone; `renewed`: the session is
    another one; `revived`: the peer had been taken for lost."""

    peer: PeerConfig
    body: Body | None
    renewed: bool
    revived: bool
    from_mesh_ip: str


class Signalling:
    """The signalling of one network. `up` gives the names of the peers whose tunnels work; `act` has a message sent;
    `carried` hears of each message in a peer's tunnel, its size, and whether it was sent."""

    def __init__(
        self, config: InterfaceConfig, dice: random.Random, act: Callable[[Action], None],
        up: Callable[[], AbstractSet[str]], carried: Callable[[PeerConfig, int, bool], None],
    ) -> None:  # fmt: skip
        self._dice, self._act, self._up, self._carried = dice, act, up, carried
        self._conversations: dict[bytes, Conversation] = {}
        self.configure(config)

    def configure(self, config: InterfaceConfig) -> None:
        """The peers are these. Conversations with those that stay go on."""
        self._router, self._id = Router(config), config.id
        kept = self._conversations
        self._conversations = {}
        for peer in sorted(config.peers, key=lambda p: p.name):
            if peer.kind != "client":
                conversation = kept.get(peer.id)
                same = conversation is not None and conversation.peer.pair_key == peer.pair_key
                self._conversations[peer.id] = conversation if conversation is not None and same else self._begin(peer)
                self._conversations[peer.id].peer = peer

    def begin_anew(self, peer: PeerConfig) -> None:
        """A new conversation: the peer's agent says again all that it has said before."""
        self._conversations[peer.id] = self._begin(peer)

    def conversation(self, peer: PeerConfig) -> Conversation:
        """The conversation with a peer that has an agent. Raises KeyError for a client."""
        return self._conversations[peer.id]

    def conversation_by_id(self, peer: bytes) -> Conversation | None:
        """The same, None for who has no agent."""
        return self._conversations.get(peer)

    def my_session(self, peer: bytes) -> bytes:
        """This agent's session with the peer of that id; `NO_SESSION` with none that has an agent."""
        return self._conversations[peer].session.mine if peer in self._conversations else NO_SESSION

    def their_session(self, peer: bytes) -> bytes:
        """That peer's session with this agent, as far as it is known."""
        return self._conversations[peer].session.theirs if peer in self._conversations else NO_SESSION

    def poll(self, peer: PeerConfig, now: float) -> None:
        """Send what is due to this peer."""
        for data, attempt in self._conversations[peer.id].poll(now):
            self._send(peer, data, attempt)

    def say(self, peer: PeerConfig, body: Body, now: float) -> bool:
        """Tell a peer something once; where there is no session with it (yet), that is asked for instead."""
        conversation = self._conversations[peer.id]
        data = conversation.seal(body)
        if data is None:
            conversation.ask(now)
        else:
            self._send(peer, data, 0)
        return data is not None

    def knock(self, peer: PeerConfig) -> None:
        """Send something through the peer's own tunnel, so that WireGuard renews its keys if it must."""
        self._hand(peer, self._conversations[peer.id].session.knock())

    def answer(self, heard: Heard, body: Body) -> None:
        """Answer a message the way it came, which works now."""
        data = self._conversations[heard.peer.id].seal(body)
        if data is not None:
            self._back(heard.from_mesh_ip, data)

    def receive(self, event: Signal, now: float) -> Heard | None:
        """A message that came in: handed on here if it is for another; None also when it counts for nothing."""
        last_hop = self._router.owner(event.from_mesh_ip)
        if last_hop is not None:
            self._carried(last_hop, len(event.data), False)
        routed = self._router.receive(event.data, event.from_mesh_ip, self._up(), now)
        if isinstance(routed, Onward):
            for hop in routed.hops:
                self._hand(hop, routed.data)
        if not isinstance(routed, Local):
            return None
        conversation = self._conversations[routed.source.id]
        lost = conversation.lost
        received = conversation.receive(event.data, now)
        if received.verdict in _NOTHING:
            return None
        for reply in received.replies:
            self._back(event.from_mesh_ip, reply)
        body = received.message.body if received.message is not None else None
        return Heard(conversation.peer, body, received.renewed, lost and not conversation.lost, event.from_mesh_ip)

    def peers(self) -> Iterator[PeerConfig]:
        """All that have an agent."""
        return (conversation.peer for conversation in self._conversations.values())

    def _begin(self, peer: PeerConfig) -> Conversation:
        return Conversation(self._id, peer, self._dice)

    def _send(self, peer: PeerConfig, data: bytes, attempt: int) -> None:
        hop = self._router.route(peer, attempt, self._up())
        if hop is not None:
            self._hand(hop, data)

    def _hand(self, hop: PeerConfig, data: bytes) -> None:
        self._carried(hop, len(data), True)
        self._act(SendSignal(hop.mesh_addresses[0], data))

    def _back(self, mesh_ip: str, data: bytes) -> None:
        hop = self._router.owner(mesh_ip)
        if hop is not None:
            self._carried(hop, len(data), True)
        self._act(SendSignal(mesh_ip, data))
