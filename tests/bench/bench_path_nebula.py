"""The same pairs of hosts joined by meshctl and by Nebula, in turns: first packets, ways, silences.

Everything is measured from outside of both, in the same way: by questions inside the overlay, and by packets that the
pair's routers count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import nebula_side
from bench_path_times import NEW_ADDRESS, REBIND
from paths_lab import ANCHORS, INTERFACE, UNIT, PathsLab, now
from paths_pairs import Pair, Windows, asked, both, in_turns, lab_of, may_fail
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
SETTLE_S = 60.0
# Nebula takes a tunnel for dead after some ten seconds.
WATCH_S = 25.0
# An answer so shortly before something happens says that the pair has a path.
LIVE_S = 1.0
COUNT_S = 3.0
# Of a pair's packets, what goes a way for the pair to be said to go it.
SHARE = 0.5
FIRST, REBOUND, MOVED = "first packet", "silence, a NAT rebinds", "silence, an end's address changes"
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
COUNT = """
nft 'table inet seen
  delete table inet seen
  table inet seen {{
    counter direct {{ }}
    counter relayed {{ }}
    chain arrived {{
      type filter hook prerouting priority -350;
      iifname wan meta l4proto udp ip saddr {other} counter name direct
      iifname wan meta l4proto udp ip saddr {{ {anchors} }} counter name relayed
    }}
  }}'
"""
READ = "nft --json list counters table inet seen"


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
        watch_ways(here)
        for _ in range(ROUNDS):
            for system in systems:
                with may_fail(system.name):
                    one_round(here, system, systems, found[system.name])
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


def watch_ways(here: PathsLab) -> None:
    """Let each pair's routers count what comes from the other one, and from anchors."""
    anchors = ", ".join(ip for ip in here.anchors if ":" not in ip)
    for one, other in PAIRS:
        for host, far in ((one, other), (other, one)):
            here.sh(f"{host}-router", COUNT.format(other=here.wan(f"{far}-router"), anchors=anchors))


def one_round(here: PathsLab, system: System, systems: Iterable[System], found: Found) -> None:
    """All pairs from nothing; then the first's NAT of each rebinds, and then its address changes."""
    for other in systems:
        here.everywhere(other.stop, HOSTS if other is system else here.hosts)
    here.everywhere(NEW_ROUTER, [f"{host}-router" for host in HOSTS])
    here.everywhere(system.start, set(here.anchors.values()))
    here.everywhere(system.forget, HOSTS)
    time.sleep(SETTLE_S / 10)
    with here.meters(EVERY_S, asked(PAIRS), eager=True, read_s=NEVER_S, peers=system.peers) as ways:
        begun = {}
        for pair in PAIRS:
            begun[pair] = now()
            here.everywhere(system.start, pair)
            time.sleep(START_TURN_S)
        time.sleep(SETTLE_S)
        kinds = ways_now(here)
        rebound = in_turns(lambda pair: here.sh(f"{pair[0]}-router", REBIND), WATCH_S, PAIRS)
        moved = in_turns(lambda pair: here.sh(pair[0], NEW_ADDRESS), WATCH_S, PAIRS)
    for pair in PAIRS:
        first = latest([way.first_s(begun[pair]) for way in both(ways, pair)])
        found.add(FIRST, pair, first)
        found.ways.setdefault(pair, []).append(kinds[pair])
        print(f"    {system.name} {pair}: {kinds[pair]}, {first}", file=sys.stderr)
    for what, windows in ((REBOUND, rebound), (MOVED, moved)):
        silences(ways, what, windows, found)


def silences(ways: Ways, what: str, windows: Windows, found: Found) -> None:
    """What a pair was silent for; a pair that had no path before does not count."""
    for pair, (begun, until) in windows.items():
        if any(way.silence_s(begun - LIVE_S, begun)[0] >= LIVE_S for way in both(ways, pair)):
            print(f"    {what}: {pair} had no path before", file=sys.stderr)
            continue
        longest_s, ended_s = max(way.silence_s(begun, until) for way in both(ways, pair))
        found.add(what, pair, longest_s if ended_s < until - begun else None)


def ways_now(here: PathsLab) -> dict[Pair, str]:
    """How each pair's packets go now, by what its routers count for a while."""
    routers = [f"{host}-router" for host in HOSTS]
    with ThreadPoolExecutor(len(routers)) as pool:
        before, begun = list(pool.map(lambda router: packets(here.sh(router, READ)), routers)), now()
        time.sleep(COUNT_S)
        after, seconds = list(pool.map(lambda router: packets(here.sh(router, READ)), routers)), now() - begun
    # Of each end there come questions and answers.
    least = SHARE * 2 * seconds / EVERY_S
    came = [{way: late[way] - early[way] for way in early} for early, late in zip(before, after, strict=True)]
    ends = dict(zip(HOSTS, came, strict=True))
    return {pair: way_of([ends[host] for host in pair], least) for pair in PAIRS}


def packets(listed: str) -> dict[str, int]:
    """Packets by counter, out of nft's JSON."""
    items = json.loads(listed)["nftables"]
    return {item["counter"]["name"]: item["counter"]["packets"] for item in items if "counter" in item}


def way_of(ends: Sequence[Mapping[str, int]], least: float) -> str:
    """How a pair goes: directly if at both ends so many packets come from the other one, and by an anchor if so many
    come from anchors. Packets that try for a direct path are not many beside these."""
    kinds = {RELAYED if end[RELAYED] >= least else DIRECT if end[DIRECT] >= least else NONE for end in ends}
    return next(kind for kind in (NONE, RELAYED, DIRECT) if kind in kinds)


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
            {"what": what, "nats": nats, "ours": summary(ours, what, pairs), "other": summary(other, what, pairs)}
            for what in (FIRST, REBOUND, MOVED)
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
