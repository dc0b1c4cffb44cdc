"""Packages, files, sysctls, units and tables: one function each, from a resource and the facts to its changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from meshctl.core.change import Change
from meshctl.core.sysctl import normal_value
from meshctl.model.facts import FileFacts, HostFacts, UnitFacts
from meshctl.model.places import is_lost_zipapp
from meshctl.model.resources import File, Nftables, Package, Service, Sysctl

# systemd's ActiveState of a unit that runs or is about to.
ACTIVE_STATES = frozenset({"active", "activating", "reloading"})
# UnitFileState of units that start at boot. `static` and its like cannot be enabled: something else pulls them in.
BOOT_STATES = frozenset({"enabled"})
MASKED = "masked"
NOT_ENABLEABLE = frozenset({"static", "alias", "indirect", "generated"})


def package_changes(index: int, want: Package, facts: HostFacts) -> Iterator[Change]:
    """One change for each package that is missing, or still there although `absent` is asked."""
    for name in want.names:
        installed = name in facts.packages
        if want.state == "present" and not installed:
            yield Change(facts.node, "package", "create", name, None, {"state": "present"}, index)
        elif want.state == "absent" and installed:
            yield Change(facts.node, "package", "delete", name, {"version": facts.packages[name]}, None, index)


def sysctl_change(index: int, want: Sysctl, facts: HostFacts) -> Iterator[Change]:
    """At most one change, of the live value."""
    live = facts.sysctls.get(want.name)
    if live != normal_value(want.value):
        yield Change(facts.node, "sysctl", "update", want.name, {"value": live}, {"value": want.value}, index)


def file_change(index: int, want: File, facts: HostFacts) -> Iterator[Change]:
    """At most one change; its maps hold `state`, `sha256`, `target`, `mode`, `owner`, `group`."""
    found = facts.files.get(want.path)
    if want.state == "absent":
        if found is not None:
            yield Change(facts.node, "file", "delete", want.path, {"state": found.kind}, None, index)
        return
    after = _file_fields(want)
    if found is None:
        yield Change(facts.node, "file", "create", want.path, None, after, index)
        return
    yield from changed(facts.node, "file", want.path, _live_fields(found, after, facts), after, index)


def file_differs(want: File, facts: HostFacts) -> bool:
    """Whether there is such a change to be made."""
    return any(file_change(-1, want, facts))


def _file_fields(want: File) -> dict[str, Any]:
    if want.state == "link":
        return {"state": "link", "target": want.target}
    fields = {"state": want.state, "mode": want.mode, "owner": want.owner, "group": want.group}
    if want.state == "file":
        fields["sha256"] = hashlib.sha256(want.content or b"").hexdigest()
    return fields


def _live_fields(found: FileFacts, wanted: Mapping[str, Any], facts: HostFacts) -> dict[str, Any]:
    """The fields of `wanted` as they are. A link to a zipapp that is gone points to nothing: with the transaction that
    makes the link anew the zipapp comes back."""
    live = {
        "state": found.kind,
        "mode": found.mode,
        "owner": found.owner,
        "group": found.group,
        "sha256": found.sha256,
        "target": None if is_lost_zipapp(found.target, facts.agents) else found.target,
    }
    return {name: live[name] for name in wanted}


def unit_change(index: int, want: Service, facts: HostFacts) -> Iterator[Change]:
    """At most one change; its maps hold `state` (started, stopped) and `enabled`."""
    live = facts.units.get(want.name)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if want.state is not None:
        before["state"] = "started" if _runs(want, live, facts) else "stopped"
        after["state"] = want.state
    if want.enabled is not None:
        masked = want.enabled and live is not None and live.file_state == MASKED
        before["enabled"] = MASKED if masked else is_enabled(live, want.enabled)
        after["enabled"] = want.enabled
    yield from changed(facts.node, "unit", want.name, before, after, index)


def _runs(want: Service, live: UnitFacts | None, facts: HostFacts) -> bool:
    if want.state == "started" and want.satisfied_by_interface:
        return want.satisfied_by_interface in facts.interfaces
    return is_active(live)


def is_active(live: UnitFacts | None) -> bool:
    """Whether the unit runs."""
    return live is not None and live.active in ACTIVE_STATES


def is_enabled(live: UnitFacts | None, wanted: bool = True) -> bool:
    """Whether the unit starts at boot; one that cannot be enabled or disabled is always as `wanted`."""
    if live is None:
        return False
    return wanted if live.file_state in NOT_ENABLEABLE else live.file_state in BOOT_STATES


def table_change(index: int, want: Nftables, facts: HostFacts) -> Iterator[Change]:
    """At most one change: the text is new, the table is gone, or somebody edited it since meshctl loaded it."""
    name = f"{want.family} {want.table}"
    source = table_source(want)
    record = facts.ledger.tables.get(name)
    if want.text is None:
        if record is None:
            yield Change(facts.node, "table", "update", name, {"managed": False}, {"managed": True}, index)
        return
    listing = facts.tables.get(name)
    if listing is None:
        yield Change(facts.node, "table", "create", name, None, {"source": source}, index)
    elif record is None or record.source != source:
        before = {"source": record.source if record else None}
        yield Change(facts.node, "table", "update", name, before, {"source": source}, index)
    elif record.listing != listing:
        yield Change(facts.node, "table", "update", name, {"listing": listing}, {"listing": record.listing}, index)


def table_source(want: Nftables) -> str:
    """What the ledger keeps of a table's rendered text; nothing where the text is not ours."""
    return "" if want.text is None else hashlib.sha256(want.text.encode()).hexdigest()


def changed(
    node: str, kind: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any], index: int
) -> Iterator[Change]:
    """An update with just the fields that differ; none when none does. Both maps have the same keys."""
    differing = [field for field in after if before[field] != after[field]]
    if differing:
        yield Change(
            node, kind, "update", name, {f: before[f] for f in differing}, {f: after[f] for f in differing}, index
        )
