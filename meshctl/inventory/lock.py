"""inventory.lock.yml: addresses and public keys, pinned and committed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshctl.inventory.addresses import Address, Malformed, parse_address
from meshctl.inventory.document import Document
from meshctl.inventory.files import load_document
from meshctl.inventory.findings import Findings
from meshctl.inventory.schema import check
from meshctl.model.keys import PublicKey

LOCK_VERSION = 1
_HEADER = """\
# Written by `meshctl lock`; commit it, do not edit it.
# Addresses stay with their nodes, and a node whose key differs from the one here is refused.
"""
# So many keys of before are kept. What a node itself has left of older ones is gone: its snapshots are of the last five
# applies. And its peers had to be reached for each rotation since.
OLD_KEYS_KEPT = 5
_EMPTY_HINT = "take it from version control; without it, `meshctl lock` makes a new one, with the addresses drawn anew"


@dataclass(frozen=True)
class LockEntry:
    """One interface. `addresses` as in model.mesh.Attachment; no key until the node has made one. `next_public_key` is
    there while a rotation is pending: the node has made it, and has not switched to it. `old_public_keys`, the newest
    first, are those that it had before; `cleanup_pending` as long as not all of its peers are known to have lost them.
    """

    addresses: tuple[str, ...] = ()
    public_key: PublicKey | None = None
    next_public_key: PublicKey | None = None
    old_public_keys: tuple[PublicKey, ...] = ()
    cleanup_pending: bool = False

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The keys that are valid."""
        return tuple(key for key in (self.public_key, self.next_public_key) if key)

    def with_keys(self, key: PublicKey | None, following: PublicKey | None) -> LockEntry:
        """The entry with these keys. What it had is old then: peers may have it, and so may a thief."""
        gone = tuple(old for old in self.keys if old not in (key, following))
        kept = tuple(old for old in self.old_public_keys if old not in (key, following))
        return replace(
            self, public_key=key, next_public_key=following, old_public_keys=(*gone, *kept)[:OLD_KEYS_KEPT],
            cleanup_pending=bool(gone or (kept and self.cleanup_pending)),
        )  # fmt: skip


@dataclass(frozen=True)
class Revoked:
    """A node that was revoked: the keys that it had. Its name has no key until it is `readmitted` with a new one."""

    keys: tuple[PublicKey, ...] = ()
    readmitted: bool = False


_NO_ENTRY = LockEntry()
_KEYS = ("public_key", "next_public_key")
_NO_NETWORKS: Mapping[str, LockEntry] = {}


@dataclass(frozen=True)
class Lock:
    """Node -> network -> entry; and by name what was revoked, for good."""

    nodes: Mapping[str, Mapping[str, LockEntry]] = field(default_factory=dict)
    revoked: Mapping[str, Revoked] = field(default_factory=dict)

    def is_revoked(self, node: str) -> bool:
        """Whether the node must not have a key."""
        return node in self.revoked and not self.revoked[node].readmitted

    def entry(self, node: str, network: str) -> LockEntry:
        """The entry, empty when there is none."""
        return self.nodes.get(node, _NO_NETWORKS).get(network, _NO_ENTRY)

    def keys_of(self, node: str) -> tuple[PublicKey, ...]:
        """All keys that the node has, is to have, and had."""
        entries = self.nodes.get(node, _NO_NETWORKS).values()
        return tuple(key for e in entries for key in (*e.keys, *e.old_public_keys))

    def old_keys_of(self, node: str) -> tuple[PublicKey, ...]:
        """The keys that the node had before."""
        return tuple(key for e in self.nodes.get(node, _NO_NETWORKS).values() for key in e.old_public_keys)

    def addresses(self, node: str, network: str) -> tuple[Address, ...]:
        """The pinned addresses, parsed; `read_lock` has checked them."""
        return tuple(parse_address(text) for text in self.entry(node, network).addresses)

    def without_keys(self, of: Collection[str] | None = None) -> Lock:
        """Addresses, and who was revoked. With `of` the others keep their keys."""
        nodes = {
            name: {n: LockEntry(e.addresses) for n, e in entries.items()} if of is None or name in of else entries
            for name, entries in self.nodes.items()
        }
        return Lock(nodes, self.revoked)

    def to_yaml(self) -> str:
        """Canonical text: sorted, one line an interface, so that a diff shows just what changed."""
        lines = [_HEADER, f"version: {LOCK_VERSION}\n"]
        lines.append("nodes:\n" if self.nodes else "nodes: {}\n")
        for node, networks in sorted(self.nodes.items()):
            lines.append(f'  "{node}":\n')
            for network, entry in sorted(networks.items()):
                addresses = ", ".join(f'"{address}"' for address in entry.addresses)
                key = f', public_key: "{entry.public_key}"' if entry.public_key else ""
                key += f', next_public_key: "{entry.next_public_key}"' if entry.next_public_key else ""
                old = ", ".join(f'"{key}"' for key in entry.old_public_keys)
                key += f", old_public_keys: [{old}]" if old else ""
                key += ", cleanup_pending: true" if entry.cleanup_pending else ""
                lines.append(f'    "{network}": {{addresses: [{addresses}]{key}}}\n')
        if self.revoked:
            lines.append("revoked:\n")
        for node, revoked in sorted(self.revoked.items()):
            keys = ", ".join(f'"{key}"' for key in revoked.keys)
            lines.append(f'  "{node}": {{keys: [{keys}]{", readmitted: true" if revoked.readmitted else ""}}}\n')
        return "".join(lines)


