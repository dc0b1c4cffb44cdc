"""Phase 2: what the host had before, so that it can be put back (`restore`).

`/var/lib/meshctl/snapshots/ID/` (root alone; `meshctl.agent.history` removes old ones) holds

    manifest.json   {"version": 3, "id", "node", "time", "files": {PATH: null | {"kind", "mode", "uid", "gid",
                    "content": "NAME in this folder" and "sha256" (files), "target" (links)}}, "keys": [PATH of a
                    private key…], "units": {NAME: {"active_state", "file_state", "again": verb of systemctl that the
                    steps use on it, or ""}}, "others": the rest, as `meshctl.agent.others` has it}
    file-N          previous content of a file
    network.json    a `NetState`; it holds private keys, and never leaves the node
    after.json      the same once the steps are done
    spare           nothing, to be removed when there is no other room for what is put back
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from meshctl.agent import files
from meshctl.agent.failure import ApplyError, raise_for_os_error
from meshctl.agent.journal import make_private_dir
from meshctl.agent.netstate import capture
from meshctl.agent.others import KEY as OTHERS
from meshctl.agent.others import others
from meshctl.agent.restore import unit_state
from meshctl.agent.saved import AFTER, MANIFEST, NETWORK, SNAPSHOT_DIR, SPARE, Saved, of_one
from meshctl.agent.sysctls import settings
from meshctl.model.ledger import LEDGER_PATH
from meshctl.model.steps import Step, Transaction

SNAPSHOT_VERSION = 3
SPARE_BYTES = 256 * 1024
TOUCHING = ("write", "link", "remove", "attrs", "key", "mkdir", "switch")
_AGAIN = ("restart", "reload", "reload-or-restart")


def snapshot(transaction: Transaction, past: Saved | None = None) -> None:
    """Save what the steps may change; `past` is what a step that goes back puts in its place. Raises ApplyError
    (disk-full)."""
    folder, steps = SNAPSHOT_DIR / transaction.id, transaction.steps
    keys = {step.path for step in steps if step.do in ("key", "switch")} | {s.target for s in steps if s.do == "switch"}
    touched = {step.path for step in steps if step.do in TOUCHING} | keys
    paths = {*touched, LEDGER_PATH, *(past.files if past else ())}
    units = {name: str(unit["again"]) for name, unit in past.units.items()} if past else units_of(steps)
    rest = others()
    sysctls = {*settings(), *(past.sysctls if past else sysctls_of(steps))}
    try:
        make_private_dir(SNAPSHOT_DIR)
        make_private_dir(folder)
        manifest = {
            "version": SNAPSHOT_VERSION,
            "id": transaction.id,
            "node": transaction.node,
            "time": round(time.time(), 3),
            "files": _save_files(folder, sorted({*paths, *_missing_folders(paths)})),
            "keys": sorted(keys),
            "units": {name: {**unit_state(name), "again": again} for name, again in units.items()},
            OTHERS: rest and rest.to_dict(),
        }
        _write(folder / NETWORK, capture(sysctls).to_json().encode())
        _write(folder / SPARE, bytes(SPARE_BYTES))
        _write(folder / MANIFEST, json.dumps(manifest, sort_keys=True).encode())
    except OSError as error:
        raise_for_os_error(error, f"saving the snapshot {folder}")


def note_after(transaction: Transaction) -> None:
    """Add what the network is after the steps, so that they can be taken back when others have changed it, too. Without
    it the next snapshot's counts."""
    folder = SNAPSHOT_DIR / transaction.id
    with suppress(ApplyError, OSError, ValueError, KeyError):
        _write(folder / AFTER, capture(of_one(folder).sysctls).to_json().encode())


def _missing_folders(paths: Iterable[str]) -> set[str]:
    """Those that are made on the way to a file: they go with it."""
    return {str(parent) for path in paths for parent in Path(path).parents if not os.path.lexists(parent)}


def _save_files(folder: Path, paths: Iterable[str]) -> dict[str, Any]:
    saved: dict[str, Any] = {}
    for number, name in enumerate(paths):
        path = Path(name)
        entry = files.describe(path)
        saved[name] = entry
        if entry is None:
            continue
        if entry["kind"] == "file":
            content = path.read_bytes()
            entry["content"], entry["sha256"] = f"file-{number}", hashlib.sha256(content).hexdigest()
            _write(folder / f"file-{number}", content)
        elif entry["kind"] == "link":
            entry["target"] = str(path.readlink())
    return saved


def sysctls_of(steps: Iterable[Step]) -> set[str]:
    """The files below /proc/sys that the steps write."""
    return {s.argv[1] for s in steps if s.do == "run" and s.argv[:1] == ("tee",) and s.argv[1].startswith("/proc/sys/")}


def units_of(steps: Iterable[Step]) -> dict[str, str]:
    """Units that the steps change, each with the last verb that has it begin anew, or ""."""
    found: dict[str, str] = {}
    for argv in (step.argv for step in steps if step.do == "run" and step.argv[:1] == ("systemctl",)):
        if len(argv) > 3:  # systemctl VERB -- UNIT
            again = argv[1] if argv[1] in _AGAIN else ""
            found[argv[3]] = again or found.get(argv[3], "")
    return found


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    files.write_and_close(os.open(path, flags, 0o600), content)
