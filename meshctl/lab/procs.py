"""The lab's processes: found by the mark in their environment or by the namespace they are in, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from meshctl.lab.names import ENVIRONMENT_MARK, NETNS_ROOT, LabError

# A killed process is gone at once but for what the kernel still has to free.
EXIT_TIMEOUT_S = 20.0


def spawn(
    lab: str, element: str, argv: Sequence[str], log: Path, extra: Mapping[str, str] | None = None,
    kept: Collection[int] = (),
) -> int:  # fmt: skip
    """Start a process that outlives this one, marked as the element's, its output in `log`. Returns its pid.

    Of open descriptors it has those in `kept`, which are inheritable, and no others: what this process was started with
    (a lock, say) would be held for as long as the lab stands. posix_spawn, because Popen warns about children that live
    on.
    """
    environment = {**os.environ, ENVIRONMENT_MARK: f"{lab}.{element}", **(extra or {})}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited() if number not in kept),
    ]
    words = ["env", "--chdir=/", *argv]
    return os.posix_spawnp(words[0], words, environment, file_actions=actions, setsid=True)


def _inherited() -> Iterator[int]:
    """The descriptors that this process's children have, beside the first three."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # the listing's own, or closed in another thread
            if number > 2 and os.get_inheritable(number):
                yield number


def start_time(pid: int) -> int:
    """Clock ticks since boot at which the process started (proc(5)); 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def marked(lab: str, element: str = "") -> set[int]:
    """Processes that the lab started outside its namespaces, for one element or for all."""
    wanted = f"{ENVIRONMENT_MARK}={lab}.{element}".encode()
    return {pid for pid, where in _processes("environ") if any(_matches(e, wanted, element) for e in _entries(where))}


def _matches(entry: bytes, wanted: bytes, element: str) -> bool:
    return entry == wanted if element else entry.startswith(wanted)


def _entries(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return path.read_bytes().split(b"\0")
    return []


def inside(namespaces: Iterable[str]) -> set[int]:
    """Processes whose network namespace is one of these names."""
    inodes = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            inodes.add((NETNS_ROOT / name).stat().st_ino)
    found = set()
    for pid, path in _processes("ns/net"):
        with contextlib.suppress(OSError):
            if path.stat().st_ino in inodes:
                found.add(pid)
    return found


def _processes(leaf: str) -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and start_time(int(entry.name)):
            yield int(entry.name), entry / leaf


def wait_exit(pid: int, timeout_s: float) -> bool:
    """Whether the process, ours or not, ended within the time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


def kill(pids: Iterable[int]) -> None:
    """SIGKILL to all of them, and wait until they are gone."""
    doomed = sorted(pids)
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in doomed:
        if not wait_exit(pid, EXIT_TIMEOUT_S):
            raise LabError(f"process {pid} does not end", hint="look for it with ps; a device may hang")
