"""`main.py [RUNS [FIRST]]`: applies that are cut short in every way; each host must end wholly old or wholly new.

`make chaos RUNS=500` runs this, in a lab of three real hosts; one of them is reached by a jump host and the mesh alone.
In each run somebody dies or something fails when a host's journal has so many lines more, or after so many seconds:
the controller, the applier, the host (a power cut), its network, or the room on its disk. When nothing waits to be
confirmed any more, each host must have what it had before, or what it was to get, to the last byte of its files; no
lock and no temporary file may be left, and the next apply must succeed and leave nothing to do. A run depends on its
number alone; what does not hold is printed with it, and the exit code is 1.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import chaosfaults
from chaoslab import LATEST_S, NODES, WHOLE, Chaos, running

_RUNS = 500


def main(runs: int, first: int) -> int:
    """Run them; the exit code."""
    counts: Counter[tuple[str, str]] = Counter()
    failed: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as chaos:
        for number in range(first, first + runs):
            fault = chaosfaults.draw(random.Random(f"chaos {number}"), NODES)  # noqa: S311
            found, became = one(chaos, fault)
            counts[fault.kind, became] += 1
            failed += [f"run {number} ({fault}): {words}" for words in found]
            for words in found:
                print(f"run {number} ({fault}): {words}", flush=True)
            print(f"{number - first + 1}/{runs} {fault}: {became}", file=sys.stderr, flush=True)
            if found:
                chaos.begin()
    for (kind, became), count in sorted(counts.items()):
        print(f"{kind:10} {became:24} {count}")
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {len(failed)} findings")
    return 1 if failed else 0


def one(chaos: Chaos, fault: chaosfaults.Fault) -> tuple[list[str], str]:
    """One run: what does not hold, and what became of the host that the fault befell."""
    chaos.turn()
    with chaosfaults.awaited(chaos, fault) as moment, chaos.apply() as controller:
        happened = chaosfaults.strike(chaos, fault, moment, controller)
        try:
            controller.wait(timeout=LATEST_S)
        except subprocess.TimeoutExpired:
            return [f"the controller has not ended after {LATEST_S:.0f} s"], "stuck"
    found = chaos.settle()
    states = {node: chaos.which(node) for node in NODES}
    found += [f"{node} is neither old nor new: {words}" for node, words in states.items() if words not in WHOLE]
    became = states[fault.node] if states[fault.node] in WHOLE else "half"
    return found + chaos.finish(), became if happened else f"{became}, too late"


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(words + [_RUNS, 0][len(words) :])))
