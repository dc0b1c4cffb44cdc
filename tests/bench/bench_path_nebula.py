"""The same pairs of hosts joined by meshctl and by Nebula, in turns: first packets, ways, silences.

Everything is measured from outside of both, in the same way: by questions inside the overlay, and by packets that the
pair's routers count.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nebula_side
from bench_path_times import NEW_ADDRESS, REBIND
from paths_lab import ANCHORS, INTERFACE, UNIT, PathsLab, now
from paths_pairs import Pair, Windows, asked, both, in_turns, lab_of, may_fail
from paths_routers import count_ways, ways_now
from paths_way import DIRECT, NONE, RELAYED, Ways, latest

ROUNDS = 5
# NATs of a pair's two ends. What happens to a pair happens to its first.
NATS = (
    ("easy", "easy"), ("easy", "easy"), ("address-dependent", "easy"), ("full-cone", "symmetric"),
    ("easy", "symmetric"), ("symmetric", "symmetric"),
)  # fmt: skip
PAIRS: tuple[Pair, ...] = tuple((f"a{number}", f"b{number}") for number in range(len(NATS)))
HOSTS = tuple(host for pair in PAIRS for host in pair)
EVERY_S = 0.02
# Nobody reads WireGuard's endpoints here.
NEVER_S = 3600.0
# Between the starts of two pairs, so that none waits for another one's programs.
START_TURN_S = 2.0
# meshctl may need three attempts to get through a symmetric NAT, Nebula tries a direct path every 1000 packets.
SETTLE_S = 35.0
# So long first packets alone are waited for.
PATIENT_S = 8.0
# For so long anchors run before anybody else does.
ANCHORS_S = 5.0
# Nebula takes a tunnel for dead after some ten seconds, and may need as long again for a new one.
WATCH_S = 35.0
# An answer so shortly before something happens says that the pair has a path.
LIVE_S = 1.0
FIRST, REBOUND, MOVED = "first packet", "silence, a NAT rebinds", "silence, an end's address changes"
# Of meshctl alone, beside Nebula's first packet: nothing is asked of a peer for which WireGuard has no endpoint.
PATIENT = "first packet, meshctl asked only where it has an endpoint"
# Neither knows anything of mappings that the other one made.
NEW_ROUTER = """
set -e
if nft list map inet lab mapped >/dev/null 2>&1; then
  nft 'flush map inet lab mapped
    flush map inet lab owner
    flush set inet lab taken
    flush set inet lab contacted'
fi
conntrack -F
"""


@dataclass(frozen=True)
class System:
    """One of the two. Scripts for hosts: start it, stop it, and make it forget what it knows once it is stopped."""

    name: str
    start: str
    stop: str
    forget: str
    # Host -> its address inside, and a key that nobody needs.
    peers: Mapping[str, tuple[str, str]]


@dataclass
class Found:
    """Of one system: seconds of each run (None: not while it was watched) by what and pair; ways by pair."""

    seconds: dict[tuple[str, Pair], list[float | None]] = field(default_factory=dict)
    ways: dict[Pair, list[str]] = field(default_factory=dict)

    def add(self, what: str, pair: Pair, value: float | None) -> None:
        """One run."""
        self.seconds.setdefault((what, pair), []).append(value)


def measure() -> dict[str, Any]:
    """Nebula's version, what became of pairs, and times."""
    here = lab_of(PAIRS, dict(zip(HOSTS, (nat for nats in NATS for nat in nats), strict=True)))
    try:
        systems = both_systems(here)
        found = {system.name: Found() for system in systems}
        count_ways(here, PAIRS)
        for _ in range(ROUNDS):
            for system in systems:
                with may_fail(system.name):
                    one_round(here, system, systems, found[system.name])
            with may_fail(PATIENT):
                patient_round(here, systems[0], systems, found[systems[0].name])
    finally:
        here.down()
    ours, other = found.values()
    return {"version": nebula_side.version(), "rounds": ROUNDS, **rows(ours, other)}


def both_systems(here: PathsLab) -> tuple[System, System]:
    """meshctl and Nebula, both installed."""
    inside = nebula_side.install(here.hosts, {name: node["endpoint"].split(":")[0] for name, node in ANCHORS.items()})
    unit = f"wg-quick@{INTERFACE}.service {UNIT}"
    ours = System(
        "meshctl", f"systemctl start {unit}", f"systemctl stop {unit}", "rm -rf /var/lib/meshctl/agent/*", here.peers
    )
    peers = {host: (address, "") for host, address in inside.items()}
    named = nebula_side.UNIT
    return ours, System("Nebula", f"systemctl start {named}", f"systemctl stop {named}", "true", peers)


