"""What the table of a path (`path`) wants done, done with the parts that know how."""

from __future__ import annotations

from collections.abc import Callable

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import WISHES, Offer, Wish
from meshctl.core.agent.checks import Answer, Pair
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.events import PeerStatus, SetEndpoint, SetKeepalive
from meshctl.core.agent.here import Here
from meshctl.core.agent.lifetime import LATE
from meshctl.core.agent.liveness import Liveness, has_session
from meshctl.core.agent.negotiation import Negotiation
from meshctl.core.agent.path import Effect
from meshctl.core.agent.relayclient import RelayClient
from meshctl.core.agent.splice import Splicer
from meshctl.core.agent.splice_situation import Situation
from meshctl.core.agent.splice_slot import SpliceSlot

# All pairs are tried again after this, then each time after twice as long; a change of either network begins anew.
RETRY_FIRST_S, RETRY_LONGEST_S = 5.0, 600.0
# So often a direct path that is in use is compared with the others that there are.
COMPARE_S = 180.0
# So long a direct path must have lasted before the relay is given up that was there before it.
RELAY_LINGER_S = 30.0
# So long the controlled side waits for the handshake that the controlling side begins.
SECOND_S = 1.0
# An endpoint is set again and again for a while. A packet that was under way on the old path makes WireGuard go back
# there, and a question whose answer is under way then does so every time: where each waits for the other, only an
# endpoint that is set in the moment between the two stays. Irregularly, so as to meet it.
INSIST_S, INSIST_AGAIN_S = 0.6, (0.03, 0.08)
INSIST_RTTS = 3.0
# Of two operators' wishes, the one that stands first here counts.
_STRONGER = (Wish.RELAY, Wish.DIRECT, Wish.PREFER_RELAY, Wish.NONE)


