"""What a meter found out about one peer, and what can be told from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

# How a peer is reached, by WireGuard's endpoint.
DIRECT, RELAYED, NONE = "direct", "relayed", "none"
# So long before the last question.
LAST_S = 5.0


@dataclass(frozen=True)
class Way:
    """Of one host towards one peer. Times are seconds of the machine's monotonic clock.

    `sent`: when each question left, in order. `answered`: number of a question -> when its answer came. `endpoints`:
    WireGuard's, each with the time at which it was new. `anchors`: IP addresses of anchors.
    """

    sent: tuple[float, ...]
    answered: Mapping[int, float]
    endpoints: tuple[tuple[float, str], ...]
    anchors: frozenset[str]

    def first_s(self, since: float) -> float | None:
        """From `since` to the first answer after it."""
        return min((at - since for at in self.answered.values() if at >= since), default=None)

    def kind(self, at: float = float("inf")) -> str:
        """How the peer was reached at that time, by WireGuard's endpoint."""
        last = [endpoint for when, endpoint in self.endpoints if when <= at]
        if not last or last[-1] == "(none)":
            return NONE
        return RELAYED if last[-1].rpartition(":")[0].strip("[]") in self.anchors else DIRECT

    def outcome(self) -> str:
        """How the peer was reached in the end: an endpoint alone reaches nobody, if none of the last questions (LAST_S)
        was answered."""
        heard = any(at >= self.sent[-1] - LAST_S for number, at in enumerate(self.sent) if number in self.answered)
        return self.kind() if heard else NONE

    def direct_s(self, since: float, until: float = float("inf")) -> float | None:
        """From `since` until the endpoint was direct and stayed so until `until`. None where it is not direct then."""
        if self.kind(until) != DIRECT:
            return None
        changes = [when for when, _ in self.endpoints if since < when <= until]
        others = [at for at, when in enumerate([since, *changes]) if self.kind(when) != DIRECT]
        return 0.0 if not others else changes[others[-1]] - since

    def silence_s(self, since: float, until: float) -> tuple[float, float]:
        """The longest time without an answer between the two, and when it ended, counted from `since`."""
        times = sorted(at for at in self.answered.values() if since <= at <= until)
        return max((b - a, b - since) for a, b in pairwise((since, *times, until)))

    def lost(self, since: float, until: float) -> int:
        """Questions of that time that were never answered."""
        return sum(1 for number, at in enumerate(self.sent) if since <= at <= until and number not in self.answered)


# (host, peer) -> what the host's meter found of the peer.
Ways = dict[tuple[str, str], Way]


def latest(seconds: list[float | None]) -> float | None:
    """The later of two ends' times; None where an end has none."""
    found = [s for s in seconds if s is not None]
    return max(found) if len(found) == len(seconds) else None
