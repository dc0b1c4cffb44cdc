"""TCP through the tunnel of one pair: with the agents running and stopped, and directly and by an anchor's relay."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from measure import run
from paths_lab import FORGET, NAME, START, UNIT, PathsLab

from meshctl.lab.names import netns

ONE, OTHER, ANCHOR = "one", "other", "mid"
# No line is slow: the lab's own delay would cost more than what is measured.
NODES = {
    ANCHOR: {"roles": ["anchor"], "endpoint": "203.0.113.10:51820"},
    **{name: {"lab": {"nat": "easy"}} for name in (ONE, OTHER)},
}
SECONDS = 3
ROUNDS = 7
# What was moved or stopped is left alone so long before anything is measured; and an agent that has started, until it
# has found out all that it begins with.
SETTLE_S = 2.0
START_S = 12.0
PATIENCE_S = 60.0
RUNNING, STOPPED, DIRECT, RELAYED = "running", "stopped", "direct", "relayed"
Rates = dict[str, list[float]]


def measure() -> Rates:
    """How it went -> bits a second, a figure a round: RUNNING and STOPPED, DIRECT and RELAYED."""
    here = PathsLab(NODES)
    try:
        here.everywhere(FORGET, here.hosts)
        here.everywhere(START, here.hosts)
        _await(here, relayed=False)
        with _server():
            return {**agents(here), **relay(here)}
    finally:
        here.down()


def agents(here: PathsLab) -> Rates:
    """Directly, with all agents running and with all of them stopped."""
    return in_turns(here, {
        RUNNING: lambda: _start(here),
        STOPPED: lambda: here.everywhere(f"systemctl stop {UNIT}", here.hosts),
    }, {})  # fmt: skip


def relay(here: PathsLab) -> Rates:
    """By the anchor's relay and directly, as an operator's word has it."""
    _start(here)
    return in_turns(here, {
        DIRECT: lambda: here.sh(ONE, f"meshctl-agent override {OTHER} auto"),
        RELAYED: lambda: here.sh(ONE, f"meshctl-agent override {OTHER} relay"),
    }, {RELAYED: True})  # fmt: skip


def in_turns(here: PathsLab, doings: dict[str, Callable[[], object]], relayed: dict[str, bool]) -> Rates:
    """Do the one and measure, then the other; every second time the other comes first. `relayed`: where the pair is to
    go then, if not directly. Raises SystemExit when it does not go so, before or after."""
    found: Rates = {name: [] for name in doings}
    for turn in range(ROUNDS):
        for name in list(doings)[:: -1 if turn % 2 else 1]:
            doings[name]()
            _await(here, relayed=relayed.get(name, False))
            time.sleep(SETTLE_S)
            found[name].append(_rate(here))
            if _ways(here) != {relayed.get(name, False)}:
                raise SystemExit(f"bench: the pair left its path while it was measured: {name}")
    for name, rates in found.items():
        print(f"    {name}: {median(rates) / 1e6:.0f} Mbit/s of {[round(r / 1e6) for r in rates]}", file=sys.stderr)
    return found


def _start(here: PathsLab) -> None:
    """All agents; and wait until the start is over."""
    here.everywhere(START, here.hosts)
    time.sleep(START_S)


def _ways(here: PathsLab) -> set[bool | None]:
    """Of both ends, whether they send by an anchor; None: nowhere."""
    ends = [here.endpoint(ONE, OTHER), here.endpoint(OTHER, ONE)]
    return {None if end in ("", "(none)") else end in here.anchors for end in ends}


def _await(here: PathsLab, *, relayed: bool) -> None:
    end = time.monotonic() + PATIENCE_S
    while _ways(here) != {relayed}:
        if time.monotonic() > end:
            raise SystemExit(f"bench: the pair does not go {RELAYED if relayed else DIRECT}")
        time.sleep(0.2)


@contextmanager
def _server() -> Iterator[None]:
    """iperf3 of this machine, on the other host's network."""
    words = ["ip", "netns", "exec", netns(NAME, OTHER), "iperf3", "--server", "--forceflush"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if not any("listening" in line for line in server.stdout):
                raise SystemExit("bench: iperf3 does not listen")
            yield
        finally:
            server.terminate()


def _rate(here: PathsLab) -> float:
    """Bits a second that arrived."""
    words = ["ip", "netns", "exec", netns(NAME, ONE), "iperf3", "--json", "--client", here.peers[OTHER][0]]
    rate: float = json.loads(run([*words, "--time", str(SECONDS)]).stdout)["end"]["sum_received"]["bits_per_second"]
    return rate
