"""Which anchors are near to both ends of a pair, as far as each end has measured and told."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from meshctl.core.agent.bodies import MAX_DISTANCES, MAX_RTT_MS, AnchorDistance
from meshctl.core.agent.config import PeerConfig

# An anchor is as near as another unless its round trip is shorter by this, and by this share: leases do not wander for
# less, and what is measured over a long way wavers more.
MARGIN_S, MARGIN_SHARE = 0.015, 0.2
# The round trip to an anchor that is in use and whose tunnel is down.
FAR_S = 1.0
# That to one whose relay answers binds and carries nothing: as far as an offer can say. An anchor that the peer does
# not name is farther yet: the peer may not reach it.
MISTRUSTED_S = MAX_RTT_MS / 1000
UNNAMED_S = MISTRUSTED_S + FAR_S


class Distances:
    """Round trips to the anchors that are up: this end's and the peer's, in seconds."""

    def __init__(self) -> None:
        self._anchors: dict[bytes, tuple[PeerConfig, float, float]] = {}
        self._mistrusted: set[bytes] = set()
        self._told_ms: dict[bytes, int] = {}
        self._told: dict[bytes | None, tuple[AnchorDistance, ...]] = {}  # by the anchor in use

    def set(self, anchors: Mapping[bytes, tuple[PeerConfig, float]], peer_rtts: Mapping[bytes, float]) -> None:
        """These are up, with this end's round trips; `peer_rtts` are those of the peer's offer."""
        self._told.clear()
        self._anchors = {a: (peer, rtt, peer_rtts.get(a, UNNAMED_S)) for a, (peer, rtt) in anchors.items()}

    def mistrust(self, anchor: bytes) -> None:
        """Both ends are to prefer any other from now on, until `trust`."""
        self._mistrusted.add(anchor)
        self._told.clear()

    def trust(self, anchor: bytes | None = None) -> None:
        """This one again, or all."""
        self._mistrusted -= {anchor} if anchor is not None else self._mistrusted
        self._told.clear()

    def keep(self, anchors: Container[bytes]) -> None:
        """The others are no anchors any more."""
        self._told.clear()
        self._anchors = {a: known for a, known in self._anchors.items() if a in anchors}
        self._told_ms = {a: told_ms for a, told_ms in self._told_ms.items() if a in anchors}

    def __contains__(self, anchor: bytes) -> bool:
        return anchor in self._anchors

    def anchor(self, anchor: bytes) -> PeerConfig:
        """Raises KeyError for one that is not up."""
        return self._anchors[anchor][0]

    def own(self, anchor: bytes) -> float:
        """From this end to the anchor and back, in seconds; 0.0 for one that is not up."""
        return self._anchors[anchor][1] if anchor in self._anchors else 0.0

    def of(self, anchor: bytes) -> float:
        """From one end to the other by way of the anchor and back, in seconds."""
        _, ours, theirs = self._anchors.get(anchor, (None, FAR_S, FAR_S))
        return theirs + (MISTRUSTED_S if anchor in self._mistrusted else ours)

    def sorted(self, held: frozenset[bytes]) -> list[bytes]:
        """The nearest first; what is held counts as nearer by the margin."""
        return sorted(self._anchors, key=lambda anchor: (self._counted(anchor, anchor in held), anchor))

    def best(self, ready: Sequence[bytes], used: bytes | None) -> bytes | None:
        """The nearest of those whose relays are ready; the one in use, where that is as near."""
        best = min(ready, key=lambda anchor: (self.of(anchor), anchor), default=None)
        if best is not None and used is not None and used in ready and self._counted(used, True) <= self.of(best):
            return used
        return best

    def told(self, used: bytes | None) -> tuple[AnchorDistance, ...]:
        """For the offer: the nearest to this end, after the one in use. A distance that wavers stays the same."""
        if used not in self._told:
            self._told[used] = self._tell(used)
        return self._told[used]

    def _counted(self, anchor: bytes, held: bool) -> float:
        distance_s = self.of(anchor)
        return distance_s - _margin(distance_s) if held else distance_s

    def _tell(self, used: bytes | None) -> tuple[AnchorDistance, ...]:
        for anchor, (_, rtt, _) in self._anchors.items():
            ms = MAX_RTT_MS if anchor in self._mistrusted else min(round(rtt * 1000), MAX_RTT_MS)
            told_ms = self._told_ms.get(anchor, -MAX_RTT_MS)
            if abs(ms - told_ms) > _margin(told_ms / 1000) * 1000:
                self._told_ms[anchor] = ms
        known = {anchor: self._told_ms[anchor] for anchor in self._anchors}
        if used is not None:
            known.setdefault(used, round(FAR_S * 1000))
        nearest = sorted(known, key=lambda anchor: (anchor != used, known[anchor], anchor))
        return tuple(AnchorDistance(anchor, known[anchor], anchor == used) for anchor in nearest[:MAX_DISTANCES])


def _margin(distance_s: float) -> float:
    return max(MARGIN_S, MARGIN_SHARE * distance_s)
