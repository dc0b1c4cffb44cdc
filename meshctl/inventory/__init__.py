"""The inventory: YAML files to a resolved, validated Mesh, and the lock that pins addresses and keys.

inventory = read(find_inventory(None))
inventory.mesh.nodes["web1"]
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from meshctl.errors import Diagnostic, InventoryError, MeshctlError
from meshctl.inventory.files import base_dir_of, find_inventory, load_inventory, lock_path_of
from meshctl.inventory.findings import Findings
from meshctl.inventory.lock import Lock, LockEntry, Revoked, changes, read_lock
from meshctl.inventory.names import names_of
from meshctl.inventory.resolve import resolve
from meshctl.inventory.rules import check_rules
from meshctl.inventory.schema import check, load_schema, schema_names
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Attachment, Mesh, Node

__all__ = [
    "Inventory",
    "Lock",
    "LockEntry",
    "changes",
    "find_inventory",
    "load_schema",
    "read",
    "refreshed",
    "schema_names",
    "write_lock",
]


_Keys = tuple[PublicKey | None, PublicKey | None]  # the one that counts, and the next


@dataclass(frozen=True)
class Inventory:
    """A valid inventory. `lock` is what the lock should say; `lock_changes` why the one on disk does not.

    `removed` are the nodes that the lock on disk still has and the inventory has not: their number and roles decide
    whether an apply is destructive.
    """

    path: Path
    mesh: Mesh
    lock: Lock
    lock_path: Path
    warnings: tuple[Diagnostic, ...] = ()
    disk: Lock | None = None  # the lock on disk; None: there is none

    @property
    def lock_changes(self) -> tuple[str, ...]:
        """Why the lock on disk is stale, one sentence each; () when it is not."""
        return changes(self.disk, self.lock)

    @property
    def removed(self) -> tuple[str, ...]:
        """Nodes of the lock on disk that the inventory has no more, sorted."""
        return tuple(sorted(set(self.disk.nodes) - set(self.mesh.nodes))) if self.disk else ()

    @property
    def missing_keys(self) -> tuple[tuple[str, str], ...]:
        """(node, network) whose public key is not known and may be made, clients included, sorted."""
        return tuple(
            (node.name, a.network)
            for node in self.mesh.nodes.values()
            for a in node.attachments
            if a.public_key is None and not node.revoked
        )

    def with_keys(self, keys: Mapping[tuple[str, str], PublicKey]) -> Inventory:
        """A new Inventory in which each (node, network) has that public key, and no other is pending. KeyError for an
        unknown pair."""
        revoked = {key: name for name, entry in self.lock.revoked.items() for key in entry.keys}
        before = {key: name for name in self.lock.nodes for key in self.lock.old_keys_of(name)}
        for (node, network), key in keys.items():
            why = f"was revoked ({revoked[key]})" if key in revoked else f"was {before.get(key, node)}'s before"
            if key in revoked or before.get(key, node) != node:
                raise MeshctlError(
                    f"its key in {network} {why}", where=node,
                    hint="remove its private key there, /etc/wireguard/INTERFACE.key; it then makes another",
                )  # fmt: skip
        return self._replace_keys({pair: (key, None) for pair, key in keys.items()})

    def without_keys(self, pairs: Collection[tuple[str, str]]) -> Inventory:
        """A new Inventory in which each (node, network) has no key yet. KeyError for an unknown pair."""
        return self._replace_keys(dict.fromkeys(pairs, (None, None)))

    def with_next_keys(self, keys: Mapping[tuple[str, str], PublicKey]) -> Inventory:
        """A new Inventory in which each (node, network) is to switch to that key. KeyError for an unknown pair."""
        entries = {pair: self.lock.entry(*pair) for pair in keys}
        return self._replace_keys({pair: (entries[pair].public_key, key) for pair, key in keys.items()})

    def switched(self, nodes: Collection[str]) -> Inventory:
        """A new Inventory in which these nodes have switched to their next keys, where they have some."""
        return self.with_keys({
            (name, a.network): a.next_public_key
            for name in nodes for a in self.mesh.nodes[name].attachments if a.next_public_key
        })  # fmt: skip

    def revoking(self, names: Collection[str]) -> Inventory:
        """A new Inventory in which these nodes, of it or revoked before, have no key, nor get one."""
        known = [name for name in names if name in self.mesh.nodes]
        bare = self.without_keys([(name, a.network) for name in known for a in self.mesh.nodes[name].attachments])
        revoked = dict(self.lock.revoked)
        for name in names:
            before = revoked[name].keys if name in revoked else ()
            revoked[name] = Revoked(tuple(dict.fromkeys((*before, *self.lock.keys_of(name)))))
        bare = dataclasses.replace(bare, lock=bare.lock.without_keys(known))  # `revoked` has the old ones, too
        return bare._with_revoked(revoked)

    def cleaned_up(self, pairs: Collection[tuple[str, str]]) -> Inventory:
        """A new Inventory: no peer of each (node, network) has an old key of it any more. KeyError for an unknown
        pair."""
        nodes = {name: dict(entries) for name, entries in self.lock.nodes.items()}
        for name, network in pairs:
            nodes[name][network] = dataclasses.replace(nodes[name][network], cleanup_pending=False)
        return dataclasses.replace(self, lock=dataclasses.replace(self.lock, nodes=nodes))

    def readmitting(self, names: Collection[str]) -> Inventory:
        """A new Inventory in which the names of these nodes may have a key again, though none of those before."""
        revoked = {
            name: dataclasses.replace(entry, readmitted=entry.readmitted or name in names)
            for name, entry in self.lock.revoked.items()
        }
        return self._with_revoked(revoked)

    def _with_revoked(self, revoked: Mapping[str, Revoked]) -> Inventory:
        lock = dataclasses.replace(self.lock, revoked=revoked)
        nodes = {
            name: dataclasses.replace(n, revoked=lock.is_revoked(name)) if name in revoked else n
            for name, n in self.mesh.nodes.items()
        }
        return dataclasses.replace(self, mesh=dataclasses.replace(self.mesh, nodes=nodes), lock=lock)

    def _replace_keys(self, keys: Mapping[tuple[str, str], _Keys]) -> Inventory:
        by_node: dict[str, dict[str, _Keys]] = {}
        for (node, network), pair in keys.items():
            if self.mesh.nodes[node].attachment(network) is None:
                raise KeyError((node, network))
            by_node.setdefault(node, {})[network] = pair
        nodes = {name: _node_with_keys(node, by_node.get(name, {})) for name, node in self.mesh.nodes.items()}
        entries = dict(self.lock.nodes)
        for node, of_node in by_node.items():
            entries[node] = {
                network: entry.with_keys(*of_node[network]) if network in of_node else entry
                for network, entry in entries[node].items()
            }
        lock = dataclasses.replace(self.lock, nodes=entries)
        return dataclasses.replace(self, mesh=dataclasses.replace(self.mesh, nodes=nodes), lock=lock)


def _with_keys(attachment: Attachment, keys: _Keys) -> Attachment:
    return dataclasses.replace(attachment, public_key=keys[0], next_public_key=keys[1])


def _node_with_keys(node: Node, keys: Mapping[str, _Keys]) -> Node:
    if not keys:
        return node
    attachments = tuple(_with_keys(a, keys[a.network]) if a.network in keys else a for a in node.attachments)
    return dataclasses.replace(node, attachments=attachments)


def read(path: Path | str, *, lock_path: Path | None = None, today: datetime.date | None = None) -> Inventory:
    """Read, validate and resolve the inventory at `path` (a file or a folder).

    Contacts nobody and writes nothing. `lock_path` is a lock elsewhere than beside the inventory (a lab has its own);
    `today` decides which policies have expired. Raises InventoryError with every finding, warnings included.
    """
    path = Path(path)
    document, problems = load_inventory(path)
    findings = Findings(document)
    findings.add(problems)
    if document.root is None or (problems and not document.data):
        raise InventoryError(findings.sorted())
    names = names_of(document)
    lock_path = lock_path or lock_path_of(path)
    disk, lock_findings = read_lock(lock_path)
    findings.add(lock_findings.items)
    check(document, "inventory", findings)
    if findings.full:
        raise InventoryError(findings.sorted())
    sound = not findings.errors
    base_dir = str(base_dir_of(path))
    resolved = resolve(document, names, disk or Lock(), base_dir, findings, today or datetime.date.today())
    check_rules(resolved, names, findings, whole=sound)
    if findings.errors:
        raise InventoryError(findings.sorted())
    return Inventory(path, resolved.mesh, resolved.lock, lock_path, findings.sorted(), disk)


def write_lock(inventory: Inventory) -> Inventory:
    """Write `inventory.lock` to `inventory.lock_path`, atomically, on top of what others have written since it was
    read; the inventory with the lock as it is then. Raises MeshctlError, also where both changed the same."""
    from meshctl.inventory.lock_write import replace_alone  # here, for every command reads, and few write

    found = [inventory]

    def text() -> str:
        found.append(refreshed(inventory))
        return found[-1].lock.to_yaml()

    replace_alone(inventory.lock_path, text)
    return dataclasses.replace(found[-1], disk=found[-1].lock)


def refreshed(inventory: Inventory) -> Inventory:
    """The inventory with what others have written into the lock since it was read: keys, and who is revoked. Nodes and
    addresses are its own still (`lock` has them all). Raises MeshctlError as `write_lock` does."""
    disk, findings = read_lock(inventory.lock_path)
    if problems := [f for f in findings.sorted() if f.severity == "error"]:
        raise MeshctlError(
            f"the lock cannot be read any more: {problems[0].message}", where=str(inventory.lock_path),
            hint=problems[0].hint or "take it from version control",
        )  # fmt: skip
    if disk is None or disk == inventory.disk:
        return dataclasses.replace(inventory, disk=disk)
    from meshctl.inventory.lock_merge import merge

    try:
        lock = merge(inventory.disk or Lock(), inventory.lock, disk)
    except MeshctlError as error:
        raise MeshctlError(error.message, where=str(inventory.lock_path), hint=error.hint) from None
    nodes = {name: _node_of(node, lock) for name, node in inventory.mesh.nodes.items()}
    return dataclasses.replace(inventory, mesh=dataclasses.replace(inventory.mesh, nodes=nodes), lock=lock, disk=disk)


def _node_of(node: Node, lock: Lock) -> Node:
    entries = ((a, lock.entry(node.name, a.network)) for a in node.attachments)
    attachments = tuple(_with_keys(a, (entry.public_key, entry.next_public_key)) for a, entry in entries)
    return dataclasses.replace(node, attachments=attachments, revoked=lock.is_revoked(node.name))
