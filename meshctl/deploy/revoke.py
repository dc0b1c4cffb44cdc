"""Cutting off a node that is in wrong hands: from all others, at once, and without asking it (docs/keys.md).

No wave, no check, no way back: a host that is left without the thief is right whatever else is wrong with it. So an
apply that waits there to be confirmed is undone first: at the end of its window the host would put the thief back.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshctl import inventory as inventories
from meshctl.core.change import Change
from meshctl.core.diff import diff
from meshctl.core.diff.peers import removed_peers
from meshctl.core.psk import PskRing
from meshctl.deploy.applier import agent_command, read_result
from meshctl.deploy.check import AGAIN_S
from meshctl.deploy.confirm import FINISH_S, undo_damaged
from meshctl.deploy.crew import Crew
from meshctl.deploy.door import Door
from meshctl.deploy.hints import hint
from meshctl.deploy.host import Host
from meshctl.deploy.options import RunOptions
from meshctl.deploy.outcome import NO_WAY_IN
from meshctl.deploy.progress import Progress, Silent
from meshctl.deploy.transport import Completed, Transport
from meshctl.deploy.ways import Ways
from meshctl.errors import RemoteError, UsageError
from meshctl.inventory import Inventory
from meshctl.model.facts import PendingApply
from meshctl.model.places import REVERT_LINK, SEARCH_PATH
from meshctl.render import zipapp

# What names peers for the next boot, and for the agent.
_FOLDERS = ("/etc/wireguard/", "/etc/systemd/network/", "/etc/meshctl/agent.json")
# Which files have such a peer.
_LOOK = """
grep -lsF {keys} /etc/wireguard/*.conf /etc/systemd/network/*.netdev /etc/meshctl/agent.json
exit 0"""
_CUT = """
for i in $(wg show interfaces 2>/dev/null); do wg set "$i" {words} || exit; done
"""
# A host that is still there has done anything of this by then; one that is not is looked for so long after: its path
# moves within seconds where the mesh has another.
COMMAND_TIMEOUT_S = 60.0
AWAY_S = 60.0


@dataclass(frozen=True)
class _Thieves:
    """Who is cut off: names by key, old keys too, and what packets to them go by."""

    keys: Mapping[str, str]
    prefixes: frozenset[str]


@dataclass(frozen=True)
class Revocation:
    """What was revoked, names and their keys, and by node whether that is done there: None, or what stopped it.
    `warnings` say what else had to be done for it."""

    revoked: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, RemoteError | None]
    warnings: tuple[str, ...] = ()

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
            "warnings": list(self.warnings),
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
    entries = [entry for name in names for entry in inventory.lock.nodes.get(name, {}).values()]
    prefixes = frozenset(f"{a}/{128 if ':' in a else 32}" for entry in entries for a in entry.addresses)
    inventory = inventory.revoking(names)
    write = inventories.write_lock if inventory.lock_changes else inventories.refreshed
    inventory = write(inventory)
    revoked = {name: tuple(map(str, inventory.lock.revoked[name].keys)) for name in names}
    keys = {key: name for name, of_name in revoked.items() for key in of_name}
    thieves = _Thieves(keys, prefixes)
    others = {node.name: node for node in inventory.mesh.managed()}
    agent = zipapp.build()
    with Crew(inventory, ring, others, options, door, progress or Silent()) as crew:
        gone = [name for name, entry in inventory.lock.revoked.items() if not entry.readmitted]
        ways = Ways(inventory.mesh, crew.connections, gone)
        for host in crew.hosts.values():
            if keys and (trail := ways.trail(host.name)):
                host.error = _no_way(host.name, trail)
                crew.note(str(host.error))
        # Anchors first: who is cut off from them is found by nobody. And nobody waits for who is lost.
        order = sorted(others, key=lambda name: (not others[name].is_anchor, bool(ways.carried(name)), name))
        if keys:
            crew.each(
                "revoking", order,
                lambda host: _cut(host, thieves, agent, crew, ways.carried(host.name)), finish=True,
            )  # fmt: skip
        warnings = tuple(f"{host.name}: {warning}" for host in crew.hosts.values() for warning in host.warnings)
        return Revocation(revoked, {name: host.error for name, host in crew.hosts.items()}, warnings)


def _no_way(name: str, trail: Sequence[str]) -> RemoteError:
    """Of a host that nobody goes to: what cuts the thief off would cut off that way, too, before all is done there."""
    behind = (name, *trail)[-2]
    return RemoteError(
        f"it was not contacted, for SSH goes there by way of {', behind '.join(trail)}, which is revoked", node=name,
        kind="unreachable", step="revoke", hint=f"give {behind} another `ssh.jump`, and run revoke again",
    )  # fmt: skip


def _cut(host: Host, thieves: _Thieves, agent: zipapp.Zipapp, crew: Crew, carriers: Collection[str]) -> None:
    """Until it is done: an apply that is at work there, or comes in between, is waited for, and may put the peers back
    meanwhile. A host that was reached and then lost is looked for by other ways: by the old one, it may be, packets
    went to `carriers`, whom nobody sends any to any more. Raises RemoteError."""
    until, away_until = time.monotonic() + FINISH_S, 0.0
    while True:
        try:
            return _cut_once(host, thieves, agent, crew, by_host=bool(carriers))
        except RemoteError as error:
            now = time.monotonic()
            if error.kind in NO_WAY_IN and host.transport is not None:
                away_until = away_until or now + AWAY_S
                crew.connect_anew(host)
            again = error.kind in ("locked", "moved") and now < until
            if not again and not (error.kind in NO_WAY_IN and now < away_until):
                raise _last_resort(host, thieves.keys, error, carriers) from None
        time.sleep(AGAIN_S)


def _last_resort(host: Host, keys: Mapping[str, str], error: RemoteError, carriers: Collection[str]) -> RemoteError:
    """The error, when all has been done that could be."""
    if not carriers:
        return error
    if error.kind not in NO_WAY_IN:
        with contextlib.suppress(RemoteError):
            _cut_live(host, keys)
        return error
    return RemoteError(
        f"{error.message}; it may be that SSH went there by way of {', '.join(sorted(carriers))}, which is revoked",
        node=host.name, kind=error.kind, step=error.step,
        hint="give it an `ssh.host` or `ssh.jump` outside the mesh, and run revoke again",
    )  # fmt: skip


def _cut_once(host: Host, thieves: _Thieves, agent: zipapp.Zipapp, crew: Crew, *, by_host: bool) -> None:
    """Out of WireGuard first, by the shortest way; then out of what the next boot reads, and into the host's ledger, so
    that no old checkout brings it back. With `by_host` the host does all of that itself, in one go, for the connection
    may end with the first of it. Raises RemoteError."""
    host.transport = _Impatient(host.connect())
    cut: Callable[[Host, Collection[str]], list[str]] = _named if by_host else _cut_live
    keys = thieves.keys
    named = cut(host, keys)
    host.read(compare=False)
    if host.facts is not None and host.facts.pending is not None:
        _undo(host, host.facts.pending)
        named = cut(host, keys)
        host.read(compare=False)
    if changes := _changes(host, thieves, named):
        host.converge(changes, agent, crew.terms().preparing())
        named = _cut_live(host, keys)  # an apply at the same time may have put it back
    if named:
        raise RemoteError(
            f"not in WireGuard any more, but the next boot brings it back: its key is in {', '.join(named)}",
            node=host.name, kind="not-converged", step="revoke",
            hint=f"meshctl has not made that file: remove the peer there on {host.name}, and run revoke again",
        )  # fmt: skip


class _Impatient:
    """A connection that may be dead and not know it: what it goes through is being cut."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        """As Transport.run."""
        return self._transport.run(command, stdin, timeout_s or COMMAND_TIMEOUT_S)

    def close(self) -> None:
        """As Transport.close."""
        self._transport.close()


def _cut_live(host: Host, keys: Collection[str]) -> list[str]:
    """Remove the peers from WireGuard; the files that have them still. Raises RemoteError."""
    words = " ".join(f"peer {shlex.quote(key)} remove" for key in keys)
    return _named(host, keys, _CUT.format(words=words))


def _named(host: Host, keys: Collection[str], first: str = "") -> list[str]:
    """The files that have the peers, once `first` was done. Raises RemoteError."""
    if host.transport is None:
        raise RuntimeError("the connection comes first")
    patterns = " ".join(f"-e {shlex.quote(key)}" for key in keys)
    script = f"PATH={SEARCH_PATH}; export PATH{first}{_LOOK.format(keys=patterns)}"
    completed = host.transport.run(script)
    if completed.status != 0:
        raise RemoteError(
            f"removing the peer ended with status {completed.status}: {completed.last_line()}", node=host.name,
            kind="command", step="revoke", hint=hint("command", host.name),
        )  # fmt: skip
    return completed.text().splitlines()


def _undo(host: Host, pending: PendingApply) -> None:
    """Raises RemoteError of kind locked while the apply that waits to be confirmed is still at work."""
    if host.transport is None:
        raise RuntimeError("the connection comes first")
    if pending.damaged:
        undo_damaged(host)
        return
    result = read_result(host.name, host.transport.run(agent_command(REVERT_LINK, "undo", pending.id)))
    if result.failure is None:
        host.warnings.append(f"an apply of {pending.who or 'somebody'} that waited to be confirmed was undone for this")
    elif result.failure.kind not in ("undone", "confirmed"):  # decided meanwhile
        raise RemoteError(result.failure.message, node=host.name, kind=result.failure.kind, step="revoke",
                          hint=hint(result.failure.kind, host.name))  # fmt: skip


def _changes(host: Host, thieves: _Thieves, named: Collection[str]) -> tuple[Change, ...]:
    """None where the host has heard of it already, whatever else an apply would change: no file has such a peer."""
    if host.facts is None:
        raise RuntimeError("the facts come first")
    keys = thieves.keys
    known = frozenset(host.facts.ledger.revoked)
    host.doc = host.doc.without_keyless_peers()
    records = [
        Change(host.name, "revoked", "create", key, None, {"node": name}) for key, name in keys.items()
        if key not in known
    ]  # fmt: skip
    peers = [c for i, live in host.facts.interfaces.items() for c in removed_peers(-1, i, list(keys), live, host.name)]
    peers += _left_over(host, thieves)
    files = [c for c in _wanted(host, keys) if c.kind == "file" and c.name.startswith(_FOLDERS)]
    return (*peers, *files, *records) if peers or records or named else ()


def _left_over(host: Host, thieves: _Thieves) -> list[Change]:
    """The peers that are not wanted and may be the thief by a key that the lock has not: packets to the thief go there;
    or meshctl has made them and none do, as with the old key of a rotation that was not cleaned up."""
    if host.facts is None:
        return []
    known = {p.public_key.text for w in host.doc.interfaces() for p in w.peers if p.public_key} | thieves.keys.keys()
    found: list[Change] = []
    for name, record in host.facts.ledger.interfaces.items():
        if live := host.facts.interfaces.get(name):
            allowed = {key.text: peer.allowed_ips for key, peer in live.peers.items() if key.text not in known}
            gone = [
                key for key, prefixes in allowed.items()
                if not thieves.prefixes.isdisjoint(prefixes) or (not prefixes and key in record.peers)
            ]  # fmt: skip
            found += removed_peers(-1, name, gone, live, host.name)
    return found


def _wanted(host: Host, keys: Collection[str]) -> tuple[Change, ...]:
    """What an apply would change. Nobody is refused because the ledger knows of the keys already."""
    if host.facts is None:
        return ()
    others = tuple(key for key in host.facts.ledger.revoked if key not in keys)
    return diff(host.doc, replace(host.facts, ledger=replace(host.facts.ledger, revoked=others)))
