"""One agent a state file: who runs has the lock beside it, and the kernel takes it back from who dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from meshctl.agent.files import remove_quietly

EXIT_RUNS = 75  # EX_TEMPFAIL of sysexits(3)
SUFFIX = ".lock"


def take(state: Path) -> int:
    """The lock as an open file, to be kept open. Raises BlockingIOError where somebody else has it, OSError where there
    can be none."""
    state.parent.mkdir(parents=True, exist_ok=True)
    path = state.with_suffix(SUFFIX)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, fd):
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def remove(state: Path) -> None:
    """The lock's file goes, by who has the lock and is about to end."""
    remove_quietly(state.with_suffix(SUFFIX))


def _is_at(path: Path, fd: int) -> bool:
    """Whether this open file is still the one there: a lock of one that was removed keeps nobody out."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False
