"""`main.py [RUNS [FIRST [LABS]]]`: applies cut short in every way, after which hosts are wholly old or wholly new.

`make chaos RUNS=500` runs this, in LABS labs at once, each of three real hosts; one of them is reached by a jump host
and the mesh alone.
In each run somebody dies or something fails when a host's journal has so many lines more, or after so many seconds:
the controller, the applier, the host (a power cut), its network, or the room on its disk. When nothing waits to be
confirmed any more, each host must have what it had before, or what it was to get, to the last byte of its files, and be
locked no more; and the next apply must succeed, and leave nothing to do and no temporary file. A run depends on its
number alone; what does not hold is printed with it, and the exit code is 1.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import chaosfaults
from chaoslab import LATEST_S, NODES, WHOLE, Chaos, running

_RUNS, _LABS = 500, 3  # a lab waits for windows most of the time
_LATE = ", too late"


def main(runs: int, first: int, labs: int) -> int:
    """Run them; the exit code."""
    began = time.monotonic()
    with ProcessPoolExecutor(labs) as pool:
        done = list(pool.map(some, [range(first + lab, first + runs, labs) for lab in range(labs)]))
    counts = sum((counts for counts, _ in done), Counter())
    for (kind, became), count in sorted(counts.items()):
        print(f"{kind:10} {became:24} {count}")
    findings = sum(findings for _, findings in done)
    late = sum(count for (_, became), count in counts.items() if became.endswith(_LATE))
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {late} of them over before the fault; {findings} findings")
    return 1 if findings else 0


def some(numbers: Sequence[int]) -> tuple[Counter[tuple[str, str]], int]:
    """Those, in a lab of their own: how often what became of which fault, and the number of findings, which are
    printed."""
    counts: Counter[tuple[str, str]] = Counter()
    findings = 0
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as chaos:
        for number in numbers:
            fault = chaosfaults.draw(random.Random(f"chaos {number}"), NODES)  # noqa: S311
            found, became = one(chaos, fault)
            counts[fault.kind, became] += 1
            findings += len(found)
            for words in found:
                print(f"run {number} ({fault}): {words}", flush=True)
            print(f"{number} {fault}: {became}", file=sys.stderr, flush=True)
            if found:
                chaos.begin()
    return counts, findings


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
    return found + chaos.finish(), became if happened else became + _LATE


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(words + [_RUNS, 0, _LABS][len(words) :])))
