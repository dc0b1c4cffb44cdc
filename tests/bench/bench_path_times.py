"""How soon a pair behind easy NATs has packets and a direct path, and for how long it has none when something happens.

Written up in docs/benchmarks.md, beside the aims.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paths_lab import PathsLab
from paths_pairs import (
    OFTEN_S,
    PAIRS,
    ROUNDS,
    RUNS,
    SETTLE_S,
    Pair,
    asked,
    both,
    fresh,
    in_turns,
    kinds,
    may_fail,
    pairs_lab,
    row,
    start_all,
)
from paths_way import DIRECT, Way, Ways, latest

# The longest aim is five seconds.
WATCH_S = 8.0
# A direct path is to be there again so long after the end of the longest silence that is allowed.
AGAIN_S = 3.0
# A new address in the same LAN, as after a new lease.
NEW_ADDRESS = """
set -e
set -- $(ip -4 -o addr show scope global | awk '$2 !~ /^(wg|nebula)/ {print $2, $4; exit}')
gateway=$(ip -4 route show default | awk '{print $3; exit}')
old=${2%/*}; last=${old##*.}
ip addr del "$2" dev "$1"
ip addr add "${old%.*}.$((last % 100 + 101))/${2#*/}" dev "$1"
ip route replace default via "$gateway"
"""
# The NAT forgets its mappings, and the port that they had (WireGuard's; 4242 is Nebula's, which is measured by the same
# script) is somebody else's now. Packets are held off meanwhile: one of a connection that is still known would bring
# its mapping back. A symmetric NAT has no maps: it takes another port by itself.
REBIND = """
set -e
nft 'add table inet hold
  add chain inet hold udp_waits { type filter hook forward priority -200; }
  add rule inet hold udp_waits meta l4proto udp drop'
trap 'nft delete table inet hold' EXIT
if nft list map inet lab mapped >/dev/null 2>&1; then
  nft 'flush map inet lab mapped
    flush map inet lab owner
    add element inet lab taken { 51820 timeout 1h, 4242 timeout 1h }'
fi
conntrack -F
"""


@dataclass
class Found:
    """Of all runs of one case, in seconds; None: not while it was watched."""

    first: list[float | None] = field(default_factory=list)
    ready_first: list[float | None] = field(default_factory=list)
    direct: list[float | None] = field(default_factory=list)
    ready_direct: list[float | None] = field(default_factory=list)
    silence: list[float | None] = field(default_factory=list)
    again: list[float | None] = field(default_factory=list)

    def add(self, ways: Ways, pair: Pair, started: tuple[float, float], happened: tuple[float, float]) -> None:
        """One run. What happened to a pair that was not direct before does not count."""
        self.start(both(ways, pair), *started, happened[0])
        if kinds(ways, pair, happened[0]) == {DIRECT}:
            self.disturbance(both(ways, pair), *happened)
        else:
            print(f"    {pair} was not direct before anything happened", file=sys.stderr)

    def start(self, ends: tuple[Way, Way], begun: float, ready: float, until: float) -> None:
        """Agents were started at `begun`, and ran at `ready`."""
        first_s = latest([way.first_s(begun) for way in ends])
        direct_s = latest([way.direct_s(begun, until) for way in ends])
        self.first.append(first_s)
        self.ready_first.append(after(begun, ready, first_s))
        self.direct.append(direct_s)
        self.ready_direct.append(after(begun, ready, direct_s))

    def disturbance(self, ends: tuple[Way, Way], at: float, until: float) -> None:
        """Something happened, and the pair was watched."""
        longest_s, ended_s = max(way.silence_s(at, until) for way in ends)
        direct_s = latest([way.direct_s(at, until) for way in ends])
        self.silence.append(longest_s)
        self.again.append(None if direct_s is None else max(direct_s, ended_s))


def measure() -> list[dict[str, Any]]:
    """One row for each time, in seconds; what is counted from the agents' start command has no aim."""
    here = pairs_lab()
    try:
        eager = eager_starts(here)
        address = runs(here, "an end's address changes", lambda pair: here.sh(pair[0], NEW_ADDRESS))
        rebinding = runs(here, "a NAT rebinds", lambda pair: here.sh(f"{pair[0]}-router", REBIND))
        dead = dead_paths(here)
    finally:
        here.down()
    cases = (address, rebinding, dead)
    starts = len(cases) * RUNS
    return [
        row("agents started: first packet", [s for found in cases for s in found.first], of=starts),
        row("both agents run: first packet", [s for found in cases for s in found.ready_first], of=starts, aim=1.0),
        row("both agents run: first packet, if both ends had something to send before", eager, aim=1.0),
        row("agents started: direct", [s for found in cases for s in found.direct], of=starts),
        row("both agents run: direct", [s for found in cases for s in found.ready_direct], of=starts, aim=2.0),
        row("an end's address changes: silence", address.silence, aim=1.0),
        row("an end's address changes: direct again", address.again, aim=1.0 + AGAIN_S),
        row("a NAT rebinds: silence", rebinding.silence, aim=2.0),
        row("a NAT rebinds: direct again", rebinding.again, aim=2.0 + AGAIN_S),
        row("the direct path dies: silence", dead.silence, aim=2.0),
    ]


def eager_starts(here: PathsLab) -> list[float | None]:
    """First packets, where both ends had something to send before their WireGuard had an endpoint for it."""
    found: list[float | None] = []
    for _ in range(ROUNDS):
        with may_fail("both ends had something to send before"):
            fresh(here)
            with here.meters(OFTEN_S, asked(), eager=True) as ways:
                started = start_all(here)
                time.sleep(SETTLE_S)
            for pair, (begun, ready) in started.items():
                found.append(after(begun, ready, latest([way.first_s(begun) for way in both(ways, pair)])))
    return found


def dead_paths(here: PathsLab) -> Found:
    """The two do not reach each other any more. This comes last in a lab: only its own next round mends them."""
    wans = {pair: (here.wan(f"{pair[0]}-router"), here.wan(f"{pair[1]}-router")) for pair in PAIRS}
    return runs(here, "the direct path dies", lambda pair: here.cut(*wans[pair]), here.mend)


def runs(
    here: PathsLab, what: str, happen: Callable[[Pair], object], prepare: Callable[[], object] = lambda: None
) -> Found:
    """Start each pair from nothing, let something happen to it once it has settled, and again."""
    found = Found()
    for _ in range(ROUNDS):
        with may_fail(what):
            prepare()
            fresh(here)
            with here.meters(OFTEN_S, asked()) as ways:
                started = start_all(here)
                time.sleep(SETTLE_S)
                happened = in_turns(happen, WATCH_S)
            for pair in PAIRS:
                found.add(ways, pair, started[pair], happened[pair])
    return found


def after(begun: float, ready: float, seconds: float | None) -> float | None:
    """What was counted from `begun`, counted from `ready`."""
    return None if seconds is None else max(0.0, begun + seconds - ready)
