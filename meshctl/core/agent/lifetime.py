"""How long the NAT keeps a mapping that nothing uses, learned by longer and longer silences; a keepalive below it."""

from __future__ import annotations

# A NAT must keep an unused mapping for two minutes (RFC 4787 REQ-5); many keep it for 30 s, some for 20.
SHORTEST_S = 10
LONGEST_S = 110  # under the two minutes, and not so long that a firewall on the way loses patience
# WireGuard counts its keepalive from the last packet of either direction, while many NATs count what leaves alone, and
# it answers content with an empty packet after KEEPALIVE_TIMEOUT (10 s and a timer's lateness). So nothing leaves for
# so much longer than the keepalive; and the kernel's timer wheel makes the keepalive later by up to an eighth.
ANSWERED_S, LATE = 10.3, 1.127
GROWTH = 1.5
# Two silences nearer to each other than this are not worth another try.
RESOLUTION_S = 5.0
# A loss that nothing has confirmed for so long may have been a router's restart.
DOUBT_S = 3600.0


class MappingLifetime:
    """One NAT's. Silences are tried where it costs nothing (on a mapping of its own, not the tunnel's). What they show
    is told here, and so is a mapping of the tunnel that was lost.

    `keepalive_s` is what WireGuard's peers should have: what the inventory sets, until a loss or a longer silence tells
    more; between `SHORTEST_S` and `LONGEST_S`. 0 when the inventory wants none.
    """

    def __init__(self, configured_s: int) -> None:
        self._configured_s = configured_s
        self.keepalive_s = 0
        self.reset()

    def configure(self, configured_s: int) -> None:
        """The inventory sets this. What is known of the NAT is so still."""
        self._configured_s = configured_s
        self._set_keepalive()

    def reset(self) -> None:
        """The network is another one."""
        self._survived_s = 0.0
        self._lost_s: float | None = None
        self._lost_at = 0.0
        self._set_keepalive()

    @property
    def known_s(self) -> tuple[float, float | None]:
        """The longest silence that a mapping has survived, and the shortest after which one was lost."""
        return self._survived_s, self._lost_s

    def next_silence_s(self, now: float) -> float | None:
        """The next silence to try; None while there is nothing to learn."""
        if self._lost_s is None:
            longest = LONGEST_S * LATE + ANSWERED_S
            wanted = max(self._survived_s * GROWTH, float(self._configured_s), SHORTEST_S)
            return min(wanted, longest) if self._survived_s < longest else None
        if self._lost_s - self._survived_s > RESOLUTION_S and self._lost_s > SHORTEST_S:
            return (self._survived_s + self._lost_s) / 2
        return self._lost_s if now >= self._lost_at + DOUBT_S else None

    def survived(self, silence_s: float) -> None:
        """A mapping was the same after this silence."""
        self._survived_s = max(self._survived_s, silence_s)
        if self._lost_s is not None and self._lost_s <= silence_s:
            self._lost_s = None
        self._set_keepalive()

    def lost(self, silence_s: float, now: float) -> None:
        """A mapping was another one after this silence; that a longer one was survived says nothing any more."""
        self._lost_s = silence_s if self._lost_s is None else min(self._lost_s, silence_s)
        self._lost_at = now
        if self._survived_s >= self._lost_s:
            self._survived_s = 0.0
        self._set_keepalive()

    def _set_keepalive(self) -> None:
        if not self._configured_s:
            self.keepalive_s = 0
            return
        wanted = (self._survived_s - ANSWERED_S) / LATE
        if self._lost_s is None:
            wanted = max(wanted, self._configured_s)
        elif not self._survived_s:
            wanted = min(self._configured_s, self._lost_s / 2)
        self.keepalive_s = int(min(max(wanted, SHORTEST_S), LONGEST_S))
