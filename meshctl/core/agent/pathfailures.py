"""Direct paths of one peer that are given up: it is remembered where they led (`damping`), and the peer hears of it."""

from __future__ import annotations

from math import inf

from meshctl.core.agent.address import Address
from meshctl.core.agent.blockage import BLOCKED_WORDS
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.peerwork import PeerWork
from meshctl.core.agent.statemachine import DIRECT, PathStateMachine

# After a pair was given up that answers checks, the peer's nominations count for nothing for so long: they were said
# before it heard that. Of a pair that leads to the same address, for longer: the word may be lost, and is said again.
UNHEARD_S, UNHEARD_AGAIN_S = 5.0, 10.0


class PathFailures:
    """The failures of the paths to one peer. `checked_from` is where the peer's last check came from: it may use
    another pair than this end, which has not heard yet that it moved."""

    def __init__(self, machine: PathStateMachine, work: PeerWork) -> None:
        self._machine, self._work = machine, work
        self._blocked_at = -inf
        self.checked_from: Address | None = None

    def just_blocked(self, pair: Pair, now: float) -> bool:
        """Whether a pair was given up though it answers checks, and the peer, which nominates this one, may not have
        heard of it yet. Where one of the two stands elsewhere since then, that is over."""
        damping = self._work.negotiation.damping
        again_s = UNHEARD_AGAIN_S if damping.suppressed(pair.remote.ip, now) else UNHEARD_S
        return damping.any(now) and now < self._blocked_at + again_s

    def heard_by(self, now: float) -> float:
        """When the peer will have heard of the last pair that was given up though it answers checks: not before then is
        another one nominated. As in `just_blocked`."""
        return self._blocked_at + UNHEARD_S if self._work.negotiation.damping.any(now) else -inf

    def dead(self, reason: str, now: float) -> None:
        """The pair in use answers no check."""
        self._fail(reason, now, blocked=False)

    def blocked(self, now: float) -> bool:
        """The pair in use has answered a check: whether it carries nothing else, and was given up for it."""
        reason = self._work.liveness.blocked()
        if reason:
            self._work.blocked += 1
            self._give_up(reason, now)
        return bool(reason)

    def told(self, before: int, count: int, now: float) -> None:
        """The peer says how often it has given up a pair that answers checks."""
        if count not in (before, 0) and self._machine.state in DIRECT:
            if self.checked_from is not None:
                self._work.negotiation.damping.record_failure(self.checked_from.ip, now, blocked=True)
            self._give_up(f"{BLOCKED_WORDS} do not come through, says the peer", now)

    def _give_up(self, reason: str, now: float) -> None:
        self._blocked_at = now
        if self._machine.state is State.DIRECT:
            self._machine.fire(Trigger.DISTRESS, reason, now)
        self._fail(reason, now, blocked=True)

    def _fail(self, reason: str, now: float, *, blocked: bool) -> None:
        current = self._work.negotiation.selected
        if current is not None and not (blocked and self._work.negotiation.damping.suppressed(current.remote.ip, now)):
            self._work.negotiation.damping.record_failure(current.remote.ip, now, blocked=blocked)
        self._machine.fire(Trigger.DEAD, reason, now)
