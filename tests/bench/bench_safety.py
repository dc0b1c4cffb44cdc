"""What it costs that an apply cannot lock anybody out: `--confirm auto` against `--confirm off`, the same 20 hosts."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from bench_apply import NAME, SECRET, Bench, build, meshctl_command

from meshctl import lab

HOSTS = 20
RTTS_MS = (0, 50)
ROUNDS = 5
# Each host is changed by one that is another than the one before.
MTUS = (1400, 1380)
_NETWORK = "  corp: {"


def once(bench: Bench, confirm: str, mtu: int) -> float:
    """Apply with that MTU everywhere; wall seconds."""
    head, _, rest = bench.path.read_text(encoding="utf-8").partition(_NETWORK)
    if rest.startswith("mtu: "):
        _, _, rest = rest.partition(", ")
    bench.path.write_text(f"{head}{_NETWORK}mtu: {mtu}, {rest}", encoding="utf-8")
    took_s = bench.inside([*meshctl_command(bench.path), "--confirm", confirm], SECRET)
    found = bench.everywhere("cat /sys/class/net/wg0/mtu")
    if {text.strip() for text in found.values()} != {str(mtu)}:
        raise SystemExit(f"bench: an apply with --confirm {confirm} left other MTUs than {mtu}: {found}")
    return took_s


def measure_case(rtt_ms: int) -> list[dict[str, Any]]:
    """Two rows: hosts without anything of meshctl's, and those where one thing is another."""
    bench = build(HOSTS, rtt_ms)
    first: dict[str, list[float]] = {"off": [], "auto": []}
    change: dict[str, list[float]] = {"off": [], "auto": []}
    for turn in range(ROUNDS):
        for confirm in ("off", "auto") if turn % 2 else ("auto", "off"):
            bench.reset()
            first[confirm].append(once(bench, confirm, MTUS[0]))
            change[confirm].append(once(bench, confirm, MTUS[1]))
    rows = [
        {"hosts": HOSTS, "rtt_ms": rtt_ms, "run": run, **{f"{c}_s": statistics.median(t) for c, t in times.items()}}
        for run, times in (("first", first), ("change", change))
    ]
    print(*rows, sep="\n", file=sys.stderr)
    return rows


def measure() -> list[dict[str, Any]]:
    """All cases; the lab is gone afterwards."""
    try:
        return [row for rtt_ms in RTTS_MS for row in measure_case(rtt_ms)]
    finally:
        lab.down(NAME)
