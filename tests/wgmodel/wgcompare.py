"""Whether what real WireGuards did is something that the model does too.

The model is played with many seeds, because timers have jitter: each draws its own. Of the runs that had the same
messages, sizes, inner packets, counters and endpoints as the real one, the earliest and the latest time of each message
are what the real one is held to.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from wgscenarios import Scenario
from wgstage import Record
from wgvirtual import play

# Two handshakes that cross go on in some twenty ways; the rarest of them, in one of a hundred runs.
SEEDS = 400
_HANDSHAKE = "the last handshake"
_LINES = 40  # of an explanation


@dataclass(frozen=True)
class Allowed:
    """How much earlier or later than the model something may be, in seconds."""

    early_s: float
    late_s: float


# Nothing is early but by the kernel's coarse clock; what is late is the machine, which plays a dozen at once.
ALLOWED = Allowed(0.02, 0.5)
# An emulated machine, whose processor is some twenty times as slow.
IN_GUEST = Allowed(0.02, 1.0)


def signature(record: Record) -> list[str]:
    """What must be the same, in words: by node, as the order between two nodes may be a matter of microseconds."""
    lines = []
    for node, sent in sorted(record.sent.items()):
        lines += [f"{node} sends type {s.kind}, {s.size} bytes, {s.source} to {s.destination}" for s in sent]
        lines += [f"{node} gets {g.size} bytes from {g.source}" for g in record.got if g.node == node]
        for s in record.shown:
            if s.node == node:
                known = "no handshake" if s.handshake is None else "a handshake"
                lines.append(f"{node} shows endpoint {s.endpoint or 'none'}, {known}, rx {s.rx}, tx {s.tx}")
    return lines


def times(record: Record) -> list[tuple[str, float]]:
    """What has a time, in the order of `signature`."""
    found = []
    for node, sent in sorted(record.sent.items()):
        found += [(f"{node} sends type {s.kind} to {s.destination}", s.at) for s in sent]
        found += [(f"{node} gets {g.size} bytes", g.at) for g in record.got if g.node == node]
        found += [
            (f"{_HANDSHAKE} of {node}", s.handshake) for s in record.shown if s.node == node and s.handshake is not None
        ]
    return found


def differences(scenario: Scenario, real: Record, allowed: Allowed, seeds: int = SEEDS) -> list[str]:
    """What the real run did that the model does not; nothing when they agree."""
    runs = [play(scenario, seed, real.tick_s) for seed in range(seeds)]
    if not _same(runs, real):
        nearest = max(runs, key=lambda run: _likeness(run, real))
        lines = difflib.unified_diff(signature(nearest), signature(real), "the model", "real", lineterm="", n=1)
        said = [f"  {when:8.3f} s  {what}" for what, when in times(real)]
        return [*list(lines)[:_LINES], *said[:_LINES]]
    return [
        f"{bounds.what} at {bounds.when:.3f} s, in the model between {bounds.first:.3f} and {bounds.last:.3f} s"
        for bounds in _bounds(runs, real)
        if bounds.early_s > allowed.early_s or bounds.late_s > allowed.late_s
    ]


def furthest(scenario: Scenario, real: Record, seeds: int = SEEDS) -> float:
    """The most seconds by which something was outside the times that the model has; of a run that agrees."""
    runs = [play(scenario, seed, real.tick_s) for seed in range(seeds)]
    return max(0.0, *(max(bounds.early_s, bounds.late_s) for bounds in _bounds(runs, real)))


@dataclass(frozen=True)
class _Bounds:
    """When something was, and the earliest and the latest time that the model has for it."""

    what: str
    when: float
    first: float
    last: float

    @property
    def early_s(self) -> float:
        # `wg show` tells whole seconds of the handshake.
        return self.first - self.when - (1.0 if self.what.startswith(_HANDSHAKE) else 0.0)

    @property
    def late_s(self) -> float:
        return self.when - self.last


def _bounds(runs: list[Record], real: Record) -> list[_Bounds]:
    rows = zip(times(real), *(times(run) for run in _same(runs, real)), strict=True)
    return [_Bounds(what, at, min(t for _, t in model), max(t for _, t in model)) for (what, at), *model in rows]


def _same(runs: list[Record], real: Record) -> list[Record]:
    wanted = signature(real)
    return [run for run in runs if signature(run) == wanted]


def _likeness(run: Record, real: Record) -> float:
    return difflib.SequenceMatcher(None, signature(run), signature(real), autojunk=False).ratio()
