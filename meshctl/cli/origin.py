"""Whose apply it is and of what, for the history that the hosts keep."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from meshctl.inventory.files import base_dir_of, lock_path_of

# A repository on a disk that does not answer holds up no apply.
_TIMEOUT_S = 5.0
_HASH_DIGITS = 12
_DIRTY = "-dirty"
_COMMIT = "# branch.oid "


def author() -> str:
    """Who runs this: `USER@HOST`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def revision(inventory: Path) -> str:
    """The Git commit that is checked out where the inventory stands, shortened, with `-dirty` when the inventory, its
    lock, roles or templates have changes of their own; "" without Git. Never raises."""
    base = base_dir_of(inventory)
    mine = (inventory, lock_path_of(inventory), base / "roles", base / "templates")
    words = ("git", "--literal-pathspecs", "-C", str(base), "status", "--porcelain=v2", "--branch", "--")
    try:
        done = subprocess.run(
            (*words, *(str(path.absolute()) for path in mine)), capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT_S, check=False, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.splitlines()
    commit = next((line[len(_COMMIT) :] for line in lines if line.startswith(_COMMIT)), "(none)")
    if commit.startswith("("):
        return ""
    return commit[:_HASH_DIGITS] + (_DIRTY if any(not line.startswith("#") for line in lines) else "")
