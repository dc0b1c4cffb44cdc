"""On a lab's host, `- KIND LINES AFTER_S`: waits until the journals have so many lines more, or, where that is 0, so
long; says how many they have then, and whether an apply is under way. What can be done from here is done at once, for
a way in takes longer than a step. When nobody listens any more it ends: the run that it was for is over."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

LOCK = Path("/run/meshctl/apply.lock")
KEPT = Path("/var/lib/meshctl")


def lines() -> dict[str, int]:
    """Journal -> its lines. An old one may go at any time."""
    found = {}
    for path in (KEPT / "journal").glob("*.jsonl"):
        try:
            found[path.name] = path.read_bytes().count(b"\n")
        except OSError:
            continue
    return found


def more(now: dict[str, int], before: dict[str, int]) -> int:
    """So many lines were written; of the journals of before, some may have gone."""
    return sum(count - before.get(name, 0) for name, count in now.items())


def holder() -> int:
    """The process that has the host's lock, 0 if none has."""
    try:
        with LOCK.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().split()[1])
    except (OSError, IndexError):  # not there, or just taken and not signed yet
        return 0
    return 0


def kill() -> bool:
    """Whether there was somebody to be killed."""
    pid = holder()
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def fill() -> bool:
    """Whether there is no room any more; that of a small disk alone, for the other one is the machine's."""
    if not KEPT.is_mount():
        return False
    try:
        with (KEPT / "fill").open("wb", buffering=0) as file:
            for size in (65536, 1):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        break
    except OSError:
        return False
    return True


def main(kind: str, wanted: int, after_s: float) -> None:
    """Wait, strike, and say so in one line of JSON."""
    begin, until = lines(), time.monotonic() + after_s
    listener = select.poll()
    listener.register(sys.stdout, 0)  # what is told in any case: that the other end is closed
    print("ready", flush=True)
    while more(lines(), begin) < wanted if wanted else time.monotonic() < until:
        if listener.poll(1):
            return
    at = more(lines(), begin)
    busy = bool(holder()) or (KEPT / "pending.json").exists()
    hit = {"applier": kill, "disk": fill}.get(kind, lambda: True)()
    print(json.dumps({"at": at, "busy": busy, "hit": hit}), flush=True)


if __name__ == "__main__":  # with `python3 -c`, too
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
