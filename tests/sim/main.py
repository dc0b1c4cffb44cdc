"""`make sim`: many small worlds, and one of 300 agents. SEEDS is a number of worlds, or a list such as 17,99-120."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from simbig import big_world
from simdraw import draw
from simreport import count_of, coverage, is_green, seeds_of, told
from simshrink import describe, shrink
from simspec import WorldSpec
from simtwin import outcome_of
from simworld import Outcome, World

from meshctl.core.agent import path

_FEWEST_AGENTS = 10
_BIG_THRESHOLD = 50_000  # most of what the big world makes stays: it is not to be looked at again and again
_SHOWN = 5  # failures that are shrunk and printed
_TRACE_LINES = 150


def run(seed: int) -> Outcome:
    """One small world; its trace only when something was found."""
    gc.disable()  # a world is small, and in cycles as a whole: it is collected once, when it is over
    outcome = outcome_of(draw(seed))
    gc.collect()
    return outcome if outcome.findings else outcome.with_text("", trace=False)


def run_big(agents: int) -> tuple[Outcome, float]:
    """The big world, and the seconds that it took."""
    gc.set_threshold(_BIG_THRESHOLD)
    started = time.perf_counter()
    outcome = World(big_world(agents)).run()
    return outcome, time.perf_counter() - started


def smallest(outcome: Outcome) -> Outcome:
    """The same failure in as small a world as can be found, with the world's description before its trace."""
    names = {f.invariant for f in outcome.findings}

    def fails(spec: WorldSpec) -> bool:
        return bool(names & {f.invariant for f in outcome_of(spec).findings})

    spec = shrink(draw(outcome.seed), fails)
    return outcome_of(spec, kept_lines=_TRACE_LINES).with_text(describe(spec))


def main() -> int:
    """Run; 1 when something was found, or many worlds left out a row of the transition table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "seeds", nargs="?", type=seeds_of, default="2000", help="a number, or a list such as 17,99-120"
    )
    parser.add_argument("--agents", type=count_of, default=300, help="of the big world, ten or more; 0: leave it out")
    parser.add_argument("--processes", type=count_of, default=os.cpu_count())
    parser.add_argument("--no-shrink", action="store_true", help="print what was found as it is")
    parser.add_argument("--trace", action="store_true", help="print the trace of each world")
    options = parser.parse_args()
    if 0 < options.agents < _FEWEST_AGENTS or not options.processes:
        parser.error(f"a big world has {_FEWEST_AGENTS} agents or more, and one process or more runs it")
    if options.trace:
        outcomes = [outcome_of(draw(seed)) for seed in options.seeds]
        for outcome in outcomes:
            print(describe(draw(outcome.seed)), outcome.text, sep="\n")
        return 1 if any(outcome.findings for outcome in outcomes) else 0
    return report(options.seeds, options)


def report(seeds: list[int], options: argparse.Namespace) -> int:
    """Run the worlds and say what came of them."""
    started = time.perf_counter()
    rows: Counter[tuple[path.State, path.Trigger]] = Counter()
    copies: Counter[str] = Counter()
    failed: list[Outcome] = []
    gc.freeze()  # what is imported is in no cycle of a world's, and need not be looked at after each
    with ProcessPoolExecutor(options.processes) as pool:
        big = pool.submit(run_big, options.agents) if options.agents else None
        for outcome in pool.map(run, seeds, chunksize=8):
            rows.update({(state, trigger): count for state, trigger, count in outcome.rows})
            copies.update(dict(outcome.copies))
            failed += [outcome] if outcome.findings else []
        outcomes = failed
        if big is not None:
            outcome, seconds = big.result()
            rows.update({(state, trigger): count for state, trigger, count in outcome.rows})
            print(f"{options.agents} agents: {seconds:.0f} s, {len(outcome.findings)} findings")
            outcomes = [*failed, *([outcome] if outcome.findings else [])]
        took = time.perf_counter() - started
        print(f"{len(seeds)} worlds in {took:.0f} s, {len(seeds) / took:.1f} a second; {len(failed)} with findings")
        print(*coverage(rows), sep="\n")
        print(*told(copies), sep="\n")
        if outcomes:
            show(failed, options, pool)
            for outcome in outcomes[len(failed) :]:
                print(*outcome.findings[:20], sep="\n")
    return 0 if is_green(len(outcomes), len(seeds), rows) else 1


def show(failed: list[Outcome], options: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    """What was found, by invariant, and the first ones in full."""
    seeds: dict[str, list[int]] = {}
    for outcome in failed:
        for name in {f.invariant for f in outcome.findings}:
            seeds.setdefault(name, []).append(outcome.seed)
    for name in sorted(seeds, key=lambda n: -len(seeds[n])):
        print(f"{len(seeds[name]):6d}  {name}: seeds {', '.join(map(str, seeds[name][:12]))}")
    shown = failed[:_SHOWN]
    for outcome in shown if options.no_shrink else pool.map(smallest, shown):
        print(f"\n=== seed {outcome.seed}", *outcome.findings, outcome.text, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
