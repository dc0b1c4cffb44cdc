"""Paths between hosts behind real NATs: which way packets go, and after how long.

Everything is measured from outside the agents: by packets that hosts exchange, and by WireGuard's own endpoints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from paths_lab import START, UNIT, PathsLab, Ways, now

from meshctl.core import reachability

DELAY = "20ms"  # one way, on every line
ANCHORS = {
    "mid": {"roles": ["anchor"], "endpoint": "203.0.113.10:51820", "lab": {"delay": DELAY}},
    "far": {"roles": ["anchor"], "endpoint": "198.51.100.10:51820", "lab": {"delay": DELAY}},
}
KINDS = ("none", "full-cone", "easy", "address-dependent", "symmetric", "symmetric-sequential", "cgnat", "udp-blocked")
# Behind a carrier a home router's mapping is not one of the internet, and without UDP there is none.
MAPPED = frozenset(KINDS) - {"cgnat", "udp-blocked"}
# A splice may need a second attempt, 30 s after the first.
MATRIX_S = 60.0
RUNS = 20
SELDOM_S, OFTEN_S = 0.1, 0.01
# From the start until a pair has settled, and so long what happens to it is watched.
SETTLE_S, WATCH_S = 6.0, 8.0
PAIR = ("home1", "home2")
# A new address in the same LAN, as after a new lease.
NEW_ADDRESS = """
set -e
set -- $(ip -4 -o addr show scope global | awk '$2 !~ /^wg/ {print $2, $4; exit}')
gateway=$(ip -4 route show default | awk '{print $3; exit}')
old=${2%/*}; last=${old##*.}
ip addr del "$2" dev "$1"
ip addr add "${old%.*}.$((last % 100 + 101))/${2#*/}" dev "$1"
ip route replace default via "$gateway"
"""
# The NAT forgets its mappings, and whoever has the port that they had, it is not free again.
REBIND = """
nft flush map inet lab mapped
nft flush map inet lab owner
nft add element inet lab taken '{ 51820 timeout 1h }'
conntrack -F 2>/dev/null
"""


def measure() -> dict[str, list[dict[str, Any]]]:
    """All tables."""
    return {"matrix": [*matrix(upnp=False), *matrix(upnp=True)], "times": times()}


def matrix(*, upnp: bool) -> list[dict[str, Any]]:
    """Every pair of kinds, all at once in one lab."""
    nodes: dict[str, Any] = dict(ANCHORS)
    for kind in KINDS:
        for which in ("a", "b"):
            asks = {"upnp": True} if upnp and kind != "none" else {}
            nodes[f"{kind}-{which}"] = {"lab": {"nat": kind, "delay": DELAY, **asks}}
    here = PathsLab(nodes)
    try:
        begun, ways = from_nothing(here, MATRIX_S, SELDOM_S)
        return [matrix_row(ways, begun, one, other, upnp=upnp) for one, other in kind_pairs()]
    finally:
        here.down()


def kind_pairs() -> Iterator[tuple[str, str]]:
    """Each pair of kinds once."""
    for at, one in enumerate(KINDS):
        for other in KINDS[at:]:
            yield one, other


def matrix_row(ways: Ways, begun: float, one: str, other: str, *, upnp: bool) -> dict[str, Any]:
    """What became of one pair, and what should have."""
    both = ways[f"{one}-a", f"{other}-b"], ways[f"{other}-b", f"{one}-a"]
    return {
        "a": one, "b": other, "upnp": upnp,
        "outcome": " / ".join(sorted({way.kind() for way in both})), "oracle": predicted(one, other, upnp=upnp),
        "first_s": latest([way.first_s(begun) for way in both]),
        "direct_s": latest([way.direct_s(begun) for way in both]),
    }  # fmt: skip


def predicted(one: str, other: str, *, upnp: bool) -> str:
    """What `meshctl lint` would say; a router that maps a port on request makes its host one with an endpoint."""
    ends = [reachability.End(kind, endpoint=upnp and kind in MAPPED) for kind in (one, other)]
    return reachability.predict(*ends, reachability.Helpers(introducer=True, relay=True, tls=False)).kind


def latest(seconds: list[float | None]) -> float | None:
    """The later of two ends' times; None where an end has none."""
    found = [s for s in seconds if s is not None]
    return max(found) if len(found) == len(seconds) else None


def from_nothing(here: PathsLab, seconds: float, every_s: float) -> tuple[float, Ways]:
    """Start all agents at once on hosts that know nothing yet. When that was, and what meters saw."""
    here.fresh()
    with here.meters(every_s) as ways:
        begun = now()
        here.everywhere(START)
        time.sleep(max(0.0, begun + seconds - now()))
    return begun, ways


def times() -> list[dict[str, Any]]:
    """DESIGN section 6's times, and what a hundred packets a second lose through what happens on an ordinary day."""
    nodes = {**ANCHORS, **{host: {"lab": {"nat": "easy", "delay": DELAY}} for host in PAIR}}
    here = PathsLab(nodes)
    try:
        return [*starts(here), *[row for case in CASES for row in case(here)]]
    finally:
        here.down()


