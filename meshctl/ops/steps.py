"""One host's changes as one ordered list of steps, between the ledger's intent and its exact record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from meshctl.core.change import Change
from meshctl.core.diff.interface import DEFAULT
from meshctl.core.networkd import NETWORKD_FOLDER
from meshctl.model.facts import HostFacts
from meshctl.model.ledger import LEDGER_PATH, Ledger
from meshctl.model.resources import NodeDoc, WireGuard
from meshctl.model.steps import Step
from meshctl.ops import host, interface
from meshctl.ops.ledger import intent, ledger_after

UNIT_FOLDERS = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/", "/run/systemd/system/")

Batch = list[tuple[int, Change]]


def steps_for(doc: NodeDoc, facts: HostFacts, changes: Sequence[Change]) -> tuple[Step, ...]:
    """The steps that apply `changes`: all that `diff(doc, facts)` gave, or those of some kinds, in its order.

    Deterministic; empty for no changes. Step.change is an index into `changes`. Raises RemoteError for what this
    host cannot do (no apt-get, no systemd).
    """
    if not changes:
        return ()
    after = ledger_after(doc, facts, changes)
    before = intent(facts.ledger, after, (change.name for change in changes if change.kind == "handler"))
    work = tuple(_work(doc, facts, changes))
    if facts.ledger == before == after:
        return work
    return (_ledger(before), *work, _ledger(after))


def _ledger(ledger: Ledger) -> Step:
    return Step("ledger", path=LEDGER_PATH, content=ledger.to_json().encode())


def _work(doc: NodeDoc, facts: HostFacts, changes: Sequence[Change]) -> Iterator[Step]:
    # An applier that did not come to its handlers may not have come to the reload before them either.
    units_stale, networkd_stale = bool(facts.ledger.handlers), False
    for (kind, _, _), group in groupby(enumerate(changes), key=_batch_key):
        batch = list(group)
        if kind in ("unit", "handler") and units_stale:
            yield host.daemon_reload()
            units_stale = False
        if kind == "handler" and networkd_stale:
            yield interface.reload_without_handover(doc)
            networkd_stale = False
        steps = tuple(_steps(kind, batch, doc, facts, changes))
        yield from steps
        if kind == "file":
            units_stale = units_stale or any(c.name.startswith(UNIT_FOLDERS) for _, c in batch)
            networkd_stale = networkd_stale or any(c.name.startswith(NETWORKD_FOLDER) for _, c in batch)
        elif interface.networkctl_reload().argv in {step.argv for step in steps}:
            networkd_stale = False
    if units_stale:
        yield host.daemon_reload()
    if networkd_stale:
        yield interface.reload_without_handover(doc)
    for index, change in enumerate(changes):
        want = doc.resources[change.resource] if change.resource >= 0 else None
        if change.kind == "interface" and change.action == "create" and isinstance(want, WireGuard):
            yield from interface.named_endpoint_steps(index, want)


def _batch_key(item: tuple[int, Change]) -> tuple[str, str, str]:
    """Changes that go into one command: packages together, a run of peers of one interface together."""
    index, change = item
    if change.kind == "package":
        return ("package", "", "")
    if change.kind in ("peer", "address"):
        removal = "delete" if change.action == "delete" else ""
        return (change.kind, change.name.split(" ")[0], removal)
    return (change.kind, str(index), "")


def _steps(
    kind: str, batch: Batch, doc: NodeDoc, facts: HostFacts, changes: Sequence[Change]
) -> Iterator[Step]:
    index, change = batch[0]
    if kind == "package":
        yield from host.package_steps(index, [c for _, c in batch], facts)
    elif kind == "file":
        yield from host.file_steps(index, change, doc)
    elif kind == "sysctl":
        yield host.sysctl_step(index, change)
    elif kind == "table":
        yield from host.table_steps(index, change, doc)
    elif kind == "unit":
        yield from host.unit_steps(index, change, facts)
    elif kind == "handler":
        yield host.handler_step(index, change)
    elif kind == "interface" and change.action == "delete":
        yield from interface.deletion_steps(index, change.name, changes)
    else:
        yield from _interface_steps(kind, batch, doc, facts, changes)


def _interface_steps(
    kind: str, batch: Batch, doc: NodeDoc, facts: HostFacts, changes: Sequence[Change]
) -> Iterator[Step]:
    index, change = batch[0]
    name = change.name.split(" ")[0]
    want = doc.resources[change.resource] if change.resource >= 0 else None
    if kind == "peer" and change.action == "delete":
        yield interface.peer_removal(index, name, [c for _, c in batch])
    elif not isinstance(want, WireGuard):
        return  # an adopted interface that is let go: only the ledger forgets it
    elif kind == "key":
        yield from interface.key_steps(index, change, want)
    elif kind == "interface" and change.action == "create":
        yield from interface.creation_steps(index, want, doc, facts)
    elif kind == "peer":
        yield from interface.peer_steps(batch, want)
    elif kind == "address":
        for number, each in batch:
            yield from interface.address_steps(number, each)
        if change.action == "delete" and any(":" not in each.name for _, each in batch):
            yield from interface.restore_after_removal(index, want, facts.interfaces[name], changes)
    elif change.name == f"{name} {DEFAULT}":
        yield from interface.default_route_steps(index, change, want, facts)
    elif kind == "route":
        yield from interface.route_steps(index, change)
    else:
        yield from interface.setting_steps(index, change, want, facts.interfaces[name])
