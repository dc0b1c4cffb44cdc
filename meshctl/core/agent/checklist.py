"""Connectivity checks with one peer: STUN Binding requests on every pair of addresses (RFC 8445 sections 6 and 7).

They leave from WireGuard's own port, so that they open and test the very mappings that the tunnel would use. Each pair
is checked a few times, less and less often. A check of the peer's is answered, and triggers one of ours at once. Which
pair is used in the end is decided elsewhere (`choice.py`): here a pair is nominated when told so, and both sides hear.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import CandidatePriority
from meshctl.core.agent.check import LAST, Check, PairState, Rank, learned_rank
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import LATEST_S, Transactions, signed
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress

# Between two checks of one peer (RFC 8445 section 14.2 demands 5 ms at least).
PACE_S = 0.02
# Checks that may leave at once, and each second in the long run, for addresses that have never answered: two full
# rounds of some thirty pairs. A peer says where it is, and may name a victim instead, again and again.
STRANGERS_BURST, STRANGERS_RATE = 400.0, 4.0
# Of one peer, as RFC 8445 section 6.1.2.5 recommends.
MAX_PAIRS = 100
# Pairs with one address of the peer, whatever its ports, when one more is learned from a check.
MAX_OF_HOST = 8
# Triggered checks of one pair. Between two NATs whose answers always come from another port, each would lead to the
# next without an end.
MAX_TRIGGERED = 4
# Open requests that are remembered: those of all pairs at their quickest.
MAX_TRANSACTIONS = 512


class Pair(NamedTuple):
    """A local and a remote address. The local one is a base: an address of this host, or a splice's port."""

    local: Address
    remote: Address


# An entry of the valid list (RFC 8445 section 6.1.2.6): a pair, its rank, and its round trip in seconds.
ValidPair = tuple[Pair, Rank, float]


@dataclass(frozen=True)
class Credentials:
    """What makes a check authentic: the USERNAME of ours, and the pair's key for this session."""

    username: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class CheckSucceeded:
    """A check of ours was answered. `nominated`: both ends have agreed on the pair by it."""

    pair: Pair
    rtt_s: float
    nominated: bool


@dataclass(frozen=True)
class CheckReceived:
    """A check of the peer's came. `nominated`: both ends have agreed on the pair by it: it had USE-CANDIDATE, and the
    pair is valid here."""

    pair: Pair
    nominated: bool


class _Open(NamedTuple):
    """A check that left at `sent_at`; None: before the host slept."""

    pair: Pair
    sent_at: float | None
    nominating: bool


