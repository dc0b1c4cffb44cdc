"""The host's apply lock: who changes the host has it, and the kernel takes it back from who dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from meshctl.agent.failure import NO_STEP, ApplyError, raise_for_os_error

LOCK_PATH = Path("/run/meshctl/apply.lock")
_PATIENCE_S, _LOOK_S = 1.0, 0.05
# Letters of a user's and a host's name; `take` reads the whole line at once.
_NAME_MAX, _LINE_MAX = 100, 500


def take(who: str = "") -> int:
    """The lock as an open file, in the name of `who`. Raises ApplyError of kind locked, naming the holder: not at once,
    for who only looks whether an apply is to be undone has it for a moment, too."""
    fd = _open()
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= until:
                holder = os.pread(fd, _LINE_MAX, 0).decode(errors="replace").strip()
                os.close(fd)
                raise ApplyError("locked", f"another apply is running ({holder or 'just started'})") from error
        time.sleep(_LOOK_S)
    _sign(fd, who)
    return fd


def wait() -> int:
    """The lock, when whoever has it gives it back: an applier ends, for each of its steps has a limit."""
    fd = _open()
    fcntl.flock(fd, fcntl.LOCK_EX)
    _sign(fd, "")
    return fd


def _open() -> int:
    try:
        LOCK_PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise_for_os_error(error, f"opening {LOCK_PATH}", NO_STEP)


def _sign(fd: int, who: str) -> None:
    # The name is from another machine, and goes to somebody's terminal.
    name = "".join(letter for letter in who if letter.isprintable())[:_NAME_MAX]
    os.ftruncate(fd, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    os.pwrite(fd, f"pid {os.getpid()} since {since}{f', for {name}' if name else ''}".encode(), 0)
