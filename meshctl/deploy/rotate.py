"""Rotating keys, make before break (docs/keys.md): a node's next key is born on it and spread to its peers beside the
one that counts; then the node switches, its peers follow, and the old key goes.

All that is remembered is in the lock and on the hosts, so that a run that was cut short is gone on with by the next.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from meshctl.core.change import Change
from meshctl.core.diff.keys import KNOWN_AFTER_APPLY, NEXT
from meshctl.core.psk import PskRing
from meshctl.deploy import confirm, keys, run
from meshctl.deploy.applier import agent_command
from meshctl.deploy.crew import Crew
from meshctl.deploy.door import Door
from meshctl.deploy.host import Host
from meshctl.deploy.options import RunOptions
from meshctl.deploy.outcome import UNCHANGED, ApplyOutcome
from meshctl.deploy.progress import Progress, Silent
from meshctl.deploy.rotation import FAILED, PENDING, ROTATED, NodeRotation, Rotation, why
from meshctl.errors import MeshctlError, RemoteError, UsageError
from meshctl.inventory import Inventory
from meshctl.model.keys import PublicKey
from meshctl.model.mesh import Mesh
from meshctl.policy import compile_mesh
from meshctl.render import zipapp

# Peers follow a node for its whole window twice over, and for what comes before and after it: staging, undoing.
FOLLOW_MARGIN_S = 60.0
FOLLOW_TIMEOUT_S = 30.0


def chosen(mesh: Mesh, names: Sequence[str], *, begun: bool = False) -> tuple[str, ...]:
    """The nodes whose keys are to be rotated: those named; else those whose rotation is pending; else all. With `begun`
    only what is pending of all that. Sorted. Raises UsageError."""
    managed = {node.name: node for node in mesh.managed()}
    for name in names:
        if name not in managed:
            known = mesh.nodes.get(name)
            reason = "is a stock client" if known else "is not in the inventory"
            hint = f"`meshctl client show {name} --rekey` makes a client's new key" if known else ""
            raise UsageError(f"{name} {reason}", hint=hint)
    pending = {name for name, node in managed.items() if any(a.next_public_key for a in node.attachments)}
    if begun:
        return tuple(sorted(pending & set(names) if names else pending))
    return tuple(sorted(set(names) or pending or managed))


def clients_of(inventory: Inventory, names: Collection[str]) -> tuple[str, ...]:
    """The stock clients that have a key of one of these nodes in their configs."""
    topology, nodes = compile_mesh(inventory.mesh).topology, inventory.mesh.nodes
    peers = (p for name in names for link in topology.interfaces(name) for p in link.peers if p.public_key)
    return tuple(sorted({p.name for p in peers if nodes[p.name].client}))


def rotate(
    inventory: Inventory, ring: PskRing | None, options: RunOptions, names: Sequence[str],
    door: Door | None = None, progress: Progress | None = None,
) -> Rotation:  # fmt: skip
    """Rotate the keys of these managed nodes (`chosen`) as far as it goes now.

    Raises like `run.apply`, and MeshctlError when it was interrupted: what was begun is pending then.
    """
    progress = progress or Silent()
    topology = compile_mesh(inventory.mesh).topology
    keyed = {n.name for n in inventory.mesh.managed() if all(a.public_key for a in n.attachments)}
    peers = {
        name: {p.name for link in topology.interfaces(name) for p in link.peers} & keyed - {name}
        for name in names if name in keyed
    }  # fmt: skip
    everybody = {*peers, *(p for near in peers.values() for p in near)}
    with Crew(inventory, ring, everybody, options, door, progress) as crew:
        try:
            rotation = _Rotation(inventory, ring, options, peers, crew, door, progress)
            rotation.bear()
            rotation.spread()
            for name in peers:
                rotation.switch(name)
        except KeyboardInterrupt:
            raise MeshctlError(
                "interrupted: each node has its old key or its new one, and both are valid",
                hint="`meshctl keys rotate` goes on where it was; `meshctl keys status` says where",
            ) from None
        return rotation.outcome(names)


class _Rotation:
    """The state of one rotation. `peers` are the managed peers of each of its nodes that has a key to rotate."""

    def __init__(
        self, inventory: Inventory, ring: PskRing | None, options: RunOptions, peers: dict[str, set[str]], crew: Crew,
        door: Door | None, progress: Progress,
    ) -> None:  # fmt: skip
        self._inventory, self._ring, self._options = inventory, ring, options
        self._peers, self._crew = peers, crew
        self._door, self._progress = door, progress
        self._agent = zipapp.build()
        self._stopped: dict[str, str] = {}  # nodes that could not be worked on, and why
        self._waits: dict[str, tuple[tuple[str, str], ...]] = {}
        self._rotated: set[str] = set()
        self._warnings: dict[str, None] = {}
        self._topology = compile_mesh(inventory.mesh).topology

    def bear(self) -> None:
        """Read all hosts; each node of the rotation that has no next key makes one. The lock then knows of all."""
        hosts = self._crew.hosts
        self._crew.read()
        abandoned = [name for name, host in hosts.items() if host.facts and host.facts.may_be_abandoned]
        self._crew.each("undoing", abandoned, confirm.end_abandoned)
        self._note_stopped()
        self._pin(self._inventory.with_keys(keys.learned(hosts.values())))
        self._rotated.update(name for name in self._peers if self._is_taken_over(name))
        needing = [n for n in self._peers if n not in self._rotated | self._stopped.keys() and _birth(hosts[n])]
        self._crew.each("keys", needing, lambda host: self._prepare(host, _birth(host)), finish=True)
        self._note_stopped()
        born = {
            (name, w.network): key for name in self._peers
            if name not in self._rotated and name not in self._stopped for w in hosts[name].doc.interfaces()
            if w.public_key and (key := _next_key(hosts[name], w.next_key_file))
        }  # fmt: skip
        self._pin(self._inventory.with_next_keys(born))

    def spread(self) -> None:
        """An apply to all hosts that were reached: they have the next keys beside those that count, and no key of a
        node that had switched before this run."""
        self._apply(self._reached())

    def switch(self, name: str) -> None:
        """One node takes its next key, once all of its peers have it and follow, and loses the old one everywhere; or
        it waits."""
        if name in self._rotated or not self._is_pending(name):
            return
        if name in self._stopped:
            self._waits[name] = ((name, self._stopped[name]),)
            return
        self._follow(name)
        missing = sorted(p for p in self._peers[name] if p in self._stopped)
        if missing:
            self._waits[name] = tuple((p, self._stopped[p]) for p in missing)
            return
        outcome = self._run({name, *self._peers[name]}, replace(self._options, switch=frozenset((name,))))
        node = outcome.nodes[name]
        if node.error is not None or node.status == UNCHANGED:
            # Another run that had it switch meanwhile may take that back.
            became = why(node.error) if node.error else "somebody else has it switch just now"
            self._waits[name] = ((name, became),)
            return
        self._pin(self._inventory.switched((name,)))
        self._rotated.add(name)
        self._apply([name, *sorted(self._peers[name])])

    def outcome(self, names: Sequence[str]) -> Rotation:
        """What has become of each node."""
        nodes = {name: self._became(name) for name in names}
        near = sorted({p for name in self._rotated for p in (name, *self._peers[name])})
        behind = {name: self._stopped[name] for name in near if name in self._stopped}
        return Rotation(nodes, clients_of(self._inventory, self._rotated), behind, tuple(self._warnings))

    # Inside

    def _became(self, name: str) -> NodeRotation:
        if name in self._rotated:
            return NodeRotation(ROTATED)
        because = self._waits.get(name) or ((name, self._stopped.get(name, "it has no key yet; apply makes one")),)
        return NodeRotation(PENDING if self._is_pending(name) else FAILED, because)

    def _pin(self, inventory: Inventory) -> None:
        """The lock says so before anything depends on it. Raises MeshctlError when it is another one by now."""
        self._inventory = keys.pinned(inventory)

    def _is_pending(self, name: str) -> bool:
        return any(a.next_public_key for a in self._inventory.mesh.nodes[name].attachments)

    def _is_taken_over(self, name: str) -> bool:
        """Whether the lock had a next key for the node, to which it has switched already, for good."""
        host = self._crew.hosts[name]
        pending = [w for w in host.doc.interfaces() if w.next_public_key]
        switched = all(keys.key_of(host, w) == w.next_public_key for w in pending)
        return bool(pending) and switched and not host.is_undecided

    def _reached(self) -> list[str]:
        return [name for name in self._crew.hosts if name not in self._stopped]

    def _note_stopped(self) -> None:
        """A host that may still go back is not built upon: neither its own key nor those that it has of others stay."""
        hosts = self._crew.hosts.items()
        self._stopped |= {name: confirm.undecided(host).message for name, host in hosts if host.is_undecided}
        self._stopped |= {name: why(host.error) for name, host in hosts if host.error is not None}

    def _apply(self, names: Sequence[str]) -> None:
        """An ordinary apply to these; hosts that fail are not worked on any more."""
        if names:
            outcome = self._run(names, self._options)
            self._stopped |= {name: why(node.error) for name, node in outcome.nodes.items() if node.error is not None}

    def _run(self, names: Iterable[str], options: RunOptions) -> ApplyOutcome:
        """Raises KeyboardInterrupt when it was interrupted."""
        limited = replace(options, limit=tuple(sorted(names)))
        outcome = run.apply(self._inventory, self._ring, limited, self._door, self._progress)
        self._warnings |= dict.fromkeys(outcome.warnings)
        if any(node.error and node.error.kind == "interrupted" for node in outcome.nodes.values()):
            raise KeyboardInterrupt
        return outcome

    def _follow(self, name: str) -> None:
        """All peers of the node that can, follow it from now on."""
        self._crew.refresh()
        near = sorted(p for p in self._peers[name] if p not in self._stopped)
        self._crew.each("following", near, partial(self._follow_one, name))
        self._note_stopped()

    def _prepare(self, host: Host, changes: tuple[Change, ...]) -> None:
        """Raises RemoteError."""
        host.converge(changes, self._agent, self._crew.terms().preparing())

    def _follow_one(self, name: str, host: Host) -> None:
        """Raises RemoteError."""
        host.transport = host.connect()
        if host.facts is not None and self._agent.hash not in host.facts.agents:
            self._prepare(host, ())  # the program comes with a transaction
        peers = [
            {"interface": link.attachment.interface, "old": str(now.public_key), "new": str(now.next_public_key),
             "allowed_ips": list(peer.allowed_ips)}
            for link in self._topology.interfaces(host.name) for peer in link.peers
            if peer.name == name and (now := self._inventory.mesh.nodes[name].attachment(link.network))
            and now.next_public_key
        ]  # fmt: skip
        document = {"for_s": 2 * self._options.confirm_timeout_s + FOLLOW_MARGIN_S, "peers": peers}
        command = agent_command(self._agent.path, "follow")
        completed = host.transport.run(command, json.dumps(document).encode(), FOLLOW_TIMEOUT_S)
        try:
            missing = json.loads(completed.text())["missing"]
        except (ValueError, KeyError, TypeError):
            raise RemoteError(
                f"following {name} ended with status {completed.status}: {completed.last_line()}", node=host.name,
                kind="command", step="follow",
            ) from None  # fmt: skip
        if missing:
            raise RemoteError(f"it has not {name}'s keys as peers", node=host.name, kind="not-converged", step="follow")


def _birth(host: Host) -> tuple[Change, ...]:
    """The changes by which the node makes the next keys that it has not."""
    return tuple(
        Change(
            host.name, "key", "create", f"{w.interface} {NEXT}", None, {"public_key": KNOWN_AFTER_APPLY},
            host.doc.resources.index(w),
        )
        for w in host.doc.interfaces() if w.public_key and not _next_key(host, w.next_key_file)
    )  # fmt: skip


def _next_key(host: Host, path: str) -> PublicKey | None:
    return host.facts.key_files.get(path) if host.facts else None
