"""What a host shall have again, from snapshots: that of one apply which is undone, or those of several that are taken
back together, days later perhaps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshctl.agent.failure import ApplyError
from meshctl.agent.netstate import NetState
from meshctl.agent.takeback import Done, without
from meshctl.model.ledger import LEDGER_PATH, Ledger

SNAPSHOT_DIR = Path("/var/lib/meshctl/snapshots")
# In a snapshot's folder: its description, the network before and after, and what is removed to make room.
MANIFEST, NETWORK, AFTER, SPARE = "manifest.json", "network.json", "after.json", "spare"

Entries = dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """`files` and `units` are a manifest's, by path and name; `keys` those of its files that hold private keys.
    `network` gives the state that is wanted in place of the one that there is. `room`: nothing, but where there is not
    enough of it."""

    files: Mapping[str, Mapping[str, Any] | None]
    units: Mapping[str, Mapping[str, Any]]
    sysctls: frozenset[str]
    network: Callable[[NetState], NetState]
    keys: frozenset[str] = frozenset()
    room: Path | None = None


def of_one(folder: Path) -> Saved:
    """One apply's. Raises OSError, ValueError or KeyError when it cannot be read."""
    manifest, network = _manifest(folder), _network(folder / NETWORK)
    files = {name: _placed(entry, folder) for name, entry in manifest["files"].items()}
    return Saved(
        files, manifest["units"], frozenset(network.sysctls), lambda _: network, frozenset(manifest["keys"]),
        folder / SPARE,
    )  # fmt: skip


def of_several(folders: Sequence[Path]) -> Saved:
    """Those of applies that are taken back, the newest first: what the oldest says of a thing, counts. Private keys
    stay: they are identity. Raises ApplyError when one is not whole."""
    files: Entries = {}
    units: Entries = {}
    keys: set[str] = set()
    sysctls: set[str] = set()
    done: list[Done] = []
    for folder in folders:
        try:
            saved = of_one(folder)
            _check_whole(saved)
            done.append(_done(folder, saved, done))
            files.update(saved.files)
            units.update({
                name: {**unit, "again": unit["again"] or units.get(name, {}).get("again", "")}
                for name, unit in saved.units.items()
            })  # fmt: skip
        except Exception as error:  # whatever a damaged disk has made of it
            what = f"{type(error).__name__}: {error}"
            raise ApplyError("no-state", f"the snapshot {folder} is damaged: {what}") from error
        keys |= saved.keys
        sysctls |= saved.sysctls
    kept = {name: entry for name, entry in files.items() if name not in keys}
    return Saved(kept, units, frozenset(sysctls), lambda now: without(done, now))


def kept() -> set[str]:
    """The ids of all snapshots that there are."""
    return {path.parent.name for path in SNAPSHOT_DIR.glob(f"*/{MANIFEST}")}


def contents(saved: Saved) -> Iterator[tuple[Path, Path]]:
    """Each file that there shall be, and where what is in it is kept."""
    for name, entry in saved.files.items():
        if entry is not None and entry["kind"] == "file":
            yield Path(name), Path(entry["content"])


def _done(folder: Path, saved: Saved, newer: Sequence[Done]) -> Done:
    """What one apply has done to the network. What there was after one that did not come to its end, the next newer one
    says, if there is one."""
    after = newer[-1].before if newer else None
    if (folder / AFTER).is_file():
        after = _network(folder / AFTER)
    ledger = newer[-1].ledger_before if newer else ledger_at(Path(LEDGER_PATH))
    return Done(saved.network(NetState()), after, ledger_of(saved), ledger)


def ledger_of(saved: Saved) -> Ledger:
    """The host's ledger as it was then; an empty one if there was none."""
    entry = saved.files.get(LEDGER_PATH)
    return ledger_at(Path(entry["content"])) if entry is not None else Ledger()


def ledger_at(path: Path) -> Ledger:
    """The ledger in this file; an empty one if it cannot be read."""
    try:
        return Ledger.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Ledger()


def _manifest(folder: Path) -> Entries:
    manifest: Entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _network(path: Path) -> NetState:
    return NetState.from_json(path.read_text(encoding="utf-8"))


def _placed(entry: Mapping[str, Any] | None, folder: Path) -> Mapping[str, Any] | None:
    """With the path of what was in the file, in place of its name."""
    if entry is None or entry["kind"] != "file":
        return entry
    return {**entry, "content": str(folder / entry["content"])}


def _check_whole(saved: Saved) -> None:
    """Raises ValueError when a content is not what was saved, OSError when it is not there."""
    for name, entry in saved.files.items():
        if entry is not None and entry["kind"] == "file":
            found = hashlib.sha256(Path(entry["content"]).read_bytes()).hexdigest()
            if found != entry["sha256"]:
                raise ValueError(f"what it has of {name} is not what was saved")
