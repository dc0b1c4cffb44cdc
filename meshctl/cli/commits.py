"""The files of one Git commit, read from the object store as they were committed.

Nothing is checked out or archived: attributes (`export-ignore`, `export-subst`), filters and line endings have no say,
as whoever proposes a change also writes `.gitattributes`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePath
from types import TracebackType
from typing import NamedTuple

from meshctl.errors import Diagnostic, InventoryError, MeshctlError
from meshctl.inventory.files import MAX_BYTES

FILE, FOLDER, LINK, SUBMODULE = "file", "folder", "link", "submodule"
# What Git writes in a tree (git's object.h); anything else is a file.
_KINDS = {b"40000": FOLDER, b"120000": LINK, b"160000": SUBMODULE}
# Of one commit, folders and the lock included: four times what the reader takes of the inventory alone.
_MAX_ALL = 4 * MAX_BYTES
# As many links as Linux follows (path_resolution(7)).
_MAX_LINKS = 40
IN_SUBMODULE = "is in a submodule, whose files are not in this repository"


class Entry(NamedTuple):
    """What stands at a path. `oid` is the object's name in hexadecimal."""

    kind: str
    oid: str


class Commit:
    """A commit of the repository at `top`, called `name` in messages. A context manager: it holds a `git cat-file`."""

    def __init__(self, top: Path, oid: str, name: str) -> None:
        self.name = name
        self._oid_bytes = len(oid) // 2
        self._left = _MAX_ALL
        self._trees: dict[str, dict[str, Entry]] = {}
        self._process = subprocess.Popen(
            ["git", "-C", str(top), "cat-file", "--batch"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._top = Entry(FOLDER, f"{oid}^{{tree}}")

    def __enter__(self) -> Commit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it may be in the midst of a file that is too large
        self._process.communicate()

    def find(self, path: PurePath) -> Entry | None:
        """The file or folder at a path from the top, by way of links within the commit; None when there is none.

        Raises MeshctlError for a submodule on the way and for links that leave the commit or go in circles.
        """
        todo = list(reversed(path.parts))
        trail = [self._top]
        links = 0
        while todo:
            part = todo.pop()
            if trail[-1].kind == SUBMODULE:
                raise self.refused(path, IN_SUBMODULE)
            if trail[-1].kind == FILE:
                return None
            if part == "..":
                trail.pop()
                if not trail:
                    raise self.refused(path, "is a link that leads out of the repository")
                continue
            entry = self.entries(trail[-1]).get(part)
            if entry is None:
                return None
            if entry.kind != LINK:
                trail.append(entry)
                continue
            links += 1
            target = PurePath(os.fsdecode(self.content(entry, path)))
            if target.is_absolute() or links > _MAX_LINKS:
                why = "is a link that leads out of the repository" if target.is_absolute() else "is a link in a circle"
                raise self.refused(path, why)
            todo.extend(reversed(target.parts))
        return trail[-1]

    def entries(self, folder: Entry) -> dict[str, Entry]:
        """What stands in a folder, by name; links are not followed."""
        if folder.oid not in self._trees:
            self._trees[folder.oid] = self._parsed(self.content(folder, PurePath()))
        return self._trees[folder.oid]

    def content(self, entry: Entry, path: PurePath) -> bytes:
        """A file's bytes. Raises InventoryError when there are more than the inventory's reader takes."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            stdin.write(f"{entry.oid}\n".encode())
            stdin.flush()
        except BrokenPipeError:
            raise self.refused(path, "cannot be read: git cat-file has ended", "git fsck") from None
        words = stdout.readline().split()
        if len(words) != 3 or not words[2].isdigit():
            raise self.refused(path, "is not in this clone", "git fetch, or a clone that is not partial")
        size = int(words[2])
        if size > min(MAX_BYTES, self._left):
            message = f"the inventory is larger than {MAX_BYTES // 1024 // 1024} MiB"
            raise InventoryError((Diagnostic("too-large", message, f"{self.name}:{path}"),))
        self._left -= size
        return stdout.read(size + 1)[:-1]  # a line break follows

    def _parsed(self, tree: bytes) -> dict[str, Entry]:
        """`MODE NAME NUL OID` for each entry, the name of the object in binary."""
        found = {}
        start = 0
        while start < len(tree):
            end = tree.index(b"\0", start)
            mode, _, name = tree[start:end].partition(b" ")
            start = end + 1 + self._oid_bytes
            if b"/" in name or name in (b".", b".."):
                raise self.refused(PurePath(os.fsdecode(name)), "is no name of a file", "git fsck")
            found[os.fsdecode(name)] = Entry(_KINDS.get(mode, FILE), tree[end + 1 : start].hex())
        return found

    def refused(self, path: PurePath, why: str, hint: str = "keep the inventory in this repository") -> MeshctlError:
        """The error that `path` cannot be had."""
        from meshctl.inventory.report import printable  # a name in a commit may hold anything

        return MeshctlError(printable(f"{self.name}:{path} {why}"), hint=hint)
