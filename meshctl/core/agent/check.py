"""The questions on one pair of addresses: when the next one is due, and what has come of them (RFC 8445 section 6.1.2).

A round has a few questions, less and less often. One that is answered ends it; one that is not has failed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# When a pair is asked, counted from its first check: a hole takes both ends' packets, which start a round trip apart,
# and the later ones are for paths that lose.
SCHEDULE_S = (0.0, 0.1, 0.3, 0.7, 1.5, 3.0)
# How long an answer may take after the last of them. Later ones count for nothing.
ANSWER_S = 1.0
# The quick questions to a pair in use that may be dead, and how long the last one has: with liveness.UNANSWERED_S they
# make less than the two seconds after which traffic must flow again.
PATH_SCHEDULE_S = (0.0, 0.1, 0.2, 0.3, 0.4)
PATH_ANSWER_S = 0.3
# On a slow path: so many round trips, as it was measured last, but no longer than this. A path by satellite has up to
# 0.8 s, or twice that between two of them; one that was longer had a queue on the way.
RTTS, PATH_ANSWER_MAX_S = 1.5, 3.0
# The questions that compare the pair in use with others: a hole may have closed meanwhile, and both ends ask at about
# the same time.
COMPARE_SCHEDULE_S = (0.0, 0.5, 1.5)


def slow_s(rtt_s: float) -> float:
    """How long an answer may take, in seconds, because the path of that round trip is slow."""
    return min(RTTS * rtt_s, PATH_ANSWER_MAX_S)


class Progress(enum.Enum):
    """What is known of a pair, in the words of RFC 8445 section 6.1.2.6. None is frozen: all may be asked at once."""

    WAITING = "waiting"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass
class Check:
    """One pair's. `due_at` is its next question, `asked` how many there were in this round; `priority` is for the wire.

    `nominating`: the questions say that the pair shall be used; `wanted`: so did the peer, before it had answered us;
    `triggered`: by so many of the peer's questions, since all pairs were asked from the beginning.
    """

    rank: int
    priority: int = 0
    progress: Progress = Progress.WAITING
    schedule: tuple[float, ...] = SCHEDULE_S
    answer_s: float = ANSWER_S
    began_at: float = 0.0
    due_at: float | None = None
    asked: int = 0
    nominating: bool = False
    triggered: int = 0
    wanted: bool = False
    rtt_s: float | None = None

    @property
    def is_new(self) -> bool:
        """Whether it was never asked."""
        return self.progress is Progress.WAITING and self.due_at is None

    @property
    def is_open(self) -> bool:
        """Whether there is something to ask, or an answer to come."""
        return self.progress in (Progress.WAITING, Progress.IN_PROGRESS) or self.nominating

    @property
    def is_over(self) -> bool:
        """Whether all questions of the round were asked."""
        return self.asked >= len(self.schedule)

    def begin(self, now: float, schedule: tuple[float, ...] = SCHEDULE_S, answer_s: float = ANSWER_S) -> None:
        """A round begins. What the one before has found stays."""
        self.schedule, self.answer_s = schedule, answer_s
        self.began_at, self.due_at, self.asked = now, now, 0

    def restart(self, now: float) -> None:
        """A round begins, and nothing is known."""
        self.progress, self.triggered, self.nominating = Progress.WAITING, 0, False
        self.begin(now)

    def hurry(self, now: float, rtt_s: float = 0.0) -> None:
        """The pair is in use, and may be dead: a round of quick questions, unless there is one. `rtt_s` is its round
        trip, if it may be longer than its last one here."""
        if self.progress is not Progress.IN_PROGRESS or self.schedule != PATH_SCHEDULE_S:
            self._begin_quickly(now, rtt_s)
            self.progress = Progress.IN_PROGRESS

    def confirm(self, now: float, rtt_s: float) -> None:
        """The pair is in use, and counts as one that answers: a round of quick questions, unless there is any."""
        if self.due_at is None:
            self._begin_quickly(now, rtt_s)

    def compare(self, now: float) -> None:
        """The pair has answered, or failed: ask it again, unless it is being nominated."""
        if not self.nominating:
            self.begin(now, COMPARE_SCHEDULE_S)
            self.progress = Progress.IN_PROGRESS

    def nominate(self, now: float) -> None:
        """A round of questions that say so, unless there is one."""
        if not self.nominating:
            self.nominating = True
            self.begin(now)

    def ask(self, now: float) -> None:
        """One question leaves."""
        if self.due_at is None or self.is_over:  # triggered, when its own round was over
            self.begin(now)
        self.asked += 1
        if self.progress is not Progress.SUCCEEDED:
            self.progress = Progress.IN_PROGRESS
        last_s = self.schedule[-1] + self.answer_s
        self.due_at = self.began_at + (last_s if self.is_over else self.schedule[self.asked])

    def answered(self, sent_at: float, now: float, *, nominating: bool) -> bool:
        """An answer to a question of then, which has nominated the pair or not. Whether both ends are to use it now."""
        agreed = (nominating and self.nominating) or self.wanted
        self.progress, self.rtt_s, self.wanted = Progress.SUCCEEDED, now - sent_at, False
        if nominating or not self.nominating:
            self.due_at, self.nominating = None, False
        return agreed

    def fail(self) -> None:
        """The last question had its time."""
        self.due_at, self.nominating, self.progress = None, False, Progress.FAILED

    def _begin_quickly(self, now: float, rtt_s: float) -> None:
        self.begin(now, PATH_SCHEDULE_S, max(PATH_ANSWER_S, slow_s(max(rtt_s, self.rtt_s or 0.0))))
