"""The host's apply lock: who changes the host has it, and the kernel takes it back from who dies."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from meshctl.agent import process
from meshctl.agent.failure import NO_STEP, ApplyError, raise_for_os_error

LOCK_PATH = Path("/run/meshctl/apply.lock")
# What the holder waits for (`process.note_in`).
_COMMAND_PATH = LOCK_PATH.with_name("command")
_PATIENCE_S, _LOOK_S, _DEATH_S = 1.0, 0.05, 5.0
# Letters of a user's and a host's name; `take` reads the whole line at once.
_NAME_MAX, _LINE_MAX = 100, 500


def take(who: str = "") -> int:
    """The lock as an open file, in the name of `who`. Raises ApplyError of kind locked, naming the holder: not at once,
    for who only looks whether an apply is to be undone has it for a moment, too."""
    fd = _open()
    until = time.monotonic() + _PATIENCE_S
    while not _is_ours(fd):
        if time.monotonic() >= until:
            holder = os.pread(fd, _LINE_MAX, 0).decode(errors="replace").strip()
            os.close(fd)
            raise ApplyError("locked", f"another apply is running ({holder or 'just started'})")
        time.sleep(_LOOK_S)
    _sign(fd, who)
    return fd


def wait(patience_s: float, progress: Callable[[], object]) -> int:
    """The lock, when whoever has it gives it back: an applier ends, for each of its steps has a limit. One that was
    stopped, or hangs, does not: who makes no progress for `patience_s` is killed."""
    fd = _open()
    seen, until, killed = progress(), time.monotonic() + patience_s, False
    while not _is_ours(fd):
        if progress() != seen:
            seen, until = progress(), time.monotonic() + patience_s
        elif time.monotonic() >= until:
            if killed:  # it hangs in the kernel, and does nothing any more when it comes back from there
                break
            killed = _kill_holder(fd)
            until = time.monotonic() + (_DEATH_S if killed else patience_s)
        time.sleep(_LOOK_S)
    _sign(fd, "")
    return fd


def _is_ours(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kill_holder(fd: int) -> bool:
    """Kill the process that the file names, if it is that one which has the lock; returns whether it is."""
    words = os.pread(fd, _LINE_MAX, 0).decode(errors="replace").split()
    pid = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    try:
        for open_file in Path(f"/proc/{pid}/fd").iterdir():
            same = os.path.samestat(open_file.stat(), os.fstat(fd))
            if same and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{open_file.name}").read_text():
                os.kill(pid, signal.SIGKILL)
                return True
    except OSError:  # it has just ended, or closed one
        return False
    return False


def _open() -> int:
    try:
        LOCK_PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise_for_os_error(error, f"opening {LOCK_PATH}", NO_STEP)


def _sign(fd: int, who: str) -> None:
    """It is ours, and whoever had it before does nothing any more: not by a command that has outlived it either."""
    process.end_noted(_COMMAND_PATH)
    process.note_in(_COMMAND_PATH)
    # The name is from another machine, and goes to somebody's terminal.
    name = "".join(letter for letter in who if letter.isprintable())[:_NAME_MAX]
    os.ftruncate(fd, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    os.pwrite(fd, f"pid {os.getpid()} since {since}{f', for {name}' if name else ''}".encode(), 0)
