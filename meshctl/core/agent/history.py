"""Why each peer's path is what it is: the last decisions, which `status` and `why` show."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from meshctl.core.agent.path import Effect, State, Trigger, step

# Decisions that are remembered of one peer. A path that changes once an hour has a day of them.
REMEMBERED = 24
# What has WireGuard send elsewhere, though the state may stay: from one pair, or one relay, to another.
_MOVES = frozenset({Effect.USE_PAIR, Effect.USE_RELAY})


class Decision(NamedTuple):
    """One transition. `reason` is in words, for a person; `at` in the seconds of the core's clock."""

    at: float
    before: State
    after: State
    trigger: Trigger
    reason: str

    @property
    def counts(self) -> bool:
        """Whether it is why the path is what it is."""
        return self.before is not self.after or not _MOVES.isdisjoint(step(self.before, self.trigger).effects)

    def repeats(self, last: Decision) -> bool:
        """Whether it says what the one before it said, but for the reason of what changes nothing."""
        same = self.before is self.after and self[1:4] == last[1:4]
        return same and (self.reason == last.reason or not self.counts)


class History:
    """The newest decisions about one peer."""

    def __init__(self) -> None:
        self._decisions: deque[Decision] = deque(maxlen=REMEMBERED)

    def add(self, decision: Decision) -> None:
        """Remember one. What happens again and again with the same outcome is remembered once, with its last reason."""
        last = self._decisions[-1] if self._decisions else None
        if last is not None and decision.repeats(last):
            self._decisions.pop()
        self._decisions.append(decision)

    def explain(self, reason: str) -> None:
        """Say more of the last one, if there is any."""
        if self._decisions:
            last = self._decisions.pop()
            self._decisions.append(last._replace(reason=f"{last.reason}; {reason}"))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The oldest first."""
        return tuple(self._decisions)

    @property
    def why(self) -> str:
        """The reason of the last change of state, pair or relay; "" when there was none yet."""
        return next((d.reason for d in reversed(self._decisions) if d.counts), "")
