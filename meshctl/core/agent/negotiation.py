"""The search for a direct path to one peer: candidates of both, the checks on their pairs, and which is nominated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import CandidatePriority, NatSummary
from meshctl.core.agent.candidates import PRFLX_LIFETIME_S, RemoteCandidates
from meshctl.core.agent.check import ANSWER_S, COMPARE_SCHEDULE_S, LAST, SCHEDULE_S
from meshctl.core.agent.checklist import (
    STRANGERS_BURST,
    STRANGERS_RATE,
    CheckList,
    CheckReceived,
    CheckSucceeded,
    Credentials,
    Pair,
    ValidPair,
)
from meshctl.core.agent.choice import Changes, best, rivals
from meshctl.core.agent.damping import Damping
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.hairpins import Hairpins
from meshctl.core.agent.interfacecontext import InterfaceContext, SendSlot
from meshctl.core.agent.pairs import CandidatePair, Tier, pair_up
from meshctl.core.agent.probes import Copies
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun

# So long the controlling side waits after the first answer for that of a better pair; not at all for one on its LAN.
SETTLE_S = 0.1
# A peer sends a check each `checklist.PACE_S` at the most, and one that guesses at a splice's ports hits a few. Whoever
# sends more, from whatever addresses, wants the answers to go to somebody else.
ANSWERS_BURST, ANSWERS_RATE = 300.0, 100.0


class Negotiation:
    """With one peer, in its present session. `selected` is the pair in use (RFC 8445 section 4), None while there is
    none. What `damping` suppresses is checked as ever, and not nominated."""

    def __init__(
        self, context: InterfaceContext, heard: Callable[[CheckSucceeded, float], None], *, controlling: bool
    ) -> None:
        """`heard` is called with each of our checks that was answered."""
        self._context = context
        self._heard = heard
        self.controlling = controlling
        self.remote = RemoteCandidates(context.config.mesh_ranges)
        self.selected: Pair | None = None
        self.damping = Damping()
        self._hairpins = Hairpins(context.nat, self.remote)
        self._strangers = TokenBucket(STRANGERS_RATE, STRANGERS_BURST)
        self._answers = TokenBucket(ANSWERS_RATE, ANSWERS_BURST)
        self._checks: CheckList | None = None
        self._counted = (b"", Copies())  # the key of the last session, and what came under it, though it was forgotten
        self._pairs: tuple[CandidatePair, ...] = ()
        self._learned: dict[Pair, None] = {}  # from a local port that is no candidate's: a splice's
        self._changes = Changes()
        self._slot = SendSlot(context.pace)
        self._nominate_at: float | None = None
        self._nominated: Pair | None = None  # and no answer to that yet
        self._round_ends: float | None = None
        self._compared: frozenset[Pair] = frozenset()  # lately; of others the round trips are old
        self._compare_ends = 0.0
        self.credentials: Credentials | None = None

    # What is known

    @property
    def key(self) -> bytes:
        """Of the peer's checks in this session; b"" without one."""
        return self.credentials.key if self.credentials else b""

    @property
    def due(self) -> float | None:
        """When `poll` has something to do."""
        if self._checks is None:
            return None
        check_due = self._slot.not_before(self._checks.due())
        times = (check_due, self._nominate_at, self._round_ends, self.remote.next_expiry())
        return min([t for t in times if t is not None], default=None)

    def failed(self, pair: Pair) -> bool:
        """Whether the pair was checked in vain, or is not on the check list any more."""
        return self._checks is None or self._checks.failed(pair)

    def rtt_s(self, pair: Pair) -> float | None:
        """The pair's last round trip, None when it is not valid."""
        return {p: rtt for p, _, rtt in self._valid()}.get(pair)

    def has_answered(self, pair: Pair) -> bool:
        """Whether the pair has ever succeeded, and has not failed since."""
        return self._checks is not None and self._checks.has_answered(pair)

    @property
    def promising(self) -> bool:
        """Whether a pair is valid, so that it can be nominated."""
        return bool(self._valid())

    def take_exhausted(self, now: float) -> bool:
        """Whether a round of checks has ended without a pair that was taken; true once for each round. Where a pair is
        valid, its nomination has as long as the checks of a pair that does not answer."""
        if self._round_ends is None or self._checks is None:
            return False
        over = now >= self._round_ends or (self._checks.exhausted and not self.promising)
        if over:
            self._round_ends = None
        return over

    # What to do

    def renew(self, credentials: Credentials) -> None:
        """The session is another one, and with it what makes checks authentic."""
        if self._counted[0] != credentials.key:
            self._counted = (credentials.key, Copies())
        self._checks = CheckList(
            credentials, controlling=self.controlling, dice=self._context.dice, strangers=self._strangers,
            transactions=self._context.transactions,
        )  # fmt: skip
        self.credentials = credentials
        self._end_round()
        self._set_pairs()

    def refresh(self, now: float) -> None:
        """Candidates of either side have come or gone. New pairs are checked; what is known of others stays known."""
        self._pairs = pair_up(
            self._context.own.all(), self.remote.all(), self._context.hosts, controlling=self.controlling,
            keep=frozenset(p for p, _, _ in self._valid()),
        )  # fmt: skip
        own_ips = {a.ip for a in self._context.hosts}
        self._learned = {pair: None for pair in self._learned if pair.local.ip in own_ips}
        self._set_pairs()
        if self._checks is not None:
            self._checks.check_new(now)
            if not self._checks.exhausted:
                self._begin_round(now)

    def configure(self, now: float) -> None:
        """The inventory says something else of the interface."""
        if self.remote.set_ranges(self._context.config.mesh_ranges):
            self.refresh(now)

    def restart(self, now: float) -> None:
        """Check all pairs from the beginning. A peer-reflexive candidate of which every pair has failed makes room for
        where the peer's checks come from now: a NAT that gives each answer another port fills `checklist.MAX_OF_HOST`.
        """
        if self._checks is not None:
            hopeless = self._checks.hopeless()
            self.remote.forget("prflx", keep=[c.address for c in self.remote.all() if c.address not in hopeless])
            self.refresh(now)
            self._checks.restart(now)
            self._nominate_at = self._nominated = None
            self._compared = frozenset()
            self._begin_round(now)

    def slept(self) -> None:
        """The host slept: an answer that has waited meanwhile is no measure of a path."""
        if self._checks is not None:
            self._checks.slept()

    def check_path(self, now: float, rtt_s: float = 0.0) -> None:
        """Check the selected pair, quickly. `rtt_s`: its round trip, as far as it is known elsewhere."""
        if self._checks is not None and self.selected is not None:
            self._checks.check_quickly(self.selected, now, rtt_s)

    def confirm(self, now: float, rtt_s: float) -> None:
        """As `check_path`, while nothing is doubted: the pair stays valid meanwhile."""
        if self._checks is not None and self.selected is not None:
            self._checks.confirm(self.selected, now, rtt_s)

    def compare(self, passed: int, now: float) -> None:
        """Check the selected pair, if it is valid, and its rivals once more: which of them is best may have changed.
        `passed` is how many comparisons were due before, at both ends."""
        current, valid = self.selected, self._takeable(now)
        if self._checks is None or current is None or current not in {pair for pair, _, _ in valid}:
            return
        failed = [p for p in map(_ends, self._pairs) if self._checks.knows(p) and self._checks.failed(p)]
        others = rivals(valid, failed, current, passed)
        if others:
            self._compared = others | {current}
            self._compare_ends = now + COMPARE_SCHEDULE_S[-1] + ANSWER_S
            self._checks.compare(sorted(self._compared), now)

    def comparing(self, now: float) -> bool:
        """Whether a comparison is going on."""
        return now < self._compare_ends

    def check(self, pair: Pair, now: float) -> None:
        """Check a pair that nobody has offered, quickly."""
        if self._checks is not None:
            self.remote.learn("prflx", pair.remote, now + PRFLX_LIFETIME_S)
            self._checks.check_quickly(pair, now)

    def forget(self) -> None:
        """Nothing is known of the peer any more but what the inventory says."""
        self.credentials, self._checks, self.selected = None, None, None
        self._end_round()
        self._learned = {}

    def nominate(self, pair: Pair, now: float) -> None:
        """Have the peer use this pair, which is on the check list; only on the controlling side."""
        if self._checks is not None:
            self._nominated = pair
            self._checks.nominate(pair, now)

    def poll(self, now: float, *, nominate: bool) -> None:
        """Send the check that is due; `nominate`: a path is wanted, so nominate the best pair when it is time."""
        if self.remote.expire(now):
            self.refresh(now)
        if self._checks is None:
            return
        if self._nominate_at is not None and now >= self._nominate_at:
            self._nominate_at = None
            chosen = best(self._takeable(now))
            if chosen is not None and nominate:
                self.nominate(chosen, now)
        self._slot.reserve(self._checks.due(), now)
        if self._slot.take(now):
            probe = self._checks.poll(now)
            if probe is not None:
                self._context.nat.sent(probe.local, probe.remote, now)
                self.send(probe)
            self._slot.reserve(self._checks.due(), now)


    def send(self, probe: SendProbe) -> None:
        """Send a check. Its answer comes back here."""
        self._context.probe(probe, self._answered)

    # What comes in

    def check_received(self, request: stun.Message, pair: Pair, now: float, *, willing: bool) -> CheckReceived | None:
        """An authentic check of the peer's: it is answered, and its source is learned. None for one that counts for
        nothing: it came before (the peer sends none twice, so it is somebody else's copy), or there is no room for it.
        While this end is not `willing` to use the pair it does not answer a nomination: the peer would take it for
        agreed."""
        if self._checks is None or not self._is_new(request) or not self._answers.take(now):
            return None
        self._received(pair, now)
        if request.use_candidate and not self.controlling and not willing:
            return CheckReceived(pair, nominated=False)
        found = self._checks.receive_request(request, pair)
        if found is None:
            return None
        reply, received = found
        self._context.act(reply)
        if self._checks.knows(pair):
            self._learn(pair, now, CandidatePriority(request.priority) if request.priority else None)
        return received

    def indicated(self, indication: stun.Message) -> bool:
        """Whether an authentic indication says that the peer lives: not one that came before."""
        return self._checks is not None and self._is_new(indication)

    def all_tried(self, theirs: Iterable[NatSummary], now: float) -> None:
        """A round of checks has ended at both ends. `theirs`: the peer's NATs, as it knows them."""
        failed = {pair: self.failed(pair) for pair in map(_ends, self._pairs)}
        self._hairpins.tried(self._context.own.bases(), theirs, failed, now)

    def settle(self, pair: Pair, now: float, earliest: float = -inf) -> None:
        """On the controlling side: this pair has succeeded, and a path is wanted. Nominate the best one soon, not
        before `earliest`, unless a nomination may still be answered."""
        if self._nominate_at is None and not self._pending and not self.damping.suppressed(pair.remote.ip, now):
            lan = any(p.tier is Tier.LAN and _ends(p) == pair for p in self._pairs)
            self._nominate_at = max(now if lan else now + SETTLE_S, earliest)

    def better(self, now: float) -> Pair | None:
        """A pair that is worth leaving the selected one for. To be nominated: it counts against the changes of an hour.
        None while a nomination may still be answered."""
        if self.selected is None or self._pending:
            return None
        valid = [v for v in self._takeable(now) if not self._compared or v[0] in self._compared]
        return self._changes.worth(valid, self.selected, now)

    # Inside


    def _is_new(self, message: stun.Message) -> bool:
        return self._counted[1].is_new(message)

    @property
    def _pending(self) -> bool:
        """Whether a nomination may still be answered."""
        return self._nominated is not None and not self.failed(self._nominated)

    def _begin_round(self, now: float) -> None:
        self._round_ends = now + SCHEDULE_S[-1] + ANSWER_S

    def _end_round(self) -> None:
        self._round_ends = self._nominate_at = self._nominated = None

    def _answered(self, received: stun.Received, local: Address, remote: Address, now: float) -> bool:
        if self._checks is None or received.message.message_class is not stun.Class.SUCCESS:
            return False
        if not received.is_authentic(self.key):
            return False
        answer = self._checks.receive_response(received.message, Pair(local, remote), now)
        if answer is not None:
            self._received(answer.pair, now)
            if answer.nominated:
                self._nominated = None
            self._learn(answer.pair, now)
            self._heard(answer, now)
        return True

    def _received(self, pair: Pair, now: float) -> None:
        self._context.nat.received(pair.local, pair.remote, now)
        self._hairpins.received(pair, now)

    def _valid(self) -> tuple[ValidPair, ...]:
        return self._checks.valid() if self._checks is not None else ()

    def _takeable(self, now: float) -> tuple[ValidPair, ...]:
        valid = self._valid()
        return tuple(v for v in valid if v[0] == self.selected or not self.damping.suppressed(v[0].remote.ip, now))

    def _learn(self, pair: Pair, now: float, told: CandidatePriority | None = None) -> None:
        """Peer-reflexive: an address from which the peer has shown itself; `told`: PRIORITY of its check."""
        self.remote.learn("prflx", pair.remote, now + PRFLX_LIFETIME_S, told)
        if pair.local not in self._context.own.bases():
            self._learned[pair] = None

    def _set_pairs(self) -> None:
        if self._checks is None:
            return
        pairs = {_ends(p): (p.rank, p.prflx_priority) for p in self._pairs}
        # First those that must not be cut off when there are too many.
        first = [*((self.selected,) if self.selected is not None else ()), *self._learned]
        of_no_candidates = LAST, CandidatePriority(0)
        self._checks.set_pairs((pair, *pairs.get(pair, of_no_candidates)) for pair in dict.fromkeys([*first, *pairs]))


def _ends(pair: CandidatePair) -> Pair:
    return Pair(pair.local, pair.remote)