def starts(here: PathsLab) -> list[dict[str, Any]]:
    """From nothing, again and again."""
    firsts, directs = [], []
    for _ in range(RUNS):
        begun, ways = from_nothing(here, SETTLE_S, OFTEN_S)
        both = ways[PAIR], ways[PAIR[::-1]]
        firsts.append(latest([way.first_s(begun) for way in both]))
        directs.append(latest([way.direct_s(begun) for way in both]))
    return [seconds_row("agents start: first packet", firsts, 1.0), seconds_row("agents start: direct", directs, 2.0)]


def disturbed(here: PathsLab, happen: Callable[[], object]) -> tuple[float, Ways]:
    """Let something happen under traffic to a pair that is direct. When that was, and what meters saw."""
    with here.meters(OFTEN_S, PAIR) as ways:
        time.sleep(1.0)
        begun = now()
        happen()
        time.sleep(max(0.0, begun + WATCH_S - now()))
    return begun, ways


def outages(here: PathsLab, happen: Callable[[], object]) -> tuple[list[float | None], list[float | None]]:
    """Longest silences, and how long until direct again, of RUNS runs."""
    silences: list[float | None] = []
    directs: list[float | None] = []
    for _ in range(RUNS):
        begun, ways = disturbed(here, happen)
        both = ways[PAIR], ways[PAIR[::-1]]
        silences.append(max(way.outage_s(begun, begun + WATCH_S - 1.0) for way in both))
        directs.append(latest([way.direct_s(begun) for way in both]))
    return silences, directs


def address_change(here: PathsLab) -> list[dict[str, Any]]:
    """A local event."""
    silences, directs = outages(here, lambda: here.sh(PAIR[0], NEW_ADDRESS))
    return [seconds_row("address change: silence", silences, 1.0), seconds_row("address change: direct", directs, 4.0)]


def rebinding(here: PathsLab) -> list[dict[str, Any]]:
    """Nobody is told."""
    silences, directs = outages(here, lambda: here.sh(f"{PAIR[0]}-router", REBIND))
    return [seconds_row("NAT rebinding: silence", silences, 2.0), seconds_row("NAT rebinding: direct", directs, 5.0)]


def dead_path(here: PathsLab) -> list[dict[str, Any]]:
    """The two do not reach each other any more, and later they do."""
    outer = [here.outer(f"{host}-router") for host in PAIR]
    silences: list[float | None] = []
    lost: list[float | None] = []
    for _ in range(RUNS):
        begun, ways = disturbed(here, lambda: here.cut(*outer))
        silences.append(max(ways[pair].outage_s(begun, begun + WATCH_S - 1.0) for pair in (PAIR, PAIR[::-1])))
        begun, ways = disturbed(here, here.cut)
        here.until_direct(*PAIR)
        lost.append(sum(ways[pair].lost(begun, begun + WATCH_S - 1.0) for pair in (PAIR, PAIR[::-1])))
    return [seconds_row("dead direct path: silence", silences, 2.0), packets_row("relay to direct", lost)]


def losses(here: PathsLab) -> list[dict[str, Any]]:
    """What must cost nothing."""
    doings: dict[str, Callable[[], object]] = {
        "an agent restarts": lambda: here.sh(PAIR[0], f"systemctl restart {UNIT}"),
        "an agent is killed": lambda: here.sh(PAIR[0], f"systemctl kill --signal=KILL {UNIT}"),
        "an anchor's agent restarts": lambda: here.sh("mid", f"systemctl restart {UNIT}"),
        "an anchor's WireGuard restarts": lambda: here.sh("mid", "systemctl restart wg-quick@wg0"),
        "meshctl apply, unchanged": lambda: here.meshctl("apply"),
    }
    rows = []
    for what, happen in doings.items():
        lost: list[float | None] = []
        for _ in range(RUNS):
            begun, ways = disturbed(here, happen)
            lost.append(sum(ways[pair].lost(begun, begun + WATCH_S - 1.0) for pair in (PAIR, PAIR[::-1])))
        rows.append(packets_row(what, lost))
    return rows


CASES = (address_change, rebinding, dead_path, losses)


def seconds_row(what: str, seconds: list[float | None], aim_s: float) -> dict[str, Any]:
    """Median and 95th percentile; None counts as never."""
    ranked = sorted(float("inf") if s is None else s for s in seconds)
    print(what, [round(s, 2) for s in ranked], file=sys.stderr)
    median, p95 = (ranked[-(-len(ranked) * percent // 100) - 1] for percent in (50, 95))
    return {"what": what, "unit": "s", "median": median, "p95": p95, "aim": aim_s, "runs": len(ranked)}


def packets_row(what: str, packets: list[float | None]) -> dict[str, Any]:
    """The same for packets, of which none should be lost."""
    return {**seconds_row(what, packets, 0), "unit": "packets"}

