"""Services and sockets that no step names, for what a role starts may stop, mask or enable any of them: which ones ran,
and by which links systemd starts units with the host, or refuses to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshctl.agent import process
from meshctl.agent.deadman import BOOT_LINK, SYSTEMD
from meshctl.agent.failure import ApplyError, redact
from meshctl.agent.saved import MANIFEST

# In a snapshot's manifest; those of older versions have none.
KEY = "others"
LINKS = Path("/etc/systemd/system")
# Where a package or an administrator puts a unit (systemd.unit(5)).
FOLDERS = (
    LINKS, Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"),
)  # fmt: skip
_RUNNING = ("list-units", "--type=service,socket", "--state=active,reloading", "--full", "--plain", "--no-legend")
_STARTS = (".wants", ".requires", ".upholds")


@dataclass(frozen=True)
class Others:
    """`active`: what ran; `links`: all below LINKS, with where they point to; `units`: the names of all units that were
    installed."""

    active: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
    units: frozenset[str] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"active": sorted(self.active), "links": dict(self.links), "units": sorted(self.units)}

    @classmethod
    def of(cls, folder: Path) -> Others | None:
        """A snapshot's. Raises OSError, ValueError, KeyError or TypeError when it cannot be read."""
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get(KEY)
        return cls(frozenset(said["active"]), said["links"], frozenset(said["units"])) if said else None

    @property
    def enabled(self) -> frozenset[str]:
        """The units that links start with the host."""
        return frozenset(Path(link).name for link in self.links if is_start(Path(link)))

    @property
    def to_run(self) -> frozenset[str]:
        """Those that are to run again. An instance (of a template) only where a link starts it: others come and go by
        themselves, with a session or a connection."""
        return frozenset(name for name in self.active if "@" not in name or name in self.enabled)

    def lost(self) -> Iterator[tuple[Path, str]]:
        """Links that are otherwise now, or not there; not to what has been uninstalled."""
        now = links()
        for link, target in self.links.items():
            if now.get(link) != target and (Path(link).parent / target).exists():
                yield Path(link), target

    def new(self) -> Iterator[Path]:
        """Links that were not there, by which something is masked or a unit starts that was there, and did not. What
        comes with a package stays, as packages do."""
        for link, target in links().items():
            is_mask = target == "/dev/null"
            if link not in self.links and link != str(BOOT_LINK) and (is_mask or Path(target).name in self.units):
                yield Path(link)


def others() -> Others | None:
    """What there is now, by one process; None where there is no systemd. Raises ApplyError, OSError."""
    if not SYSTEMD.is_dir():
        return None
    installed = frozenset(path.name for folder in FOLDERS if folder.is_dir() for path in folder.iterdir())
    return Others(active(), links(), installed)


def active() -> frozenset[str]:
    """The services and sockets that run. Raises ApplyError."""
    return frozenset(line.split()[0] for line in _systemctl(*_RUNNING).splitlines() if line.strip())


def to_start(names: Iterable[str]) -> list[str]:
    """Those of these units that can be started and are not about to: the sockets come first, which refuse to start
    beside their services. Not what ran only while somebody needed it (systemd-run). Raises ApplyError."""
    found = []
    for unit in _systemctl("show", "-p", "Id,ActiveState,UnitFileState,Job", "--", *names).split("\n\n"):
        fields = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
        busy = fields.get("ActiveState") == "activating" or fields.get("Job", "0") not in ("", "0")
        if fields.get("UnitFileState") not in (None, "", "transient") and not busy:
            found.append(fields["Id"])
    return sorted(found, key=lambda name: (not name.endswith(".socket"), name))


def links() -> dict[str, str]:
    """All below LINKS, with where they point to. Raises OSError."""
    paths = (Path(folder, name) for folder, folders, names in os.walk(LINKS) for name in (*folders, *names))
    return {str(path): str(path.readlink()) for path in paths if path.is_symlink()}


def is_start(link: Path) -> bool:
    """Whether it has a unit start with another one."""
    return link.parent.suffix in _STARTS


def _systemctl(*words: str) -> str:
    ran = process.run(("systemctl", *words))
    if ran.status != 0:
        raise ApplyError("command", f"systemctl {words[0]}: {redact(ran.output) or f'exit status {ran.status}'}")
    return ran.stdout
