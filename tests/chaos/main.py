"""`main.py [RUNS [FIRST [LABS]]]`: applies cut short in every way, after which hosts are wholly old or wholly new.

`make chaos RUNS=500` runs this, in LABS labs at once, each of three real hosts; one of them is reached by a jump host
and the mesh alone.
In each run somebody dies or something fails at a line of a host's journals, or after so many seconds: the controller,
the applier, the host (a power cut), its network, or the room on its disk. When nothing waits to be confirmed any more,
each host must have what it had before, or what it was to get (after the first of two rounds, all of that round), to the
last byte of its files, and be locked no more; and the next apply must succeed, and leave nothing to do and no temporary
file. In one run of six a host had nothing of meshctl's before. What is drawn depends on a run's number alone; what
does not hold is printed with it, and the exit code is 1. A fault that hit nobody is counted by itself.
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
from dataclasses import dataclass, field
from pathlib import Path

import chaosfaults
from chaoslab import LATEST_S, WHOLE, Chaos, Way, running
from chaosstates import NODES

_RUNS, _LABS = 500, 3  # a lab waits for windows most of the time; and an odd number has each go back and forth


@dataclass
class Tally:
    """What has come of some runs: (kind, became) -> how often, (kind, why) -> how often it hit nobody, kind -> where
    it hit, how long the journals are, and the number of findings."""

    became: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    hit: dict[str, set[tuple[Way, int]]] = field(default_factory=dict)
    lines: dict[Way, int] = field(default_factory=dict)
    findings: int = 0

    def add(self, other: Tally) -> None:
        """Both together."""
        self.became += other.became
        self.missed += other.missed
        self.findings += other.findings
        self.lines |= other.lines
        for kind, places in other.hit.items():
            self.hit.setdefault(kind, set()).update(places)

    def __str__(self) -> str:
        places = {(way, line) for way, count in self.lines.items() for line in range(1, count + 1)}
        rows = [f"{kind:10} {became:24} {count}" for (kind, became), count in sorted(self.became.items())]
        rows += [f"{kind:10} hit nobody: {why:12} {count}" for (kind, why), count in sorted(self.missed.items())]
        rows += [f"{kind:10} at {len(hit & places)} of {len(places)} lines" for kind, hit in sorted(self.hit.items())]
        hit = set().union(*self.hit.values())
        rows.append(
            f"any kind   at {len(hit & places)} of {len(places)} lines, and at {len(hit - places)} that only who undoes"
            f" writes; the longest journals have {max(self.lines.values(), default=0)}"
        )
        return "\n".join(rows)


def main(runs: int, first: int, labs: int) -> int:
    """Run them; the exit code."""
    began = time.monotonic()
    tally = Tally()
    with ProcessPoolExecutor(labs) as pool:
        for other in pool.map(some, [range(first + lab, first + runs, labs) for lab in range(labs)]):
            tally.add(other)
    print(tally)
    missed = sum(tally.missed.values())
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {missed} of them with a fault that hit nobody;"
          f" {tally.findings} findings")  # fmt: skip
    return 1 if tally.findings else 0


def some(numbers: Sequence[int]) -> Tally:
    """Those, in a lab of their own; findings are printed."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as chaos:
        for number in numbers:
            fault = chaosfaults.draw(random.Random(f"chaos {number}"))  # noqa: S311
            chaos.turn(second=bool(number % 2), bare=fault.bare)
            place = f"{fault.kind} {chaos.way(fault.node)} at {chaosfaults.moment(chaos, fault)}"
            way = chaos.way(fault.node)
            try:
                found, became, blow = one(chaos, fault)
            except (AssertionError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                found, became, blow = [f"the run broke off: {error}"], "broken off", chaosfaults.Blow("broken off")
            if blow.missed:
                tally.missed[fault.kind, blow.missed] += 1
            else:
                tally.became[fault.kind, became] += 1
                tally.hit.setdefault(fault.kind, set()).add((way, blow.at))
            tally.findings += len(found)
            for words in found:
                print(f"run {number} ({place}): {words}", flush=True)
            print(f"{number} {place}: {became} {blow}", file=sys.stderr, flush=True)
            if found:
                chaos.begin()
        tally.lines = chaos.lines
    return tally


def one(chaos: Chaos, fault: chaosfaults.Fault) -> tuple[list[str], str, chaosfaults.Blow]:
    """One run: what does not hold, what became of the host that the fault was for, and whether it hit it."""
    with chaosfaults.awaited(chaos, fault) as watch, chaos.apply() as controller:
        blow = chaosfaults.strike(chaos, fault, watch, controller)
        try:
            controller.wait(timeout=LATEST_S)
        except subprocess.TimeoutExpired:
            return [f"the controller has not ended after {LATEST_S:.0f} s"], "stuck", blow
    found = chaos.settle()
    states = {node: chaos.which(node) for node in NODES}
    found += [f"{node} is neither old nor new: {words}" for node, words in states.items() if words not in WHOLE]
    became = states[fault.node] if states[fault.node] in WHOLE else "half"
    return found + chaos.finish(), became, blow


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(words + [_RUNS, 0, _LABS][len(words) :])))
