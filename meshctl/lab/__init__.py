"""The digital twin: the inventory's mesh built on this machine from real Debian hosts and real NATs.

What other parts use. Everything that changes the machine needs root and raises `LabError` otherwise; the modules behind
these functions are imported on use, so that importing `meshctl.lab` costs nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshctl.lab.names import LabError, state_dir

if TYPE_CHECKING:
    from meshctl.model.mesh import Mesh

__all__ = ["LabError", "down", "exec_", "images_to_make", "lock_path", "secret_file", "state_dir", "status", "up"]


def up(mesh: Mesh, name: str, *, ssh_over_mesh: bool = False) -> None:
    """Build the lab `name` for `mesh`, or converge it when it is there."""
    from meshctl.lab import build

    build.up(mesh, name, ssh_over_mesh=ssh_over_mesh)


def images_to_make(mesh: Mesh) -> tuple[str, ...]:
    """Debian releases whose image `up` makes first, which takes a minute or two each."""
    from meshctl.lab import build

    return build.images_to_make(mesh)


def down(name: str) -> bool:
    """Remove the lab, whatever state it is in. Returns whether there was one."""
    from meshctl.lab import teardown

    return teardown.down(name)


def exec_(name: str, node: str, argv: Sequence[str], input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:  # noqa: A002
    """Run a command on a host (as root), router or LAN device; output captured, exit status in `returncode`."""
    from meshctl.lab import enter

    return subprocess.run(enter.command(name, node, argv), check=False, input=input, capture_output=True)


def status(name: str) -> dict[str, Any]:
    """The shape of schemas/lab.schema.json."""
    from meshctl.lab import report

    return report.status(name)


def secret_file(name: str) -> Path:
    """The file with the lab's own mesh secret (0600), made at `lab up`."""
    return state_dir(name) / "secret"


def lock_path(name: str) -> Path:
    """The lab's own inventory.lock.yml; it may not exist yet. Runs with `--lab` use no other."""
    return state_dir(name) / "inventory.lock.yml"
