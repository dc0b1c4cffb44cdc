"""Taking a lab, or parts of one, away: by what is there, not by what should be, so that it works after a crash."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from meshctl.lab import hosts, network, procs
from meshctl.lab.names import NETNS_ROOT, PREFIX, STATE_ROOT, check_name, netns, prefix, state_dir
from meshctl.lab.shell import require_root
from meshctl.lab.state import exclusive, labs

# Killing can race with a `lab up` that was itself killed a moment ago and whose last child is just starting.
ROUNDS = 20


def down(name: str) -> bool:
    """Remove everything of the lab. Returns whether there was anything."""
    check_name(name)
    require_root()
    if name not in all_labs():
        return False
    with exclusive(name) as folder:
        halt(name)
        shutil.rmtree(folder)
    if not any(STATE_ROOT.iterdir()):
        STATE_ROOT.rmdir()
    return True


def halt(name: str) -> None:
    """End everything of the lab that is in the kernel: processes, namespaces, mounts, cgroups. Files stay."""
    for _ in range(ROUNDS):
        doomed = procs.marked(name) | procs.inside(netns(name, e) for e in network.existing(name))
        if not doomed:
            break
        procs.kill(doomed)
    network.delete_namespaces(name, network.existing(name))
    for node in disks(name):
        hosts.unmount(name, node)
    hosts.remove_cgroups_of(prefix(name))


def all_labs() -> list[str]:
    """Names of all labs of which anything is left: a folder or a namespace."""
    spaces = NETNS_ROOT.iterdir() if NETNS_ROOT.is_dir() else iter(())
    named = {p.name.removeprefix(PREFIX).partition(".")[0] for p in spaces if p.name.startswith(PREFIX)}
    return sorted(named | set(labs()))


def remove_elements(name: str, elements: Iterable[str]) -> None:
    """Remove hosts, routers and LAN devices of a lab that stays, with their disks."""
    for element in sorted(elements):
        procs.kill(procs.marked(name, element) | procs.inside([netns(name, element)]))
        network.delete_namespaces(name, [element])
        if element in disks(name):
            hosts.remove_cgroups(netns(name, element))
            hosts.unmount(name, element)
            shutil.rmtree(hosts.disk(name, element).base)


def disks(name: str) -> list[str]:
    """Hosts of which there is a disk."""
    folder: Path = state_dir(name) / "hosts"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
