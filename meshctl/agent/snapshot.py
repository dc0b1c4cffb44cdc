"""Phase 2: what the host had before, so that a rollback can put it back.

`/var/lib/meshctl/snapshots/ID/` (root alone; the last KEPT stay) holds

    manifest.json   {"version": 1, "id", "node", "time", "files": {PATH: null | {"kind", "mode", "uid", "gid",
                    "content": "NAME in this folder" (files), "target" (links)}}, "interfaces": [NAME…],
                    "tables": ["FAMILY NAME"…]}
    file-N          previous content of a file
    wg-IFACE.conf   `wg showconf IFACE` (holds the private key: it never leaves the node)
    addr-IFACE, route-IFACE   `ip -d addr show` and `ip route show table all`, v4 and v6
    rule, rule6     `ip rule`, `ip -6 rule`
    table-N         `nft -s list table`, in the order of "tables"
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from meshctl.agent import files, process
from meshctl.agent.failure import raise_for_os_error
from meshctl.agent.journal import forget_old, make_private_dir
from meshctl.model.ledger import LEDGER_PATH
from meshctl.model.steps import Step, Transaction

SNAPSHOT_DIR = Path("/var/lib/meshctl/snapshots")
SNAPSHOT_VERSION = 1
TOUCHING = ("write", "link", "remove", "attrs", "key", "mkdir")


def snapshot(transaction: Transaction) -> Path:
    """Save what the steps may change; returns the folder. Raises ApplyError (disk-full)."""
    folder = SNAPSHOT_DIR / transaction.id
    try:
        make_private_dir(SNAPSHOT_DIR)
        make_private_dir(folder)
        manifest = {
            "version": SNAPSHOT_VERSION,
            "id": transaction.id,
            "node": transaction.node,
            "time": round(time.time(), 3),
            "files": _save_files(folder, transaction.steps),
            "interfaces": _save_interfaces(folder),
            "tables": _save_tables(folder, transaction.steps),
        }
        _write(folder / "manifest.json", json.dumps(manifest, sort_keys=True).encode())
        forget_old(SNAPSHOT_DIR)
    except OSError as error:
        raise_for_os_error(error, f"saving the snapshot {folder}")
    return folder


def _save_files(folder: Path, steps: tuple[Step, ...]) -> dict[str, Any]:
    paths = sorted({step.path for step in steps if step.do in TOUCHING} | {LEDGER_PATH})
    saved: dict[str, Any] = {}
    for number, name in enumerate(paths):
        path = Path(name)
        entry = files.describe(path)
        saved[name] = entry
        if entry is None:
            continue
        if entry["kind"] == "file":
            entry["content"] = f"file-{number}"
            _write(folder / f"file-{number}", path.read_bytes())
        elif entry["kind"] == "link":
            entry["target"] = str(path.readlink())
    return saved


def _save_interfaces(folder: Path) -> list[str]:
    names = process.run(["wg", "show", "interfaces"]).stdout.split()
    for name in names:
        _save_output(folder / f"wg-{name}.conf", ["wg", "showconf", name])
        _save_output(folder / f"addr-{name}", ["ip", "-d", "addr", "show", "dev", name])
        _save_output(folder / f"route-{name}", ["ip", "route", "show", "table", "all", "dev", name])
        _save_output(folder / f"route6-{name}", ["ip", "-6", "route", "show", "table", "all", "dev", name])
    if names:
        _save_output(folder / "rule", ["ip", "rule"])
        _save_output(folder / "rule6", ["ip", "-6", "rule"])
    return names


def _save_tables(folder: Path, steps: tuple[Step, ...]) -> list[str]:
    """Tables are named by the steps that load them; one that is not there yet has an empty file."""
    names = sorted({step.path for step in steps if step.do == "table"})
    for number, name in enumerate(names):
        _save_output(folder / f"table-{number}", ["nft", "-s", "list", "table", *name.split()])
    return names


def _save_output(path: Path, argv: list[str]) -> None:
    ran = process.run(argv)
    _write(path, ran.stdout.encode() if ran.status == 0 else b"")


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    files.write_and_close(os.open(path, flags, 0o600), content)
