"""The node's half as one reproducible zipapp, built in memory from the packages that are installed here."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from meshctl.model.places import AGENT_DIR, AGENT_PREFIX, AGENT_SUFFIX

# What runs on a node (L0, L1 and the agent): standard library only, Python 3.9.
MODULES = ("__init__.py", "errors.py")
PACKAGES = ("agent", "core", "model")
HASH_DIGITS = 16
# The oldest time that a zip can hold: the same bytes whenever and wherever they are built.
EPOCH = (1980, 1, 1, 0, 0, 0)
# What `apply` has compiled (meshctl.agent.compiled) comes first, if it is there.
MAIN = b"""\
import sys
from importlib.util import MAGIC_NUMBER
from os.path import realpath

sys.path.insert(0, f"{realpath(sys.path[0])}.{sys.implementation.cache_tag}-{MAGIC_NUMBER[:2].hex()}")
from meshctl.agent.main import main

sys.exit(main())
"""


class Zipapp:
    """The archive and its name. `hash` is of the sources, not of the archive: two controllers whose zlibs compress
    differently must not take turns at restarting a node's agent."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = dict(sorted(members.items()))
        digest = hashlib.sha256()
        for name, source in self._members.items():
            digest.update(f"{name}\0{len(source)}\0".encode() + source)
        self.hash = digest.hexdigest()[:HASH_DIGITS]
        self._content = b""
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        """Where it stands on a node."""
        return f"{AGENT_DIR}/{AGENT_PREFIX}{self.hash}{AGENT_SUFFIX}"

    @property
    def content(self) -> bytes:
        """The archive, made when somebody first asks: most plans need its name alone."""
        with self._lock:  # all hosts ask at once
            self._content = self._content or self._archive()
        return self._content

    def _archive(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, source in self._members.items():
                info = zipfile.ZipInfo(name, EPOCH)
                info.create_system = 3  # Unix, so that attributes mean the same wherever it is built
                info.external_attr = 0o100644 << 16
                archive.writestr(info, source, zipfile.ZIP_DEFLATED, 9)
        return buffer.getvalue()


@cache
def build() -> Zipapp:
    """The zipapp of this version of meshctl."""
    members = {"__main__.py": MAIN}
    root = resources.files("meshctl")
    for name in MODULES:
        members[f"meshctl/{name}"] = (root / name).read_bytes()
    for package in PACKAGES:
        members.update(_sources(root / package, f"meshctl/{package}"))
    return Zipapp(members)


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _sources(entry, f"{prefix}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{prefix}/{entry.name}", entry.read_bytes()
