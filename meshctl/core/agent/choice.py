"""Which of the pairs that have answered is used, and when a better one is worth a change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from meshctl.core.agent.checklist import Pair, ValidPair

# Round trips that are nearer to each other than this are equal, and the rank decides: a measurement is not more exact.
MARGIN_S = 0.010
MARGIN_SHARE = 0.2
# Changes from one working pair to another, without need, in an hour. Each may reorder packets.
CHANGES_PER_HOUR = 4
_HOUR_S = 3600.0
# So many other pairs, those of the shortest round trips, are compared with the one in use.
RUNNERS_UP = 3
# And so many, in turns, of those that have failed: a way may begin to work without anybody being told.
FAILED_AGAIN = 2


def best(valid: Iterable[ValidPair]) -> Pair | None:
    """The pair of the shortest round trip; of those that are as short but for a margin, the one of the highest rank."""
    found = sorted(valid)
    if not found:
        return None
    shortest = min(rtt for _, _, rtt in found)
    near = [(rank, pair) for pair, rank, rtt in found if not _is_better(shortest, rtt)]
    return max(near, key=lambda entry: entry[0])[1]


def rivals(valid: Iterable[ValidPair], failed: Sequence[Pair], current: Pair, turn: int) -> frozenset[Pair]:
    """The pairs to compare `current` with: the best others, and FAILED_AGAIN of those that have failed, given in an
    order that both ends know. A round of all of them takes many turns; both ends check the same ones in the same turn.
    """
    best_others = sorted((rtt, pair) for pair, _, rtt in valid if pair != current)[:RUNNERS_UP]
    numbers = range(turn * FAILED_AGAIN, (turn + 1) * FAILED_AGAIN) if failed else ()
    return frozenset([*(pair for _, pair in best_others), *(failed[n % len(failed)] for n in numbers)])


class Budget:
    """At most CHANGES_PER_HOUR, of one kind with one peer."""

    def __init__(self) -> None:
        self._made: deque[float] = deque(maxlen=CHANGES_PER_HOUR)

    def take(self, now: float) -> bool:
        """Whether there may be one more; then it is made."""
        if len(self._made) == CHANGES_PER_HOUR and now - self._made[0] < _HOUR_S:
            return False
        self._made.append(now)
        return True


class Changes:
    """Whether to leave a pair that works for a better one."""

    def __init__(self) -> None:
        self._budget = Budget()

    def worth(self, valid: Iterable[ValidPair], current: Pair, now: float) -> Pair | None:
        """The pair to change to, None to stay. `current` stays while nothing is better by the margin."""
        found = sorted(valid)
        wanted = best(found)
        rtts = {pair: rtt for pair, _, rtt in found}
        if wanted is None or current not in rtts or not _is_better(rtts[wanted], rtts[current]):
            return None
        return wanted if self._budget.take(now) else None


def _is_better(rtt_s: float, than_s: float) -> bool:
    return than_s - rtt_s > max(MARGIN_S, MARGIN_SHARE * than_s)
