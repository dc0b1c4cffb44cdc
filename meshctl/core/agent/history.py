"""Why each peer's path is what it is: the last decisions, which `status` and `why` show."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from meshctl.core.agent.path import State, Trigger

# Decisions that are remembered of one peer. A path that changes once an hour has a day of them.
REMEMBERED = 24


class Decision(NamedTuple):
    """One transition. `reason` is in words, for a person; `at` in the seconds of the core's clock."""

    at: float
    before: State
    after: State
    trigger: Trigger
    reason: str


class History:
    """The newest decisions about one peer."""

    def __init__(self) -> None:
        self._decisions: deque[Decision] = deque(maxlen=REMEMBERED)

    def add(self, decision: Decision) -> None:
        """Remember one. What happens again and again with the same outcome is remembered once, with its last reason."""
        if self._decisions and decision.before is decision.after and decision[1:4] == self._decisions[-1][1:4]:
            self._decisions.pop()
        self._decisions.append(decision)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The oldest first."""
        return tuple(self._decisions)

    @property
    def why(self) -> str:
        """The reason of the last change of state; "" when there was none yet."""
        return next((d.reason for d in reversed(self._decisions) if d.before is not d.after), "")
