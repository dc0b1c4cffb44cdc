"""The kernel's settings of the network: files below /proc/sys/net that can be read and written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = "/proc/sys/net"
INTERFACES = Path("/sys/class/net")
# Of all interfaces, and of those to come.
_SHARED = frozenset({"all", "default"})
# What router advertisements and the link itself set.
_LEARNED = frozenset({"mtu", "hop_limit"})
_BOTH = stat.S_IRUSR | stat.S_IWUSR
# Cannot be unset again.
_NEVER = frozenset({"tcp_fastopen_key"})


def settings() -> list[str]:
    """Their paths. Left out is what is said of one interface's neighbours: the kernel learns some of it, sets the rest
    by `neigh/default`; and bridge ports, which are containers' and virtual machines', and have no addresses."""
    return list(_below(FOLDER))


def values(paths: Iterable[str]) -> dict[str, str]:
    """What is in those that there are and that can be read: some (an IPv6 secret) only once they are set."""
    found = {}
    for path in sorted(paths):
        with suppress(OSError, ValueError), Path(path).open("rb", buffering=0) as file:
            found[path] = file.read().decode()
    return found


def _below(folder: str) -> Iterator[str]:
    kind, name = folder.split("/")[-2:]
    if name not in _SHARED and (kind == "neigh" or (kind == "conf" and (INTERFACES / name / "brport").exists())):
        return
    left_out = _LEARNED if kind == "conf" and name not in _SHARED else _NEVER
    with suppress(OSError), os.scandir(folder) as entries:  # of an interface that has gone
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.name not in left_out and entry.stat().st_mode & _BOTH == _BOTH:
                yield entry.path
