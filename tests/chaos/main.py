"""`main.py [RUNS [FIRST [LABS]]]`: applies cut short in every way, after which hosts are wholly old or wholly new.

`make chaos RUNS=500` runs this, in LABS labs at once, each of three real hosts; one of them is reached by a jump host
and the mesh alone.
In each run somebody dies or something fails at a line of a host's journals, or after so many seconds: the controller,
the applier, the host (a power cut), its network, or the room on its disk. When nothing waits to be confirmed any more,
each host must have what it had before, or what it was to get (after the first of two rounds, all of that round), to the
last byte of its files, and be locked no more; and the next apply must succeed, and leave nothing to do and no temporary
file. In one run of six a host had nothing of meshctl's before. What is drawn depends on a run's number alone; what
does not hold is printed with it, and the exit code is 1, as when a lab could not be had for some runs. A fault that hit
nobody is counted by itself, and so is a run that broke off.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

from chaosruns import Tally, some

_RUNS, _LABS = 500, 3  # a lab waits for windows most of the time; and an odd number has each go back and forth


def main(runs: int, first: int, labs: int) -> int:
    """Run them; the exit code."""
    began = time.monotonic()
    tally = Tally()
    with ProcessPoolExecutor(labs) as pool:
        for other in pool.map(some, [range(first + lab, first + runs, labs) for lab in range(labs)]):
            tally.add(other)
    print(tally)
    missed = sum(tally.missed.values())
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {missed} of them with a fault that hit nobody,"
          f" {tally.broken.total()} broken off, {tally.not_run} not run; {tally.findings} findings")  # fmt: skip
    return 0 if tally.is_good else 1


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(words + [_RUNS, 0, _LABS][len(words) :])))
