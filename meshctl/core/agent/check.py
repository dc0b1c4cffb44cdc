"""The connectivity checks of one pair: when the next one is due, and the pair's state (RFC 8445 section 6.1.2.6).

A round has a few checks, less and less often. The first that is answered ends it. When none is, the pair has failed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

from meshctl.core.agent.bodies import CandidatePriority

# Which pair of a check list comes first, the highest: `pairs.CandidatePair.rank`. Not for the wire.
Rank = NewType("Rank", int)
# Of a pair that is on the list though no two candidates make it: after all others.
LAST = Rank(0)

# When checks leave, counted from the round's first: a hole takes both ends' packets, which start a round trip apart,
# and the later ones are for paths that lose.
SCHEDULE_S = (0.0, 0.1, 0.3, 0.7, 1.5, 3.0)
# How long after the last of them an answer still counts.
ANSWER_S = 1.0
# The quick checks of the selected pair when it may be dead, and how long the last one has: with liveness.UNANSWERED_S
# they make less than the two seconds after which traffic must flow again.
PATH_SCHEDULE_S = (0.0, 0.1, 0.2, 0.3, 0.4)
PATH_ANSWER_S = 0.3
# On a slow path: so many round trips, as it was measured last, but no longer than this. A path by satellite has up to
# 0.8 s, or twice that between two of them; one that was longer had a queue on the way.
RTTS, PATH_ANSWER_MAX_S = 1.5, 3.0
# The checks that compare the selected pair with others: a hole may have closed meanwhile, and both ends check at about
# the same time.
COMPARE_SCHEDULE_S = (0.0, 0.5, 1.5)


def learned_rank(told: CandidatePriority) -> Rank:
    """Of a pair that the peer's check has shown, with that PRIORITY, until candidates are paired anew. It comes after
    all pairs of candidates, whose ranks are above 2^32, and among others like it by what the peer has told."""
    return Rank(told)


def slow_s(rtt_s: float) -> float:
    """How long an answer may take, in seconds, because the path of that round trip is slow."""
    return min(RTTS * rtt_s, PATH_ANSWER_MAX_S)


class PairState(enum.Enum):
    """RFC 8445 section 6.1.2.6, but for Frozen: all pairs may be checked at once."""

    WAITING = "waiting"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass
class Check:
    """One pair's. `due_at` is when its next check leaves, `sent` how many have in this round; `priority` is what they
    carry as PRIORITY, 0 where this end has no candidate to derive it from.

    `nominating`: the checks carry USE-CANDIDATE; `wanted`: a check of the peer's did, before it had answered ours;
    `triggered`: how many triggered checks there were since the list was last checked from the beginning.
    """

    rank: Rank
    priority: CandidatePriority = CandidatePriority(0)
    state: PairState = PairState.WAITING
    schedule: tuple[float, ...] = SCHEDULE_S
    answer_s: float = ANSWER_S
    began_at: float = 0.0
    due_at: float | None = None
    sent: int = 0
    nominating: bool = False
    triggered: int = 0
    wanted: bool = False
    rtt_s: float | None = None

    @property
    def is_new(self) -> bool:
        """Whether it was never checked."""
        return self.state is PairState.WAITING and self.due_at is None

    @property
    def is_open(self) -> bool:
        """Whether a check is to leave, or an answer may come."""
        return self.state in (PairState.WAITING, PairState.IN_PROGRESS) or self.nominating

    @property
    def is_over(self) -> bool:
        """Whether all checks of the round have left."""
        return self.sent >= len(self.schedule)

    def begin(self, now: float, schedule: tuple[float, ...] = SCHEDULE_S, answer_s: float = ANSWER_S) -> None:
        """A round begins. What the one before has found stays."""
        self.schedule, self.answer_s = schedule, answer_s
        self.began_at, self.due_at, self.sent = now, now, 0

    def restart(self, now: float) -> None:
        """A round begins, and nothing is known."""
        self.state, self.triggered, self.nominating = PairState.WAITING, 0, False
        self.begin(now)

    def hurry(self, now: float, rtt_s: float = 0.0) -> None:
        """The pair is selected, and may be dead: a round of quick checks, unless one is going on. One that should be
        over is none: the host has slept meanwhile. `rtt_s`: its round trip, as it was measured elsewhere; the longer of
        that and its last one here counts."""
        slept = now > self.began_at + self.schedule[-1] + self.answer_s
        if self.state is not PairState.IN_PROGRESS or self.schedule != PATH_SCHEDULE_S or slept:
            self._begin_quickly(now, rtt_s)
            self.state = PairState.IN_PROGRESS

    def confirm(self, now: float, rtt_s: float) -> None:
        """The pair is selected, and stays valid meanwhile: a round of quick checks, unless any round is going on."""
        if self.due_at is None:
            self._begin_quickly(now, rtt_s)

    def compare(self, now: float) -> None:
        """The pair has succeeded, or failed: check it again, unless it is being nominated."""
        if not self.nominating:
            self.begin(now, COMPARE_SCHEDULE_S)
            self.state = PairState.IN_PROGRESS

    def nominate(self, now: float) -> None:
        """A round of checks with USE-CANDIDATE, unless one is going on."""
        if not self.nominating:
            self.nominating = True
            self.begin(now)

    def send(self, now: float) -> None:
        """One check leaves."""
        if self.due_at is None or self.is_over:  # triggered, when its own round was over
            self.begin(now)
        self.sent += 1
        if self.state is not PairState.SUCCEEDED:
            self.state = PairState.IN_PROGRESS
        if self.nominating:  # whoever answers takes the pair: however late it left, its answer is to have its time
            self.began_at = now - self.schedule[self.sent - 1]
        last_s = self.schedule[-1] + self.answer_s
        self.due_at = self.began_at + (last_s if self.is_over else self.schedule[self.sent])

    def answered(self, rtt_s: float, *, nominating: bool) -> bool:
        """A check was answered; `nominating`: it had USE-CANDIDATE. Whether both ends are to use the pair now."""
        agreed = (nominating and self.nominating) or self.wanted
        self.state, self.rtt_s, self.wanted = PairState.SUCCEEDED, rtt_s, False
        if nominating or not self.nominating:
            self.due_at, self.nominating = None, False
        return agreed

    def fail(self) -> None:
        """The last check was not answered in its time."""
        self.due_at, self.nominating, self.state = None, False, PairState.FAILED

    def _begin_quickly(self, now: float, rtt_s: float) -> None:
        self.begin(now, PATH_SCHEDULE_S, max(PATH_ANSWER_S, slow_s(max(rtt_s, self.rtt_s or 0.0))))
