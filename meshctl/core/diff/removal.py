"""What the ledger says meshctl made and the document no longer names. Private keys stay: they cannot be made again,
and a node that comes back into the network keeps the identity that its lock pins."""

from __future__ import annotations

from collections.abc import Iterator

from meshctl.core.change import Change
from meshctl.core.diff.host import BOOT_STATES, is_active, is_enabled
from meshctl.core.diff.peers import removed_peers
from meshctl.model.facts import HostFacts
from meshctl.model.resources import File, Nftables, NodeDoc, Service, Sysctl


def removals(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    """Units first (they stop what they started), then interfaces, tables, sysctls, and files, deepest first."""
    yield from _units(doc, facts)
    yield from _interfaces(doc, facts)
    yield from _tables(doc, facts)
    yield from _sysctls(doc, facts)
    yield from _files(doc, facts)


def wg_quick_interface(unit: str) -> str | None:
    """`wg0` of `wg-quick@wg0` or `wg-quick@wg0.service`, None for any other unit."""
    head, at, instance = unit.partition("@")
    if head != "wg-quick" or not at:
        return None
    return instance[: -len(".service")] if instance.endswith(".service") else instance


def _units(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    wanted = {r.name for r in doc.resources if isinstance(r, Service)}
    kept = {want.interface for want in doc.interfaces()}
    for name in sorted(set(facts.ledger.units) - wanted):
        live = facts.units.get(name)
        if live is None or live.load == "not-found":
            continue
        was_enabled = facts.ledger.units[name] in BOOT_STATES
        if was_enabled:
            if not is_enabled(live):
                yield Change(facts.node, "unit", "update", name, {"enabled": False}, {"enabled": True})
            continue
        before: dict[str, object] = {}
        if is_enabled(live, wanted=False):
            before["enabled"] = True
        # An interface that is still wanted outlives the unit that started it (another backend takes over).
        if is_active(live) and wg_quick_interface(name) not in kept:
            before["state"] = "started"
        if before or name in facts.ledger.cleanups:
            yield Change(facts.node, "unit", "delete", name, before, None)


def _interfaces(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    wanted = {want.interface for want in doc.interfaces()}
    for name in sorted(set(facts.ledger.interfaces) - wanted):
        record = facts.ledger.interfaces[name]
        live = facts.interfaces.get(name)
        if live is None:
            continue
        if record.created:
            before = {"addresses": list(live.addresses), "peers": len(live.peers)}
            yield Change(facts.node, "interface", "delete", name, before, None)
            continue
        yield from removed_peers(-1, name, sorted(record.peers), live, facts.node)
        yield Change(facts.node, "interface", "update", name, {"managed": True}, {"managed": False})


def _tables(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    wanted = {f"{r.family} {r.table}" for r in doc.resources if isinstance(r, Nftables)}
    for name in sorted(set(facts.ledger.tables) - wanted):
        if name in facts.tables:
            source = facts.ledger.tables[name].source
            yield Change(facts.node, "table", "delete", name, {"source": source} if source else {"managed": True}, None)


def _sysctls(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    wanted = {r.name for r in doc.resources if isinstance(r, Sysctl)}
    for name in sorted(set(facts.ledger.sysctls) - wanted):
        value, live = facts.ledger.sysctls[name], facts.sysctls.get(name)
        if live is not None and live != value:
            yield Change(facts.node, "sysctl", "update", name, {"value": live}, {"value": value})


def _files(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    wanted = {r.path for r in doc.resources if isinstance(r, File)}
    for path in sorted(set(facts.ledger.files) - wanted, reverse=True):
        if path in facts.files:
            yield Change(facts.node, "file", "delete", path, {"state": facts.files[path].kind}, None)