class CheckList:
    """The pairs of one peer. Nothing here raises for what a peer does; the caller has made sure who sent it."""

    def __init__(
        self, credentials: Credentials, *, controlling: bool, dice: random.Random, strangers: TokenBucket,
        transactions: Transactions,
    ) -> None:  # fmt: skip
        """`strangers` says how many checks may leave for addresses of the peer that have never answered, in all of its
        sessions."""
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

    def valid(self) -> tuple[ValidPair, ...]:
        """The valid list: the pairs that have succeeded in this round, sorted."""
        return tuple(
            (pair, check.rank, check.rtt_s)
            for pair, check in sorted(self._checks.items())
            if check.state is PairState.SUCCEEDED and check.rtt_s is not None
        )

    def knows(self, pair: Pair) -> bool:
        """Whether the pair is on the list."""
        return pair in self._checks

    def failed(self, pair: Pair) -> bool:
        """Whether no check of the pair's last round was answered; true for a pair that is not on the list."""
        check = self._checks.get(pair)
        return check is None or check.state is PairState.FAILED

    def has_answered(self, pair: Pair) -> bool:
        """Whether the pair has ever succeeded, and has not failed since; a round may be going on."""
        check = self._checks.get(pair)
        return check is not None and check.rtt_s is not None and check.state is not PairState.FAILED

    def hopeless(self) -> frozenset[Address]:
        """The remote addresses of which every pair has failed."""
        failed = {pair.remote for pair, check in self._checks.items() if check.state is PairState.FAILED}
        others = {pair.remote for pair, check in self._checks.items() if check.state is not PairState.FAILED}
        return frozenset(failed - others)

    @property
    def exhausted(self) -> bool:
        """Whether no check is to leave any more, and no answer can come."""
        return not any(check.is_open for check in self._checks.values())

    # What to do

    def set_pairs(self, pairs: Iterable[tuple[Pair, Rank, CandidatePriority]]) -> None:
        """(pair, rank, PRIORITY) of all pairs there are now. What is known of those that were there stays known.

        The higher rank is checked first; PRIORITY is what the peer gives the candidate if it has to learn it from the
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
        """Check every pair again from the beginning."""
        self._stale = True
        for check in self._checks.values():
            check.restart(now)

    def check_new(self, now: float) -> None:
        """Check the pairs that never were, as those that came with the last candidates."""
        self._stale = True
        for check in self._checks.values():
            if check.is_new:
                check.begin(now)

    def check_quickly(self, pair: Pair, now: float, rtt_s: float = 0.0) -> None:
        """Check the selected pair: it has failed when none of a few quick checks is answered. `rtt_s`: its round trip,
        as it was measured elsewhere."""
        self._stale = True
        self._checks.setdefault(pair, Check(LAST)).hurry(now, rtt_s)

    def confirm(self, pair: Pair, now: float, rtt_s: float) -> None:
        """As `check_quickly`, of a pair that is not in doubt: it stays valid meanwhile."""
        self._stale = True
        self._checks.setdefault(pair, Check(LAST)).confirm(now, rtt_s)

    def slept(self) -> None:
        """The host slept: the answers to what left before do not say how long a path is."""
        self._open = {transaction: opened._replace(sent_at=None) for transaction, opened in self._open.items()}

    def compare(self, pairs: Iterable[Pair], now: float) -> None:
        """Check pairs once more that have succeeded, or failed. Raises KeyError for one that is not on the list."""
        self._stale = True
        for pair in pairs:
            self._checks[pair].compare(now)

    def nominate(self, pair: Pair, now: float) -> None:
        """Nominate the pair: check it with USE-CANDIDATE. The controlling side alone may.

        Raises KeyError for a pair that is not on the list.
        """
        self._stale = True
        self._checks[pair].nominate(now)

    def poll(self, now: float) -> SendProbe | None:
        """The next check that is due, if any is: at most one every PACE_S. None instead of one that is too many for
        addresses that have never answered: it counts as if it had left."""
        due = self.due()
        if due is None or now < due:
            return None
        self._stale = True
        pair = self._next(now)
        if pair is None:
            return None
        self._quiet_until = now + PACE_S
        probe, known = self._send(pair, now), self._checks[pair].rtt_s is not None
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

    def receive_request(self, request: stun.Message, pair: Pair) -> tuple[SendProbe, CheckReceived] | None:
        """The answer to an authentic check, and what it means. An unknown pair is learned (peer-reflexive). None for a
        nomination of one that there is no room for: answered, the peer would take it for agreed, and use it alone."""
        answer = signed(stun.success_response(request, TransportAddress(*pair.remote)), self._credentials.key)
        reply = SendProbe(pair.local, pair.remote, answer)
        nominated = request.use_candidate and not self._controlling
        check = self._checks.get(pair)
        if check is None and self._make_room(pair, nominated=nominated):
            check = self._checks[pair] = Check(learned_rank(CandidatePriority(request.priority or 0)))
        if check is None:
            return None if nominated else (reply, CheckReceived(pair, nominated=False))
        if check.state is not PairState.SUCCEEDED and check.triggered < MAX_TRIGGERED and pair not in self._triggered:
            check.triggered += 1
            check.wanted = check.wanted or nominated
            self._triggered.append(pair)
        return reply, CheckReceived(pair, nominated=nominated and check.state is PairState.SUCCEEDED)

    def receive_response(self, response: stun.Message, pair: Pair, now: float) -> CheckSucceeded | None:
        """What an authentic success response means; None when no check awaits it, it took another way back, or it is
        too late."""
        opened = self._open.get(response.transaction)
        if opened is None or opened.pair != pair:  # RFC 8445 section 7.2.5.2.1
            return None
        del self._open[response.transaction]
        self._stale = True
        check = self._checks.get(pair)
        if check is None:
            return None
        rtt_s = now - opened.sent_at if opened.sent_at is not None else check.rtt_s
        if rtt_s is None or rtt_s > LATEST_S:
            return None
        return CheckSucceeded(pair, rtt_s, check.answered(rtt_s, nominating=opened.nominating))

    # Inside

    def _make_room(self, pair: Pair, *, nominated: bool) -> bool:
        """Whether a pair may be learned. Two NATs of the hardest kind give each answer another port: without a bound,
        each check would lead to the next. One that is nominated has succeeded at the peer, so that the way there works:
        it takes the place of one that never has here."""
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
        # A nomination waits for no other check, and no pair's first one for another's second: of a hundred pairs, most
        # of which lead nowhere, the one that works may be the last.
        ready = [
            (not c.nominating, c.sent, -c.rank, pair) for pair, c in self._checks.items()
            if c.due_at is not None and c.due_at <= now
        ]  # fmt: skip
        for *_, pair in sorted(ready):
            if not self._checks[pair].is_over:
                return pair
            self._checks[pair].fail()
        return None

    def _send(self, pair: Pair, now: float) -> SendProbe:
        check = self._checks[pair]
        check.send(now)
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
