"""Cutting off a node that is in wrong hands: from all others, at once, and without asking it (docs/keys.md).

No wave, no check, no way back: a host that is left without the thief is right whatever else is wrong with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshctl import inventory as inventories
from meshctl.core.change import Change
from meshctl.core.diff import diff
from meshctl.core.diff.peers import removed_peers
from meshctl.core.psk import PskRing
from meshctl.deploy.crew import Crew
from meshctl.deploy.door import Door
from meshctl.deploy.hints import hint
from meshctl.deploy.host import Host, Terms
from meshctl.deploy.options import RunOptions
from meshctl.deploy.progress import Progress, Silent
from meshctl.errors import RemoteError, UsageError
from meshctl.inventory import Inventory
from meshctl.model.places import SEARCH_PATH
from meshctl.render import zipapp

# What names peers for the next boot, and for the agent.
_FOLDERS = ("/etc/wireguard/", "/etc/systemd/network/", "/etc/meshctl/agent.json")
_CUT = """PATH={path}; export PATH
for i in $(wg show interfaces 2>/dev/null); do wg set "$i" {words} || exit; done"""


@dataclass(frozen=True)
class Revocation:
    """What was revoked, names and their keys, and by node whether that is done there: None, or what stopped it."""

    revoked: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, RemoteError | None]

    @property
    def ok(self) -> bool:
        """Whether it is done everywhere."""
        return all(error is None for error in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """The shape of schemas/revoke.schema.json."""
        return {
            "revoked": {name: list(keys) for name, keys in self.revoked.items()},
            "nodes": {
                name: {"done": e is None, "error": e and {"kind": e.kind, "message": e.message, "hint": e.hint}}
                for name, e in self.nodes.items()
            },
        }


def revoke(
    inventory: Inventory, ring: PskRing | None, options: RunOptions, names: Sequence[str],
    door: Door | None = None, progress: Progress | None = None,
) -> Revocation:  # fmt: skip
    """Remove these nodes from all others, in the lock first. May be run again until all have heard of it.

    Raises UsageError for a name that neither the inventory nor the lock knows, and MeshctlError.
    """
    for name in names:
        if name not in inventory.mesh.nodes and name not in inventory.lock.revoked:
            raise UsageError(f"{name} is not in the inventory", hint="give the names of nodes or stock clients")
    inventory = inventory.revoking(names)
    if inventory.lock_changes:
        inventories.write_lock(inventory)
    revoked = {name: tuple(map(str, inventory.lock.revoked[name].keys)) for name in names}
    keys = {key: name for name, of_name in revoked.items() for key in of_name}
    # Anchors first: who is cut off from them is found by nobody.
    others = sorted(inventory.mesh.managed(), key=lambda node: (not node.is_anchor, node.name))
    names_of_others = [node.name for node in others]
    agent = zipapp.build()
    with Crew(inventory, ring, names_of_others, options, door, progress or Silent()) as crew:
        if keys:
            crew.each("revoking", names_of_others, lambda host: _cut(host, keys, agent, crew.terms()), finish=True)
        return Revocation(revoked, {name: host.error for name, host in crew.hosts.items()})


def _cut(host: Host, keys: Mapping[str, str], agent: zipapp.Zipapp, terms: Terms) -> None:
    """Out of WireGuard first, by the shortest way; then out of what the next boot reads, and into the host's ledger, so
    that no old checkout brings it back. Raises RemoteError."""
    host.transport = host.connect()
    words = " ".join(f"peer {shlex.quote(key)} remove" for key in keys)
    completed = host.transport.run(_CUT.format(path=SEARCH_PATH, words=words))
    if completed.status != 0:
        raise RemoteError(
            f"removing the peer ended with status {completed.status}: {completed.last_line()}", node=host.name,
            kind="command", step="revoke", hint=hint("command", host.name),
        )  # fmt: skip
    host.read(compare=False)
    if changes := _changes(host, keys):
        host.converge(changes, agent, terms.preparing())


def _changes(host: Host, keys: Mapping[str, str]) -> tuple[Change, ...]:
    if host.facts is None:
        raise RuntimeError("the facts come first")
    known = frozenset(host.facts.ledger.revoked)
    host.doc = host.doc.without_keyless_peers()
    records = [
        Change(host.name, "revoked", "create", key, None, {"node": name}) for key, name in keys.items()
        if key not in known
    ]  # fmt: skip
    # An apply at the same time may have put it back.
    peers = [c for i, live in host.facts.interfaces.items() for c in removed_peers(-1, i, list(keys), live, host.name)]
    files = [c for c in _wanted(host, keys) if c.kind == "file" and c.name.startswith(_FOLDERS)]
    return (*peers, *files, *records) if peers or records else ()


def _wanted(host: Host, keys: Collection[str]) -> tuple[Change, ...]:
    """What an apply would change. Nobody is refused because the ledger knows of the keys already."""
    if host.facts is None:
        return ()
    others = tuple(key for key in host.facts.ledger.revoked if key not in keys)
    return diff(host.doc, replace(host.facts, ledger=replace(host.facts.ledger, revoked=others)))
