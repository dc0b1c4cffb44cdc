"""Replacing files so that a reader, or a crash, sees the old one or the new one and nothing between."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from meshctl.agent.journal import Journal

TEMP_PREFIX = ".meshctl-"


def nearest_directory(path: Path) -> Path:
    """The closest existing ancestor directory of `path`: same filesystem as `path` will be on."""
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    return parent


def temp_name(path: Path, unique: str) -> str:
    """A name that no other transaction or step uses."""
    return f"{TEMP_PREFIX}{unique}-{path.name}"


def write_temp(path: Path, content: bytes, unique: str, journal: Journal) -> Path:
    """`content` in a private temporary file beside `path`, on disk, announced in the journal first."""
    temp = nearest_directory(path) / temp_name(path, unique)
    journal.write("temp", path=str(temp))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temp, flags, 0o600)
    try:
        write_and_close(fd, content)
    except BaseException:
        remove_quietly(temp)
        raise
    return temp


def write_and_close(fd: int, content: bytes) -> None:
    """All of `content` into an open file, and on disk; the descriptor is closed in any case. Raises OSError."""
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def read_regular(path: Path, most: int) -> bytes:
    """What is in a regular file of at most so many bytes. Raises OSError, for anything else too: whoever opens a pipe
    waits for its other end, and a device may have no end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(fd)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"longer than {most} bytes", str(path))
    return content


def set_attributes(path: Path, mode: str, owner: str, group: str) -> None:
    """Owner, then mode (a change of owner clears set-id bits); empty text leaves a field as it is.

    Raises KeyError for an unknown user or group.
    """
    uid = _uid(owner) if owner else -1
    gid = _gid(group) if group else -1
    if uid != -1 or gid != -1:
        os.chown(path, uid, gid, follow_symlinks=False)
    if mode and not path.is_symlink():
        path.chmod(int(mode, 8))


def make_public_dir(path: Path) -> None:
    """The folder, if it is not there, into which everybody may look, whatever the umask is. Raises OSError."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o755)


def replace(temp: Path, path: Path) -> None:
    """Put `temp` in `path`'s place and the rename on disk; parents are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp.replace(path)
    sync_folder(path.parent)


def put(path: Path, content: bytes, mode: int) -> None:
    """The content in a file's place, and on disk, by way of one beside it. What was there stays, and nothing else, when
    this raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = temp_of(path)
    remove_quietly(temp)  # of who was killed while it wrote
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        write_and_close(os.open(temp, flags, mode), content)
        temp.chmod(mode)
        replace(temp, path)
    except OSError:
        remove_quietly(temp)
        raise


def temp_of(path: Path) -> Path:
    """Where `put` writes what is to be at `path`."""
    return path.with_name(f".{path.name}.new")


def sync_folder(folder: Path) -> None:
    """What was put there, or taken away, is so on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_quietly(path: Path) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(OSError):
        path.unlink()


def describe(path: Path) -> dict[str, object] | None:
    """Kind, mode and owner of what stands at `path` (links not followed), or None."""
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return {
        "kind": kinds.get(stat.S_IFMT(info.st_mode), "other"),
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _uid(name: str) -> int:
    return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