def one_round(here: PathsLab, system: System, systems: Iterable[System], found: Found) -> None:
    """All pairs from nothing; then the first's NAT of each rebinds, and then its address changes."""
    clear(here, system, systems)
    with here.meters(EVERY_S, asked(PAIRS), eager=True, read_s=NEVER_S, peers=system.peers) as ways:
        begun = start_pairs(here, system)
        time.sleep(SETTLE_S)
        kinds = ways_now(here, PAIRS, EVERY_S)
        rebound = in_turns(lambda pair: here.sh(f"{pair[0]}-router", REBIND), WATCH_S, PAIRS)
        moved = in_turns(lambda pair: here.sh(pair[0], NEW_ADDRESS), WATCH_S, PAIRS)
    firsts(ways, FIRST, begun, found)
    for pair in PAIRS:
        found.ways.setdefault(pair, []).append(kinds[pair])
    print(f"    {system.name}: {list(kinds.values())}", file=sys.stderr)
    for what, windows in ((REBOUND, rebound), (MOVED, moved)):
        silences(ways, what, windows, found)


def patient_round(here: PathsLab, ours: System, systems: Iterable[System], found: Found) -> None:
    """First packets alone. Ends ask only what has an endpoint to go to: the kernel's WireGuard refuses all else."""
    clear(here, ours, systems)
    with here.meters(EVERY_S, asked(PAIRS)) as ways:
        begun = start_pairs(here, ours)
        time.sleep(PATIENT_S)
    firsts(ways, PATIENT, begun, found)


def clear(here: PathsLab, system: System, systems: Iterable[System]) -> None:
    """Nothing runs but the system's anchors; hosts and routers know nothing."""
    for other in systems:
        here.everywhere(other.stop, HOSTS if other is system else here.hosts)
    here.everywhere(NEW_ROUTER, [f"{host}-router" for host in HOSTS])
    here.everywhere(system.start, set(here.anchors.values()))
    here.everywhere(system.forget, HOSTS)
    time.sleep(ANCHORS_S)


def start_pairs(here: PathsLab, system: System) -> dict[Pair, float]:
    """One pair after the other; when each start was begun."""
    begun = {}
    for pair in PAIRS:
        begun[pair] = now()
        here.everywhere(system.start, pair)
        time.sleep(START_TURN_S)
    return begun


def firsts(ways: Ways, what: str, begun: Mapping[Pair, float], found: Found) -> None:
    """When both ends of each pair had an answer."""
    for pair, since in begun.items():
        found.add(what, pair, latest([way.first_s(since) for way in both(ways, pair)]))


def silences(ways: Ways, what: str, windows: Windows, found: Found) -> None:
    """What a pair was silent for; a pair that had no path before does not count."""
    for pair, (begun, until) in windows.items():
        if any(way.silence_s(begun - LIVE_S, begun)[0] >= LIVE_S for way in both(ways, pair)):
            print(f"    {what}: {pair} had no path before", file=sys.stderr)
            continue
        longest_s, ended_s = max(way.silence_s(begun, until) for way in both(ways, pair))
        found.add(what, pair, longest_s if ended_s < until - begun else None)


def rows(ours: Found, other: Found) -> dict[str, Any]:
    """What became of each pair of NATs, and the seconds of each thing for it; pairs of the same NATs are one row."""
    alike: dict[tuple[str, str], list[Pair]] = {}
    for pair, nats in zip(PAIRS, NATS, strict=True):
        alike.setdefault(nats, []).append(pair)
    return {
        "ways": [
            {"nats": nats, "ours": tally(ours, pairs), "other": tally(other, pairs)} for nats, pairs in alike.items()
        ],
        "times": [
            {"what": what, "nats": nats, "ours": summary(ours, what, pairs), "other": summary(other, its, pairs)}
            for what, its in ((FIRST, FIRST), (PATIENT, FIRST), (REBOUND, REBOUND), (MOVED, MOVED))
            for nats, pairs in alike.items()
        ],
    }


def tally(found: Found, pairs: Iterable[Pair]) -> dict[str, int]:
    """Runs by the way that they ended in."""
    seen = [way for pair in pairs for way in found.ways.get(pair, [])]
    return {way: seen.count(way) for way in (DIRECT, RELAYED, NONE)}


def summary(found: Found, what: str, pairs: Iterable[Pair]) -> dict[str, Any]:
    """Runs that count, of how many; median (the lower one) and worst in seconds. Infinite: not while it was watched."""
    pairs = list(pairs)
    ranked = sorted(
        float("inf") if value is None else value for pair in pairs for value in found.seconds.get((what, pair), [])
    )
    print(f"    {what}, {pairs}: {[round(value, 2) for value in ranked]}", file=sys.stderr)
    median, worst = (ranked[(len(ranked) - 1) // 2], ranked[-1]) if ranked else (float("inf"), float("inf"))
    return {"runs": len(ranked), "of": ROUNDS * len(pairs), "median": median, "worst": worst}
