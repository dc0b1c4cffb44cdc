"""Pings through the tunnel, and when they were not answered; and flows in one direction, which only have to arrive."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

from simspec import Flow, Link

# Pings that are lost in a row before it counts as an outage; and the shortest one. None is shorter than the longest
# round trip, and by how much that of the next answer may be longer than that of the last: WireGuard drops what is under
# way when keys are renewed after two handshakes have crossed (`simwg`).
_MISSED, _SHORTEST_S = 3, 0.45
# Where links lose, so many are lost in a row by chance once in a thousand million times: a ping and its answer cross
# eight cables when a relay carries them, and four more where a carrier's NAT stands before both ends.
_CABLES, _CARRIERS_CABLES, _CHANCE = 8, 4, 1e-9
_LANS_S = 0.02  # the cables of all LANs on the way

# Of the model's message that has the inner packet (`simwg`) beyond those of WireGuard's: so that a packet has the size
# on the wire that a real one has.
_MORE_BYTES = 48 + 1 - 32


def ping(number: int, size: int, *, one_way: bool = False) -> bytes:
    """The ping of a flow, which fills an inner packet of `size` bytes with its headers."""
    data = (b"R" if one_way else b"P") + number.to_bytes(2, "big")
    return data.ljust(size - _MORE_BYTES, b"\0")


@dataclass(frozen=True)
class Outage:
    """Between two answers, or from the start to the first one, or from the last one to the end."""

    began_at: float
    ended_at: float


class FlowRun:
    """One flow while the world runs; everybody's access is as `link`. `answered_at` is when the last answer came; of a
    flow in one direction, the last packet. `longest_s`: what is no outage yet. `nested`: there are carriers' NATs."""

    def __init__(self, flow: Flow, link: Link, *, nested: bool) -> None:
        self.flow = flow
        cables = _CABLES + _CARRIERS_CABLES * nested
        unanswered = 1.0 - (1.0 - link.loss) ** cables
        missed = max(_MISSED, ceil(log(_CHANCE) / log(unanswered))) if unanswered else _MISSED
        round_trip_s = cables * (link.delay_s + 2 * link.jitter_s) + _LANS_S
        self.longest_s = max(missed * flow.every_s, _SHORTEST_S, round_trip_s + flow.every_s)
        self.first_at: float | None = None
        self.answered_at = flow.starts_at
        self.outages: list[Outage] = []

    def answered(self, now: float) -> None:
        """An answer came."""
        if self.first_at is None:
            self.first_at = now
        self._note(now)
        self.answered_at = now

    def end(self, now: float) -> None:
        """No more pings."""
        self._note(min(now, self.flow.ends_at))

    def _note(self, now: float) -> None:
        if now - self.answered_at > self.longest_s:
            self.outages.append(Outage(self.answered_at, now))
