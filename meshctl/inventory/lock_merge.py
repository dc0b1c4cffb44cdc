"""Two runs that change the lock at the same time: what each of them wrote stays. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from meshctl.errors import MeshctlError
from meshctl.inventory.lock import OLD_KEYS_KEPT, Lock, LockEntry, Revoked
from meshctl.model.keys import PublicKey

T = TypeVar("T")


class _ClashError(Exception):
    """Both runs changed the same, and not alike."""


def merge(base: Lock, ours: Lock, theirs: Lock) -> Lock:
    """What `ours` changed in `base`, on top of what `theirs`, the lock as it is now, changed in it since.

    A revocation wins over whatever else was done with the node's keys. Raises MeshctlError for anything else that both
    changed, and not alike.
    """
    revoked = _revoked(base, ours, theirs)
    barred = {name for name, entry in revoked.items() if not entry.readmitted}
    nodes: dict[str, dict[str, LockEntry]] = {}
    clashes = []
    for node in sorted({name for lock in (base, ours, theirs) for name in lock.nodes}):
        was, mine, other = ((lock.without_keys() if node in barred else lock).nodes.get(node, {})
                            for lock in (base, ours, theirs))  # fmt: skip
        for network in sorted({*was, *mine, *other}):
            try:
                entry = _entry(was.get(network), mine.get(network), other.get(network))
            except _ClashError:
                clashes.append(f"{node} in {network}")
            else:
                if entry is not None:
                    nodes.setdefault(node, {})[network] = entry
    merged = Lock(nodes, revoked)
    if clashes := clashes or _collisions(merged):
        raise MeshctlError(f"the lock has changed meanwhile, and so would this run: {', '.join(clashes[:5])}",
                           hint="the lock on disk was left as it is; run this again")  # fmt: skip
    return merged


def _one(was: T, mine: T, other: T) -> T:
    """What remains of two changes. Raises _ClashError."""
    if other in (was, mine):
        return mine
    if mine == was:
        return other
    raise _ClashError


def _entry(was: LockEntry | None, mine: LockEntry | None, other: LockEntry | None) -> LockEntry | None:
    if mine is None or other is None:
        return _one(was, mine, other)
    was = was or LockEntry()
    pairs = tuple(_pair(entry) for entry in (was, mine, other))
    keys = _one(*pairs)
    newer, older = (mine, other) if pairs[0] == pairs[2] else (other, mine)
    old = [key for key in dict.fromkeys((*newer.old_public_keys, *older.old_public_keys)) if key not in keys]
    # What one run has cleaned up is not what another has left behind since.
    pending = (mine.cleanup_pending, other.cleanup_pending)
    uncleaned = _one(was.cleanup_pending, *pending) if len(set(pairs)) == 1 else any(pending)
    addresses = _one(was.addresses, mine.addresses, other.addresses)
    return LockEntry(addresses, *keys, tuple(old[:OLD_KEYS_KEPT]), uncleaned)


def _pair(entry: LockEntry) -> tuple[PublicKey | None, PublicKey | None]:
    # Of one rotation, so never one from here and one from there.
    return entry.public_key, entry.next_public_key


def _revoked(base: Lock, ours: Lock, theirs: Lock) -> dict[str, Revoked]:
    """No key is taken out, and of a node that must have none all keys are in, those from after its revocation too."""
    found = {}
    for name in sorted({*ours.revoked, *theirs.revoked}):
        barred = _one(*(lock.is_revoked(name) for lock in (base, ours, theirs)))
        keys = [key for lock in (theirs, ours) if name in lock.revoked for key in lock.revoked[name].keys]
        if barred:
            keys += [key for lock in (theirs, ours) for key in lock.keys_of(name)]
        found[name] = Revoked(tuple(dict.fromkeys(keys)), readmitted=not barred)
    return found


def _collisions(lock: Lock) -> list[str]:
    """Addresses that two nodes would have, and revoked keys that a node would have."""
    dead = {key for entry in lock.revoked.values() for key in entry.keys}
    valid = {node: {key for entry in networks.values() for key in entry.keys} for node, networks in lock.nodes.items()}
    addresses = Counter(a for networks in lock.nodes.values() for entry in networks.values() for a in entry.addresses)
    return [
        *(address for address, count in sorted(addresses.items()) if count > 1),
        *(node for node, keys in valid.items() if not dead.isdisjoint(keys)),
    ]