class PeerWork:
    """The parts of one peer's path, and its effects. `ask` has the peer's agent asked whether it lives; `heard` is
    called with each answer to a check.

    `offer` is the peer's newest one. `restarts` counts our restarts of all checks, for the peer to begin anew at the
    same time; `blocked` the pairs that were given up though they answered checks, for the peer to do so too. `proven`:
    the pair in use has answered a check. `tolerated`: the peer sends from there, though the pair in use works.
    """

    def __init__(
        self, peer: PeerConfig, here: Here, slot: SpliceSlot, ask: Callable[[PeerConfig, float], None],
        heard: Callable[[Answer, float], None],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.status: PeerStatus | None = None
        self.wish = WISHES[peer.override]
        self.offer = Offer(0)
        self.restarts = self.blocked = 0
        self.chosen: Pair | None = None
        self.proven = False
        self.tolerated: Address | None = None
        self.retry_at: float | None = None
        self._compare_at = 0.0
        self.release_at: float | None = None
        self.place: Address | None = None  # where WireGuard is to send
        self._place_at: float | None = None  # put off until then at the latest
        self.insist_at: float | None = None
        self._insist_until = 0.0
        self._opened_at = 0.0  # when something was sent for the NAT's sake
        self._pause_s = RETRY_FIRST_S
        self._here, self._ask = here, ask
        controlling = here.config.public_key.raw() < peer.public_key.raw()
        self.negotiation = Negotiation(here, heard, controlling=controlling)
        self.relay = RelayClient(peer, controlling=controlling, dice=here.dice)
        self.splice = Splicer(peer.public_key, slot, here.dice)
        self.liveness = Liveness()
        self._effects: dict[Effect, Callable[[float], None]] = {
            Effect.ASK_RELAY: self._ask_relay,
            Effect.USE_PAIR: self._use_pair,
            Effect.USE_RELAY: self._use_relay,
            Effect.CHECK_PAIRS: self._check_pairs,
            Effect.CHECK_PATH: self.negotiation.ask_path,
            Effect.CHECK_RELAY: self._check_relay,
            Effect.REST_CHECKS: self._rest,
            Effect.RETRY_LATER: self._retry_later,
            Effect.END_SPLICE: lambda _now: self.splice.abort(),
            Effect.FORGET: self._forget,
        }

    # What is known

    @property
    def alive(self) -> bool:
        """Whether WireGuard has a session with the peer."""
        return has_session(self.status)

    @property
    def mode(self) -> Wish:
        """What the operators at both ends want, together."""
        return min(self.wish, self.offer.wish, key=_STRONGER.index)

    @property
    def may_go_direct(self) -> bool:
        """Whether a direct path is to be used when there is one."""
        return self.mode is not Wish.RELAY and not (self.mode is Wish.PREFER_RELAY and self.relay.ready)

    def situation(self, now: float) -> Situation | None:
        """What a splice is made of; None without a session."""
        here, credentials = self._here, self.negotiation.credentials
        if credentials is None:
            return None
        return Situation(
            here.bases, here.nat_summary(now), self.offer.nat, self.negotiation.remote.all(),
            credentials, self.negotiation.controlling,
        )  # fmt: skip

    # What to do

    def do(self, effect: Effect, now: float) -> None:
        """Do what the table wants."""
        self._effects[effect](now)

    def want_relay(self, now: float) -> None:
        """Have relays at the anchors that are up, unless an operator wants none."""
        if self.mode is not Wish.DIRECT:
            anchors = {key: (link.peer, link.distance_s) for key, link in self._here.anchors.items() if link.up}
            self.relay.want(anchors, {d.anchor: d.rtt_ms / 1000 for d in self.offer.relays}, now)

    def linger(self, now: float) -> None:
        """The path is direct: a relay that was had for it is given up after a while."""
        if self.relay.wanted and self.mode in (Wish.NONE, Wish.DIRECT):
            self.release_at = now + RELAY_LINGER_S

    def begin_anew(self, now: float) -> None:
        """Try all pairs at once, here and at the peer, and be patient anew."""
        self.hurry()
        self._check_pairs(now)

    def hurry(self) -> None:
        """Something has changed: the next pauses between tries are short again."""
        self.retry_at, self._pause_s = None, RETRY_FIRST_S

    def retry(self, now: float) -> None:
        """It is time to try all pairs again."""
        self.retry_at = None
        self._check_pairs(now)

    def retry_soon(self, when: float) -> None:
        """Try all pairs again then at the latest."""
        self.retry_at = when if self.retry_at is None else min(self.retry_at, when)

    def compare(self, now: float) -> None:
        """Compare the pair in use with others when it is time. Both ends took it together, and so they ask
        together: that is what holes in NATs need."""
        if now >= self._compare_at:
            self._compare_at += COMPARE_S * (1 + (now - self._compare_at) // COMPARE_S)
            if self.liveness.busy(now):
                self._here.touch(self.peer.id)
                self.negotiation.compare(now)

    def adopt(self) -> bool:
        """Take the endpoint that WireGuard has as the pair in use, though nobody has checked it; not a relay's."""
        endpoint = self.status.endpoint if self.status else None
        base = self._here.own.base(endpoint.family) if endpoint else None
        if endpoint is None or base is None or self._here.is_relay(endpoint):
            return False
        standing = self.splice.standing
        spliced = standing is not None and standing.remote == endpoint
        self.negotiation.current, self.proven = (standing if spliced else Pair(base, endpoint)), False
        return True

    def carries(self, pair: Pair) -> bool:
        """Whether it is by this pair that WireGuard's packets leave now: to its remote address, and a splice to there
        has them leave from its own port."""
        standing = self.splice.standing
        spliced = standing is not None and standing.remote == pair.remote
        return self.status is not None and self.status.endpoint == pair.remote and (not spliced or pair == standing)

    def set_endpoint(self, address: Address, now: float) -> None:
        """Have WireGuard send there, and keep the way open.

        Two ends that begin a handshake at the same time fail both, and wait five seconds (REKEY_TIMEOUT). So where
        there is no session yet, the controlling side goes first, and the other learns the endpoint from WireGuard.
        """
        self.place = address
        if self.alive or self.negotiation.controlling:
            self._place(now)
        elif self._place_at is None:
            self._place_at = now + SECOND_S

    def maintain(self, now: float) -> None:
        """After each reading of the counters: what was put off, and the keepalive."""
        if self._place_at is not None and (self.alive or now >= self._place_at):
            self._place(now)
        elif self.place is not None and self._place_at is None:
            self._keep_alive()
            self._keep_open(now)

    # Inside

    def _place(self, now: float) -> None:
        self._place_at = None
        self._insist_until = now + max(INSIST_S, INSIST_RTTS * self.liveness.rtt_s)
        self.insist(now)
        self._keep_alive()

    def insist(self, now: float) -> None:
        """Set the endpoint once more, unless it was done often enough."""
        self.insist_at = None
        if self.place is not None:
            self._here.act(SetEndpoint(self.peer.public_key, self.place))
            if now < self._insist_until:
                self.insist_at = now + self._here.dice.uniform(*INSIST_AGAIN_S)

    def _keep_alive(self) -> None:
        interval_s = self._here.lifetime.keepalive_s
        if self.status is None or self.status.keepalive_s != interval_s:
            self._here.act(SetKeepalive(self.peer.public_key, interval_s))

    def _keep_open(self, now: float) -> None:
        """WireGuard's keepalive begins anew with each packet that comes, too: of two ends, one may send them all. But a
        NAT may forget who sends nothing (RFC 4787 REQ-6), and a path that is never heard is asked again and again."""
        interval_s = self._here.lifetime.keepalive_s
        if interval_s and now >= max(self.liveness.sent_at, self._opened_at) + interval_s * LATE:
            self._opened_at = now
            self.negotiation.keep_open(now)

    # Effects

    def _ask_relay(self, now: float) -> None:
        self.release_at = None
        self.want_relay(now)

    def _use_pair(self, now: float) -> None:
        pair = self.negotiation.current = self.chosen
        if pair is None:
            return
        self.proven, self.tolerated = True, None
        self._compare_at = now + COMPARE_S
        self.liveness.moved(now, self.negotiation.rtt_s(pair) or 0.0)
        self.set_endpoint(pair.remote, now)

    def _use_relay(self, now: float) -> None:
        if self.relay.ready is not None:
            self.negotiation.current = None
            self.splice.leave()
            anchor = self.relay.used_anchor
            link = self._here.anchors.get(anchor.id) if anchor else None
            self.liveness.moved(now, 2 * link.distance_s if link else 0.0)
            self.set_endpoint(self.relay.ready, now)

    def _check_pairs(self, now: float) -> None:
        self.restarts += 1
        self.negotiation.restart(now)

    def _check_relay(self, now: float) -> None:
        self.relay.check(now)
        self._ask(self.peer, now)

    def _rest(self, _now: float) -> None:
        self.hurry()

    def _retry_later(self, now: float) -> None:
        if not self.may_go_direct:
            return
        self.retry_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_LONGEST_S)

    def _forget(self, _now: float) -> None:
        # Not the offer: it is not said again to who has acknowledged it.
        self.negotiation.forget()
        self.relay.release()
        self.splice.stop()
        self.retry_at, self.release_at = None, None
