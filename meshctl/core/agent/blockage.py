"""Whether a path that answers checks drops WireGuard's own packets, from WireGuard's counters and endpoint alone.

WireGuard answers all content now and then, so that a flow in one direction is no sign. A peer that hears nothing by the
path goes on answering by the relay, to what was sent there before WireGuard was told of the path again.
"""

from __future__ import annotations

from enum import Enum
from math import inf

# WireGuard answers all content, after KEEPALIVE_TIMEOUT (10 s and a timer's lateness) if with nothing else. That answer
# may be lost, or the other end's keys: after KEEPALIVE_TIMEOUT and REKEY_TIMEOUT there is a handshake, and then a
# second one. A path on which nothing comes even then does not carry WireGuard's packets.
BLOCKED_S = 22.0
BLOCKED_WORDS = "WireGuard's packets"  # with which the reason begins
# Between two packets that come by a detour, at most, for the peer to be taken to use it: the pause of one who answers.
DETOUR_PAUSE_S = 12.0


class Came(Enum):
    """How a packet of WireGuard's has come."""

    BY_PATH = "by the path"
    BY_RELAY = "by a relay"
    UNKNOWN = "unknown"  # the endpoint, which shows it, was set since then


class Blockage:
    """Of the path that one peer has now."""

    def __init__(self) -> None:
        self._content_since: float | None = None  # sent, and WireGuard has had nothing since
        self._detour: tuple[float, float] | None = None  # since when, and when last, what came did by the relay alone

    def forget(self) -> None:
        """The path is another one, or what was seen of it says nothing."""
        self._content_since, self._detour = None, None

    def sent(self, now: float) -> None:
        """A reading shows content that left, messages of agents too."""
        if self._content_since is None:
            self._content_since = now

    def came(self, came: Came, now: float) -> float:
        """A reading shows packets that came, the newest in that way. Returns for how many seconds content had waited
        for them; 0.0 if none had."""
        since, self._content_since = self._content_since, None
        if came is not Came.UNKNOWN:
            first = since if since is not None else now
            if self._detour is not None and now - self._detour[1] <= DETOUR_PAUSE_S:
                first = self._detour[0]
            self._detour = (first, now) if came is Came.BY_RELAY else None
        return now - since if since is not None else 0.0

    def reason(self, read_at: float) -> str:
        """Why the path, if it has just answered a check, carries nothing else, in words; "" when nothing says so.
        `read_at`: when the counters were read last."""
        first, last = self._detour if self._detour is not None else (inf, -inf)
        if last - first >= BLOCKED_S:
            return f"{BLOCKED_WORDS} have come by the relay alone for {last - first:.0f} s"
        since = self._content_since
        if since is None:
            return ""
        if since - last <= DETOUR_PAUSE_S:
            since = first
        silence = read_at - since
        if silence < BLOCKED_S:
            return ""
        return f"{BLOCKED_WORDS} have not come through for {silence:.0f} s, though checks do"
