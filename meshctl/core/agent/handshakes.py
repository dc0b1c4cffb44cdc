"""How old handshakes are, by a clock that nobody steps.

WireGuard shows when a handshake was, by the wall clock, and so its age is wrong by an hour after the wall clock was set
by an hour. An age that grows by more than time passes is such a step, and so is a handshake in the future; an age that
shrinks is a new handshake, which cannot be older than the reading before.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.core.agent.events import PeerStatus
from meshctl.model.keys import PublicKey

# The wall clock and ours are read one after the other, and `wg` shows whole seconds.
TOLERANCE_S = 1.5


class Handshakes:
    """The last reading of each peer: when, and the age that was made of it."""

    def __init__(self) -> None:
        self._read: dict[PublicKey, tuple[float, float]] = {}

    def correct(self, statuses: Iterable[PeerStatus], now: float) -> dict[PublicKey, PeerStatus]:
        """The same with ages that can be trusted, by public key."""
        before, self._read = self._read, {}
        return {status.public_key: self._one(status, before.get(status.public_key), now) for status in statuses}

    def _one(self, status: PeerStatus, before: tuple[float, float] | None, now: float) -> PeerStatus:
        shown = status.handshake_age_s
        if shown is None:
            return status
        if before is None:
            age = max(shown, 0.0)
        else:
            elapsed = now - before[0]
            expected = before[1] + elapsed
            new = -TOLERANCE_S <= shown < expected - TOLERANCE_S
            age = min(max(shown, 0.0), elapsed) if new else expected
        self._read[status.public_key] = (now, age)
        return status._replace(handshake_age_s=age)
