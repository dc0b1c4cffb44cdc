"""One WireGuard interface, field by field, so that nothing but the field that differs is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from meshctl.core.change import Change
from meshctl.core.diff.host import changed
from meshctl.core.diff.keys import KNOWN_AFTER_APPLY
from meshctl.core.diff.peers import peer_changes
from meshctl.core.prefixes import DEFAULT_ROUTES
from meshctl.model.facts import HostFacts, InterfaceFacts
from meshctl.model.ledger import InterfaceRecord, PeerRecord
from meshctl.model.resources import WireGuard

# What stands in the ledger's routes for the policy routing of an exit node's client.
DEFAULT = "default"
DEFAULT_PIECES = ("route", "rule", "suppress")


def interface_changes(index: int, want: WireGuard, facts: HostFacts) -> Iterator[Change]:
    """Nothing is bounced: an existing interface is adopted and converged. In an order that loses least: what adds a
    way comes before what takes one away."""
    live = facts.interfaces.get(want.interface)
    if live is None:
        yield _creation(index, want, facts)
        return
    node = facts.node
    record = facts.ledger.interfaces.get(want.interface)
    if record is None:
        yield Change(node, "interface", "update", want.interface, {"managed": False}, {"managed": True}, index)
    yield from _settings(index, want, live, record, facts)
    addresses = tuple(_owned(index, want, "address", want.addresses, live.addresses, record, node))
    routes = tuple(_owned(index, want, "route", want.routes, live.routes, record, node))
    peers = peer_changes(index, want, live, record and _as_a_boot_left_it(record, live, facts.boot_id), node)
    yield from (change for change in addresses if change.action != "delete")
    yield from (change for change in peers if change.action != "delete")
    yield from (change for change in routes if change.action != "delete")
    yield from default_route_change(index, want, facts)
    yield from (change for change in routes if change.action == "delete")
    yield from (change for change in peers if change.action == "delete")
    yield from (change for change in addresses if change.action == "delete")


def _as_a_boot_left_it(record: InterfaceRecord, live: InterfaceFacts, boot_id: str) -> InterfaceRecord:
    """The record without what no longer holds of its peers where a boot has brought the interface up by an older file
    than was applied last: nobody knows which endpoints were applied, and keepalives are the live ones."""
    if record.peers_of_boot in ("", boot_id):
        return record
    keepalives = {key.text: peer.keepalive_s for key, peer in live.peers.items()}
    return replace(record, peers={
        key: PeerRecord(None, keepalives.get(key, peer.keepalive_s)) for key, peer in record.peers.items()
    })  # fmt: skip


def _creation(index: int, want: WireGuard, facts: HostFacts) -> Change:
    """The config file and its unit bring everything up at once, so there are no changes for its parts."""
    key = want.public_key or facts.key_files.get(want.key_file)
    after = {
        "public_key": key.text if key else KNOWN_AFTER_APPLY,
        "addresses": list(want.addresses),
        "listen_port": want.listen_port,
        "mtu": want.mtu,
        "peers": len(want.peers),
    }
    return Change(facts.node, "interface", "create", want.interface, None, after, index)


def _settings(
    index: int, want: WireGuard, live: InterfaceFacts, record: InterfaceRecord | None, facts: HostFacts
) -> Iterator[Change]:
    name = want.interface
    before: dict[str, Any] = {"up": live.up}
    after: dict[str, Any] = {"up": True}
    if record is not None:
        before["backend"], after["backend"] = record.backend, want.backend
    if not want.default_route and not facts.policy_routing.get(name):
        # With a default route the mark goes with its rules; one that others route by is theirs.
        before["fwmark"], after["fwmark"] = live.fwmark, want.fwmark
    yield from changed(facts.node, "interface", name, before, after, index)
    yield from changed(facts.node, "mtu", name, {"mtu": live.mtu}, {"mtu": want.mtu}, index)
    port = {"listen_port": live.listen_port}
    yield from changed(facts.node, "listen-port", name, port, {"listen_port": want.listen_port}, index)


def _owned(
    index: int, want: WireGuard, kind: str, wanted: tuple[str, ...], live: tuple[str, ...],
    record: InterfaceRecord | None, node: str,
) -> Iterator[Change]:
    """Addresses or routes. What is there without being in the ledger becomes ours, so that it can be removed when it
    is no longer wanted; with an interface that is just adopted that goes without saying."""
    owned: tuple[str, ...] = ()
    if record is not None:
        owned = record.addresses if kind == "address" else record.routes
    for item in wanted:
        name = f"{want.interface} {item}"
        if item not in live:
            yield Change(node, kind, "create", name, None, {kind: item}, index)
        elif record is not None and item not in owned:
            yield Change(node, kind, "update", name, {"managed": False}, {"managed": True}, index)
    for item in owned:
        if item not in wanted and item in live:
            yield Change(node, kind, "delete", f"{want.interface} {item}", {kind: item}, None, index)


def default_families(want: WireGuard) -> tuple[int, ...]:
    """For which IP versions everything goes by this interface."""
    prefixes = {prefix for peer in want.peers for prefix in peer.allowed_ips}
    return tuple(family for family, default in sorted(DEFAULT_ROUTES.items()) if default in prefixes)


def default_pieces(want: WireGuard) -> frozenset[str]:
    """The pieces of policy routing (as `HostFacts.policy_routing` names them) that the document asks for."""
    if not want.default_route:
        return frozenset()
    return frozenset(f"{family} {piece}" for family in default_families(want) for piece in DEFAULT_PIECES)


def default_route_change(index: int, want: WireGuard, facts: HostFacts) -> Iterator[Change]:
    """At most one change named `IFACE default`: the mark, the table and the rules that wg-quick makes."""
    live = facts.interfaces[want.interface]
    record = facts.ledger.interfaces.get(want.interface)
    owned = record is not None and DEFAULT in record.routes
    have = facts.policy_routing.get(want.interface, frozenset())
    name = f"{want.interface} {DEFAULT}"
    if want.default_route:
        before = {"fwmark": live.fwmark, "rules": sorted(have)}
        after = {"fwmark": want.fwmark, "rules": sorted(default_pieces(want) | (frozenset() if owned else have))}
        differs = tuple(changed(facts.node, "route", name, before, after, index))
        yield from differs
        if record is not None and not owned and not differs:
            yield Change(facts.node, "route", "update", name, {"managed": False}, {"managed": True}, index)
    elif owned and have:
        yield Change(
            facts.node, "route", "delete", name, {"fwmark": live.fwmark, "rules": sorted(have)}, None, index
        )
