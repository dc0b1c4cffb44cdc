"""From hosts to outcomes: what a run says of each when it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping

from meshctl.deploy import keys, psks
from meshctl.deploy.host import Host
from meshctl.deploy.outcome import (
    CHANGED,
    CONFIRMED,
    UNCHANGED,
    ApplyOutcome,
    FileDiff,
    NodeOutcome,
    PlanOutcome,
    status_of,
)
from meshctl.deploy.rollback import RollbackOutcome
from meshctl.errors import RemoteError
from meshctl.inventory import Inventory

AGAINST_THE_INVENTORY = (
    "the hosts differ from the inventory now: revert the commit in Git, or the next apply brings it back"
)


def plan_outcome(hosts: Mapping[str, Host], inventory: Inventory, diffs: tuple[FileDiff, ...] = ()) -> PlanOutcome:
    """The plan as it stands."""
    return PlanOutcome(
        changes=tuple(change for host in hosts.values() if host.error is None for change in host.changes),
        errors=errors(hosts), diffs=diffs,
        warnings=(*_warnings(hosts, inventory), *keys.pending(inventory.mesh), *psks.another_secret(hosts.values())),
    )  # fmt: skip


def apply_outcome(
    hosts: Mapping[str, Host], inventory: Inventory, diffs: tuple[FileDiff, ...], *, interrupted: bool
) -> ApplyOutcome:
    """The outcome of all hosts, by name."""
    return ApplyOutcome(
        nodes={name: _node_outcome(host, interrupted) for name, host in hosts.items()},
        warnings=_warnings(hosts, inventory), diffs=diffs,
    )  # fmt: skip


def confirm_outcome(hosts: Mapping[str, Host]) -> ApplyOutcome:
    """Of a run that has only confirmed: what was is `confirmed`."""
    return ApplyOutcome({
        name: NodeOutcome(
            status_of(host.error, host.facts is not None) if host.error else CONFIRMED if host.confirmed else UNCHANGED,
            (), host.error, host.duration_s,
        ) for name, host in hosts.items()
    })  # fmt: skip


def rollback_outcome(hosts: Mapping[str, Host], chosen: str, *, interrupted: bool) -> RollbackOutcome:
    """Of a run that went back."""
    warnings = [f"{h.name}: {w}" for h in hosts.values() for w in (*_told(h), *h.warnings)]
    if any(host.gone_back and host.error is None for host in hosts.values()):
        warnings.append(AGAINST_THE_INVENTORY)
    return RollbackOutcome(
        chosen, {name: _node_outcome(host, interrupted) for name, host in hosts.items()},
        {name: host.way for name, host in hosts.items() if host.way}, tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def errors(hosts: Mapping[str, Host]) -> tuple[RemoteError, ...]:
    """What stopped hosts so far, by node."""
    return tuple(host.error for host in hosts.values() if host.error is not None)


def _node_outcome(host: Host, interrupted: bool) -> NodeOutcome:
    applied, error = (*host.kept, *host.applied), host.error
    if error is None and interrupted and host.differs:
        words = "interrupted: not finished" if applied else "interrupted: not applied"
        error = RemoteError(words, node=host.name, kind="interrupted", hint="apply again")
    if error is not None:
        return NodeOutcome(status_of(error, host.facts is not None), applied, error, host.duration_s)
    waiting = bool(host.changes)
    status = CHANGED if applied or host.gone_back else CONFIRMED if host.confirmed else UNCHANGED
    return NodeOutcome(status, applied, None, host.duration_s, waiting)


def _warnings(hosts: Mapping[str, Host], inventory: Inventory) -> tuple[str, ...]:
    """What to tell besides changes: rendering's warnings, the applier's, and nodes that are left out."""
    found = [f"{h.name}: {w}" for h in hosts.values() for w in (*_told(h), *h.doc.warnings, *h.warnings)]
    absent = {name for name, _ in inventory.missing_keys if name not in hosts or hosts[name].error}
    old = keys.overdue(hosts.values(), inventory.mesh, time.time())
    return (*dict.fromkeys(found), *keys.left_out(inventory.mesh, absent), *old)


def _told(host: Host) -> tuple[str, ...]:
    """What the host says of applies that are undone, or may be."""
    found = []
    if host.pending and host.error is None:
        found.append(f"waits {host.pending.window_s:g} s for `meshctl confirm`, and then undoes what was applied")
    elif host.facts and host.facts.pending and host.facts.pending.damaged:
        found.append(f"{host.facts.pending.words}: the node undoes it, at the next apply at the latest")
    elif host.facts and host.facts.pending and not host.confirmed:
        found.append(f"an apply of {host.facts.pending.who} waits for `meshctl confirm`, or `meshctl apply --resume`")
    if any(w.next_public_key and keys.key_of(host, w) == w.next_public_key for w in host.doc.interfaces()):
        found.append(
            "works with its next key, and takes the old one again unless that is confirmed" if host.is_undecided
            else "works with its next key already: apply puts that into the lock"
        )  # fmt: skip
    if host.facts and host.facts.undone:
        found.append(host.facts.undone.words)
    return tuple(found)
