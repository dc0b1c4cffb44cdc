"""The selected pair with one peer (RFC 8445 section 4), the direct path that is in use: signs that it is dead, what
shows that it lives, and where WireGuard has followed the peer to."""

from __future__ import annotations

from meshctl.core.agent.address import Address
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.pathfailures import PathFailures
from meshctl.core.agent.peerwork import PeerWork
from meshctl.core.agent.statemachine import PathStateMachine

# The controlling side repeats a nomination that the other seems not to have heard, no more often than this.
RENOMINATE_S = 1.0
# Where WireGuard has followed the peer to from a relay is checked no more often than this.
CHECK_AGAIN_S = 5.0
# WireGuard is set to the relay again when that place has not answered for so long and a round trip.
ASTRAY_S = 0.5
# And from the warm relay when it has stayed there for so long: the peer may use that by now, and its word be under way.
STRAYED_S = 5.0


class SelectedPair:
    """The selected pair with one peer, while the path is direct or suspect; `followed` is for one that is relayed."""

    def __init__(self, machine: PathStateMachine, work: PeerWork, falls: PathFailures, now: float) -> None:
        self._machine, self._work, self._failures = machine, work, falls
        self._negotiation, self._liveness = work.negotiation, work.liveness
        self._renominate_at = now
        self._astray = False  # the peer seems not to use the pair: it is told once more when that answers
        self._confirming: Pair | None = None  # is checked, though nothing is doubted
        self._elsewhere: tuple[Address, float] | None = None  # what was checked though the path is relayed, and when

    def sample(self, status: PeerStatus, now: float) -> None:
        """One reading of WireGuard's counters."""
        current = self._negotiation.selected
        if current is None:
            return
        if self._machine.state is State.DIRECT:
            self._look(status, current, now)
        elif self._work.proven and status.endpoint == current.remote:
            heard = self._liveness.heard_at
            if heard is not None and heard > self._machine.since:
                self._machine.fire(Trigger.ANSWERED, "bytes came by it", now)
                self._work.tunnel.set_endpoint(current.remote, now)

    def doubt(self, reason: str, now: float) -> None:
        """One of the two seems to be elsewhere: when the pair answers, the peer is told to use it once more, and so
        hears from where."""
        self._astray = True
        if self._machine.state is State.SUSPECT:  # after a sleep, what was asked before has no answer any more
            self._work.check_path(now)
        self._machine.fire(Trigger.DISTRESS, reason, now)

    def checked_by_peer(self, pair: Pair, now: float) -> None:
        """The peer checks a pair; perhaps it has lost the path. At a splice it may come from elsewhere than before:
        WireGuard does not follow it there, for the kernel lets it hear one place alone by that port."""
        selected = self._negotiation.selected
        if pair == selected and now >= self._renominate_at:
            self._renominate(pair, now)
        elif self._is_beside_splice(pair) and not self._negotiation.has_answered(pair):
            self.doubt(f"the peer checks from {pair.remote}", now)

    def lives(self, pair: Pair, now: float, *, wanted: bool = False) -> None:
        """The pair has answered a check. WireGuard is told to use it, unless the peer sends from another address of its
        own that answers too; `wanted`: both ends have just agreed on the pair once more. What is known of it stays: it
        may answer checks and carry nothing else, and be agreed on again and again."""
        work = self._work
        work.proven, confirmed = True, pair == self._confirming
        self._confirming = None
        self._liveness.outlived(now)
        if self._failures.blocked(now) or (confirmed and self._machine.state is State.DIRECT):
            return
        suspected, astray = self._machine.state is State.SUSPECT, self._astray
        self._machine.fire(Trigger.ANSWERED, f"{pair.remote} answers checks", now)
        if self._astray:
            self._renominate(pair, now)
            work.ask(now)  # what comes in its tunnel, WireGuard follows
        if not suspected:
            return
        endpoint = work.tunnel.endpoint
        if wanted or endpoint is None or not self._answers(Pair(pair.local, endpoint), astray):
            work.tolerated = None
            work.tunnel.set_endpoint(pair.remote, now)
        elif endpoint != pair.remote:
            work.tolerated = endpoint

    def poll(self, now: float) -> None:
        """Give the pair up when it was checked in vain."""
        pair = self._negotiation.selected
        if pair is None or not self._negotiation.failed(pair):
            return
        reason = f"{pair.remote} answers no check"
        if self._machine.state is State.DIRECT and pair == self._confirming:
            self._machine.fire(Trigger.DISTRESS, reason, now)
        if self._machine.state is State.SUSPECT:
            self._confirming = None
            self._failures.dead(reason, now)

    def replaced(self, pair: Pair, now: float) -> None:
        """WireGuard had followed the peer to this pair, which has answered before the one in use."""
        self._work.take(pair)
        self._work.tunnel.adopt(pair.remote)
        self._machine.fire(Trigger.ANSWERED, f"the peer has moved to {pair.remote}, which answers checks", now)

    def improve(self, now: float) -> None:
        """Have a better pair used, if there is one, and if it is this end that decides."""
        if self._negotiation.controlling and self._work.may_go_direct and self._machine.state is State.DIRECT:
            better = self._negotiation.better(now)
            if better is not None:
                self._negotiation.nominate(better, now)

    def followed(self, status: PeerStatus, now: float) -> None:
        """The path is relayed. If WireGuard has followed the peer elsewhere, the peer uses a direct pair: a check there
        has it nominate that once more, if it is controlling. Where nothing answers, or the peer does not say that it
        uses the warm relay, somebody has sent on what the peer had sent once."""
        endpoint, relay = status.endpoint, self._work.relay
        warm = endpoint is not None and relay.is_warm(endpoint)
        if endpoint is None or (relay.is_at(endpoint) and not warm):
            self._elsewhere = None
            return
        where, since = self._elsewhere or (None, now)
        if endpoint != where or (not warm and now >= since + CHECK_AGAIN_S):
            self._elsewhere = endpoint, now
            if not warm:
                self._work.check_at(endpoint, now)
        elif warm:
            if now >= since + STRAYED_S:
                self.come_back(now)
        elif now >= since + ASTRAY_S + self._liveness.rtt_s and relay.ready and not self._work.answers_at(endpoint):
            self._elsewhere = None
            self._work.tunnel.set_endpoint(relay.ready, now)

    def come_back(self, now: float) -> None:
        """Have WireGuard use the relay that is in use again, where it is at the warm one."""
        endpoint, relay = self._work.tunnel.endpoint, self._work.relay
        if endpoint is not None and relay.ready is not None and relay.is_warm(endpoint):
            self._elsewhere = None
            self._work.tunnel.set_endpoint(relay.ready, now)

    # Inside

    def _is_beside_splice(self, pair: Pair) -> bool:
        """Whether it comes to the port of the splice that is in use, and from another place."""
        spliced = self._work.splice.standing
        if spliced is None or spliced != self._negotiation.selected:
            return False
        return pair.local == spliced.local and pair.remote != spliced.remote

    def _answers(self, pair: Pair, astray: bool) -> bool:
        """Whether a pair answers. Where all the doubt is that the peer sends by it, its checks may be under way: what
        counts is that it has answered before."""
        return self._negotiation.rtt_s(pair) is not None or (astray and self._negotiation.has_answered(pair))

    def _look(self, status: PeerStatus, current: Pair, now: float) -> None:
        endpoint = status.endpoint
        moved = endpoint not in (None, current.remote, self._work.tolerated)
        reason = f"the peer sends from {endpoint}" if moved else self._liveness.distress(now)
        if not reason and self._liveness.busy(now):  # WireGuard without keys may send nothing that would be missed
            reason = self._liveness.blocked()
        if not reason:
            if self._liveness.unconfirmed(now):
                self._confirming = current
                self._work.confirm_path(now)
            self._work.compare(now)
            return
        self._astray = moved
        self._machine.fire(Trigger.DISTRESS, reason, now)
        if endpoint is not None and endpoint != current.remote and self._work.may_follow(endpoint):
            self._negotiation.check(Pair(current.local, endpoint), now)  # WireGuard has followed: that may be as good

    def _renominate(self, pair: Pair, now: float) -> None:
        """Have the peer use the pair that this side uses, if this is the controlling side."""
        self._renominate_at, self._astray = now + RENOMINATE_S, False
        if self._negotiation.controlling:
            self._negotiation.nominate(pair, now)
