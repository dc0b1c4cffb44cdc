"""Phase 1: everything that can fail without touching the host fails here."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from meshctl.agent import files, process
from meshctl.agent.failure import ApplyError, raise_for_os_error
from meshctl.agent.journal import Journal
from meshctl.agent.saved import Saved, contents
from meshctl.model.steps import Step, Transaction

# Left free beside the files of the transaction, for its snapshot, journal and ledger.
SPARE_BYTES = 256 * 1024
DPKG_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
WIREGUARD_PROGRAMS = ("wg", "wg-quick")


def stage(transaction: Transaction, journal: Journal, past: Saved | None = None) -> dict[int, Path]:
    """Write the content of every `write` step to a temporary file; returns step index -> that file. `past` is what a
    step that goes back puts in its place.

    Raises ApplyError, with the temporary files removed again, for: no space, package manager locked, a
    program missing that no step installs, a directory where a file should be.
    """
    check_programs(transaction.steps)
    if any(is_package_step(step) for step in transaction.steps):
        check_package_lock()
    check_space(transaction.steps, past)
    staged: dict[int, Path] = {}
    for index, step in enumerate(transaction.steps):
        if step.do != "write":
            continue
        try:
            staged[index] = _stage_one(step, f"{transaction.id}-{index}", journal)
        except OSError as error:
            unstage(staged)
            raise_for_os_error(error, f"staging {step.path}", index)
    return staged


def unstage(staged: dict[int, Path]) -> None:
    """Remove what was staged and not used."""
    for temp in staged.values():
        files.remove_quietly(temp)


def _stage_one(step: Step, unique: str, journal: Journal) -> Path:
    path = Path(step.path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(0, "a directory is in the way")
    temp = files.write_temp(path, step.content or b"", unique, journal)
    try:
        files.set_attributes(temp, step.mode, step.owner, step.group)
    except KeyError:
        pass  # a user that a package of this transaction makes; set again when the file takes its place
    except OSError:
        files.remove_quietly(temp)
        raise
    return temp


def check_space(steps: tuple[Step, ...], past: Saved | None = None) -> None:
    """Whether every filesystem has room for old and new files side by side. Raises ApplyError."""
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for path, size in _sizes(steps, past):
        folder = files.nearest_directory(path)
        device = folder.stat().st_dev
        needed[device] = needed.get(device, SPARE_BYTES) + size
        places.setdefault(device, folder)
    for device, folder in places.items():
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize
        if free < needed[device]:
            message = f"{needed[device] // 1024} KiB needed under {folder}, {free // 1024} KiB free"
            raise ApplyError("disk-full", message)
        if room.f_files and not room.f_favail:
            raise ApplyError("disk-full", f"no inode is free under {folder}")


def _sizes(steps: tuple[Step, ...], past: Saved | None) -> list[tuple[Path, int]]:
    state = Path("/var/lib/meshctl/state")
    again = [(path, kept.stat().st_size) for path, kept in contents(past)] if past else []
    return [(state, 0), *again] + [(Path(s.path), len(s.content or b"")) for s in steps if s.do == "write"]


def check_programs(steps: tuple[Step, ...]) -> None:
    """Whether the programs that the steps call are there, or are installed by an earlier step."""
    for index, step in enumerate(steps):
        if is_package_step(step):
            return
        program = {"run": step.argv[0] if step.argv else "", "table": "nft", "key": "wg", "switch": "wg",
                   "endpoint": "wg"}.get(step.do)  # fmt: skip
        if program is None or (program and process.find(program)):
            continue
        kind = "wireguard" if program in WIREGUARD_PROGRAMS else "command"
        raise ApplyError(kind, f"{program or 'a program without a name'} is not installed", index)


def is_package_step(step: Step) -> bool:
    """Whether the step runs a package manager."""
    return step.do == "run" and process.is_package_manager(step.argv)


def check_package_lock() -> None:
    """Whether dpkg is free, without waiting. Raises ApplyError of kind package-lock.

    dpkg and apt use POSIX record locks, so a probe takes the same kind and gives it back at once.
    """
    for name in DPKG_LOCKS:
        try:
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # no dpkg here, or not ours to open: the package manager itself will say so
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ApplyError("package-lock", f"the package manager is busy ({name} is held)") from error
        finally:
            os.close(fd)
