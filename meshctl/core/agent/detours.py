"""Relays and splices of one peer: what is said to them, what they want done, and what becomes of the path by them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RelayGrant, RelayRefuse, Splice
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import PeerWork
from meshctl.core.agent.relayoutputs import Ready, Say
from meshctl.core.agent.splice import Failed
from meshctl.core.agent.statemachine import PathStateMachine
from meshctl.core.wire import stun


class Detours:
    """Relays and splices of one peer. Call `news` after any call of `work.relay` or `work.splice` from elsewhere: what
    they want done is done then."""

    def __init__(self, machine: PathStateMachine, work: PeerWork, context: InterfaceContext) -> None:
        self._machine, self._work, self._context = machine, work, context
        self._relay, self._splice = work.relay, work.splice

    # What comes in

    def anchors_changed(self, now: float) -> None:
        """An anchor has come, gone, or is nearer or farther than it was."""
        self._context.touch(self._work.peer.id)
        if self._relay.wanted:
            self._work.want_relay(now)
            self.news(now)

    def keep_anchors(self, anchors: Container[bytes], now: float) -> None:
        """The others are no anchors any more."""
        self._context.touch(self._work.peer.id)
        self._relay.keep(anchors, now)
        self.news(now)

    def anchor_restarted(self, anchor: PeerConfig, now: float) -> None:
        """An anchor's agent is a new one, which may have forgotten its relays."""
        self._relay.anchor_restarted(anchor, now)
        self.anchors_changed(now)

    def anchor_speaks(self, anchor: PeerConfig, now: float) -> None:
        """An anchor has said something of its own accord."""
        self._context.touch(self._work.peer.id)
        self._relay.anchor_speaks(anchor, now)

    def answered(self, anchor: PeerConfig, answer: RelayGrant | RelayRefuse, now: float) -> None:
        """An anchor's relay to the peer, or none there. One at no address that can be an endpoint is as none."""
        self._context.touch(self._work.peer.id)
        if isinstance(answer, RelayGrant):
            places = self._context.relay_places(anchor.id, answer.relay)
            if places:
                self._relay.granted(anchor, replace(answer, relay=places), now)
                self._work.tolerate_relay(now)
        else:
            self._relay.refused(anchor, answer, now)
        self.news(now)

    def spliced(self, said: Splice, now: float) -> None:
        """The peer, behind a hard NAT, has opened ports."""
        situation, machine = self._work.situation(now), self._machine
        if machine.state is State.RELAYED and situation is not None and not self._splice.received(said, situation, now):
            machine.fire(Trigger.SPLICE_BEGUN, "the peer has opened ports in its NAT", now)

    def restored(self, pair: Pair, now: float) -> None:
        """A splice stood there before a restart."""
        self._splice.restore(pair)
        self._splice_news(now)

    # What is to be done

    def poll(self, now: float) -> None:
        """Do what is due."""
        self._splice.poll(now)
        relay_due = self._relay.due()
        if relay_due is not None and now >= relay_due:
            self._relay.poll(self._context.bases, now)
        self.news(now)

    def try_splice(self, now: float) -> None:
        """No pair was agreed on: perhaps one is that leads through many ports. Why that is not tried is remembered."""
        situation = self._work.situation(now)
        if self._machine.state is not State.RELAYED or situation is None or not self._work.may_go_direct:
            return
        if self._work.negotiation.damping.any(now):
            self._machine.history.explain("ways that kept failing are not taken for a while, though they may answer")
        elif not self._work.negotiation.promising:
            refusal = self._splice.start(situation, now)
            if refusal:
                self._machine.history.explain(f"no ports are tried: {refusal}")
            else:
                self._machine.fire(Trigger.SPLICE_BEGUN, "this node's NAT is hard and the peer's is easy", now)

    def may_take(self, pair: Pair, now: float) -> bool:
        """The path is about to use the pair: whether it can be used, and all that it needs is done."""
        if not self._splice.take(pair):
            return False
        self._splice_news(now)
        return True

    def stop(self, now: float) -> None:
        """Nothing of them is to outlive the path."""
        self._relay.release()
        self._splice.stop()
        self.news(now)

    def news(self, now: float) -> None:
        """Do what relays and splices want done, and see what has become of them."""
        for output in self._relay.outputs():
            if isinstance(output, Say):
                self._context.say(output.anchor, output.body, now)
            elif isinstance(output, SendProbe):
                self._context.probe(output, self._bound)
            elif isinstance(output, Ready):
                self._machine.relay_ready(now)
            elif self._machine.state not in (State.UNKNOWN, State.PROBING):
                self._machine.fire(Trigger.RELAY_LOST, "the anchor does not answer", now)
        self._splice_news(now)

    # Inside

    def _splice_news(self, now: float) -> None:
        for output in self._splice.outputs():
            if isinstance(output, Splice):
                self._context.say(self._work.peer, output, now)
            elif isinstance(output, SendProbe):
                self._context.nat.sent(output.local, output.remote, now)
                self._work.negotiation.send(output)
            elif not isinstance(output, Failed):
                self._context.act(output)
            elif self._machine.state is State.SPLICING:
                self._machine.fire(Trigger.SPLICE_FAILED, "no port was hit", now)

    def _bound(self, received: stun.Received, local: Address, remote: Address, now: float) -> bool:
        """A relay has answered a bind; whether it has, for who knows no token changes nothing."""
        token = self._relay.token_of(received.message.transaction)
        if token is None or not received.is_authentic(token):
            return False
        self._context.touch(self._work.peer.id)
        mapped = received.message.xor_mapped_address
        if mapped is not None:
            self._context.nat.observe(local, remote, Address.of(*mapped), now)
        self._relay.answered(received.message, now)
        if remote == self._relay.ready:
            self._work.liveness.carried(now)
        self.news(now)
        return True
