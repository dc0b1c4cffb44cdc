"""What must change on a host: its document against its facts, as typed changes in the order of application.

Only what the ledger names is ever removed; endpoints and keepalives belong to the agent and are compared with what
was last applied (docs/architecture.md, "Ownership on a host").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meshctl.core.change import Change
from meshctl.core.diff.host import file_change, package_changes, sysctl_change, table_change, unit_change
from meshctl.core.diff.interface import interface_changes
from meshctl.core.diff.keys import key_changes, refuse_revoked, switch_changes
from meshctl.core.diff.removal import removals
from meshctl.model.facts import HostFacts
from meshctl.model.resources import File, Handler, Nftables, NodeDoc, Package, Service, Sysctl, WireGuard

__all__ = ["diff", "due_handlers"]

# Whose changes are applied after whose; `diff` says why.
_ORDER: tuple[tuple[type, Callable[[int, Any, HostFacts], Iterable[Change]]], ...] = (
    (Package, package_changes),
    (WireGuard, key_changes),
    (Sysctl, sysctl_change),
    (File, file_change),
    (Nftables, table_change),
    (WireGuard, interface_changes),
    (WireGuard, switch_changes),
    (Service, unit_change),
)


def diff(doc: NodeDoc, facts: HostFacts) -> tuple[Change, ...]:
    """Changes in the order in which they are applied: packages, keys, sysctls, files, tables (the firewall stands
    before an interface comes up), interfaces, their next keys, units, removals, handlers. Deterministic; empty when
    all is as wanted.

    Raises RemoteError: of kind key-mismatch when the host's private key is not the one that the lock pins, of kind
    revoked when a peer is wanted whose key the host knows to be revoked.
    """
    refuse_revoked(doc, facts)
    changes = [*_wanted(doc, facts), *removals(doc, facts)]
    due = due_handlers(doc, changes, facts.ledger.handlers)
    return (*changes, *(_handler_change(doc.node, handler) for handler in due))


def _wanted(doc: NodeDoc, facts: HostFacts) -> Iterator[Change]:
    """One pass over the resources for each row of the table; the order inside a kind is the document's."""
    for kind, changes_of in _ORDER:
        for index, resource in enumerate(doc.resources):
            if isinstance(resource, kind):
                yield from changes_of(index, resource, facts)


def due_handlers(doc: NodeDoc, changes: Iterable[Change], pending: Iterable[str]) -> tuple[Handler, ...]:
    """Those that the changes notify, or that an earlier run notified and did not come to. Each runs once, after
    everything else; a unit that this very run starts has the new state already."""
    changes = tuple(changes)
    notified = {name for change in changes if change.resource >= 0 for name in doc.resources[change.resource].notify}
    notified.update(pending)
    started = {c.name for c in changes if c.kind == "unit" and c.after and c.after.get("state") == "started"}
    return tuple(h for h in doc.handlers if h.name in notified and h.service not in started)


def _handler_change(node: str, handler: Handler) -> Change:
    return Change(node, "handler", "run", handler.name, None, {"service": handler.service, "action": handler.action})
