"""The command line that runs something inside the lab."""

from __future__ import annotations

from collections.abc import Sequence

from meshctl.lab import procs, state
from meshctl.lab.names import INTERNET, LabError, netns_path
from meshctl.lab.shell import require_root

# What a login shell of root has on Debian.
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8",
)


def command(lab: str, element: str, argv: Sequence[str]) -> list[str]:
    """What to execute so that `argv` runs in the element; standard streams and exit status pass through.

    On a host that is inside the container; on a router or LAN device it is this machine's program in their namespace.
    """
    require_root()
    now = state.load(lab)
    if now.blueprint.host(element):
        pid = leader(lab, now, element)
        return [
            "nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
            "--", "/usr/bin/env", "-i", "-C", "/root", *ENVIRONMENT, *argv,
        ]
    if element in (INTERNET, *now.blueprint.elements()):
        return ["nsenter", f"--net={netns_path(lab, element)}", "--", *argv]
    there = ", ".join((*now.blueprint.elements(), INTERNET))
    raise LabError(f"the lab {lab} has no {element!r}", hint=f"it has {there}")


def leader(lab: str, now: state.State, node: str) -> int:
    """The pid of the host's init, or LabError when the host is not running."""
    pid, started = now.leaders.get(node, (0, 0))
    if not started or procs.start_time(pid) != started:
        raise LabError(f"{node} is not running", hint=f"start it with `meshctl lab reboot --name {lab} {node}`")
    return pid
