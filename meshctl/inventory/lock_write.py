"""Writing the lock: whole or not at all, and one run at a time.

The new file is what runs lock each other out by: its name is fixed, and who has it locked (flock) reads the lock anew,
fills it and renames it into place. So nothing is left behind, unlike by a lock file; the lock itself cannot be locked,
for each run puts another file there; and its folder is not ours to lock: an operator may run `flock . meshctl apply`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from meshctl.errors import MeshctlError

# Others read the lock, up to some megabytes, and write it.
WAIT_S = 20.0
AGAIN_S = 0.02


def replace_alone(path: Path, make: Callable[[], str]) -> None:
    """Replace `path` by what `make` returns, as a whole or not at all; no other run does so while it is made. Raises
    MeshctlError, and what `make` raises."""
    new = path.with_name(f".{path.name}.new")
    try:
        handle = _claim(new)
        try:
            text = make()
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            with os.fdopen(handle, "w", encoding="utf-8", closefd=False) as stream:
                stream.truncate(0)  # a run that was killed has left it
                stream.write(text)
                stream.flush()
                os.fchmod(handle, mode)
                os.fsync(handle)
            new.replace(path)
        finally:
            with contextlib.suppress(OSError):
                if _is_at(handle, new):
                    new.unlink()
            os.close(handle)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MeshctlError(
            f"cannot write the lock: {reason}", where=str(path),
            hint=f"check permissions and space, also of {new.name} if it is there",
        ) from error  # fmt: skip


def _claim(new: Path) -> int:
    """The file, open and locked. Raises OSError, and MeshctlError when others have it for too long."""
    until = time.monotonic() + WAIT_S
    while True:
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, new):  # else it is the lock now, or nothing
                return handle
        except BlockingIOError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() > until:
            raise MeshctlError(
                f"cannot write the lock: another run has been at it for {WAIT_S:g} s", where=str(new),
                hint=f"`fuser {new}` says which; is it stopped?",
            )  # fmt: skip
        time.sleep(AGAIN_S)


def _is_at(handle: int, path: Path) -> bool:
    """Whether what is open is what has that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
