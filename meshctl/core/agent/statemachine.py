"""The state machine of one peer's path: it goes by the table (`path`), keeps the reasons, and has the effects done."""

from __future__ import annotations

from meshctl.core.agent.bodies import Wish
from meshctl.core.agent.history import Decision, History
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.path import Effect, State, Trigger, step
from meshctl.core.agent.peerwork import RETRY_FIRST_S, PeerWork

RELAYED = (State.RELAYED, State.SPLICING)
SEARCHING = (*RELAYED, State.PROBING)
DIRECT = (State.DIRECT, State.SUSPECT)


class PathStateMachine:
    """The state machine of the path to one peer. `since`: when the state became what it is."""

    def __init__(self, work: PeerWork, context: InterfaceContext, now: float) -> None:
        self.state = State.UNKNOWN
        self.since = now
        self.history = History()
        self._work, self._context = work, context

    def fire(self, trigger: Trigger, reason: str, now: float) -> None:
        """Something happened. Raises IllegalTransitionError when it cannot have."""
        found = step(self.state, trigger)
        self.history.add(Decision(now, self.state, found.state, trigger, reason))
        if found.state is not self.state:
            self.since = now
        self.state = found.state
        self._context.touch(self._work.peer.id)
        for effect in found.effects:
            self._work.do(effect, now)
        self._linger(now)
        if self.state is State.PROBING:
            if trigger in (Trigger.RELAY_LOST, Trigger.EXHAUSTED):  # then a bad way is better than none
                self._work.negotiation.damping.clear()
            self.relay_ready(now)

    def relay_ready(self, now: float) -> None:
        """Take the relay that is ready, if there is one and the path is to have one."""
        work = self._work
        if work.relay.ready is None or work.mode is Wish.DIRECT or self.state is State.UNKNOWN or work.tunnel.missing:
            return
        anchor = work.relay.used_anchor
        words = f"both ends are bound at {anchor.name}" if anchor else "both ends are bound"
        if self.state in DIRECT and not work.may_go_direct:
            self.fire(Trigger.DEMOTED, f"an operator wants the relay, and {words}", now)
        else:
            self.fire(Trigger.RELAY_READY, words, now)

    def missing(self, now: float) -> None:
        """WireGuard has no such peer: nothing goes to it by any way, whatever answers checks."""
        reason = "WireGuard has no such peer"
        if self.state is State.DIRECT:
            self.fire(Trigger.DISTRESS, reason, now)
        if self.state is State.SUSPECT:
            self.fire(Trigger.DEAD, reason, now)
        elif self.state in RELAYED:
            self.fire(Trigger.RELAY_LOST, reason, now)

    def found(self, now: float) -> None:
        """WireGuard has the peer again, perhaps without an endpoint."""
        if self.state is State.PROBING:
            self._work.begin_anew(now)
            self._work.do(Effect.ASK_RELAY, now)
            self.relay_ready(now)

    def obey(self, now: float, *, hurry: bool = True) -> None:
        """The operators at both ends together want something else than before. `hurry`: where that means to try all
        pairs anew, do so at once."""
        work = self._work
        if self.state is State.UNKNOWN:
            return
        if not work.may_go_direct or work.mode is Wish.PREFER_RELAY:
            work.do(Effect.ASK_RELAY, now)  # one that was about to be given up, too
            self.relay_ready(now)
        elif work.mode is Wish.DIRECT and self.state in RELAYED:
            self.fire(Trigger.RELAY_LOST, "an operator wants the direct path", now)
            work.linger(now)  # until that has had time to be found
        elif self.state in SEARCHING:
            if hurry:
                work.begin_anew(now)
            else:
                work.retry_soon(now + RETRY_FIRST_S)
            if self.state is State.PROBING:  # one of the two ways alone may have been wanted
                work.do(Effect.ASK_RELAY, now)
                self.relay_ready(now)
        self._linger(now)

    def _linger(self, now: float) -> None:
        if self.state is State.DIRECT and self._work.release_at is None:
            self._work.linger(now)
