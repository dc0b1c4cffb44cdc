"""When to send again what was not answered: soon, then ever later, then not at all."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 2.0
TRIES = 8  # 7.1 s from the first to the last


class Backoff:
    """At most `TRIES` sendings, `FIRST_S` × 2^n apart and never more than `LONGEST_S`.

    `due` is when the next one is, None when there is none: nothing to send, answered, or given up (`exhausted`).
    """

    def __init__(self) -> None:
        self.due: float | None = None
        self.sent = 0

    @property
    def exhausted(self) -> bool:
        """Whether all has been sent in vain."""
        return self.due is None and self.sent == TRIES

    def start(self, now: float) -> None:
        """Begin anew; the first sending is due at once."""
        self.due, self.sent = now, 0

    def stop(self) -> None:
        """Answered, or not wanted any more."""
        self.due, self.sent = None, 0

    def take(self, now: float) -> bool:
        """Whether a sending is due. If so it counts as done, and the next one has its time.

        After the last sending there is one more wait, for its answer, which ends in `exhausted`.
        """
        if self.due is None or now < self.due:
            return False
        if self.sent == TRIES:
            self.due = None
            return False
        self.due = now + min(FIRST_S * 2**self.sent, LONGEST_S)
        self.sent += 1
        return True
