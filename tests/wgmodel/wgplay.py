"""Plays scenarios between real WireGuards, all at once, and prints a line `NAME JSON` for each.

`wgplay.py IMPLEMENTATION NAME...` runs in a virtual machine, whose Python has nothing but its standard library.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack

from wgreal import GO, KERNEL, Real
from wgscenarios import SCENARIOS, Scenario
from wgstage import Record

# Most begin with a handshake; an emulated machine is busy with one for a tenth of a second, and longer with some.
_APART_S = {GO: 0.2, KERNEL: 3.0}


def play_all(scenarios: Iterable[Scenario], implementation: str, done: Callable[[str, Record], None]) -> None:
    """Build every stage, then play side by side, the long ones first; `done` is called for each as it ends."""
    with ExitStack() as ends:
        in_order = sorted(scenarios, key=lambda s: not s.long)
        stages = [(s, Real(implementation, ends, endpoint=s.endpoint)) for s in in_order]
        pool = ends.enter_context(ThreadPoolExecutor(max(1, len(stages))))
        running = {}
        for scenario, stage in stages:
            running[pool.submit(stage.play, scenario)] = scenario.name
            time.sleep(_APART_S[implementation])
        for future in as_completed(running):
            done(running[future], future.result())


def main(implementation: str, names: list[str]) -> None:
    """Print the records."""
    wanted = (scenario for scenario in SCENARIOS if scenario.name in names)
    play_all(wanted, implementation, lambda name, record: print(name, json.dumps(record.as_json()), flush=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
