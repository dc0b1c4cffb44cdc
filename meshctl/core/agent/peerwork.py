"""What the table of a path (`path`) wants done, done with the parts that know how."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import WISHES, Offer, Wish
from meshctl.core.agent.checklist import CheckSucceeded, Pair
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.interfacecontext import InterfaceContext
from meshctl.core.agent.liveness import Liveness
from meshctl.core.agent.negotiation import Negotiation
from meshctl.core.agent.path import Effect
from meshctl.core.agent.relaybinds import Binds
from meshctl.core.agent.relayclient import RelayClient
from meshctl.core.agent.reliable import OfferSender
from meshctl.core.agent.splice import Splicer
from meshctl.core.agent.splice_situation import Situation
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.tunnel import Tunnel

# All pairs are tried again after this, then each time after twice as long; a change of either network begins anew.
RETRY_FIRST_S, RETRY_LONGEST_S = 5.0, 600.0
# So often a direct path that is in use is compared with the others that there are.
COMPARE_S = 180.0
# So long a direct path must have lasted before the relay is given up that was there before it.
RELAY_LINGER_S = 30.0
# What a path is taken to have for a round trip that is adopted unseen, so that one by satellite is not left for being
# slow. With `check.RTTS` of it, and the checks before, one that is dead is left in less than two seconds.
ADOPTED_RTT_S = 1.0
# Of two operators' wishes, the one that stands first here counts.
_STRONGER = (Wish.RELAY, Wish.DIRECT, Wish.PREFER_RELAY, Wish.NONE)


class Due(NamedTuple):
    """When something is to be done, and what."""

    when: float
    reason: str


class PeerWork:
    """The parts of one peer's path, and its effects. `ask` has the peer's agent asked whether it lives; `heard` is
    called with each check that was answered.

    `offer` is the peer's newest one. `restarts` counts our restarts of all checks, for the peer to begin anew at
    the same time; `blocked` the pairs that were given up though they answered checks, for the peer to do so too.
    `proven`: the selected pair has answered a check. `tolerated`: the peer sends from there, though the selected pair
    works. `_before`: the pair that was selected before that one.
    """

    def __init__(
        self, peer: PeerConfig, context: InterfaceContext, slot: SpliceSlot, ask: Callable[[PeerConfig, float], None],
        heard: Callable[[CheckSucceeded, float], None],
    ) -> None:  # fmt: skip
        self.peer = peer
        self.wish = WISHES[peer.override]
        self.offer = Offer(0)
        self.restarts = self.blocked = 0
        self.chosen: Pair | None = None
        self.proven = False
        self.tolerated: Address | None = None
        self._before: Pair | None = None
        self.retry_at: float | None = None
        self._compare_at, self._comparisons = 0.0, 0
        self.release_at: float | None = None
        self._pause_s = RETRY_FIRST_S
        self._context, self._ask = context, ask
        controlling = context.config.public_key.raw() < peer.public_key.raw()
        self.negotiation = Negotiation(context, heard, controlling=controlling)
        self.relay = RelayClient(peer, controlling=controlling, binds=Binds(context.transactions, context.my_session))
        self.splice = Splicer(peer.public_key, slot, context.dice, context.transactions)
        self.liveness = Liveness()
        self.tunnel = Tunnel(peer.public_key, context, self.negotiation, self.liveness)
        self._effects: dict[Effect, Callable[[float], None]] = {
            Effect.ASK_RELAY: self._ask_relay,
            Effect.USE_PAIR: self._use_pair,
            Effect.USE_RELAY: self._use_relay,
            Effect.CHECK_PAIRS: self._check_pairs,
            Effect.CHECK_PATH: self.check_path,
            Effect.CHECK_RELAY: self._check_relay,
            Effect.REST_CHECKS: self._rest,
            Effect.RETRY_LATER: self._retry_later,
            Effect.END_SPLICE: lambda _now: self.splice.abort(),
            Effect.FORGET: self._forget,
        }

    # What is known

    @property
    def due(self) -> Due | None:
        """When something is to be done."""
        times: tuple[tuple[float | None, str], ...] = (
            (self.negotiation.due, "a check"), (self.relay.due(), "a relay"), (self.splice.due(), "a splice"),
            (self.retry_at, "all pairs again"), (self.release_at, "the relay is not needed"),
        )  # fmt: skip
        first = None
        for when, why in times:
            if when is not None and (first is None or when < first.when):
                first = Due(when, why)
        return first

    @property
    def mode(self) -> Wish:
        """What the operators at both ends want, together."""
        return min(self.wish, self.offer.wish, key=_STRONGER.index)

    @property
    def may_go_direct(self) -> bool:
        """Whether a direct path is to be used when there is one, and WireGuard has the peer that could use it."""
        wanted = self.mode is not Wish.RELAY and not (self.mode is Wish.PREFER_RELAY and self.relay.ready)
        return wanted and not self.tunnel.missing

    def may_follow(self, endpoint: Address) -> bool:
        """Whether a direct path may lead there, where WireGuard has followed the peer to."""
        return not self.relay.is_at(endpoint) and not self._context.refuses(endpoint)

    def situation(self, now: float) -> Situation | None:
        """What a splice is made of; None without a session."""
        context, credentials = self._context, self.negotiation.credentials
        if credentials is None:
            return None
        return Situation(
            context.bases, context.nat_summary(now), self.offer.nat, self.negotiation.remote.all(),
            credentials, self.negotiation.controlling,
        )  # fmt: skip

    # What to do

    def offer_by(self, sender: OfferSender, now: float) -> None:
        """Offer the peer all that it is to know of this end."""
        sender.put(
            self._context.own.offered(), self._context.nat_summary(now), now,
            relays=self.relay.distances(), wish=self.wish, restart=self.restarts, blocked=self.blocked,
            userspace=self.tunnel.userspace,
        )  # fmt: skip

    def do(self, effect: Effect, now: float) -> None:
        """Do what the table wants."""
        self._effects[effect](now)

    def want_relay(self, now: float) -> None:
        """Have relays at the anchors that are up, unless an operator wants none."""
        if self.mode is not Wish.DIRECT:
            anchors = {key: (link.peer, link.distance_s) for key, link in self._context.anchors.items() if link.up}
            self.relay.want(anchors, {d.anchor: d.rtt_ms / 1000 for d in self.offer.relays}, now)

    def linger(self, now: float) -> None:
        """The path is direct, or is to be: a relay that was had for it is given up after a while."""
        if self.relay.wanted and self.mode in (Wish.NONE, Wish.DIRECT):
            self.release_at = now + RELAY_LINGER_S

    def tolerate_relay(self, now: float) -> None:
        """The other end has asked for a relay. Where an operator forbids it, of which that end may not have heard yet,
        it is given back after the same while: at once, and the two would ask and give back on and on."""
        if self.mode is Wish.DIRECT and self.release_at is None:
            self.release_at = now + RELAY_LINGER_S

    def begin_anew(self, now: float) -> None:
        """Try all pairs at once, here and at the peer, and be patient anew."""
        self._rest(now)
        self._check_pairs(now)

    def retry_earlier(self, now: float) -> None:
        """Something has changed: the pauses between tries are short again, also the one that lasts. It goes on, for
        there may be nothing new to check."""
        self._pause_s = RETRY_FIRST_S
        if self.retry_at is not None:
            self.retry_soon(now + RETRY_FIRST_S)

    def retry(self, now: float) -> None:
        """It is time to try all pairs again."""
        self.retry_at = None
        self._check_pairs(now)

    def retry_soon(self, when: float) -> None:
        """Try all pairs again then at the latest."""
        self.retry_at = when if self.retry_at is None else min(self.retry_at, when)

    def compare(self, now: float) -> None:
        """Compare the selected pair with others when it is time. Both ends took it together, and so they check
        together: that is what holes in NATs need."""
        if now >= self._compare_at:
            passed = 1 + int((now - self._compare_at) // COMPARE_S)
            self._compare_at += COMPARE_S * passed
            if self.liveness.busy(now):
                self._context.touch(self.peer.id)
                self.negotiation.compare(self._comparisons, now)
            self._comparisons += passed

    def check_path(self, now: float) -> None:
        """Check the selected pair, quickly."""
        self.negotiation.check_path(now, max(self.liveness.rtt_s, 0.0 if self.proven else ADOPTED_RTT_S))

    def confirm_path(self, now: float) -> None:
        """As `check_path`, while nothing is doubted."""
        self._context.touch(self.peer.id)
        self.negotiation.confirm(now, self.liveness.rtt_s)

    def ask(self, now: float) -> None:
        """Have the peer's agent asked whether it lives."""
        self._ask(self.peer, now)

    def check_at(self, remote: Address, now: float) -> None:
        """Check whether the peer is there."""
        pair = self._pair_to(remote)
        if pair is not None:
            self._context.touch(self.peer.id)
            self.negotiation.check(pair, now)

    def answers_at(self, remote: Address) -> bool:
        """Whether the peer has answered there, and has not failed to since."""
        pair = self._pair_to(remote)
        return pair is not None and self.negotiation.has_answered(pair)

    def adopt(self) -> bool:
        """Select the pair that leads to WireGuard's endpoint, though nobody has checked it. Whether there is one: a
        relay's is none."""
        endpoint = self.tunnel.endpoint
        pair = self._pair_to(endpoint) if endpoint else None
        if endpoint is None or pair is None or self._context.is_relay(endpoint):
            return False
        standing = self.splice.standing
        spliced = standing is not None and standing.remote == endpoint
        self.take(standing if spliced else pair)
        self.proven = False
        self.tunnel.adopt(endpoint)
        return True

    def take(self, pair: Pair | None) -> None:
        """Select this pair, or none."""
        current = self.negotiation.selected
        if pair is None:
            self._before = None
        elif current not in (None, pair):
            self._before = current
        self.negotiation.selected = pair

    def is_twin(self, pair: Pair) -> bool:
        """Whether this pair and the one in use end at one socket of the peer's: a port that its router has promised and
        one that its NAT gives its packets. Both have been in use, and differ by that port alone; the one in use has
        answered, and not failed since."""
        current = self.negotiation.selected
        if current is None or pair != self._before or not self.negotiation.has_answered(current):
            return False
        return pair.local == current.local and pair.remote.ip == current.remote.ip

    def carries(self, pair: Pair) -> bool:
        """Whether it is by this pair that WireGuard's packets leave now: to its remote address, and a splice to there
        has them leave from its own port."""
        standing = self.splice.standing
        spliced = standing is not None and standing.remote == pair.remote
        return self.tunnel.endpoint == pair.remote and (not spliced or pair == standing)

    # Effects

    def _pair_to(self, remote: Address) -> Pair | None:
        base = self._context.own.base(remote.family)
        return Pair(base, remote) if base is not None and not self._context.refuses(remote) else None

    def _ask_relay(self, now: float) -> None:
        if self.mode is not Wish.DIRECT:
            self.release_at = None
            self.want_relay(now)
            self.relay.refresh(now)

    def _use_pair(self, now: float) -> None:
        pair = self.chosen
        if pair is None:
            return
        self.take(pair)
        self.proven, self.tolerated = True, None
        self._compare_at, self._comparisons = now + COMPARE_S, 0
        self.liveness.moved(now, self.negotiation.rtt_s(pair) or 0.0)
        self.tunnel.set_endpoint(pair.remote, now)

    def _use_relay(self, now: float) -> None:
        if self.relay.ready is not None:
            self.take(None)
            self.splice.leave()
            self.relay.refresh(now)
            anchor = self.relay.used_anchor
            link = self._context.anchors.get(anchor.id) if anchor else None
            self.liveness.moved(now, 2 * link.distance_s if link else 0.0)
            self.tunnel.set_endpoint(self.relay.ready, now)

    def _check_pairs(self, now: float) -> None:
        self.restarts += 1
        self.negotiation.restart(now)

    def _check_relay(self, now: float) -> None:
        self.relay.check(now)
        self.ask(now)

    def _rest(self, _now: float) -> None:
        self.retry_at, self._pause_s = None, RETRY_FIRST_S

    def _retry_later(self, now: float) -> None:
        if not self.may_go_direct:
            return
        self.retry_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_LONGEST_S)

    def _forget(self, _now: float) -> None:
        # Not the offer: it is not said again to who has acknowledged it.
        self.take(None)
        self.negotiation.forget()
        self.relay.release()
        self.splice.stop()
        self.retry_at, self.release_at = None, None
