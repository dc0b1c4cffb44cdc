"""Connectivity checks with one peer: STUN Binding requests on every pair of addresses (RFC 8445 sections 6 and 7).

They leave from WireGuard's own port, so that they open and test the very mappings that the tunnel would use. Each pair
is asked a few times, less and less often; what the peer asks is answered, and asked back at once. Which pair is used
in the end is decided elsewhere (`choice.py`): here a pair is nominated when told so, and both sides hear of it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.check import Check, Progress
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import LATEST_S, Transactions, signed
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress

# Between two checks of one peer (RFC 8445 section 14.2 demands 5 ms at least).
PACE_S = 0.02
# Questions that may leave at once, and each second in the long run, for addresses that have never answered: two full
# rounds of some thirty pairs. A peer says where it is, and may name a victim instead, again and again.
STRANGERS_BURST, STRANGERS_RATE = 400.0, 4.0
# Of one peer, as RFC 8445 section 6.1.2.5 recommends.
MAX_PAIRS = 100
# Pairs with one address of the peer, whatever its ports, when one more is learned from a check.
MAX_OF_HOST = 8
# The peer's questions on one pair that are asked back at once. Between two NATs whose answers always come from another
# port, each would lead to the next without an end.
MAX_TRIGGERED = 4
# Open requests that are remembered: those of all pairs at their quickest.
MAX_TRANSACTIONS = 512


class Pair(NamedTuple):
    """A local and a remote address. The local one is a base: an address of this host, or a splice's port."""

    local: Address
    remote: Address


@dataclass(frozen=True)
class Credentials:
    """What makes a check authentic: the USERNAME of ours, and the pair's key for this session."""

    username: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """A pair has answered. `nominated`: the answer was to a nomination."""

    pair: Pair
    rtt_s: float
    nominated: bool


@dataclass(frozen=True)
class Question:
    """The peer has asked on a pair. `nominated`: it wants this pair to be used, and it has answered us before."""

    pair: Pair
    nominated: bool


class _Open(NamedTuple):
    pair: Pair
    sent_at: float
    nominating: bool


