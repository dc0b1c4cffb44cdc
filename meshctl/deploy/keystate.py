"""`meshctl keys status`: how old keys are, and how far their rotation is, from the lock and the hosts' facts."""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshctl.deploy import keys
from meshctl.deploy.crew import Crew
from meshctl.deploy.door import Door
from meshctl.deploy.host import Host
from meshctl.deploy.options import RunOptions
from meshctl.deploy.progress import Progress, Silent
from meshctl.errors import RemoteError, UsageError
from meshctl.inventory import Inventory, Lock
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Attachment
from meshctl.policy import Compiled, compile_mesh

# Of one interface. `switched`: the node works with the next key, and the lock does not say so yet; `unconfirmed`: so it
# does, and may still take its old key again. `cleanup`: others have an old key of it still.
CURRENT, PENDING, SWITCHED, UNCONFIRMED, CLEANUP, NONE, UNKNOWN = STATES = (
    "current", "pending", "switched", "unconfirmed", "cleanup", "none", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class KeyState:
    """One interface's. While its rotation is pending, `prepared` of its `peers` have the next key for good. It waits
    for the others, or for itself where it cannot be read, has lost the key or may take the old one again. A clean-up
    waits for those that have an old key still, or that it was not known to have reached and that cannot be read."""

    node: str
    network: str
    interface: str
    public_key: str | None
    next_public_key: str | None
    state: str
    made: str | None  # RFC 3339, UTC
    age_s: int | None
    is_due: bool
    peers: int = 0
    prepared: int = 0
    waits_for: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One entry of the document's `keys`."""
        return {**vars(self), "waits_for": list(self.waits_for)}


@dataclass(frozen=True)
class KeyStatus:
    """All interfaces that were asked for, by node and network, and the hosts that could not be read."""

    keys: tuple[KeyState, ...]
    errors: tuple[RemoteError, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all is known."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """The shape of schemas/keys-status.schema.json."""
        return {"keys": [key.to_json() for key in self.keys], "unreachable": [e.to_json() for e in self.errors]}


def key_status(
    inventory: Inventory, options: RunOptions, names: Sequence[str] = (), door: Door | None = None,
    progress: Progress | None = None,
) -> KeyStatus:  # fmt: skip
    """The state of these managed nodes' keys, or of all. Their peers are read, too, where a rotation or its clean-up is
    pending.

    Raises UsageError.
    """
    managed = {node.name: node for node in inventory.mesh.managed()}
    for name in names:
        if name not in managed:
            raise UsageError(f"{name} is not a node that meshctl contacts")
    asked = sorted(set(names) or managed)
    compiled = compile_mesh(inventory.mesh)
    peers = {
        (name, a.network): sorted(keys.near(compiled, name, a.network))
        for name in asked for a in managed[name].attachments
        if a.next_public_key or inventory.lock.entry(name, a.network).cleanup_pending
    }  # fmt: skip
    with Crew(inventory, None, {*asked, *(p for near in peers.values() for p in near)}, options, door,
              progress or Silent()) as crew:  # fmt: skip
        crew.read()
        now = time.time()
        states = tuple(
            _state(crew.hosts, compiled, name, a, peers.get((name, a.network), []), inventory.lock, now)
            for name in asked for a in managed[name].attachments
        )  # fmt: skip
        errors = (host.error for host in crew.hosts.values())
        return KeyStatus(states, tuple(error for error in errors if error is not None))


def _state(
    hosts: Mapping[str, Host], compiled: Compiled, name: str, attached: Attachment, peers: list[str], lock: Lock,
    now: float,
) -> KeyState:  # fmt: skip
    host, following = hosts[name], attached.next_public_key
    wireguard = next(w for w in host.doc.interfaces() if w.network == attached.network)
    age_s = keys.age_s(host, wireguard, now)
    state = PENDING if following else CURRENT if attached.public_key else NONE
    waits_for: list[str] = []
    if host.facts is None:
        state, waits_for = (PENDING if following else UNKNOWN), [name]
    elif following and keys.key_of(host, wireguard) == following:
        state, waits_for = (UNCONFIRMED, [name]) if host.is_undecided else (SWITCHED, [])
    elif following and host.facts.key_files.get(wireguard.next_key_file) != following:
        waits_for = [name]
    if not following:
        waits_for, peers = _behind(hosts, name, peers, lock.entry(name, attached.network).old_public_keys), []
        state = CLEANUP if waits_for and state == CURRENT else state
    prepared = [peer for peer in peers if _has(hosts[peer], compiled, attached)]
    waits_for += [peer for peer in peers if peer not in prepared]
    return KeyState(
        name, attached.network, attached.interface, _text(attached.public_key), _text(following), state,
        None if age_s is None else _rfc3339(now - age_s), age_s, keys.is_due(compiled.mesh, name, age_s),
        len(peers), len(prepared), tuple(waits_for) if state in (PENDING, UNCONFIRMED, CLEANUP) else (),
    )  # fmt: skip


def _behind(hosts: Mapping[str, Host], name: str, peers: Iterable[str], old: Collection[PublicKey]) -> list[str]:
    """Who has an old key of that node's still, or may have it: a peer that cannot be read."""
    unread = {peer for peer in peers if hosts[peer].facts is None}
    return sorted(unread | {host.name for host in hosts.values() if host.name != name and keys.has_one(host, old)})


def _has(peer: Host, compiled: Compiled, attached: Attachment) -> bool:
    """Whether this peer has the next key as a peer of its own, and keeps it."""
    its = compiled.mesh.nodes[peer.name].attachment(attached.network)
    live = peer.facts.interfaces.get(its.interface) if peer.facts and its else None
    return live is not None and attached.next_public_key in live.peers and not peer.is_undecided


def _rfc3339(when: float) -> str:
    return f"{datetime.datetime.fromtimestamp(int(when), datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _text(key: object) -> str | None:
    return None if key is None else str(key)
