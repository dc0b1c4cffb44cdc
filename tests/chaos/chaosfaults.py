"""What befalls an apply, and when: drawn from dice, and done to a lab."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from chaoslab import Chaos

KINDS = ("controller", "applier", "power", "network", "disk")
# So many lines does a journal of this change have, or a few more; and so long a whole apply takes.
_LINES, _SECONDS = 40, 8.0
# A network comes back after so long, which may be after all windows.
_CUT_S = 15.0
# Waits until the host's journals have so many lines more than before.
_AWAIT = """
import pathlib, sys, time
def lines():
    return sum(p.read_bytes().count(b"\\n") for p in pathlib.Path("/var/lib/meshctl/journal").glob("*.jsonl"))
def whole():
    try:
        return lines()
    except OSError:  # one was just removed
        return whole()
begin = whole()
print("ready", flush=True)
while whole() < begin + int(sys.argv[1]):
    time.sleep(0.001)
"""
_KILL = "kill -9 $(sed -n 's/pid \\([0-9]*\\) .*/\\1/p' /run/meshctl/apply.lock)"
_FILL = "head -c 64M /dev/zero > /var/lib/meshctl/fill 2>/dev/null"


@dataclass(frozen=True)
class Fault:
    """`kind` befalls `node` when its journals have `lines` more, or, where that is 0, after `after_s`."""

    kind: str
    node: str
    lines: int
    after_s: float
    lasts_s: float

    def __str__(self) -> str:
        when = f"at line {self.lines}" if self.lines else f"after {self.after_s:.1f} s"
        return f"{self.kind} {self.node} {when}"


def draw(dice: random.Random, nodes: Sequence[str]) -> Fault:
    """One at random."""
    lines = dice.randint(1, _LINES) if dice.random() < 0.75 else 0
    return Fault(dice.choice(KINDS), dice.choice(nodes), lines, dice.uniform(0.0, _SECONDS), dice.uniform(0.5, _CUT_S))


@contextmanager
def awaited(chaos: Chaos, fault: Fault) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process on the host that ends when it is time, and has begun to look; None where that is a matter of time. The
    disk is a small one that may be filled."""
    with ExitStack() as stack:
        if fault.kind == "disk":
            stack.enter_context(chaos.small_disk(fault.node))
        if not fault.lines:
            yield None
            return
        moment = stack.enter_context(chaos.start(fault.node, "python3", "-c", _AWAIT, str(fault.lines)))
        if moment.stdout is None or moment.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{fault.node} cannot be watched")
        yield moment


def strike(
    chaos: Chaos, fault: Fault, moment: subprocess.Popen[bytes] | None, controller: subprocess.Popen[bytes]
) -> bool:
    """Wait for the moment, and do it. False when the apply was over before."""
    if moment is None:
        time.sleep(fault.after_s)
    while moment is not None and moment.poll() is None:
        if controller.poll() is not None:
            return False
        time.sleep(0.002)
    if fault.kind == "controller":
        controller.kill()
    elif fault.kind == "applier":
        chaos.mesh.sh(fault.node, _KILL, check=False)
    elif fault.kind == "power":
        chaos.power_cut(fault.node)
    elif fault.kind == "network":
        with chaos.unplugged(fault.node):
            time.sleep(fault.lasts_s)
    else:
        chaos.mesh.sh(fault.node, _FILL, check=False)
    return True
