"""The first round of an apply in waves, alone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

from meshlab import MeshLab

# So long a controller may take at the most, with a host that answers no more.
LATEST_S = 240.0
# What `apply --pause` says of its rounds, and its exit code when the operator did not go on.
_ASKS, _BEGINS, _OF_THE_FIRST = "Go on with ", "Wave ", "(what is new)"
_NOT_FINISHED = 1


class LabError(RuntimeError):
    """A lab that is not as it should be though nobody has interfered; says in what."""


def first_round(mesh: MeshLab) -> None:
    """An apply that ends when all have what is new, and nothing has gone. Raises LabError when there was no such
    round: what is compared with it later would be compared with another state."""
    words = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), "--lab", mesh.name, "--pause"]
    terminal, answers = pty.openpty()
    said: list[str] = []
    try:
        with subprocess.Popen(
            words, text=True, stdin=answers, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            late = threading.Timer(LATEST_S, process.kill)  # so that what it says ends, too
            late.start()
            try:
                for line in process.stderr or ():
                    said.append(line)
                    if line.startswith(_ASKS):
                        os.write(terminal, b"y\n" if _OF_THE_FIRST in line else b"n\n")
                code = process.wait()
            finally:
                late.cancel()
    finally:
        os.close(terminal)
        os.close(answers)
    if code != _NOT_FINISHED or not is_one_round(said):
        raise LabError(f"no apply that ends after its first round; exit code {code}: {''.join(said)[-1000:]}")


def is_one_round(said: list[str]) -> bool:
    """Whether these lines are of an apply that did all waves of a first round, and was to go on with another one."""
    of_the_first = [_OF_THE_FIRST in line for line in said if line.startswith((_ASKS, _BEGINS))]
    return len(of_the_first) > 1 and all(of_the_first[:-1]) and not of_the_first[-1]
