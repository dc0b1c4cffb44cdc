"""Learning the public keys that hosts have already, for `meshctl lock`."""

from __future__ import annotations

from meshctl.deploy.door import Door
from meshctl.deploy.options import RunOptions
from meshctl.deploy.progress import Progress
from meshctl.deploy.run import collect_keys as collect
from meshctl.errors import MeshctlError
from meshctl.inventory import Inventory


def collect_keys(
    inventory: Inventory, options: RunOptions | None = None, door: Door | None = None, progress: Progress | None = None
) -> Inventory:
    """The inventory with the keys of all hosts that have one; hosts are read, never changed.

    Raises MeshctlError that names every host that could not be read.
    """
    updated, errors = collect(inventory, options or RunOptions(), door, progress)
    if errors:
        raise MeshctlError(
            "the lock was not written, for not all keys are known:\n  " + "\n  ".join(map(str, errors)) + "\n ",
            hint="try again, or use --offline to pin addresses alone",
        )
    return updated
