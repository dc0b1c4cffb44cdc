"""Running programs on the node: a fixed environment, a time limit that kills the whole group, bounded output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from meshctl.model.places import SEARCH_PATH

# wg asks 15 times for a name that does not resolve, a minute and a half: one dead name must not hold up the others so.
ENVIRONMENT = {
    "PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive",
    "WG_ENDPOINT_RESOLUTION_RETRIES": "2",
}  # fmt: skip
NOT_FOUND = 127
TIMED_OUT = 124  # as timeout(1) has it
# So long is waited for what was killed, which dies at once unless it hangs in the kernel.
_DEATH_S, _LOOK_S = 5.0, 0.02
PACKAGE_MANAGERS = ("apt-get", "apt", "dpkg", "dnf", "yum", "zypper", "apk", "pacman")
_PACKAGES_S = 60.0
_noted_in: Path | None = None


@dataclass(frozen=True)
class Ran:
    """A program's outcome. `output` is both of its streams, standard error first."""

    status: int
    stdout: str
    output: str


def find(program: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(program, path=SEARCH_PATH)


def is_package_manager(argv: Sequence[str]) -> bool:
    """Whether this runs a package manager, directly or through env or sh."""
    return any(Path(word).name in PACKAGE_MANAGERS for word in argv[:3])


def note_in(path: Path) -> None:
    """From here on this process notes in that file which command it waits for (`end_noted`)."""
    global _noted_in
    _noted_in = path


def end_noted(path: Path) -> None:
    """End the command that a process has noted there and did not live to see the end of, and all that it has started.
    Call it when that process is dead. A number is not given to another process while one of its group lives.

    A package manager is waited for instead, for a minute: a database that is half written fails every apply after this
    one, and nobody takes packages back."""
    with contextlib.suppress(OSError, ValueError):
        group, began, spared = map(int, path.read_text().split())
        if _start_time(group) in (None, began):
            _outlive(group, 0 if spared else signal.SIGKILL, _PACKAGES_S if spared else _DEATH_S)
    with contextlib.suppress(OSError):
        path.unlink()


def run(argv: Sequence[str], stdin: bytes | None = None, timeout_s: float = 60.0) -> Ran:
    """Run a program to its end. Status NOT_FOUND when it is not there, TIMED_OUT when time ran out."""
    noted_in = _noted_in
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            preexec_fn=partial(_note, noted_in, is_package_manager(argv)) if noted_in else None,
        )
    except FileNotFoundError:
        return Ran(NOT_FOUND, "", f"{argv[0]}: not found")
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return Ran(TIMED_OUT, "", f"{argv[0]}: no end after {timeout_s:g} s")
    finally:
        if noted_in:
            with contextlib.suppress(OSError):
                noted_in.unlink()
    text = out.decode(errors="replace")
    return Ran(process.returncode, text, err.decode(errors="replace") + text)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill its group. Not waited for: who has left it, or hangs in the kernel, and holds a pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=_DEATH_S)
    except subprocess.TimeoutExpired:
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            pipe.close()
        process.poll()


def _note(path: Path, spared: bool) -> None:
    """In the new process, before it becomes the program: so there is no moment at which nobody knows of it."""
    with contextlib.suppress(OSError):  # a full /run holds up nothing
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, f"{os.getpid()} {_start_time(os.getpid())} {int(spared)}".encode())


def _start_time(pid: int) -> int | None:
    """When a process was started, as /proc/PID/stat counts; None for one that there is not."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _outlive(group: int, signal_number: int, at_most_s: float) -> None:
    """Send its processes the signal (0: none) until there are none."""
    until = time.monotonic() + at_most_s
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(group, signal_number)
            time.sleep(_LOOK_S)
