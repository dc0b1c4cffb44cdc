"""The changes that take other changes back, as a plan shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.core.change import Change

_CREATE, _UPDATE, _DELETE = "create", "update", "delete"
# Packages and keys stay when what they were for goes; a handler is run, and leaves nothing of its own.
_STAYS = frozenset({"package", "key", "handler"})


def taken_back(done: Iterable[Change]) -> tuple[Change, ...]:
    """From the state that these changes have made to the one before them, the last one first; what came to the same in
    the end is left out. `done` is in the order in which it was done."""
    found: dict[tuple[str, str], Change] = {}
    for change in reversed([change for change in done if change.kind not in _STAYS]):
        back = Change(change.node, change.kind, "", change.name, change.after, change.before)
        at = (change.kind, change.name)
        found[at] = _then(found[at], back) if at in found else back
    return tuple(_named(change) for change in found.values() if change.before != change.after)


def _then(first: Change, second: Change) -> Change:
    """Both as one. Each says of an update what differs alone; a thing that is not there has no fields."""
    before, after = first.before, second.after
    if first.before is not None and first.after is not None and second.before is not None:
        before = {**second.before, **first.before}
    if first.after is not None and second.before is not None and second.after is not None:
        after = {**first.after, **second.after}
    return Change(first.node, first.kind, "", first.name, before, after)


def _named(change: Change) -> Change:
    action = _CREATE if change.before is None else _DELETE if change.after is None else _UPDATE
    return Change(change.node, change.kind, action, change.name, change.before, change.after)
