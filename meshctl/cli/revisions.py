"""A version of the inventory: a file or folder, or what a Git revision has of it."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from meshctl.cli.commits import FILE, FOLDER, IN_SUBMODULE, SUBMODULE, Commit, Entry
from meshctl.errors import InventoryError, MeshctlError, UsageError
from meshctl.inventory import Inventory, read
from meshctl.inventory.files import base_dir_of, find_inventory, lock_path_of

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
    oid = _commit(top, version)
    with tempfile.TemporaryDirectory(prefix="meshctl-") as folder, Commit(top, oid, version) as commit:
        root = Path(folder).resolve()
        _unpack(commit, version, inside, root)

        def shown(text: str) -> str:
            return text.replace(f"{root}/", f"{version}:").replace(str(root), f"{version}:")

        try:
            return read(root / inside, today=_BEFORE_ALL_DATES), shown
        except InventoryError as error:
            found = (
                replace(d, file=shown(d.file), message=shown(d.message), hint=shown(d.hint)) for d in error.diagnostics
            )
            raise InventoryError(tuple(found)) from None


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
    # A link is not followed here: the commit says where it leads.
    ways = path.parents if path.is_symlink() else (path, *path.parents)
    folder = next(way for way in ways if way.is_dir())
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


def _unpack(commit: Commit, version: str, inside: Path, root: Path) -> None:
    """What the reader asks for, under `root`: the inventory, its lock, and which roles stand beside it."""
    found = commit.find(inside)
    if found is None:
        raise UsageError(f"revision `{version}` has no {inside}", hint="name the inventory with -i PATH")
    _copy(commit, inside, root)
    if found.kind == FOLDER:
        for name in commit.entries(found):
            if name.endswith((".yml", ".yaml")):
                _copy(commit, inside / name, root)
    # Now that the inventory is a file or a folder here, as it is in the commit.
    lock = lock_path_of(root / inside).relative_to(root)
    if commit.find(lock):
        _copy(commit, lock, root)
    roles = base_dir_of(root / inside).relative_to(root) / "roles"
    folder = commit.find(roles)
    if folder is not None and folder.kind != FILE:
        _copy(commit, roles, root)
        _copy_roles(commit, roles, folder, root)


def _copy(commit: Commit, path: Path, root: Path) -> None:
    """The file, or an empty folder for a folder."""
    entry = commit.find(path)
    if entry is None:
        raise commit.refused(path, "is a link to nothing", "correct the link")
    if entry.kind == SUBMODULE:
        raise commit.refused(path, IN_SUBMODULE)
    target = root / path
    if entry.kind == FOLDER:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(commit.content(entry, path))


def _copy_roles(commit: Commit, roles: Path, folder: Entry, root: Path) -> None:
    """The roles' names, which are all that validation wants; one may be a submodule."""
    for name in commit.entries(folder):
        role = commit.find(roles / name)
        if role is not None and role.kind != FILE:
            (root / roles / name).mkdir()


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        hint = "install git, or name two files or folders"
        raise MeshctlError("a revision needs the program `git`, which is not here", hint=hint) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode(errors="replace").strip().partition("\n")[0]
