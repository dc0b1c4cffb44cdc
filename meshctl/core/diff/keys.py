"""Private keys: born on the host, never seen here. Only their public halves are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from meshctl.core.change import Change
from meshctl.errors import RemoteError
from meshctl.model.facts import HostFacts
from meshctl.model.keys import PublicKey
from meshctl.model.resources import NodeDoc, WireGuard

KNOWN_AFTER_APPLY = "(known after apply)"
# What stands behind the interface in the names of changes that are about its next key.
NEXT = "next"


def key_changes(index: int, want: WireGuard, facts: HostFacts) -> Iterator[Change]:
    """The key file's existence and attributes, and the live interface's key. Changes are named by the interface. A host
    that has the pinned key as its next one is about to switch to it (`switch_changes`).

    Raises RemoteError(kind="key-mismatch"): another key than the pinned one would cut the node off from every peer.
    """
    live = facts.interfaces.get(want.interface)
    live_key = live.public_key if live else None
    if want.key_file not in facts.key_files:
        _check_pinned(want, facts, live_key)
        after = {"public_key": live_key.text if live_key else KNOWN_AFTER_APPLY, "adopted": live_key is not None}
        yield Change(facts.node, "key", "create", want.interface, None, after, index)
        return
    file_key = facts.key_files[want.key_file]
    if file_key is None:
        if facts.has_wg:
            raise RemoteError(
                f"{want.key_file} does not hold a WireGuard private key",
                node=facts.node, kind="key-mismatch", step="keys", hint="move it away; apply then makes a new key",
            )
        return  # without `wg` nobody can tell; the package comes first
    if not switches(want, facts):
        _check_pinned(want, facts, file_key)
    before: dict[str, object] = {}
    after = {}
    attributes = facts.files.get(want.key_file)
    if attributes is not None:
        live_fields = {"mode": attributes.mode, "owner": attributes.owner, "group": attributes.group}
        for name, value in {"mode": want.key_mode, "owner": "root", "group": want.key_group}.items():
            if live_fields[name] != value:
                before[name], after[name] = live_fields[name], value
    if live is not None and live_key != file_key and not switches(want, facts):
        before["public_key"] = live_key.text if live_key else None
        after["public_key"] = file_key.text
    if after:
        yield Change(facts.node, "key", "update", want.interface, before, after, index)


def switches(want: WireGuard, facts: HostFacts) -> bool:
    """Whether the host has the pinned key ready, and still works with the one before."""
    if want.public_key is None or facts.key_files.get(want.key_file) == want.public_key:
        return False
    return facts.key_files.get(want.next_key_file) == want.public_key


def switch_changes(index: int, want: WireGuard, facts: HostFacts) -> Iterator[Change]:
    """At most one change, `IFACE next`. It comes after the peers, so that their pre-shared keys are those of the new
    key when it answers: the other way round, the first handshake would fail, and the next try is 5 s later."""
    if switches(want, facts):
        before = {"public_key": str(facts.key_files.get(want.key_file))}
        yield Change(
            facts.node, "key", "update", f"{want.interface} {NEXT}", before, {"public_key": str(want.public_key)}, index
        )


def refuse_revoked(doc: NodeDoc, facts: HostFacts) -> None:
    """Raises RemoteError of kind revoked: an old checkout must not let a stolen node in again."""
    revoked = frozenset(facts.ledger.revoked)
    names = {p.name for w in doc.interfaces() for p in w.peers if p.public_key and p.public_key.text in revoked}
    if revoked and names:
        raise RemoteError(
            f"the inventory wants peers whose keys were revoked: {', '.join(sorted(names))}", node=facts.node,
            kind="revoked", step="keys", hint="is the checkout an old one? The lock of now has no such key",
        )  # fmt: skip


def _check_pinned(want: WireGuard, facts: HostFacts, found: PublicKey | None) -> None:
    """One that has switched to the pending key already is right, and the lock is behind: the run sees to that."""
    if want.public_key is None or (found and found in (want.public_key, want.next_public_key)):
        return
    has = f"the host's {want.interface} has {found}" if found else f"the host has lost {want.key_file}"
    remedy = f"put the old key back, or accept the new one with: meshctl lock --rekey {facts.node}"
    # An interface whose name was changed in the inventory.
    before = next((i.name for i in facts.interfaces.values() if i.public_key == want.public_key), None)
    if before and not found:
        has = f"on the host {before} has it, and there is no {want.key_file}"
        key_file = PurePosixPath(want.key_file).with_name(f"{before}.key")
        remedy = f"if {want.interface} takes the place of {before}: on {facts.node}, cp -p {key_file} {want.key_file}"
    raise RemoteError(
        f"the lock pins the public key {want.public_key}, but {has}",
        node=facts.node, kind="key-mismatch", step="keys", hint=remedy,
    )
