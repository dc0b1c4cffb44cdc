"""Which state each node goes back to, and what became of that. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshctl.core.change import Change
from meshctl.core.history import DAMAGED, Entry, parts_of, since, standing, states
from meshctl.core.inverse import taken_back
from meshctl.core.prefixes import covers, host_prefix
from meshctl.deploy import histories
from meshctl.deploy.hints import hint
from meshctl.deploy.outcome import CHANGED, UNCHANGED, NodeOutcome
from meshctl.errors import MeshctlError, RemoteError, UsageError
from meshctl.model.mesh import Mesh

History = tuple[Entry, ...]

# `--to 2` is a number of steps, for all ids begin with a year.
_STEPS = re.compile(r"[0-9]{1,2}")
_SHOWN = 5
SEE = "`meshctl history` shows what there is"


@dataclass(frozen=True)
class Way:
    """One node's way back to `state`: it takes back `entries`, the newest first; none where it is there already."""

    state: Entry
    entries: tuple[Entry, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of what it takes back, the newest first."""
        return parts_of(self.entries)

    @property
    def words(self) -> str:
        """Where it leads, and what goes with it."""
        count = f"{len(self.entries)} appl{'ies' if len(self.entries) > 1 else 'y'}"
        return f"back to {about(self.state)}, which takes back {count}"

    def changes(self) -> tuple[Change, ...]:
        """What that changes, as far as the host's journals say."""
        return taken_back([change for entry in reversed(self.entries) for change in histories.changes(entry)])


@dataclass(frozen=True)
class RollbackOutcome:
    """All nodes, by name, and where each went that had somewhere to go. `to` is the id of the run after which the mesh
    was like that."""

    to: str
    nodes: Mapping[str, NodeOutcome]
    ways: Mapping[str, Way]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every node is in that state."""
        return all(node.status in (CHANGED, UNCHANGED) for node in self.nodes.values())

    def to_json(self) -> dict[str, Any]:
        """The shape of schemas/rollback.schema.json."""
        return {
            "to": self.to,
            "nodes": {name: {**node.to_json(), **_way_json(self.ways.get(name))} for name, node in self.nodes.items()},
            "warnings": list(self.warnings),
        }


def _way_json(way: Way | None) -> dict[str, Any]:
    if way is None:
        return {"state": None, "taken_back": []}
    state = way.state
    about = {"id": state.id, "time": state.time, "who": state.who, "revision": state.revision}
    return {"state": about, "taken_back": list(way.ids)}


def about(entry: Entry) -> str:
    """Which it is, when it was by this machine's clock and zone, and of what revision."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
    return f"{entry.id} ({when}{', revision ' if entry.revision else ''}{entry.revision})"


def choose(known: Mapping[str, History], to: str) -> str:
    """The id of the run to go back to: `to` is one, the beginning of one, a number of steps, or "" for one step. Steps
    are runs that have changed one of these nodes. Raises UsageError, or MeshctlError when there is nothing."""
    ids = {entry.id for history in known.values() for entry in states(history)}
    order = runs(known)
    there = [name for name in order if name in ids]
    before = [name for name in order[1:] if name in ids]
    if not to or _STEPS.fullmatch(to):
        steps = int(to or 1)
        if not before:
            words = f"there is no earlier state to go back to that is known on these nodes{_damaged(known)}"
            raise MeshctlError(words, hint=SEE)
        if not 1 <= steps <= len(before):
            raise UsageError(f"--to {steps}: there are 1 to {len(before)} steps to go back", hint=SEE)
        return before[steps - 1]
    found = [name for name in there if name.startswith(to)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"--to {to}: begins the ids of {_listed(found)}", hint="give more of it")
    other = next((e for history in known.values() for e in history if e.id.startswith(to)), None)
    if other is not None:
        why = f": {other.why}" if other.why else ""
        reason = _damaged(known) or f": {other.became}{why}"
        raise UsageError(f"--to {to}: {other.id} is no state to go back to{reason}", hint=SEE)
    raise UsageError(f"--to {to}: no state is called so; there is {_listed(there) or 'none'}", hint=SEE)


def runs(known: Mapping[str, History]) -> tuple[str, ...]:
    """The ids of the runs of which something is there, the newest first: in the order of each host's history. Their own
    order, which is that of the controllers' clocks, counts only where no host has seen both."""
    left = [[entry.id for entry in standing(history)] for history in known.values()]
    found: list[str] = []
    while left := [ids for ids in left if ids]:
        heads = {ids[0] for ids in left}
        later = {name for ids in left for name in ids[1:]}
        found.append(max(heads - later or heads))  # two runs that two hosts have seen the other way round have no order
        left = [[name for name in ids if name != found[-1]] for ids in left]
    return tuple(found)


def way(node: str, history: History, runs: Sequence[str]) -> Way | None:
    """To the node's newest state of these runs: the one to go back to, and all before it. None where nothing was ever
    applied. Raises RemoteError of kind no-state when there is none that is kept."""
    if not standing(history):
        return None
    kept = states(history)
    state = next((entry for entry in kept if entry.id in runs), None)
    if state is None:
        oldest = f"the oldest that is kept is {kept[-1].id}" if kept else "none is kept"
        oldest += _damaged({node: history})
        raise RemoteError(
            f"it has no state of {runs[0]} or before to go back to: {oldest}", node=node, kind="no-state",
            step="history", hint=hint("no-state", node),
        )  # fmt: skip
    return Way(state, tuple(since(history, state)))


def refuse_rotated(node: str, way: Way, mesh: Mesh) -> None:
    """Raises RemoteError of kind rotated when the way leads over the change of a key. Private keys stay, and so do the
    sessions that there are: such a rollback would be confirmed, and somebody be lost at the next handshakes."""
    if not way.entries:
        return
    changes = [change for entry in way.entries for change in histories.changes(entry)]
    # Between a node's switch and the clean-up after it, a boot gives prefixes to the old key.
    changes += [change for change in histories.changes(way.state) if change.kind == "key"]
    networks = {a.interface: a.network for a in mesh.nodes[node].attachments}
    for change in changes:
        interface, _, peer = change.name.partition(" ")
        before, after = change.before or {}, change.after or {}
        if change.kind == "key" and before.get("public_key") and after.get("public_key"):
            changed = "its own key"
        elif change.kind == "peer" and "psk" in before and "psk" in after:
            changed = f"its pre-shared key with {peer}"
        elif change.kind == "peer" and interface in networks and _is_rekeyed(change, networks[interface], mesh):
            changed = "a peer's key"
        else:
            continue
        raise RemoteError(
            f"the way to {way.state.id} leads over a change of {changed}: that state would work only until the sessions"
            " of now end", node=node, kind="rotated", step="history", hint=hint("rotated", node),
        )  # fmt: skip


def _is_rekeyed(change: Change, network: str, mesh: Mesh) -> bool:
    """Whether this peer came or went because its node has another key. A key that is spread before its node takes it,
    and one that the node has left, have no prefixes; and a node that has got another key keeps its addresses."""
    before, after = change.before or {}, change.after or {}
    attached = [a for n in mesh.nodes.values() if (a := n.attachment(network)) is not None and a.public_key]
    if change.action == "create":
        return not after.get("allowed_ips") and after.get("public_key") in {str(a.public_key) for a in attached}
    if change.action != "delete":
        return False
    prefixes = before.get("allowed_ips") or ()
    inside = {p for p in prefixes if any(covers(cidr, p) for cidr in mesh.networks[network].cidrs)}
    owner = next((str(a.public_key) for a in attached if inside == set(map(host_prefix, a.addresses))), None)
    return not prefixes or (owner is not None and owner != before.get("public_key"))


def _damaged(known: Mapping[str, History]) -> str:
    """Where a journal is damaged over which no way leads, in words."""
    found = [f"; {name}: {e.id} is damaged: {e.why}" for name, history in known.items() for e in history
             if e.became == DAMAGED]  # fmt: skip
    return "".join(found[:_SHOWN])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