class CheckList:
    """The pairs of one peer. Nothing here raises for what a peer does; the caller has checked who sent it."""

    def __init__(
        self, credentials: Credentials, *, controlling: bool, dice: random.Random, strangers: TokenBucket,
        transactions: Transactions,
    ) -> None:  # fmt: skip
        """`strangers` says how many questions addresses get that have never answered: the peer's, in all sessions."""
        self._credentials = credentials
        self._strangers = strangers
        self._controlling = controlling
        self._tie_breaker = dice.getrandbits(64)
        self._transactions = transactions
        self._checks: dict[Pair, Check] = {}
        self._open: dict[bytes, _Open] = {}
        self._triggered: deque[Pair] = deque()
        self._quiet_until = 0.0
        self._first_due: float | None = None
        self._stale = False  # `_first_due` is to be worked out

    # What is known

    def valid(self) -> tuple[tuple[Pair, int, float], ...]:
        """(pair, rank, round-trip seconds) of those that have answered in this round, sorted."""
        return tuple(
            (pair, check.rank, check.rtt_s)
            for pair, check in sorted(self._checks.items())
            if check.progress is Progress.SUCCEEDED and check.rtt_s is not None
        )

    def knows(self, pair: Pair) -> bool:
        """Whether the pair is on the list."""
        return pair in self._checks

    def failed(self, pair: Pair) -> bool:
        """Whether the pair was asked as often as it is asked, and has not answered; true for one that is not there."""
        check = self._checks.get(pair)
        return check is None or check.progress is Progress.FAILED

    def has_answered(self, pair: Pair) -> bool:
        """Whether the pair has answered, and may do so again: it is perhaps being asked."""
        check = self._checks.get(pair)
        return check is not None and check.rtt_s is not None and check.progress is not Progress.FAILED

    def hopeless(self) -> frozenset[Address]:
        """The remote addresses of which every pair has failed."""
        failed = {pair.remote for pair, check in self._checks.items() if check.progress is Progress.FAILED}
        others = {pair.remote for pair, check in self._checks.items() if check.progress is not Progress.FAILED}
        return frozenset(failed - others)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to ask."""
        return not any(check.is_open for check in self._checks.values())

    # What to do

    def set_pairs(self, pairs: Iterable[tuple[Pair, int, int]]) -> None:
        """(pair, rank, PRIORITY) of all pairs there are now. What is known of those that were there stays known.

        The higher rank is asked first; PRIORITY is what the peer gives the candidate if it has to learn it from the
        request (RFC 8445 section 7.1.1).
        """
        self._stale = True
        wanted = {pair: (rank, priority) for pair, rank, priority in list(pairs)[:MAX_PAIRS]}
        for pair in [p for p in self._checks if p not in wanted]:
            del self._checks[pair]
        for pair, (rank, priority) in wanted.items():
            check = self._checks.setdefault(pair, Check(rank))
            check.rank, check.priority = rank, priority

    def restart(self, now: float) -> None:
        """Ask every pair again from the beginning."""
        self._stale = True
        for check in self._checks.values():
            check.restart(now)

    def ask_new(self, now: float) -> None:
        """Ask the pairs that were never asked, as those that came with the last candidates."""
        self._stale = True
        for check in self._checks.values():
            if check.is_new:
                check.begin(now)

    def ask_quickly(self, pair: Pair, now: float, rtt_s: float = 0.0) -> None:
        """Ask a pair in use whether it lives; it has failed when none of a few quick questions is answered. `rtt_s`:
        what is known of its round trip elsewhere."""
        self._stale = True
        self._checks.setdefault(pair, Check(0)).hurry(now, rtt_s)

    def confirm(self, pair: Pair, now: float, rtt_s: float) -> None:
        """Ask a pair in use, of which nothing is doubted, whether it lives: as `ask_quickly`."""
        self._stale = True
        self._checks.setdefault(pair, Check(0)).confirm(now, rtt_s)

    def compare(self, pairs: Iterable[Pair], now: float) -> None:
        """Ask pairs once more that have answered, or failed; each is valid when it answers."""
        self._stale = True
        for pair in pairs:
            self._checks[pair].compare(now)

    def nominate(self, pair: Pair, now: float) -> None:
        """Tell the peer, by checks that say so, that this pair shall be used. The controlling side alone may.

        Raises KeyError for a pair that is not there.
        """
        self._stale = True
        self._checks[pair].nominate(now)

    def poll(self, now: float) -> SendProbe | None:
        """The next check that is due, if any is: at most one every PACE_S. None instead of one that is too many for
        addresses that have never answered: it counts as asked in vain."""
        due = self.due()
        if due is None or now < due:
            return None
        self._stale = True
        pair = self._next(now)
        if pair is None:
            return None
        self._quiet_until = now + PACE_S
        probe, known = self._ask(pair, now), self._checks[pair].rtt_s is not None
        return probe if known or self._strangers.take(now) else None

    def due(self) -> float | None:
        """When `poll` has something to do next."""
        if self._triggered:
            return self._quiet_until
        if self._stale:
            self._first_due = min((c.due_at for c in self._checks.values() if c.due_at is not None), default=None)
            self._stale = False
        return max(self._first_due, self._quiet_until) if self._first_due is not None else None

    # What comes in

    def receive_request(self, request: stun.Message, pair: Pair) -> tuple[SendProbe, Question] | None:
        """The answer to an authentic request, and what it means. An unknown pair is learned (peer-reflexive). None for
        a nomination that there is no room for: the peer is not to take alone what it takes for agreed."""
        answer = signed(stun.success_response(request, TransportAddress(*pair.remote)), self._credentials.key)
        nominated = request.use_candidate and not self._controlling
        check = self._checks.get(pair)
        if check is None and self._make_room(pair, nominated=nominated):
            check = self._checks[pair] = Check(request.priority or 0)
        if check is None:
            return None if nominated else (SendProbe(pair.local, pair.remote, answer), Question(pair, nominated=False))
        if check.progress is not Progress.SUCCEEDED and check.triggered < MAX_TRIGGERED and pair not in self._triggered:
            check.triggered += 1
            check.wanted = check.wanted or nominated
            self._triggered.append(pair)
        return (
            SendProbe(pair.local, pair.remote, answer),
            Question(pair, nominated=nominated and check.progress is Progress.SUCCEEDED),
        )

    def receive_response(self, response: stun.Message, pair: Pair, now: float) -> Answer | None:
        """What an authentic success response means; None when nobody asked for it, it took another way back, or
        has waited."""
        opened = self._open.get(response.transaction)
        if opened is None or opened.pair != pair:  # RFC 8445 section 7.2.5.2.1
            return None
        del self._open[response.transaction]
        self._stale = True
        check = self._checks.get(pair)
        if check is None or now - opened.sent_at > LATEST_S:
            return None
        agreed = check.answered(opened.sent_at, now, nominating=opened.nominating)
        return Answer(pair, now - opened.sent_at, agreed)

    # Inside

    def _make_room(self, pair: Pair, *, nominated: bool) -> bool:
        """Whether a pair may be learned. Two NATs of the hardest kind give each answer another port: without a bound,
        each check would lead to the next. One that is nominated has answered the peer, so that the way there works: it
        takes the place of one that has not."""
        of_host = sum(p.remote.ip == pair.remote.ip and p.local == pair.local for p in self._checks)
        if nominated and len(self._checks) >= MAX_PAIRS:
            silent = [(check.rank, p) for p, check in self._checks.items() if check.rtt_s is None]
            if silent:
                del self._checks[min(silent)[1]]
                self._stale = True
        return len(self._checks) < MAX_PAIRS and (nominated or of_host < MAX_OF_HOST)

    def _next(self, now: float) -> Pair | None:
        while self._triggered:
            pair = self._triggered.popleft()
            if pair in self._checks:
                return pair
        ready = [(-c.rank, pair) for pair, c in self._checks.items() if c.due_at is not None and c.due_at <= now]
        for _, pair in sorted(ready):
            if not self._checks[pair].is_over:
                return pair
            self._checks[pair].fail()
        return None

    def _ask(self, pair: Pair, now: float) -> SendProbe:
        check = self._checks[pair]
        check.ask(now)
        transaction = self._transactions.new()
        if len(self._open) >= MAX_TRANSACTIONS:
            del self._open[next(iter(self._open))]
        self._open[transaction] = _Open(pair, now, check.nominating)
        request = stun.Message(
            stun.Class.REQUEST,
            transaction,
            username=self._credentials.username,
            priority=check.priority,
            use_candidate=check.nominating,
            ice_controlling=self._tie_breaker if self._controlling else None,
            ice_controlled=None if self._controlling else self._tie_breaker,
        )
        data = signed(request, self._credentials.key)
        return SendProbe(pair.local, pair.remote, data)
