"""Running programs on the node: a fixed environment, a time limit that kills the whole group, bounded output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from meshctl.model.places import SEARCH_PATH

# wg asks 15 times for a name that does not resolve, a minute and a half: one dead name must not hold up the others so.
ENVIRONMENT = {
    "PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive",
    "WG_ENDPOINT_RESOLUTION_RETRIES": "2",
}  # fmt: skip
NOT_FOUND = 127
TIMED_OUT = 124  # as timeout(1) has it


@dataclass(frozen=True)
class Ran:
    """A program's outcome. `output` is both of its streams, standard error first."""

    status: int
    stdout: str
    output: str


def find(program: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(program, path=SEARCH_PATH)


def run(argv: Sequence[str], stdin: bytes | None = None, timeout_s: float = 60.0) -> Ran:
    """Run a program to its end. Status NOT_FOUND when it is not there, TIMED_OUT when time ran out."""
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError:
        return Ran(NOT_FOUND, "", f"{argv[0]}: not found")
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Ran(TIMED_OUT, "", f"{argv[0]}: no end after {timeout_s:g} s")
    text = out.decode(errors="replace")
    return Ran(process.returncode, text, err.decode(errors="replace") + text)
