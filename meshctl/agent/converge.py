"""Phase 4: the steps, in order, each one idempotent; the first failure ends it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace as replace_field
from pathlib import Path

from meshctl.agent import files, process, units
from meshctl.agent.failure import ApplyError, classify_output, raise_for_os_error, redact
from meshctl.agent.journal import Journal
from meshctl.agent.rekey import switch
from meshctl.agent.restore import Restore
from meshctl.agent.saved import Saved
from meshctl.model.keys import is_key_text
from meshctl.model.ledger import LEDGER_PATH, InterfaceRecord, Ledger
from meshctl.model.steps import Step, Transaction

PRIVATE_FILE_MODE = "0600"


class Convergence:
    """One transaction's run through its steps. `done` are the indices that ran, `unresolved` those of them whose
    name did not resolve, `warnings` what to tell."""

    def __init__(
        self, transaction: Transaction, staged: dict[int, Path], journal: Journal, past: Saved | None = None
    ) -> None:
        self._transaction, self._past = transaction, past
        self._staged = staged
        self._journal = journal
        self._listings: dict[str, str] = {}
        self.done: list[int] = []
        self.unresolved: list[int] = []
        self.warnings: list[str] = []

    def run(self) -> None:
        """All steps. Raises ApplyError with the index of the step that failed."""
        for index, step in enumerate(self._transaction.steps):
            what = " ".join(step.argv) if step.argv else step.path or LEDGER_PATH
            try:
                self._journal.write("step", index=index, do=step.do, what=what)
                self._one(index, step)
                self._journal.write("done", index=index)
            except OSError as error:
                raise_for_os_error(error, f"{step.do} {what}", index)
            except KeyError as error:
                raise ApplyError("command", f"{step.do} {what}: {error.args[0]}", index) from error
            self.done.append(index)

    def _one(self, index: int, step: Step) -> None:
        path = Path(step.path)
        if step.do == "run":
            self._run(index, step)
        elif step.do == "cleanup":
            self._cleanup(step)
        elif step.do == "write":
            self._put(self._staged[index], path, step)
            del self._staged[index]
        elif step.do == "mkdir":
            path.mkdir(parents=True, exist_ok=True)
            files.set_attributes(path, step.mode, step.owner, step.group)
        elif step.do == "link":
            self._link(path, step.target, index)
        elif step.do == "remove":
            self._remove(path)
        elif step.do == "attrs":
            files.set_attributes(path, step.mode, step.owner, step.group)
        elif step.do == "key":
            self._key(index, path, step)
        elif step.do == "switch":
            switch(index, path, Path(step.target), step.interface)
        elif step.do == "table":
            self._table(index, step)
        elif step.do == "endpoint":
            self._endpoint(index, step)
        elif step.do == "ledger":
            self._ledger(index, step)
        elif step.do == "restore" and self._past is not None:
            self._restore(index, self._past)
        else:
            raise ApplyError("protocol", f"unknown step {step.do!r}", index)

    def _restore(self, index: int, past: Saved) -> None:
        restore = Restore(past, self._journal)
        restore.run()
        if restore.left:
            raise ApplyError("command", f"could not be put back: {', '.join(dict.fromkeys(restore.left))}", index)

    def _run(self, index: int, step: Step) -> None:
        ran = process.run(step.argv, step.stdin, step.timeout_s)
        if ran.status != 0:
            said = units.own_words(step.argv)
            output = f"{ran.output}\n{said}" if ran.status == process.TIMED_OUT else said or ran.output
            reason = redact(output, step.stdin) or f"exit status {ran.status}"
            raise ApplyError(classify_output(output), f"{' '.join(step.argv)}: {reason}", index)

    def _cleanup(self, step: Step) -> None:
        ran = process.run(step.argv, timeout_s=step.timeout_s)
        if ran.status != 0:
            reason = redact(ran.output) or f"exit status {ran.status}"
            self.warnings.append(f"{' '.join(step.argv)}: {reason}; something may be left")

    def _put(self, temp: Path, path: Path, step: Step) -> None:
        """Attributes are set again: a user may have come with a package since the file was staged."""
        files.set_attributes(temp, step.mode, step.owner, step.group)
        files.replace(temp, path)

    def _write_now(self, index: int, path: Path, content: bytes, step: Step) -> None:
        """Atomic write of a file whose content was not known when the others were staged."""
        temp = files.write_temp(path, content, f"{self._transaction.id}-{index}", self._journal)
        try:
            files.set_attributes(temp, step.mode or PRIVATE_FILE_MODE, step.owner, step.group)
            files.replace(temp, path)
        except (OSError, KeyError):
            files.remove_quietly(temp)
            raise

    def _link(self, path: Path, target: str, index: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.parent / files.temp_name(path, f"{self._transaction.id}-{index}")
        self._journal.write("temp", path=str(temp))
        temp.symlink_to(target)
        try:
            temp.replace(path)
        except OSError:
            files.remove_quietly(temp)
            raise

    def _remove(self, path: Path) -> None:
        """A directory goes only when it is empty: what others put there is not ours."""
        found = files.describe(path)
        if found is None:
            return
        if found["kind"] != "directory":
            path.unlink()
        elif any(path.iterdir()):
            self.warnings.append(f"{path} is kept: it is not empty")
        else:
            path.rmdir()

    def _key(self, index: int, path: Path, step: Step) -> None:
        """The private key, from where the host already has one, else a new one. It never leaves this process."""
        if path.is_file() and path.stat().st_size:
            if not is_key_text(path.read_text().strip()):
                raise ApplyError("command", f"{path} does not hold a WireGuard private key; move it away", index)
            files.set_attributes(path, step.mode or PRIVATE_FILE_MODE, step.owner, step.group)
            return
        key = None
        if step.interface:
            key = live_private_key(step.interface) or configured_private_key(path.parent / f"{step.interface}.conf")
        if key is None:
            ran = process.run(["wg", "genkey"])
            if ran.status != 0:
                raise ApplyError(classify_output(ran.output), f"wg genkey: {redact(ran.output)}", index)
            key = ran.stdout.strip()
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700)
        self._write_now(index, path, key.encode() + b"\n", step)

    def _table(self, index: int, step: Step) -> None:
        ran = process.run(["nft", "-f", "-"], step.stdin or b"", step.timeout_s)
        if ran.status != 0:
            raise ApplyError(classify_output(ran.output), f"nft: {redact(ran.output)}", index)
        self._listings[step.path] = listing_hash(step.path)

    def _endpoint(self, index: int, step: Step) -> None:
        """One peer's named endpoint. Its failure is that of a name server, not of this node."""
        argv = ["wg", "set", step.interface, "peer", step.peer, "endpoint", step.target]
        ran = process.run(argv, timeout_s=step.timeout_s)
        if ran.status != 0:
            self.unresolved.append(index)
            reason = (redact(ran.output).splitlines() or [f"exit status {ran.status}"])[-1]
            self.warnings.append(f"{step.interface}: endpoint {step.target} is not set: {reason}; apply again")

    def _ledger(self, index: int, step: Step) -> None:
        """The controller cannot know how this kernel lists a table that was just loaded: fill that in."""
        try:
            ledger = Ledger.from_json((step.content or b"").decode())
        except ValueError as error:
            raise ApplyError("protocol", str(error), index) from error
        tables = {
            name: replace_field(record, listing=self._listings.get(name) or record.listing or listing_hash(name))
            for name, record in ledger.tables.items()
        }
        interfaces = self._without_unresolved(ledger.interfaces)
        text = replace_field(ledger, tables=tables, interfaces=interfaces).to_json()
        self._write_now(index, Path(step.path or LEDGER_PATH), text.encode() + b"\n", step)

    def _without_unresolved(self, interfaces: Mapping[str, InterfaceRecord]) -> dict[str, InterfaceRecord]:
        """The records as they are true: an endpoint that could not be set was not applied."""
        records = dict(interfaces)
        for index in self.unresolved:
            step = self._transaction.steps[index]
            record = records.get(step.interface)
            if record is not None and step.peer in record.peers:
                peer = replace_field(record.peers[step.peer], endpoint=None)
                records[step.interface] = replace_field(record, peers={**record.peers, step.peer: peer})
        return records


def live_private_key(interface: str) -> str | None:
    """The private key of a live interface, or None."""
    ran = process.run(["wg", "show", interface, "private-key"])
    key = ran.stdout.strip()
    return key if ran.status == 0 and is_key_text(key) else None


def configured_private_key(path: Path) -> str | None:
    """`PrivateKey` of a wg-quick file, or None."""
    if not path.is_file():
        return None
    found = re.search(r"^\s*PrivateKey\s*=\s*(\S+)", path.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE)
    return found.group(1) if found and is_key_text(found.group(1)) else None


def listing_hash(name: str) -> str:
    """sha256 of `nft -s list table NAME`, the same that the facts script computes; "" when there is no such table."""
    ran = process.run(["nft", "-s", "list", "table", *name.split()])
    return hashlib.sha256(ran.stdout.encode()).hexdigest() if ran.status == 0 else ""
