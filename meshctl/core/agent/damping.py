"""Damping of paths that flap, as of routes (RFC 2439): an address of a peer is not used for a while when paths to it
keep failing, though they answer checks.

A path that dies once is used again as soon as it answers. One that dies again and again is better off relayed, and
one whose checks pass while WireGuard's packets do not looks well whenever it is checked: only time can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

# So many failures have no consequence: NATs that are rebooted, cables that are pulled, a line that is bad for a minute.
FREE_FAILURES = 3
# After the next one the address is suppressed for this, then each time for twice as long.
FIRST_S, LONGEST_S = 10.0, 3600.0
_DOUBLINGS = 16  # more than lead from FIRST_S to LONGEST_S; without a bound the power overflows
# Where WireGuard's packets do not come through, each try costs its users `blockage.BLOCKED_S` of silence: it
# begins as after so many failures, with 320 s.
BLOCKED_FAILURES = FREE_FAILURES + 6
# Failures are forgotten when the address has not failed for so long since it could be used again.
FORGOTTEN_S = 1800.0
# Of one peer, the newest: more than it has.
MAX_HOSTS = 16


@dataclass(frozen=True)
class _Record:
    failures: int
    until: float


class Damping:
    """Of the paths to one peer, by its IPs: what drops packets on the way, or dies, does so for all ports."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def record_failure(self, ip: str, now: float, *, blocked: bool = False) -> None:
        """A path that was in use and led there has failed; `blocked`: its checks did not."""
        before = self._records.pop(ip, None)
        failures = 1 if before is None or now >= before.until + FORGOTTEN_S else before.failures + 1
        failures = max(failures, BLOCKED_FAILURES) if blocked else failures
        self._records[ip] = _Record(failures, now + _pause_s(failures))
        if len(self._records) > MAX_HOSTS:
            del self._records[next(iter(self._records))]

    def suppressed(self, ip: str, now: float) -> bool:
        """Whether no path that leads there is to be taken."""
        record = self._records.get(ip)
        return record is not None and now < record.until

    def any(self, now: float) -> bool:
        """Whether any address is suppressed."""
        return any(now < record.until for record in self._records.values())

    def clear(self) -> None:
        """One of the two stands elsewhere, or it was not the path's fault: nothing is known of its paths."""
        self._records.clear()


def _pause_s(failures: int) -> float:
    if failures <= FREE_FAILURES:
        return 0.0
    return min(FIRST_S * 2.0 ** min(failures - FREE_FAILURES - 1, _DOUBLINGS), LONGEST_S)
