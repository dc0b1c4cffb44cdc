"""Pairs of hosts behind easy NATs, several in one lab, to which something is done in turns."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from paths_lab import ANCHORS, DELAY, FORGET, START, PathsLab, now
from paths_way import Way, Ways

Pair = tuple[str, str]
PAIRS: tuple[Pair, ...] = tuple((f"a{n}", f"b{n}") for n in range(4))
# When something happened to a pair, and until when it was watched.
Windows = dict[Pair, tuple[float, float]]
HOSTS = tuple(host for pair in PAIRS for host in pair)
ROUNDS = 5
RUNS = ROUNDS * len(PAIRS)  # twenty
OFTEN_S = 0.01
# Between what is done to one pair and to the next: all hosts are on one machine.
TURN_S = 0.5
# For so long pairs that were started are left alone.
SETTLE_S = 6.0
# The meters' last answers may still be on their way when they end.
TAIL_S = 1.0


def pairs_lab() -> PathsLab:
    """Each host has its pair's other one and the anchors as peers."""
    return lab_of(PAIRS, dict.fromkeys(HOSTS, "easy"))


def lab_of(pairs: Iterable[Pair], nats: Mapping[str, str]) -> PathsLab:
    """A lab of these pairs (`pairs_lab`); `nats` has the kind of each host's."""
    places = {host: {"lab": {"nat": kind, "delay": DELAY}} for host, kind in nats.items()}
    policies = [
        {"name": f"{a}-{b}", "from": [a], "to": [b], "allow": ["any"], "both_ways": True} for a, b in pairs
    ]  # fmt: skip
    networks = {"corp": {"cidr": ["10.42.0.0/16"], "policy": "deny"}}
    return PathsLab({**ANCHORS, **places}, networks=networks, policies=policies)


def asked(pairs: Iterable[Pair] = PAIRS) -> dict[str, Iterable[str]]:
    """Both ends of each pair ask each other."""
    return {host: (other,) for a, b in pairs for host, other in ((a, b), (b, a))}


def kinds(ways: Ways, pair: Pair, at: float) -> set[str]:
    """How the pair went at that time, seen from both ends."""
    return {way.kind(at) for way in both(ways, pair)}


def both(ways: Ways, pair: Pair) -> tuple[Way, Way]:
    """What both ends saw."""
    return ways[pair], ways[pair[::-1]]


def started(here: PathsLab, pair: Pair) -> tuple[float, float]:
    """Start both agents at once: when that was begun, and when both said that they run."""
    begun = now()
    here.everywhere(START, pair)
    return begun, now()


def start_all(here: PathsLab) -> dict[Pair, tuple[float, float]]:
    """All pairs from nothing, one after another (`started`)."""
    found = {}
    for pair in PAIRS:
        found[pair] = started(here, pair)
        time.sleep(TURN_S)
    return found


def in_turns(happen: Callable[[Pair], object], watch_s: float, pairs: Sequence[Pair] = PAIRS) -> Windows:
    """Do it to each pair, and watch it for so long from then on."""
    windows = {}
    with ThreadPoolExecutor(len(pairs)) as pool:
        doing = []
        for pair in pairs:
            windows[pair] = (now(), now() + watch_s)
            doing.append(pool.submit(happen, pair))
            time.sleep(TURN_S)
        for job in doing:
            job.result()
    wait_until(windows)
    return windows


def at_once(happen: Callable[[], object], watch_s: float, pairs: Iterable[Pair] = PAIRS) -> Windows:
    """Do what concerns all these pairs, and watch them until `watch_s` after it is done."""
    begun = now()
    happen()
    windows = {pair: (begun, now() + watch_s) for pair in pairs}
    wait_until(windows)
    return windows


def wait_until(windows: Windows) -> None:
    """Until everybody has been watched, and the last answers are there."""
    time.sleep(max(0.0, max(end for _, end in windows.values()) + TAIL_S - now()))


def fresh(here: PathsLab) -> None:
    """All pairs' hosts as before the agents' first start; the anchors stay as they are."""
    here.everywhere(FORGET, HOSTS)


@contextmanager
def may_fail(what: str) -> Iterator[None]:
    """What fails inside is told, and the measurement goes on without it: all other figures of the half hour stay."""
    try:
        yield
    except (Exception, SystemExit):
        print(f"    {what}: failed", file=sys.stderr)
        traceback.print_exc()


def row(what: str, found: Iterable[float | None], *, of: int = RUNS, aim: float | None = None) -> dict[str, Any]:
    """Median and 95th percentile (the 19th of 20) of the runs that count, of so many; None, and no run, is never.
    `aim`: what the percentile is to be at most, if anything."""
    ranked = sorted(float("inf") if value is None else value for value in found)
    print(f"    {what}: {[round(value, 2) for value in ranked]}", file=sys.stderr)
    median, p95 = (ranked[-(-len(ranked) * percent // 100) - 1] if ranked else float("inf") for percent in (50, 95))
    return {"what": what, "runs": len(ranked), "of": of, "median": median, "p95": p95, "aim": aim}
