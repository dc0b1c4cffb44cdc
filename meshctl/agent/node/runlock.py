"""One agent a state file: who runs has the lock beside it, and the kernel takes it back from who dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

EXIT_RUNS = 75  # EX_TEMPFAIL of sysexits(3)
SUFFIX = ".lock"


def take(state: Path) -> int:
    """The lock as an open file, to be kept open. Raises BlockingIOError where somebody else has it, OSError where there
    can be none."""
    state.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(state.with_suffix(SUFFIX), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
