"""The path to one peer: what happens is found out here, and told to the table (`path`), which says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshctl.core.agent.address import Address, is_private
from meshctl.core.agent.blockage import Came
from meshctl.core.agent.bodies import WISHES, Offer, Wish
from meshctl.core.agent.candidate import STANDING
from meshctl.core.agent.candidates import PRFLX_LIFETIME_S
from meshctl.core.agent.checklist import CheckSucceeded, Credentials, Pair
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.detours import Detours
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.history import History
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.liveness import BUSY_S
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.pathfailures import PathFailures
from meshctl.core.agent.peerwork import PeerWork
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.selectedpair import SelectedPair
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.state import KeptPath
from meshctl.core.agent.statemachine import DIRECT, RELAYED, SEARCHING, PathStateMachine
from meshctl.core.wire import stun

# Between two checks of a relay whose path carries nothing back.
RELAY_DOUBT_S = 5.0
# A relay that has carried something within this carries, though much is lost: messages of agents too.
CARRIED_S = 5.0
# The peer's restarts of all checks that are joined in at once, and in the long run; further ones are, a little later.
RESTARTS_BURST, RESTARTS_RATE = 10.0, 0.2


class PeerPath:
    """The path to one peer. `ask` has the peer's agent asked whether it lives."""

    def __init__(
        self, peer: PeerConfig, context: InterfaceContext, slot: SpliceSlot,
        ask: Callable[[PeerConfig, float], None], now: float,
    ) -> None:  # fmt: skip
        self.peer = peer
        self.work = PeerWork(peer, context, slot, ask, self._check_succeeded)
        self._machine = PathStateMachine(self.work, context, now)
        self.detours = Detours(self._machine, self.work, context)
        self._failures = PathFailures(self._machine, self.work)
        self._selected_pair = SelectedPair(self._machine, self.work, self._failures, now)
        self._context, self._fire = context, self._machine.fire
        self._negotiation, self._relay, self._splice = self.work.negotiation, self.work.relay, self.work.splice
        self._liveness = self.work.liveness
        self._says_anew = False  # its next offer is the first one of the session
        self._doubt_at = now  # from then on a silent relay is checked again
        self._restarts = TokenBucket(RESTARTS_RATE, RESTARTS_BURST)

    # What is known

    @property
    def state(self) -> State:
        """Where the peer's packets go."""
        return self._machine.state

    @property
    def since(self) -> float:
        """When the state became what it is."""
        return self._machine.since

    @property
    def history(self) -> History:
        """Why the path is what it is."""
        return self._machine.history

    @property
    def usable(self) -> bool:
        """Whether messages may go through the tunnel: it is up, and nothing is said against its path."""
        return self.work.tunnel.alive and self.state not in (State.PROBING, State.SUSPECT)

    @property
    def rtt_s(self) -> float | None:
        """Round trip of the selected pair, as it was last measured; None without one, or when it is not valid."""
        current = self._negotiation.selected
        return self._negotiation.rtt_s(current) if current is not None else None

    @property
    def kept(self) -> KeptPath | None:
        """What is to be known after a restart: how the peer is reached, where that is a direct path."""
        pair = self._negotiation.selected
        if pair is None or self.state not in DIRECT:
            return None
        return KeptPath(self.peer.public_key, pair, self._splice.standing == pair)

    def busy(self, now: float) -> bool:
        """Whether the path is in use or in doubt."""
        doubtful = self.state is State.SUSPECT or (self.state is State.PROBING and now < self.since + BUSY_S)
        return doubtful or self._liveness.busy(now)

    # What comes in

    def stays(self, peer: PeerConfig) -> bool:
        """Whether this peer is the one that there was, so that `configure` can take it."""
        return (peer.public_key, peer.pair_key, peer.mesh_addresses) == (
            self.peer.public_key, self.peer.pair_key, self.peer.mesh_addresses,
        )  # fmt: skip

    def configure(self, peer: PeerConfig, now: float) -> None:
        """What the inventory says of the peer."""
        before, self.peer, self.work.peer = self.peer.override, peer, peer
        self._negotiation.configure(now)
        if peer.override != before:
            self.override(WISHES[peer.override], now)

    def restore(self, known: KeptPath, now: float) -> None:
        """The peer was reached by this pair before a restart."""
        self._negotiation.remote.learn("prflx", known.pair.remote, now + PRFLX_LIFETIME_S)
        if known.spliced:
            self.detours.restored(known.pair, now)

    def session(self, credentials: Credentials, now: float) -> None:
        """The peer's agent has answered; it is another one than before, or had been silent."""
        if credentials.key != self._negotiation.key:
            self._says_anew = True
            self._negotiation.renew(credentials)
            self._splice.abort()
            if self.state is State.SPLICING:
                self._fire(Trigger.SPLICE_FAILED, "its agent is another one", now)
        if self.state in SEARCHING:
            self.work.begin_anew(now)
        elif self.state is State.SUSPECT:  # checks of another session are not answered any more
            self.work.check_path(now)
        elif self.state is State.UNKNOWN and self.work.tunnel.alive and self.work.adopt():
            self._fire(Trigger.ADOPTED, "its tunnel works", now)
        elif self.state is State.UNKNOWN:
            self._fire(Trigger.SESSION, "its agent answers", now)

    def session_lost(self, now: float) -> None:
        """A round of questions to the peer's agent was not answered. A relay that carries packets stays as it is, and
        whether a path in doubt lives, or a splice succeeds, is known in a moment; the agent is asked on."""
        heard = self._liveness.heard_at
        lately = heard is not None and now - heard < CARRIED_S
        carried = self.state is State.RELAYED and (lately or not self._liveness.distress(now))
        if self.state in SEARCHING and not carried and self._negotiation.damping.any(now):
            self._negotiation.damping.clear()  # a bad way is better than none
            self.work.begin_anew(now)
        elif self.state not in (State.UNKNOWN, State.SUSPECT, State.SPLICING) and not carried:
            self._fire(Trigger.SESSION_LOST, "its agent does not answer on any way", now)

    def offered(self, offer: Offer, now: float) -> None:
        """The peer's newest offer."""
        before, self.work.offer = self.work.offer, offer
        if self._says_anew:  # another agent, which counts by itself, may have spoken in between
            self._says_anew, before = False, replace(before, blocked=offer.blocked)
        self.work.tunnel.peer_userspace = offer.userspace
        if _stands_at(offer) - _stands_at(before):
            self._negotiation.damping.clear()
        if self._negotiation.remote.offer(offer):
            self.work.retry_earlier(now)
            self._negotiation.refresh(now)
        if offer.relays != before.relays and self._relay.wanted:
            self.work.want_relay(now)
        self._relay.prefer(next((d.anchor for d in offer.relays if d.used), None))
        self._failures.told(before.blocked, offer.blocked, now)
        if offer.restart != before.restart:
            self._join_restart(now)
        if offer.wish is not before.wish:
            self._machine.obey(now, hurry=self._restarts.take(now))
        self.detours.news(now)

    def static(self, addresses: tuple[Address, ...], now: float) -> None:
        """Where the inventory says that the peer is."""
        remote = self._negotiation.remote
        changed = remote.forget("static", keep=addresses)
        for address in addresses:
            changed = remote.learn("static", address) or changed
        if changed:
            self._negotiation.refresh(now)

    def override(self, wish: Wish, now: float) -> None:
        """This side's operator wants something else."""
        if wish is not self.work.wish:
            self.work.wish = wish
            self._machine.obey(now)
            self.detours.news(now)

    def sample(self, status: PeerStatus | None, now: float) -> None:
        """One reading of WireGuard's counters; None where it has no such peer."""
        was_missing = self.work.tunnel.missing
        if status is None:
            self.work.tunnel.miss()
            self._machine.missing(now)
            return
        by_relay = status.endpoint is not None and self._relay.is_at(status.endpoint)
        came = self.work.tunnel.read(status, by_relay=by_relay)
        self._liveness.sample(status, now, came if self.state in DIRECT else Came.BY_PATH)
        self.work.tunnel.maintain(now)
        if was_missing:
            self._machine.found(now)
        if self.state in DIRECT:
            self._selected_pair.sample(status, now)
        elif self.state in RELAYED:
            self._selected_pair.followed(status, now)
        if self.state in RELAYED and now >= self._doubt_at:
            self._doubt_relay(now)

    def network_changed(self, now: float, *, moved: bool) -> None:
        """Own candidates have come or gone; `moved`: this node stands elsewhere, or its NAT has forgotten it."""
        self._negotiation.refresh(now)
        current = self._negotiation.selected
        if not moved or self.state is State.UNKNOWN:
            return
        self._negotiation.damping.clear()
        self._relay.check(now)
        if self.state in SEARCHING:
            self.work.begin_anew(now)
        else:
            self._selected_pair.doubt("this node's network has changed", now)
            if current is not None and current.local.ip not in {a.ip for a in self._context.hosts}:
                self._fire(Trigger.DEAD, f"{current.local.ip} is not this node's any more", now)
        self.detours.news(now)

    def indicated(self, indication: stun.Message, pair: Pair, now: float) -> bool:
        """The peer keeps its NAT open on this pair: it wants no answer, and lives. False when it came before."""
        new = self._negotiation.indicated(indication)
        if new and pair == self._negotiation.selected:
            self._liveness.heard(now)
        return new

    def check_received(self, request: stun.Message, pair: Pair, now: float) -> bool:
        """An authentic check of the peer's. False when it came before, or there is no session for it."""
        willing = not self._failures.just_blocked(pair, now) and not self.work.tunnel.missing
        check = self._negotiation.check_received(request, pair, now, willing=willing)
        if check is None:
            return False
        self._failures.checked_from = pair.remote
        self._splice.heard(pair, now)
        if check.nominated:
            self._nominated(pair, now)
        elif self.state is State.DIRECT:
            self._selected_pair.checked_by_peer(pair, now)
        return True

    def poll(self, now: float) -> None:
        """Do what is due."""
        if self.work.release_at is not None and now >= self.work.release_at:
            self.work.release_at = None
            self._relay.release()
        if self.work.retry_at is not None and now >= self.work.retry_at:
            self.work.retry(now)
        self._negotiation.poll(now, nominate=self.work.may_go_direct)
        self._selected_pair.poll(now)
        if self._negotiation.take_exhausted(now) and self.state is not State.UNKNOWN:
            self._negotiation.all_tried(self.work.offer.nat, now)
            self._fire(Trigger.EXHAUSTED, "no pair was agreed on", now)
            self.detours.try_splice(now)
        self.detours.poll(now)

    def stop(self, now: float) -> None:
        """The peer is none any more: what must not outlive it is undone, and an answer that still comes is nobody's."""
        self.detours.stop(now)
        self._negotiation.forget()

    # What it means

    def _doubt_relay(self, now: float) -> None:
        blocked = self._liveness.blocked()
        reason = blocked or self._liveness.distress(now)
        if reason:
            self._doubt_at = now + RELAY_DOUBT_S
            self._fire(Trigger.DISTRESS, reason, now)
            self._selected_pair.come_back(now)
        if blocked:  # nor does the relay carry anything: it was not the direct way's fault
            self._negotiation.damping.clear()
            self._context.touch(self.peer.id)
            self._relay.mistrust(now)
            self.detours.news(now)

    def _check_succeeded(self, answer: CheckSucceeded, now: float) -> None:
        self._context.touch(self.peer.id)
        pair = answer.pair
        if pair in (self._negotiation.selected, self.work.chosen):
            self._liveness.rtt_s = answer.rtt_s
        if answer.nominated:
            self._nominated(pair, now)
        elif pair == self._negotiation.selected and self.state in DIRECT:
            self._selected_pair.lives(pair, now)
            if self._negotiation.comparing(now):
                self._selected_pair.improve(now)
        elif self.state is State.SUSPECT and self.work.carries(pair):
            self._selected_pair.replaced(pair, now)
        elif self.state is State.DIRECT:
            self._selected_pair.improve(now)
        elif self.state is not State.UNKNOWN and self._negotiation.controlling and self.work.may_go_direct:
            self._negotiation.settle(pair, now, self._failures.heard_by(now))

    def _nominated(self, pair: Pair, now: float) -> None:
        if self.state is State.UNKNOWN or not self.work.may_go_direct or self._failures.just_blocked(pair, now):
            return
        if self.state in DIRECT and pair == self._negotiation.selected:
            self._selected_pair.lives(pair, now, wanted=True)
            return
        if self.state is State.DIRECT and self.work.is_twin(pair):
            self.work.tolerated = pair.remote
            return
        if not self.detours.may_take(pair, now):
            return
        self.work.chosen = pair
        rtt = self._negotiation.rtt_s(pair)
        words = f"answers in {rtt * 1000:.0f} ms" if rtt is not None else "is what the peer wants"
        self._fire(Trigger.NOMINATED, f"{pair.remote} {words}", now)
        if self._splice.standing not in (None, pair):
            self._splice.leave()
        self.detours.news(now)

    def _join_restart(self, now: float) -> None:
        """The peer tries all pairs anew: so does this end, but for too often."""
        searching = self.state in SEARCHING
        if not self._restarts.take(now):
            if searching:
                self.work.retry_soon(now + 1.0 / RESTARTS_RATE)
        elif searching:
            self.work.retry_at = None
            self._negotiation.restart(now)
        elif self.state is State.DIRECT:
            self._selected_pair.doubt("the peer tries all pairs anew", now)


def _stands_at(offer: Offer) -> set[str]:
    """The IPs that show where who offers them stands. Private ones of its own do not: a host's bridges and tunnels come
    and go, and a network that it has moved to is seen from elsewhere."""
    return {
        c.address.ip for c in offer.candidates
        if c.kind in STANDING and not (c.kind == "host" and is_private(c.address.ip))
    }  # fmt: skip
