"""The ledger's bookkeeping: an intent before the first step, the exact record after the last.

The intent is the union of old and new, so that an applier that is killed half-way leaves nothing behind that
nobody owns. Where old and new differ the intent keeps the old value, so that the next plan still sees the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from meshctl.core.change import Change
from meshctl.core.diff import due_handlers
from meshctl.core.diff.between import brings_up
from meshctl.core.diff.host import file_differs, table_source
from meshctl.core.diff.interface import DEFAULT
from meshctl.model.facts import HostFacts
from meshctl.model.ledger import InterfaceRecord, Ledger, PeerRecord, TableRecord
from meshctl.model.resources import File, Nftables, NodeDoc, Service, WireGuard

V = TypeVar("V")

# Kinds of change whose name begins with the interface that they belong to.
INTERFACE_KINDS = frozenset({"interface", "address", "route", "mtu", "listen-port", "peer"})


def ledger_after(doc: NodeDoc, facts: HostFacts, changes: Iterable[Change]) -> Ledger:
    """The ledger once `changes` (all of `diff`'s, or some) are applied. A table's listing is left empty where the
    applier has to fill it in."""
    changes = tuple(changes)
    files, sysctls = dict(facts.ledger.files), dict(facts.ledger.sysctls)
    units, tables = dict(facts.ledger.units), dict(facts.ledger.tables)
    cleanups = dict(facts.ledger.cleanups)
    revoked = facts.ledger.revoked
    touched: set[str] = set()
    removed: set[str] = set()  # peers and interfaces, by their changes' names
    for change in changes:
        name, resource = change.name, doc.resources[change.resource] if change.resource >= 0 else None
        if change.kind == "file":
            _file(files, change, resource)
            touched.update(name for name in facts.ledger.interfaces if brings_up(change.name, (name,)))
        elif change.kind == "sysctl" and resource is None:
            sysctls.pop(name, None)
        elif change.kind == "sysctl" and change.before and change.before["value"] is not None:
            sysctls.setdefault(name, str(change.before["value"]))
        elif change.kind == "unit" and resource is None:
            units.pop(name, None)
            cleanups.pop(name, None)
        elif change.kind == "unit":
            if isinstance(resource, Service) and resource.cleanup:
                cleanups[name] = resource.cleanup
            units.setdefault(name, facts.units[name].file_state if name in facts.units else "")
        elif change.kind == "table" and isinstance(resource, Nftables):
            tables[name] = TableRecord(source=table_source(resource), listing="")
        elif change.kind == "table":
            tables.pop(name, None)
        elif change.kind == "revoked":
            revoked = tuple(dict.fromkeys((*revoked, name)))
        elif change.kind in INTERFACE_KINDS:
            touched.add(name.split(" ")[0])
            if change.kind == "interface" or change.action == "delete":
                removed.add(name)
    interfaces = dict(facts.ledger.interfaces)
    wanted = {want.interface: want for want in doc.interfaces()}
    for name in sorted(touched):
        if name in wanted:
            stays_old = _boot_file_stays_old(name, doc, facts, changes)
            interfaces[name] = _interface_record(wanted[name], facts, stays_old, removed)
        elif name in removed or name not in facts.interfaces:
            interfaces.pop(name, None)
        elif name in interfaces:
            interfaces[name] = replace(interfaces[name], peers=_staying(name, facts, removed))
    handlers = _handlers_left(doc, facts, changes)
    return Ledger(interfaces, files, sysctls, units, tables, cleanups, revoked, handlers)


def _handlers_left(doc: NodeDoc, facts: HostFacts, changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Notified by these changes and not among them: the first transaction of a node installs packages and no more."""
    run = {change.name for change in changes if change.kind == "handler"}
    return tuple(h.name for h in due_handlers(doc, changes, facts.ledger.handlers) if h.name not in run)


def _file(files: dict[str, str], change: Change, resource: object) -> None:
    """What was there before meshctl and has its attributes mended alone (/etc/wireguard) does not become ours."""
    if change.action == "delete":
        files.pop(change.name, None)
        return
    after = change.after or {}
    attributes_alone = change.action == "update" and not {"state", "sha256", "target"} & set(after)
    if isinstance(resource, File) and not attributes_alone:
        files[change.name] = str(after.get("sha256", ""))


def _boot_file_stays_old(interface: str, doc: NodeDoc, facts: HostFacts, changes: tuple[Change, ...]) -> bool:
    """Whether the file by which a boot brings the interface up is another than is wanted, and stays so."""
    written = {change.name for change in changes if change.kind == "file"}
    return any(
        isinstance(resource, File) and resource.path not in written and brings_up(resource.path, (interface,))
        and file_differs(resource, facts) for resource in doc.resources
    )  # fmt: skip


def _interface_record(
    want: WireGuard, facts: HostFacts, boot_file_stays_old: bool, removed: Collection[str]
) -> InterfaceRecord:
    """Changes of one interface are applied together, so all that is wanted of it is ours afterwards; and what is there
    still of a peer of ours, for `meshctl revoke` removes its own and no more."""
    old = facts.ledger.interfaces.get(want.interface)
    live = want.interface in facts.interfaces
    return InterfaceRecord(
        created=not live if old is None else old.created,
        backend=want.backend,
        peers={
            **_staying(want.interface, facts, removed),
            **{p.public_key.text: PeerRecord(p.endpoint, p.keepalive_s) for p in want.peers if p.public_key},
        },
        addresses=want.addresses,
        routes=(*want.routes, DEFAULT) if want.default_route else want.routes,
        peers_of_boot=facts.boot_id if boot_file_stays_old else "",
    )


def _staying(interface: str, facts: HostFacts, removed: Collection[str]) -> dict[str, PeerRecord]:
    """The peers of ours that are there and stay: nobody would remove them if the ledger forgot them."""
    record, live = facts.ledger.interfaces.get(interface), facts.interfaces.get(interface)
    there = {key.text for key in live.peers} if live else set()
    records = record.peers.items() if record else ()
    return {key: peer for key, peer in records if key in there and f"{interface} {key}" not in removed}


def intent(old: Ledger, new: Ledger, handlers: Iterable[str] = ()) -> Ledger:
    """Everything that either of the two owns; values of `old` where both have one. `handlers` are about to run."""
    interfaces = _union(old.interfaces, new.interfaces)
    for name in set(old.interfaces) & set(new.interfaces):
        before, after = old.interfaces[name], new.interfaces[name]
        interfaces[name] = replace(
            before,
            peers=_union(before.peers, after.peers),
            addresses=tuple(dict.fromkeys((*before.addresses, *after.addresses))),
            routes=tuple(dict.fromkeys((*before.routes, *after.routes))),
        )
    # A table that is not loaded yet has no source, so that the next plan loads it.
    unloaded = {name: TableRecord(source="", listing="") for name in new.tables}
    return Ledger(
        interfaces=interfaces,
        files=_union(old.files, new.files),
        sysctls=_union(old.sysctls, new.sysctls),
        units=_union(old.units, new.units),
        tables=_union(old.tables, unloaded),
        cleanups=_union(old.cleanups, new.cleanups),
        revoked=old.revoked,  # a key is revoked once nothing on the host names it any more
        handlers=tuple(dict.fromkeys((*old.handlers, *new.handlers, *handlers))),
    )


def _union(old: Mapping[str, V], new: Mapping[str, V]) -> dict[str, V]:
    return {**new, **old}
