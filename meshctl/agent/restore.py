"""Putting back what a snapshot has: files first, then the network, then units, and the network once more. Units that
make an interface come before the network.

Every part compares before it acts, so that a restore which was cut short is begun again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshctl.agent import files, process
from meshctl.agent.failure import ApplyError
from meshctl.agent.journal import Journal
from meshctl.agent.netrestore import commands, differences
from meshctl.agent.netstate import NetState, Unread, as_unread, look
from meshctl.agent.others import Others, active, is_start, to_start
from meshctl.agent.saved import Saved
from meshctl.agent.wgtext import moved_as
from meshctl.core.networkd import NETWORKD, NETWORKD_FOLDER, RELOAD_WITHOUT_HANDOVER

# What one command undoes may take another's object with it: so many times at most it is looked at again.
ROUNDS = 3
UNIT_TIMEOUT_S = 90.0
# So long do new units that end hold up the way in at most; systemd ends them all the same.
_STOP_S = 10.0
_MAKES_AN_INTERFACE = "wg-quick@"
_VERBS = {"enabled": "enable", "disabled": "disable", "masked": "mask"}
_ACTIVE, _FAILED = ("active", "activating", "reloading"), "failed"


class Restore:
    """Of one or several snapshots. `left` is what could not be put back, in words: what fails keeps nothing else from
    going back, and may be tried again. `others`: units that are not in `saved`, if they are to go back, too."""

    def __init__(self, saved: Saved, journal: Journal, others: Others | None = None) -> None:
        self._saved, self._journal, self._others = saved, journal, others
        self._links_changed = False
        self._began_anew: set[str] = set()
        self._synced: set[str] = set()
        self._born: set[str] = set()
        self.left: list[str] = []

    def run(self) -> None:
        """All of it."""
        self.left = []
        self._forget_new_units()
        self._try("units", self._stop_new_units)
        self._files()
        self._try("units", self._links)
        self._try("systemd-networkd", self._reload_networkd)
        self._try("interfaces", self._make_interfaces)
        self._try("network", self._network)
        self._units()
        self._try("units", self._run_others)
        self._try("network", lambda: self.left.extend(self._network()))

    def before_boot(self) -> None:
        """Files, and what is started: what the kernel has, comes of them. Nothing is waited for."""
        self.left = []
        self._forget_new_units()
        self._files()
        self._try("units", self._links)
        self._read_units()
        for name, before in self._saved.units.items():
            self._try(name, self._unit_before_boot, name, before)
        self._try("units", self._others_before_boot)

    # Inside

    def _try(self, what: str, part: Callable[..., object], *arguments: object) -> None:
        try:
            part(*arguments)
        except ApplyError as error:
            self.left.append(error.message)
        except OSError as error:
            self.left.append(f"{what}: {error.strerror or error}")
        except Exception as error:  # a bug of ours, or a snapshot of another version; its text may quote a secret
            self.left.append(f"{what}: {type(error).__name__}")

    def _files(self) -> None:
        if self._saved.room is not None:
            files.remove_quietly(self._saved.room)
        for number, (name, entry) in enumerate(sorted(self._saved.files.items(), reverse=True)):
            self._try(name, self._file, Path(name), entry, f"restore-{number}")

    def _file(self, path: Path, entry: Mapping[str, Any] | None, unique: str) -> None:
        found = files.describe(path)
        files.remove_quietly(files.nearest_directory(path) / files.temp_name(path, unique))  # of one that was killed
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
        """What is still otherwise afterwards, or cannot be read."""
        for _ in range(ROUNDS):
            wanted, now, unread = self._wanted()
            todo = list(commands(wanted, now))
            if not todo:
                break
            for argv, stdin in todo:
                if self._ran(*argv, stdin=stdin) == 0 and argv[:2] == ("wg", "syncconf"):
                    self._synced.add(argv[2])
        wanted, now, unread = self._wanted()
        return [*unread.values(), *differences(wanted, now)]

    def _wanted(self) -> tuple[NetState, NetState, Unread]:
        """What there shall be, what there is, and what of it nobody can read. A peer's endpoint and keepalive are put
        back once: who moves or is moved by the agent from then on, is where it should be."""
        now, unread = look(self._saved.sysctls)
        wanted = as_unread(self._saved.network(now), now, unread)
        wireguard = {
            name: moved_as(text, now.wireguard[name]) if name in self._synced and name in now.wireguard else text
            for name, text in wanted.wireguard.items()
        }
        return replace(wanted, wireguard=wireguard), now, unread

    def _make_interfaces(self) -> None:
        """By their units, which refuse to when there is one. Where that fails, the network is put back all the same."""
        for name, before in self._saved.units.items():
            if name.startswith(_MAKES_AN_INTERFACE) and before["active_state"] in _ACTIVE:
                self._ran("systemctl", "daemon-reload")
                self._ran("systemctl", "start", "--", name)  # nothing, where it runs

    def _reload_networkd(self) -> None:
        """networkd hears of files of its own that went back, unless it would take over or let go a live interface."""
        ours = any(name.startswith(NETWORKD_FOLDER) for name in self._saved.files)
        if not ours or unit_state(NETWORKD)["active_state"] not in _ACTIVE:
            return
        words: list[str] = []
        for name in process.run(["wg", "show", "interfaces"]).stdout.split():
            words += [name, "true" if any(Path(NETWORKD_FOLDER).glob(f"*-{name}.network")) else "false"]
        self._ran("sh", "-s", "--", *words, stdin=RELOAD_WITHOUT_HANDOVER)

    def _forget_new_units(self) -> None:
        """Units that there were not before start with the host no more, while their files still say by which links."""
        for name, before in self._saved.units.items():
            self._try(name, self._forget_new, name, before)

    def _forget_new(self, name: str, before: Mapping[str, Any]) -> None:
        if not before["file_state"] and unit_state(name)["file_state"] == "enabled":
            self._born.add(name)
            self._systemctl("disable", name)

    def _stop_new_units(self) -> None:
        """They end while their files still say how: what ExecStop takes away, nobody else would."""
        new = [
            name for name, before in self._saved.units.items()
            if not before["file_state"] and before["active_state"] not in _ACTIVE
            and unit_state(name)["active_state"] in _ACTIVE
        ]  # fmt: skip
        if new:
            self._ran("systemctl", "stop", "--", *new, timeout_s=_STOP_S)

    def _links(self) -> None:
        """By which units that no step names start with the host, or are masked."""
        if self._others is None:
            return
        for number, (link, target) in enumerate(self._others.lost()):
            self._links_changed = True
            link.parent.mkdir(exist_ok=True)
            self._try(str(link), self._file, link, {"kind": "link", "target": target}, f"restore-link-{number}")
        for link in self._others.new():
            self._links_changed = True
            link.unlink()
            if is_start(link):
                self._born.add(link.name)
                with suppress(OSError):  # others are in it
                    link.parent.rmdir()

    def _run_others(self) -> None:
        """Those that ran, run again; those that new links have started, end."""
        if self._others is None:
            return
        ended = self._born - self._saved.units.keys() - self._others.active
        if ended:  # a start of theirs may wait, too, while the host starts
            self._systemctl("stop", *sorted(ended))
        missing = self._others.to_run - self._saved.units.keys()
        missing -= active() if missing else missing
        names = to_start(missing) if missing else []
        if names:
            self._ran("systemctl", "reset-failed", "--", *names)  # one that was started too often is refused
            self._systemctl("start", *names)

    def _others_before_boot(self) -> None:
        """The host's start has begun without what was masked, or in conflict with what is not to start any more."""
        if self._others is None or not (self._links_changed or self._born):
            return
        ended, again = self._born - self._saved.units.keys(), self._others.to_run & self._others.enabled
        for verb, names in (("stop", ended), ("start", again - self._saved.units.keys())):
            if names:
                self._ran("systemctl", verb, "--no-block", "--", *sorted(names))  # what was uninstalled is not there

    def _read_units(self) -> None:
        if self._saved.units or self._links_changed:
            self._try("units", self._systemctl, "daemon-reload")

    def _units(self) -> None:
        self._read_units()
        for name, before in self._saved.units.items():
            self._try(name, self._unit, name, before)

    def _unit(self, name: str, before: Mapping[str, Any]) -> None:
        active_state = self._enable(name, before)["active_state"]
        was, runs = before["active_state"] in _ACTIVE, active_state in _ACTIVE
        self._forget_failure(name, before)
        if was != runs:
            self._systemctl("start" if was else "stop", name)
        elif was and before["again"] and name not in self._began_anew:
            self._began_anew.add(name)
            self._systemctl(before["again"], name)
        elif name in self._born and not was:  # while the host starts, its start may wait
            self._ran("systemctl", "stop", "--", name)
        if runs and not was:  # what it should stop may be gone already
            self._forget_failure(name, before)

    def _unit_before_boot(self, name: str, before: Mapping[str, Any]) -> None:
        """The host's start has begun with what was enabled: what is not any more is to be stopped before it runs."""
        now = self._enable(name, before)
        if before["active_state"] in _ACTIVE:
            self._systemctl("start", name, no_block=True)
        elif name in self._born or now["file_state"] == "enabled" != before["file_state"]:
            self._ran("systemctl", "stop", "--no-block", "--", name)  # it may have gone with its file

    def _forget_failure(self, name: str, before: Mapping[str, Any]) -> None:
        if before["active_state"] != _FAILED == unit_state(name)["active_state"]:
            self._systemctl("reset-failed", name)

    def _enable(self, name: str, before: Mapping[str, Any]) -> Mapping[str, str]:
        """Have the unit start with the host, or not, as it did; returns how it was found."""
        now = unit_state(name)
        verb = _VERBS.get(before["file_state"])
        if verb is not None and before["file_state"] != now["file_state"]:
            self._systemctl(verb, name)
        return now

    def _systemctl(self, verb: str, *units: str, no_block: bool = False) -> None:
        argv = ["systemctl", verb, *(["--no-block"] if no_block else []), *(("--", *units) if units else ())]
        if self._ran(*argv):
            self.left.append(f"{' '.join(argv)} failed")

    def _ran(self, *argv: str, stdin: str | None = None, timeout_s: float = UNIT_TIMEOUT_S) -> int:
        """The exit status of a command, which the journal takes down."""
        ran = process.run(argv, stdin.encode() if stdin is not None else None, timeout_s)
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
