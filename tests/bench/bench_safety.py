"""What commit-confirm costs: the same change of 20 hosts with `--confirm auto` and with `--confirm off`, in turns."""

from __future__ import annotations

import statistics
import sys
from typing import Any

import bench_apply

from meshctl import lab

HOSTS = 20
# Round-trip time in ms.
CASES = (0, 50)
ROUNDS = 7
MODES = ("auto", "off")
# The change is another MTU of every tunnel: a file, and the live interface.
_MTU = 1380


def measure() -> list[dict[str, Any]]:
    """A row a case; the lab is gone afterwards."""
    try:
        return [measure_case(rtt_ms) for rtt_ms in CASES]
    finally:
        lab.down(bench_apply.NAME)


def measure_case(rtt_ms: int) -> dict[str, Any]:
    """Medians of both, and of their ratios. Each is the first of a round as often as the other."""
    bench = bench_apply.build(HOSTS, rtt_ms)
    original = bench.path.read_text(encoding="utf-8")
    rounds = []
    mtu = _MTU
    for number in range(ROUNDS):
        took = {}
        for mode in MODES if number % 2 else MODES[::-1]:
            mtu += 1
            bench.path.write_text(original.replace("defaults: {", f"defaults: {{mtu: {mtu}, "), encoding="utf-8")
            command = [*bench_apply.meshctl_command(bench.path), "--confirm", mode]
            took[mode] = bench.inside(command, bench_apply.SECRET)
        rounds.append(took)
    row = {mode: statistics.median(took[mode] for took in rounds) for mode in MODES}
    found = {"hosts": HOSTS, "rtt_ms": rtt_ms, "auto_s": row["auto"], "off_s": row["off"],
             "ratio": statistics.median(took["auto"] / took["off"] for took in rounds)}  # fmt: skip
    print(found, file=sys.stderr)
    return found
