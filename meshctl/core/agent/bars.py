"""Which of one peer's addresses are not gone to for a while, though they answer: paths that lead there keep failing.

A path that dies once is gone back to as soon as it answers. One that dies again and again is better off relayed, and
one whose checks pass while WireGuard's packets do not looks well whenever it is asked: only time can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

# So many falls without a consequence: NATs that are rebooted, cables that are pulled, a line that is bad for a minute.
FREE_FALLS = 3
# After the next one the address is barred for this, then each time for twice as long.
FIRST_S, LONGEST_S = 10.0, 3600.0
_DOUBLINGS = 16  # more than there are from the one to the other
# Where WireGuard's packets do not come through, each try costs its users `liveness.BLOCKED_S` of silence: it
# begins as after so many falls, with 320 s.
BLOCKED_FALLS = FREE_FALLS + 6
# Falls are forgotten when the address has not failed for so long since it could be used again.
FORGOTTEN_S = 1800.0
# Of one peer, the newest: more than it has.
MAX_HOSTS = 16


@dataclass(frozen=True)
class _Record:
    falls: int
    until: float


class Bars:
    """One peer's, by IP: a way that drops or dies does so for all its ports."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def fell(self, ip: str, now: float, *, blocked: bool = False) -> None:
        """A path that was in use and led there has failed; `blocked`: its checks did not."""
        before = self._records.pop(ip, None)
        falls = 1 if before is None or now >= before.until + FORGOTTEN_S else before.falls + 1
        falls = max(falls, BLOCKED_FALLS) if blocked else falls
        self._records[ip] = _Record(falls, now + _pause_s(falls))
        if len(self._records) > MAX_HOSTS:
            del self._records[next(iter(self._records))]

    def barred(self, ip: str, now: float) -> bool:
        """Whether no path that leads there is to be taken."""
        record = self._records.get(ip)
        return record is not None and now < record.until

    def any(self, now: float) -> bool:
        """Whether anything is barred."""
        return any(now < record.until for record in self._records.values())

    def clear(self) -> None:
        """One of the two stands elsewhere, or it was not the path's fault: nothing is known of its paths."""
        self._records.clear()


def _pause_s(falls: int) -> float:
    if falls <= FREE_FALLS:
        return 0.0
    return min(FIRST_S * 2.0 ** min(falls - FREE_FALLS - 1, _DOUBLINGS), LONGEST_S)
