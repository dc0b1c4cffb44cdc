"""A version of the inventory: a file or folder, or what a Git revision has of it."""

from __future__ import annotations

import datetime
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from meshctl.errors import InventoryError, MeshctlError, UsageError
from meshctl.inventory import Inventory, read
from meshctl.inventory.files import find_inventory, lock_path_of

# Neither version is refused for a policy that has expired: that is for `validate` to say, and removing an expired
# policy is a difference that must be shown.
_BEFORE_ALL_DATES = datetime.date.min
_RESOLVE = ("rev-parse", "--verify", "--quiet", "--end-of-options")


def read_version(version: str, inventory: str | None) -> tuple[Inventory, Callable[[str], str]]:
    """The inventory of a version, and what turns its files' names into those to show (`main:inventory.yml`).

    `version` is a file, a folder or a Git revision; of a revision, `inventory` (None: the default places) is read, by
    its path in the repository. Raises UsageError, MeshctlError and InventoryError.
    """
    if Path(version).exists():
        _refuse_ambiguous(version)
        return read(version, today=_BEFORE_ALL_DATES), str
    path = find_inventory(inventory)
    top, inside = _place(path, version)
    commit = _commit(top, version)
    with tempfile.TemporaryDirectory(prefix="meshctl-") as folder:
        root = Path(folder).resolve()
        _extract(top, commit, version, inside, root)

        def shown(file: str) -> str:
            return file.replace(f"{root}/", f"{version}:", 1)

        try:
            return read(root / inside, today=_BEFORE_ALL_DATES), shown
        except InventoryError as error:
            found = tuple(replace(d, file=shown(d.file), hint=shown(d.hint)) for d in error.diagnostics)
            raise InventoryError(found) from None


def _refuse_ambiguous(path: str) -> None:
    """As Git does: else whoever proposes a change could add a file called as the branch that it is compared with."""
    if path.startswith(("/", "./", "../")) or shutil.which("git") is None:
        return
    if _git(Path.cwd(), *_RESOLVE, f"{path}^{{commit}}").returncode == 0:
        hint = f"write ./{path} for the path, or rename what stands there"
        raise UsageError(f"`{path}` is both a path and a Git revision", hint=hint)


def read_working_tree(inventory: str | None) -> Inventory:
    """The inventory as it is in the file system."""
    return read(find_inventory(inventory), today=_BEFORE_ALL_DATES)


def _place(path: Path, version: str) -> tuple[Path, Path]:
    """The repository's top folder, and the inventory's path in it. The inventory may be gone from the working tree."""
    path = path.absolute()
    folder = next(parent for parent in path.parents if parent.is_dir())
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise UsageError(
            f"`{version}` is neither a file nor a folder, and {folder} is in no Git repository that can be read",
            hint=_said(done) or "check the path",
        )
    top = Path(done.stdout.decode().rstrip("\n")).resolve()
    return top, (folder.resolve() / path.relative_to(folder)).relative_to(top)


def _commit(top: Path, version: str) -> str:
    done = _git(top, *_RESOLVE, f"{version}^{{commit}}")
    if done.returncode:
        raise UsageError(
            f"`{version}` is neither a file, nor a folder, nor a Git revision",
            hint="in CI, fetch the branch to compare with first: git fetch origin BRANCH",
        )
    return done.stdout.decode().strip()


def _extract(top: Path, commit: str, version: str, inside: Path, root: Path) -> None:
    """The inventory, its lock and its roles, as the commit has them, under `root`."""
    wanted = (inside, lock_path_of(inside), inside.parent / "roles", inside.parent / "templates")
    listed = _checked(top, "ls-tree", "--name-only", "-z", commit, "--", *map(str, wanted))
    found = [name for name in listed.decode().split("\0") if name]
    if str(inside) not in found:
        raise UsageError(f"revision `{version}` has no {inside}", hint="name the inventory with -i PATH")
    # Paths are literal: `[` in a file's name is no pattern.
    archive = _checked(top, "--literal-pathspecs", "archive", "--format=tar", commit, "--", *found)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        try:
            members.extractall(root, filter="data")
        except tarfile.TarError as error:
            raise MeshctlError(f"cannot unpack revision `{version}`: {error}", hint="is there a link that leads out?") \
                from error


def _checked(top: Path, *words: str) -> bytes:
    done = _git(top, *words)
    if done.returncode:
        raise MeshctlError(f"git {words[0]} failed: {_said(done)}", where=str(top), hint="check the repository")
    return done.stdout


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        hint = "install git, or name two files or folders"
        raise MeshctlError("a revision needs the program `git`, which is not here", hint=hint) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode(errors="replace").strip().partition("\n")[0]
