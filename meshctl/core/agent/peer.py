"""The path to one peer: what happens is told to the table (`path`), and what the table wants is done.

The parts know how: `negotiation` finds direct paths, `relayclient` has relays, `liveness` says when a path may be dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import WISHES, AnchorDistance, Offer, RelayGrant, RelayRefuse, Splice, Wish
from meshctl.core.agent.checks import Answer, Credentials, Pair
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import PeerStatus, SendProbe, SetEndpoint, SetKeepalive
from meshctl.core.agent.here import Here
from meshctl.core.agent.history import Decision, History
from meshctl.core.agent.liveness import HANDSHAKE_MAX_S, Liveness
from meshctl.core.agent.negotiation import Negotiation
from meshctl.core.agent.path import Effect, State, Trigger, step
from meshctl.core.agent.relayclient import Lost, Ready, RelayClient, Say
from meshctl.core.agent.splice import Failed, Splicer
from meshctl.core.agent.splice_situation import Situation
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.wire import stun

# All pairs are tried again after this, then each time after twice as long; a change of either network begins anew.
RETRY_FIRST_S, RETRY_LONGEST_S = 5.0, 600.0
# So long a direct path must have lasted before the relay is given up that was there before it.
RELAY_LINGER_S = 30.0
# Between two questions to a relay whose path carries nothing back.
RELAY_DOUBT_S = 5.0
# The controlling side repeats a nomination that the other seems not to have heard, no more often than this.
RENOMINATE_S = 1.0

_SEARCHING = frozenset({State.PROBING, State.RELAYED, State.SPLICING})
_RELAYED = frozenset({State.RELAYED, State.SPLICING})
_DIRECT = frozenset({State.DIRECT, State.SUSPECT})
# Of two operators' wishes, the one that stands first here counts.
_STRONGER = (Wish.RELAY, Wish.DIRECT, Wish.PREFER_RELAY, Wish.NONE)


class Due(NamedTuple):
    """When something is to be done, and what."""

    when: float
    reason: str


class PeerPath:
    """One peer's. `ask` has the peer's agent asked whether it lives."""

    def __init__(
        self, peer: PeerConfig, here: Here, slot: SpliceSlot, ask: Callable[[PeerConfig, float], None], now: float
    ) -> None:
        self.peer = peer
        self.state = State.UNKNOWN
        self.since = now
        self.history = History()
        self.status: PeerStatus | None = None
        self.restarts = 0  # of our checks, for the peer to begin anew at the same time
        self.wish = WISHES[peer.override]
        self._here = here
        self._ask = ask
        controlling = here.config.public_key.raw() < peer.public_key.raw()
        self.negotiation = Negotiation(here, self._answer, controlling=controlling)
        self.relay = RelayClient(peer, controlling=controlling, dice=here.dice)
        self.splice = Splicer(peer.public_key, slot, here.dice)
        self._liveness = Liveness()
        self._offer = Offer(0)
        self._chosen: Pair | None = None
        self._proven = False  # the pair in use has answered a check
        self._tolerated: Address | None = None  # the peer sends from there, though the pair in use works
        self._retry_at: float | None = None
        self._pause_s = RETRY_FIRST_S
        self._release_at: float | None = None
        self._doubt_at = now  # from then on a silent relay is asked again
        self._renominate_at = now
        self._effects: dict[Effect, Callable[[float], None]] = {
            Effect.ASK_RELAY: self._want_relay,
            Effect.USE_PAIR: self._use_pair,
            Effect.USE_RELAY: self._use_relay,
            Effect.CHECK_PAIRS: self._check_pairs,
            Effect.CHECK_PATH: self.negotiation.ask_path,
            Effect.CHECK_RELAY: self._check_relay,
            Effect.REST_CHECKS: self._rest,
            Effect.RETRY_LATER: self._retry_later,
            Effect.START_SPLICE: self._splice_news,
            Effect.END_SPLICE: self._end_splice,
            Effect.FORGET: self._forget,
        }

    # What is known

    @property
    def due(self) -> Due | None:
        """When `poll` has something to do."""
        times = (
            (self.negotiation.due, "a check"), (self.relay.due(), "a relay"), (self._retry_at, "all pairs again"),
            (self._release_at, "the relay is not needed"), (self.splice.due(), "a splice"),
        )  # fmt: skip
        return min((Due(when, why) for when, why in times if when is not None), default=None)

    @property
    def usable(self) -> bool:
        """Whether messages may go through the tunnel: it is up, and nothing is said against its path."""
        return self._alive and self.state is not State.PROBING and self.state is not State.SUSPECT

    def busy(self, now: float) -> bool:
        """Whether the path is in use or in doubt."""
        return self._liveness.busy(now) or self.state in (State.PROBING, State.SUSPECT)

    @property
    def rtt_s(self) -> float | None:
        """Of the pair in use, as it was last measured."""
        return self.negotiation.rtt_s(self.negotiation.current) if self.negotiation.current else None

    @property
    def mode(self) -> Wish:
        """What the operators at both ends want, together."""
        return min(self.wish, self._offer.wish, key=_STRONGER.index)

    @property
    def distances(self) -> tuple[AnchorDistance, ...]:
        """For the offer."""
        return self.relay.distances()

    @property
    def _alive(self) -> bool:
        status = self.status
        if status is None or status.endpoint is None or status.handshake_age_s is None:
            return False
        return status.handshake_age_s < HANDSHAKE_MAX_S

    # What comes in

    def session(self, credentials: Credentials, now: float) -> None:
        """The peer's agent has answered; it is another one than before, or had been silent."""
        if credentials.key != self.negotiation.key:
            self.negotiation.renew(credentials)
        if self.state is not State.UNKNOWN:
            if self.state in _SEARCHING:
                self._begin_anew(now)
        elif self._alive and self._adopt():
            self._fire(Trigger.ADOPTED, "its tunnel works", now)
        else:
            self._fire(Trigger.SESSION, "its agent answers", now)

    def session_lost(self, now: float) -> None:
        """The peer's agent does not answer. What carries packets stays as it is."""
        if self.state is State.PROBING or (self.state in _RELAYED and self._liveness.distress(now)):
            self._fire(Trigger.SESSION_LOST, "its agent does not answer on any way", now)

    def offered(self, offer: Offer, now: float) -> None:
        """The peer's newest offer."""
        before, self._offer = self._offer, offer
        if self.negotiation.remote.offer(offer):
            self._pause_s = RETRY_FIRST_S
            self.negotiation.refresh(now)
        self.relay.prefer(next((d.anchor for d in offer.relays if d.used), None))
        if self.state is State.UNKNOWN:
            return
        if offer.restart != before.restart:
            if self.state in _SEARCHING:
                self.negotiation.restart(now)
                self._retry_at = None
            elif self.state is State.DIRECT:
                self._fire(Trigger.DISTRESS, "the peer tries all pairs anew", now)
        if offer.wish is not before.wish:
            self._obey(now)
        self._relay_news(now)

    def static(self, addresses: tuple[Address, ...], now: float) -> None:
        """Where the inventory says that the peer is."""
        remote = self.negotiation.remote
        changed = remote.forget("static", keep=addresses)
        for address in addresses:
            changed = remote.learn("static", address) or changed
        if changed:
            self.negotiation.refresh(now)

    def anchor_restarted(self, anchor: PeerConfig, now: float) -> None:
        """An anchor's agent is a new one, which may have forgotten its relays."""
        self.relay.anchor_restarted(anchor, now)
        self.anchors_changed(now)

    def spliced(self, said: Splice, now: float) -> None:
        """The peer, behind a hard NAT, has opened ports."""
        situation = self._situation(now)
        if self.state is State.RELAYED and situation is not None and not self.splice.received(said, situation, now):
            self._fire(Trigger.SPLICE_DUE, "the peer has opened ports in its NAT", now)

    def override(self, wish: Wish, now: float) -> None:
        """This side's operator wants something else."""
        if wish is not self.wish:
            self.wish = wish
            self._obey(now)

    def sample(self, status: PeerStatus, now: float) -> None:
        """One reading of WireGuard's counters."""
        self.status = status
        self._liveness.sample(status, now)
        current = self.negotiation.current
        if self.state is State.DIRECT and current is not None:
            reason = self._moved(status, current) or self._liveness.distress(now)
            if reason:
                self._fire(Trigger.DISTRESS, reason, now)
        elif self.state is State.SUSPECT and current is not None:
            heard = self._liveness.heard_at
            if self._proven and status.endpoint == current.remote and heard is not None and heard > self.since:
                self._fire(Trigger.ANSWERED, "bytes came by it", now)
        elif self.state in _RELAYED and now >= self._doubt_at:
            reason = self._liveness.distress(now)
            if reason:
                self._doubt_at = now + RELAY_DOUBT_S
                self._fire(Trigger.DISTRESS, reason, now)

    def network_changed(self, now: float, *, moved: bool) -> None:
        """Own candidates have come or gone; `moved`: this node stands elsewhere, or its NAT has forgotten it."""
        self.negotiation.refresh(now)
        current = self.negotiation.current
        if not moved or self.state is State.UNKNOWN:
            return
        self.relay.check(now)
        if self.state in _SEARCHING:
            self._begin_anew(now)
            return
        self._fire(Trigger.DISTRESS, "this node's network has changed", now)
        if current is not None and current.local.ip not in {a.ip for a in self._here.hosts}:
            self._fire(Trigger.DEAD, f"{current.local.ip} is not this node's any more", now)

    def anchors_changed(self, now: float) -> None:
        """An anchor has come, gone, or is nearer or farther than it was."""
        if self.relay.wanted:
            self._want_relay(now)
            self._relay_news(now)

    def question(self, request: stun.Message, pair: Pair, now: float) -> None:
        """An authentic check of the peer."""
        question = self.negotiation.question(request, pair, now)
        if question is None:
            return
        self.splice.heard(pair, now)
        if question.nominated:
            self._nominated(pair, now)
        elif self.state in _DIRECT and pair == self.negotiation.current:
            self._confirm(pair, now)

    def granted(self, anchor: PeerConfig, grant: RelayGrant, now: float) -> None:
        """An anchor's relay to the peer."""
        self.relay.granted(anchor, grant, now)
        self._relay_news(now)

    def refused(self, anchor: PeerConfig, refusal: RelayRefuse, now: float) -> None:
        """No relay there."""
        self.relay.refused(anchor, refusal, now)
        self._relay_news(now)

    def poll(self, now: float) -> None:
        """Do what is due."""
        if self._release_at is not None and now >= self._release_at:
            self._release_at = None
            self.relay.release()
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._check_pairs(now)
        self.negotiation.poll(now, nominate=self._may_go_direct)
        current = self.negotiation.current
        if self.state is State.SUSPECT and current is not None and self.negotiation.failed(current):
            self._fire(Trigger.DEAD, f"{current.remote} answers no check", now)
        if self.negotiation.take_exhausted() and self.state is not State.UNKNOWN:
            self._fire(Trigger.EXHAUSTED, "no pair was agreed on", now)
            self._try_splice(now)
        self.splice.poll(now)
        self._splice_news(now)
        self.relay.poll(self._here.bases, now)
        self._relay_news(now)

    def stop(self) -> None:
        """The peer is none any more, or the agent stops: what must not outlive it is undone."""
        self.relay.release()
        self._relay_news(self.since)
        self.splice.stop()
        self._splice_news(self.since)

    # Triggers

    @property
    def _may_go_direct(self) -> bool:
        mode = self.mode
        return mode is not Wish.RELAY and not (mode is Wish.PREFER_RELAY and self.relay.ready)

    def _answer(self, answer: Answer, now: float) -> None:
        pair = answer.pair
        self._here.touch(self.peer.id)
        if answer.nominated:
            self._nominated(pair, now)
        elif pair == self.negotiation.current and self.state in _DIRECT:
            self._lives(pair, now)
        elif self.negotiation.controlling and self._may_go_direct:
            if self.state is State.DIRECT:
                better = self.negotiation.better(now)
                if better is not None:
                    self.negotiation.nominate(better, now)
            elif self.state is not State.UNKNOWN:
                self.negotiation.settle(pair, now)

    def _confirm(self, pair: Pair, now: float) -> None:
        """The peer asks on the pair in use; perhaps it has lost the path. The controlling side nominates it again."""
        if self.negotiation.controlling and now >= self._renominate_at:
            self._renominate_at = now + RENOMINATE_S
            self.negotiation.nominate(pair, now)

    def _lives(self, pair: Pair, now: float) -> None:
        """The pair in use has answered a check."""
        self._proven = True
        self._liveness.heard(now)
        if self.status is not None and self.status.endpoint != pair.remote:
            self._tolerated = self.status.endpoint
        if self.state is State.SUSPECT:
            self._fire(Trigger.ANSWERED, f"{pair.remote} answers checks", now)
            if self._tolerated is not None and self._tolerated in self.relay.places:
                self._set_endpoint(pair.remote)

    def _nominated(self, pair: Pair, now: float) -> None:
        if self.state is State.UNKNOWN or not self._may_go_direct:
            return
        if self.state is State.DIRECT and pair == self.negotiation.current:
            self._lives(pair, now)
            return
        if not self.splice.take(pair):
            return
        if self.splice.standing not in (None, pair):
            self.splice.leave()
        self._chosen = pair
        rtt = self.negotiation.rtt_s(pair)
        words = f"in {rtt * 1000:.0f} ms" if rtt is not None else "the peer's checks"
        self._fire(Trigger.NOMINATED, f"{pair.remote} answers {words}", now)

    def _moved(self, status: PeerStatus, current: Pair) -> str:
        """WireGuard follows the peer to wherever it sends from. That it left the pair in use has a reason."""
        if status.endpoint is None or status.endpoint in (current.remote, self._tolerated):
            return ""
        return f"the peer sends from {status.endpoint}"

    def _relay_news(self, now: float) -> None:
        for output in self.relay.outputs():
            if isinstance(output, Say):
                self._here.say(output.anchor, output.body)
            elif isinstance(output, SendProbe):
                self._here.probe(output, self._bound)
            elif isinstance(output, Ready):
                self._relay_ready(now)
            elif isinstance(output, Lost) and self.state in _RELAYED:
                self._fire(Trigger.RELAY_LOST, "the anchor does not answer", now)

    def _relay_ready(self, now: float) -> None:
        if self.relay.ready is None or self.mode is Wish.DIRECT:
            return
        anchor = self.relay.used_anchor
        words = f"both ends are bound at {anchor.name}" if anchor else "both ends are bound"
        if self.state in _SEARCHING:
            self._fire(Trigger.RELAY_READY, words, now)
        elif self.state in _DIRECT and not self._may_go_direct:
            self._fire(Trigger.DEMOTED, f"an operator wants the relay, and {words}", now)

    def _try_splice(self, now: float) -> None:
        situation = self._situation(now)
        if self.state is not State.RELAYED or situation is None or not self._may_go_direct:
            return
        if not self.splice.start(situation, now):
            self._fire(Trigger.SPLICE_DUE, "this node's NAT is hard and the peer's is easy", now)

    def _situation(self, now: float) -> Situation | None:
        credentials, here = self.negotiation.credentials, self._here
        if credentials is None:
            return None
        return Situation(
            here.bases, here.nat.summary(here.own.bases(), now), self._offer.nat, self.negotiation.remote.all(),
            credentials, self.negotiation.controlling,
        )  # fmt: skip

    def _splice_news(self, now: float) -> None:
        for output in self.splice.outputs():
            if isinstance(output, Splice):
                self._here.say(self.peer, output)
            elif isinstance(output, SendProbe):
                self.negotiation.send(output)
            elif not isinstance(output, Failed):
                self._here.act(output)
            elif self.state is State.SPLICING:
                self._fire(Trigger.SPLICE_FAILED, "no port was hit", now)

    def _bound(self, received: stun.Received, _local: Address, _remote: Address, now: float) -> None:
        token = self.relay.token_of(received.message.transaction)
        self._here.touch(self.peer.id)
        if token is not None and received.is_authentic(token):
            self.relay.answered(received.message, now)
            self._relay_news(now)

    def _obey(self, now: float) -> None:
        """Another mode."""
        if self.state is State.UNKNOWN:
            return
        if not self._may_go_direct or self.mode is Wish.PREFER_RELAY:
            self._want_relay(now)
            self._relay_ready(now)
        elif self.mode is Wish.DIRECT and self.state in _RELAYED:
            self._fire(Trigger.RELAY_LOST, "an operator wants the direct path", now)
        elif self.state in _RELAYED:
            self._begin_anew(now)

    def _fire(self, trigger: Trigger, reason: str, now: float) -> None:
        found = step(self.state, trigger)
        self.history.add(Decision(now, self.state, found.state, trigger, reason))
        if found.state is not self.state:
            self.since = now
        self.state = found.state
        self._here.touch(self.peer.id)
        for effect in found.effects:
            self._effects[effect](now)
        if self.state is State.PROBING:
            self._relay_ready(now)

    # Effects

    def _want_relay(self, now: float) -> None:
        self._release_at = None
        if self.mode is not Wish.DIRECT:
            anchors = {key: (link.peer, link.distance_s) for key, link in self._here.anchors.items() if link.up}
            self.relay.want(anchors, {d.anchor: d.rtt_ms / 1000 for d in self._offer.relays}, now)

    def _use_pair(self, now: float) -> None:
        pair = self.negotiation.current = self._chosen
        if pair is None:
            return
        self._proven, self._tolerated = True, None
        self._splice_news(now)
        self._set_endpoint(pair.remote)
        self._liveness.moved(now)
        if self.mode is Wish.NONE or self.mode is Wish.DIRECT:
            self._release_at = now + RELAY_LINGER_S

    def _use_relay(self, now: float) -> None:
        if self.relay.ready is not None:
            self.negotiation.current = None
            self.splice.leave()
            self._splice_news(now)
            self._set_endpoint(self.relay.ready)
            self._liveness.moved(now)

    def _set_endpoint(self, address: Address) -> None:
        key, status, keepalive_s = self.peer.public_key, self.status, self._here.lifetime.keepalive_s
        self._here.act(SetEndpoint(key, address))
        if status is None or status.keepalive_s != keepalive_s:
            self._here.act(SetKeepalive(key, keepalive_s))

    def _check_pairs(self, now: float) -> None:
        self.restarts += 1
        self.negotiation.restart(now)

    def _begin_anew(self, now: float) -> None:
        self._pause_s = RETRY_FIRST_S
        self._retry_at = None
        self._check_pairs(now)

    def _check_relay(self, now: float) -> None:
        self.relay.check(now)
        self._ask(self.peer, now)

    def _end_splice(self, now: float) -> None:
        self.splice.abort()
        self._splice_news(now)

    def _rest(self, _now: float) -> None:
        self._retry_at, self._pause_s = None, RETRY_FIRST_S

    def _retry_later(self, now: float) -> None:
        self._retry_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_LONGEST_S)

    def _forget(self, _now: float) -> None:
        self.negotiation.forget()
        self.relay.release()
        self._retry_at, self._release_at, self._offer = None, None, Offer(0)

    def _adopt(self) -> bool:
        """Take the endpoint that WireGuard has as the pair in use, though nobody has checked it."""
        endpoint = self.status.endpoint if self.status else None
        base = self._here.own.base(endpoint.family) if endpoint else None
        if endpoint is None or base is None:
            return False
        self.negotiation.current, self._proven = Pair(base, endpoint), False
        self.negotiation.remote.learn("prflx", endpoint, self.since)
        return True
