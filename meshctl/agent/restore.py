"""Putting back what a snapshot has: files first, then the network, then units, and the network once more. Units that
make an interface come before the network.

Every part compares before it acts, so that a restore which was cut short is begun again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshctl.agent import files, process
from meshctl.agent.journal import Journal
from meshctl.agent.netrestore import commands, differences
from meshctl.agent.netstate import capture
from meshctl.agent.saved import Saved

# What one command undoes may take another's object with it: so many times at most it is looked at again.
ROUNDS = 3
UNIT_TIMEOUT_S = 90.0
_MAKES_AN_INTERFACE = "wg-quick@"
_VERBS = {"enabled": "enable", "disabled": "disable", "masked": "mask"}
_ACTIVE, _FAILED = ("active", "activating", "reloading"), "failed"


class Restore:
    """Of one or several snapshots. `left` is what could not be put back, in words."""

    def __init__(self, saved: Saved, journal: Journal) -> None:
        self._saved, self._journal = saved, journal
        self.left: list[str] = []

    def run(self) -> None:
        """All of it."""
        self._files()
        self._make_interfaces()
        self._network()
        self._units()
        self.left += self._network()

    def before_boot(self) -> None:
        """Files, and what is started: what the kernel has, comes of them. Nothing is waited for."""
        self._files()
        if self._saved.units:
            self._systemctl("daemon-reload")
        for name, before in self._saved.units.items():
            self._enable(name, before)
            if before["active_state"] in _ACTIVE:
                self._systemctl("start", name, "--no-block")

    # Inside

    def _files(self) -> None:
        if self._saved.room is not None:
            files.remove_quietly(self._saved.room)
        for number, (name, entry) in enumerate(sorted(self._saved.files.items(), reverse=True)):
            try:
                self._file(Path(name), entry, f"restore-{number}")
            except OSError as error:
                self.left.append(f"{name}: {error.strerror}")

    def _file(self, path: Path, entry: Mapping[str, Any] | None, unique: str) -> None:
        found = files.describe(path)
        if entry is None:
            if found is not None:
                _remove(path, str(found["kind"]))
        elif entry["kind"] == "directory":
            path.mkdir(parents=True, exist_ok=True)
            _attributes(path, entry)
        elif entry["kind"] == "link":
            if found is None or found["kind"] != "link" or str(path.readlink()) != entry["target"]:
                temp = path.parent / files.temp_name(path, unique)
                self._journal.write("temp", path=str(temp))
                temp.symlink_to(entry["target"])
                temp.replace(path)
        elif entry["kind"] == "file":
            content = Path(entry["content"]).read_bytes()
            if found is None or found["kind"] != "file" or path.read_bytes() != content:
                files.replace(files.write_temp(path, content, unique, self._journal), path)
                found = files.describe(path)
            if any(entry[key] != (found or {}).get(key) for key in ("mode", "uid", "gid")):
                _attributes(path, entry)

    def _network(self) -> list[str]:
        """What is still otherwise afterwards."""
        for _ in range(ROUNDS):
            now = capture(self._saved.sysctls)
            wanted = list(commands(self._saved.network(now), now))
            if not wanted:
                break
            for argv, stdin in wanted:
                self._ran(*argv, stdin=stdin)
        now = capture(self._saved.sysctls)
        return differences(self._saved.network(now), now)

    def _make_interfaces(self) -> None:
        """By their units, which refuse to when there is one. Where that fails, the network is put back all the same."""
        for name, before in self._saved.units.items():
            if name.startswith(_MAKES_AN_INTERFACE) and before["active_state"] in _ACTIVE:
                self._ran("systemctl", "daemon-reload")
                self._ran("systemctl", "start", "--", name)  # nothing, where it runs

    def _units(self) -> None:
        if self._saved.units:
            self._systemctl("daemon-reload")
        for name, before in self._saved.units.items():
            active_state = self._enable(name, before)
            was, runs = before["active_state"] in _ACTIVE, active_state in _ACTIVE
            self._forget_failure(name, before)
            if was != runs:
                self._systemctl("start" if was else "stop", name)
            elif was and before["again"]:
                self._systemctl(before["again"], name)
            if runs and not was:  # what it should stop may be gone already
                self._forget_failure(name, before)

    def _forget_failure(self, name: str, before: Mapping[str, Any]) -> None:
        if before["active_state"] != _FAILED == unit_state(name)["active_state"]:
            self._systemctl("reset-failed", name)

    def _enable(self, name: str, before: Mapping[str, Any]) -> str:
        """Have the unit start with the host, or not, as it did; returns its active state."""
        now = unit_state(name)
        verb = _VERBS.get(before["file_state"])
        if verb is not None and before["file_state"] != now["file_state"]:
            self._systemctl(verb, name)
        return now["active_state"]

    def _systemctl(self, verb: str, unit: str = "", *options: str) -> None:
        argv = ["systemctl", verb, *options, *(("--", unit) if unit else ())]
        if self._ran(*argv):
            self.left.append(f"{' '.join(argv)} failed")

    def _ran(self, *argv: str, stdin: str | None = None) -> int:
        """The exit status of a command, which the journal takes down."""
        ran = process.run(argv, stdin.encode() if stdin is not None else None, UNIT_TIMEOUT_S)
        self._journal.write("restore", argv=list(argv), status=ran.status)
        return ran.status


def unit_state(name: str) -> dict[str, str]:
    """What systemd says of a unit: `active_state` and `file_state`, "" for one that there is not."""
    shown = process.run(["systemctl", "show", "-p", "ActiveState,UnitFileState", "--", name]).stdout
    fields = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return {"active_state": fields.get("ActiveState", ""), "file_state": fields.get("UnitFileState", "")}


def _remove(path: Path, kind: str) -> None:
    if kind != "directory":
        path.unlink()
    elif not any(path.iterdir()):
        path.rmdir()


def _attributes(path: Path, entry: Mapping[str, Any]) -> None:
    os.chown(path, entry["uid"], entry["gid"], follow_symlinks=False)
    path.chmod(int(entry["mode"], 8))