def read_lock(path: Path) -> tuple[Lock | None, Findings]:
    """The lock on disk, or None when there is none, and what is wrong with it."""
    if not path.exists():
        return None, Findings(Document(None, str(path)))
    document, problems = load_document(path)
    findings = Findings(document)
    findings.add([replace(p, hint=_EMPTY_HINT) if p.code == "empty" else p for p in problems])
    if not problems:
        check(document, "lock", findings)
    if findings.errors:
        return Lock(), findings
    owners: dict[str, tuple[str, str]] = {}
    nodes: dict[str, dict[str, LockEntry]] = {}
    for node, networks in document.data["nodes"].items():
        nodes[node] = {network: _entry(node, network, raw, owners, findings) for network, raw in networks.items()}
    revoked = {
        node: Revoked(_revoked_keys(node, raw["keys"], owners, findings), raw.get("readmitted", False))
        for node, raw in document.data.get("revoked", {}).items()
    }
    return Lock(nodes, revoked), findings


def _revoked_keys(
    node: str, texts: list[str], owners: Mapping[str, tuple[str, str]], findings: Findings
) -> tuple[PublicKey, ...]:
    keys = []
    for index, text in enumerate(texts):
        path = ("revoked", node, "keys", index)
        if text in owners:
            findings.error(
                "revoked-key", path, f"{owners[text][0]} has a key that was revoked ({node})",
                f"the lock was put together from two: run `meshctl revoke {node}` on the one that has it revoked",
            )  # fmt: skip
        try:
            keys.append(PublicKey(text))
        except ValueError:
            findings.error("bad-key", path, f"`{text}` is not a WireGuard key", "take the lock from version control")
    return tuple(keys)


def _entry(
    node: str, network: str, raw: dict[str, object], owners: dict[str, tuple[str, str]], findings: Findings
) -> LockEntry:
    path = ("nodes", node, network)
    addresses = raw["addresses"]
    assert isinstance(addresses, list)  # noqa: S101 - the schema says so
    for index, text in enumerate(addresses):
        try:
            parse_address(text)
        except Malformed as error:
            findings.error("bad-address", (*path, "addresses", index), error.message, error.hint)
    keys = {name: _key((*path, name), str(raw[name]), owners, findings) for name in _KEYS if name in raw}
    before = raw.get("old_public_keys", [])
    assert isinstance(before, list)  # noqa: S101 - the schema says so
    found = (_key((*path, "old_public_keys", i), text, owners, findings) for i, text in enumerate(before))
    old = tuple(key for key in found if key)
    return LockEntry(tuple(addresses), **keys, old_public_keys=old, cleanup_pending=bool(raw.get("cleanup_pending")))


def _key(
    path: tuple[str | int, ...], text: str, owners: dict[str, tuple[str, str]], findings: Findings
) -> PublicKey | None:
    key, (node, network) = None, (str(path[1]), str(path[2]))
    try:
        key = PublicKey(text)
    except ValueError:
        findings.error("bad-key", path, f"`{text}` is not a WireGuard key", "run meshctl lock again")
    owner = owners.setdefault(text, (node, network))
    if owner[0] != node:
        findings.error(
            "duplicate-public-key",
            path,
            f"{node} and {owner[0]} have the same public key (network {network}, {owner[1]})",
            "was one cloned from the other? Remove the key of one here and on that host, then run meshctl lock",
        )
    return key


def changes(old: Lock | None, new: Lock) -> tuple[str, ...]:
    """Why the lock on disk is stale, one sentence each; () when it is not. Missing keys do not count."""
    if old is None:
        return ("there is no lock yet",)
    found: list[str] = []
    for node in sorted({*old.nodes, *new.nodes}):
        before, after = old.nodes.get(node, {}), new.nodes.get(node, {})
        if not after:
            found.append(f"{node}: not in the inventory any more")
            continue
        if not before:
            found.append(f"{node}: new")
            continue
        for network in sorted({*before, *after}):
            if network not in after:
                found.append(f"{node}: not in network {network} any more")
            elif network not in before:
                found.append(f"{node}: new in network {network}")
            else:
                found.extend(_entry_changes(f"{node}: ", network, before[network], after[network]))
    for node in sorted({*old.revoked, *new.revoked}):
        if old.revoked.get(node) != new.revoked.get(node):
            found.append(f"{node}: {'revoked' if new.is_revoked(node) else 'readmitted'}")
    return tuple(found)


def _entry_changes(prefix: str, network: str, before: LockEntry, after: LockEntry) -> list[str]:
    found = []
    if before.addresses != after.addresses:
        was, now = ", ".join(before.addresses) or "none", ", ".join(after.addresses)
        found.append(f"{prefix}address in {network} {was} → {now}")
    if before.public_key != after.public_key:
        what = "removed" if after.public_key is None else "recorded" if before.public_key is None else "changed"
        found.append(f"{prefix}public key in {network} {what}")
    if before.next_public_key != after.next_public_key:
        found.append(f"{prefix}next public key in {network} {'recorded' if after.next_public_key else 'removed'}")
    if not found and before != after:
        found.append(f"{prefix}old public keys in {network} {'recorded' if after.cleanup_pending else 'cleaned up'}")
    return found
