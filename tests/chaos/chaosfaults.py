"""What befalls an apply, and when: drawn from dice, and done to a lab."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaoslab import Chaos
from chaosstates import BARE, NODES

KINDS = ("controller", "applier", "power", "network", "disk")
# A network comes back after so long, which may be after all windows.
_CUT_S = 15.0
_WATCH = Path(__file__).with_name("chaoswatch.py").read_text()
_LOOK_S = 0.002


@dataclass(frozen=True)
class Fault:
    """`kind` befalls `node` when that `share` of the journals that an undisturbed apply writes there is written; by
    time, when that of its time is over. In a run that is `bare`, a host begins with nothing of meshctl's."""

    kind: str
    node: str
    share: float
    by_time: bool
    lasts_s: float
    bare: bool


@dataclass(frozen=True)
class Blow:
    """What has become of a fault: `missed` says why it hit nobody, "" if it did; `at` is how many lines the host's
    journals had more by then, None where nobody has counted."""

    missed: str
    at: int | None = None


def draw(dice: random.Random) -> Fault:
    """One at random."""
    bare = dice.random() < 1 / 6
    node = BARE if bare and dice.random() < 2 / 3 else dice.choice(NODES)
    return Fault(dice.choice(KINDS), node, dice.random(), dice.random() < 0.25, dice.uniform(0.5, _CUT_S), bare)


def moment(chaos: Chaos, fault: Fault) -> tuple[int, float]:
    """Lines, or 0 and seconds."""
    lines = chaos.lines[chaos.way(fault.node)]
    return (0, fault.share * chaos.seconds) if fault.by_time else (1 + int(fault.share * lines), 0.0)


@contextmanager
def awaited(chaos: Chaos, fault: Fault) -> Iterator[subprocess.Popen[bytes]]:
    """A process on the host that strikes when it is time, and has begun to look. The disk is a small one then."""
    with ExitStack() as stack:
        if fault.kind == "disk":
            stack.enter_context(chaos.small_disk(fault.node))
        words = [fault.kind, *map(str, moment(chaos, fault))]
        watch = stack.enter_context(chaos.start(fault.node, "python3", "-c", _WATCH, *words))
        if watch.stdout is None or watch.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{fault.node} cannot be watched")
        yield watch


def strike(
    chaos: Chaos, fault: Fault, watch: subprocess.Popen[bytes], controller: subprocess.Popen[bytes]
) -> Blow:
    """Wait for the moment, and do what was not done on the host."""
    while watch.poll() is None:
        if controller.poll() is not None:
            return Blow("too late")
        time.sleep(_LOOK_S)
    said = json.loads((watch.stdout.read() if watch.stdout is not None else b"") or b"{}")
    if not said:
        raise RuntimeError(f"{fault.node} was not watched to the end")
    if fault.kind == "controller":
        if controller.poll() is not None:
            return Blow("too late")
        controller.kill()
    elif fault.kind == "power":
        chaos.power_cut(fault.node)
    elif fault.kind == "network":
        with chaos.unplugged(fault.node):
            time.sleep(fault.lasts_s)
    if not said["hit"]:
        return Blow("nobody there")
    return Blow("" if said["busy"] or fault.kind == "controller" else "at rest", said["at"])
