"""Runs of `make chaos` one after another in a lab, and what came of them. What breaks off ends no others."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import chaosfaults
from chaoslab import WHOLE, Chaos, Way, running
from chaosround import LATEST_S
from chaosstates import NODES


@dataclass
class Tally:
    """What has come of some runs: (kind, became) -> how often, (kind, why) -> how often it hit nobody, kind -> how many
    broke off, kind -> where it hit, how long the journals are, how many were not run, and the number of findings."""

    became: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    hit: dict[str, set[tuple[Way, int | None]]] = field(default_factory=dict)
    lines: dict[Way, int] = field(default_factory=dict)
    not_run: int = 0
    findings: int = 0

    def add(self, other: Tally) -> None:
        """Both together."""
        self.became += other.became
        self.missed += other.missed
        self.broken += other.broken
        self.not_run += other.not_run
        self.findings += other.findings
        self.lines |= other.lines
        for kind, places in other.hit.items():
            self.hit.setdefault(kind, set()).update(places)

    @property
    def is_good(self) -> bool:
        """Whether all were run, and nothing was found."""
        return not self.findings and not self.not_run

    def __str__(self) -> str:
        places = {(way, line) for way, count in self.lines.items() for line in range(1, count + 1)}
        rows = [f"{kind:10} {became:24} {count}" for (kind, became), count in sorted(self.became.items())]
        rows += [f"{kind:10} hit nobody: {why:12} {count}" for (kind, why), count in sorted(self.missed.items())]
        rows += [f"{kind:10} {'broken off':24} {count}" for kind, count in sorted(self.broken.items())]
        rows += [f"{kind:10} at {len(hit & places)} of {len(places)} lines" for kind, hit in sorted(self.hit.items())]
        hit = set().union(*self.hit.values())
        rows.append(
            f"any kind   at {len(hit & places)} of {len(places)} lines, and at {len(hit - places)} that only who undoes"
            f" writes; the longest journals have {max(self.lines.values(), default=0)}"
        )
        return "\n".join(rows)


def some(numbers: Sequence[int]) -> Tally:
    """Those, in a lab of their own; findings are printed. A lab that breaks is a finding, too, and the runs that are
    left have a new one, unless it broke before its first."""
    tally, left = Tally(), list(numbers)
    while left:
        count = len(left)
        try:
            with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as chaos:
                tally.lines = chaos.lines
                while left:
                    if not _run(chaos, left.pop(0), tally) and left:
                        chaos.begin()
        except Exception as error:  # whatever it is: the others are to be run, and what was counted is to be told
            tally.findings += 1
            print(f"the lab broke after {len(numbers) - len(left)} runs: {_words(error)}", flush=True)
            if len(left) == count:
                break
    tally.not_run = len(left)
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


def _run(chaos: Chaos, number: int, tally: Tally) -> bool:
    """Whether nothing was found, so that the lab can be gone on with."""
    fault = chaosfaults.draw(random.Random(f"chaos {number}"))  # noqa: S311
    place = f"{fault.kind} {fault.node}"
    try:
        chaos.turn(second=bool(number % 2), bare=fault.bare)
        way = chaos.way(fault.node)
        place = f"{fault.kind} {way} at {chaosfaults.moment(chaos, fault)}"
        found, became, blow = one(chaos, fault)
    except Exception as error:  # as above
        tally.broken[fault.kind] += 1
        found, came = [f"the run broke off: {_words(error)}"], "broken off"
    else:
        came = f"{became} {blow}"
        if blow.missed:
            tally.missed[fault.kind, blow.missed] += 1
        else:
            tally.became[fault.kind, became] += 1
            tally.hit.setdefault(fault.kind, set()).add((way, blow.at))
    tally.findings += len(found)
    for words in found:
        print(f"run {number} ({place}): {words}", flush=True)
    print(f"{number} {place}: {came}", file=sys.stderr, flush=True)
    return not found


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
