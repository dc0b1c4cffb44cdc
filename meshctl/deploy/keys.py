"""Keys are born on the nodes: which ones are missing, and which public halves were learned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from meshctl import inventory as inventories
from meshctl.core.change import Change
from meshctl.deploy.host import Host
from meshctl.errors import MeshctlError
from meshctl.inventory import Inventory
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Mesh
from meshctl.model.resources import WireGuard
from meshctl.policy import Compiled, compile_mesh

# What must be on a node before it can make a key: wg(8), and the key file itself.
_FIRST = ("package", "key")
DAY_S = 86400
# A message names so many nodes, and counts the others.
NAMED_AT_MOST = 5


def key_of(host: Host, wireguard: WireGuard) -> PublicKey | None:
    """The host's public key for an interface: that of its key file, else the live interface's."""
    if host.facts is None:
        return None
    if wireguard.key_file in host.facts.key_files:
        return host.facts.key_files[wireguard.key_file]
    live = host.facts.interfaces.get(wireguard.interface)
    return live.public_key if live else None


def needs_key(host: Host) -> bool:
    """Whether the host must be asked to make (or adopt) a key before its peers can be told of it."""
    return host.error is None and any(w.public_key is None and key_of(host, w) is None for w in host.doc.interfaces())


def first_changes(host: Host) -> tuple[Change, ...]:
    """The changes of the first transaction of a node without a key."""
    return tuple(change for change in host.changes if change.kind in _FIRST)


def learned(hosts: Iterable[Host]) -> dict[tuple[str, str], PublicKey]:
    """(node, network) -> public key, for those that the lock does not have yet, or has as the next one of a node that
    has switched to it already: the run that had it do so did not come to the lock. Not of one that may still take its
    old key again: peers must have both until that is decided."""
    return {
        (host.name, w.network): key
        for host in hosts
        for w in host.doc.interfaces()
        if (key := key_of(host, w)) is not None
        and (w.public_key is None or (key == w.next_public_key and not host.is_undecided))
    }


def pinned(inventory: Inventory, *, write: bool = True) -> Inventory:
    """The inventory, in the lock (with `write`) before anything depends on it, and with the keys that others have
    pinned since it was read. Raises MeshctlError when more has changed: hosts would be told of a node that was revoked.
    """
    found = inventories.write_lock(inventory) if write and inventory.lock_changes else inventories.refreshed(inventory)
    if changed := inventories.changes(inventory.lock.without_keys(), found.lock.without_keys()):
        raise MeshctlError(
            f"the lock has changed while this ran, which stops here: {'; '.join(changed[:NAMED_AT_MOST])}",
            where=str(inventory.lock_path), hint="run it again: it goes on with what was begun",
        )  # fmt: skip
    return found


def left_out(mesh: Mesh, keyless: Collection[str]) -> tuple[str, ...]:
    """One sentence about the clients and one about the other nodes that their peers do not get yet, and the remedy; and
    one about those that they do not get any more."""
    clients = sorted(name for name in keyless if mesh.nodes[name].client)
    others = sorted(name for name in keyless if not mesh.nodes[name].client)
    found = []
    if clients:
        found.append(f"no key yet, so left out: {named(clients)}; `meshctl client show NAME` makes a client's key")
    if others:
        found.append(f"no key yet, so left out: {named(others)}; a node's key is made by the first apply to it")
    if revoked := sorted(node.name for node in mesh.nodes.values() if node.revoked):
        found.append(f"revoked, so left out: {named(revoked)}; remove what does not come back from the inventory")
    return tuple(found)


def pending(mesh: Mesh) -> tuple[str, ...]:
    """One sentence about the nodes that have not switched to their next keys yet, and the remedy; none without any."""
    names = [n.name for n in mesh.managed() if any(a.next_public_key for a in n.attachments)]
    if not names:
        return ()
    return (f"the rotation of {named(names)} is pending: `meshctl keys rotate --pending` goes on with it",)


def near(compiled: Compiled, node: str, network: str) -> set[str]:
    """The managed nodes that have a node's key as a peer's."""
    managed = {other.name for other in compiled.mesh.managed()}
    links = (link for link in compiled.topology.interfaces(node) if link.network == network)
    return {peer.name for link in links for peer in link.peers if peer.public_key} & managed


def has_one(host: Host, keys: Collection[PublicKey]) -> bool:
    """Whether one of these keys is a peer of the host's, or one by its ledger, as where WireGuard is down."""
    if host.facts is None:
        return False
    live = (key for interface in host.facts.interfaces.values() for key in interface.peers)
    owned = (key for record in host.facts.ledger.interfaces.values() for key in record.peers)
    return not {key.text for key in keys}.isdisjoint((*(key.text for key in live), *owned))


def cleaned_up(hosts: Mapping[str, Host], inventory: Inventory) -> tuple[tuple[str, str], ...]:
    """(node, network) whose old keys none of the node's peers has any more: all of them are among these hosts, and
    nothing brings the keys back there."""
    entries = [
        (name, network, entry) for name, networks in inventory.lock.nodes.items()
        for network, entry in networks.items() if entry.cleanup_pending
    ]  # fmt: skip
    if not entries:
        return ()
    compiled = compile_mesh(inventory.mesh)
    decided = {
        name for name, host in hosts.items()
        if host.error is None and host.pending is None and host.facts is not None and host.facts.pending is None
    }  # fmt: skip
    return tuple(
        (name, network) for name, network, entry in entries
        if (peers := near(compiled, name, network)) <= decided
        and not any(has_one(hosts[peer], entry.old_public_keys) for peer in peers)
    )  # fmt: skip


def age_s(host: Host, wireguard: WireGuard, now: float) -> int | None:
    """How old the interface's key is, since it was made or adopted; None where that is not known. `now`: Unix time."""
    made = host.facts.key_times.get(wireguard.key_file) if host.facts else None
    return None if made is None else max(0, int(now - made))


def is_due(mesh: Mesh, node: str, age: int | None) -> bool:
    """Whether a key of that age, in seconds, is older than the node's `rotate_every`."""
    limit_s = mesh.nodes[node].rotate_every_s
    return age is not None and limit_s is not None and age > limit_s


def overdue(hosts: Iterable[Host], mesh: Mesh, now: float) -> tuple[str, ...]:
    """One sentence about the nodes whose keys are older than the inventory wants, and the remedy; none without any."""
    ages = {host.name: max((age_s(host, w, now) or 0 for w in host.doc.interfaces()), default=0) for host in hosts}
    old = [name for name, age in sorted(ages.items()) if is_due(mesh, name, age)]
    if not old:
        return ()
    words = named([f"{name} ({ages[name] // DAY_S} days)" for name in old])
    return (f"keys older than `rotate_every`: {words}; `meshctl keys rotate {' '.join(old)}`",)


def named(names: Sequence[str]) -> str:
    """A list of nodes for people, never long."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
