"""What the lab remembers on disk, in /var/lib/meshctl-lab/NAME, all of it readable by root alone:

state.json           the blueprint as built, the NAT kind of each router, the leaders of the hosts
secret               the lab's own mesh secret
id_ed25519           the key that every host lets in as root
known_hosts          the hosts' keys, under the names that SSH uses
inventory.lock.yml   the lab's own lock; the production lock is never read or written
hosts/NODE/          the host's disk (overlay) and console.log
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from meshctl.lab.blueprint import Blueprint, Forward, Host, Link, Router
from meshctl.lab.draft import CARRIER_NAT, DEFAULT_NAT, check_kind
from meshctl.lab.names import STATE_ROOT, LabError, state_dir

STATE_VERSION = 1


@dataclass(frozen=True)
class State:
    """A lab as it was built last. `leaders` is node -> (pid of the container's init, its start time)."""

    blueprint: Blueprint
    kinds: Mapping[str, str] = field(default_factory=dict)
    leaders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unplugged: tuple[str, ...] = ()  # nodes whose link is down
    ssh_over_mesh: bool = False
    complete: bool = True  # False while `up` is at work, and after one that was killed


def load(lab: str) -> State:
    """The state of a lab that is up, or LabError."""
    state = load_if_any(lab)
    if state is None:
        there = ", ".join(labs()) or "none is"
        raise LabError(f"there is no lab {lab!r} (up: {there})", hint=f"meshctl lab up INVENTORY --name {lab}")
    return state


def load_if_any(lab: str) -> State | None:
    """The state, or None when there is none or a crash left it unreadable (everything is then built anew)."""
    try:
        raw = json.loads((state_dir(lab) / "state.json").read_text())
        return _state(raw) if raw["version"] == STATE_VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(lab: str, state: State) -> None:
    """Replace the state file atomically."""
    path = state_dir(lab) / "state.json"
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"version": STATE_VERSION, **asdict(state)}, indent=1))
    half.replace(path)


def labs() -> list[str]:
    """Names of the labs that have a state folder."""
    return sorted(p.name for p in STATE_ROOT.iterdir() if p.is_dir()) if STATE_ROOT.is_dir() else []


@contextmanager
def exclusive(lab: str) -> Iterator[Path]:
    """The lab's folder, made if need be, and locked against other `lab` commands that change it."""
    path = state_dir(lab)
    while True:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # `down` may have removed the folder while we waited for it.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                yield path
                return
        finally:
            os.close(descriptor)


@contextmanager
def changing(lab: str) -> Iterator[State]:
    """The state of a lab that is up, locked against other commands that change it. Raises LabError."""
    load(lab)  # before the lock, which would make the folder of a lab that there is not
    with exclusive(lab):
        yield load(lab)


def host(lab: str, now: State, name: str) -> Host:
    """The host of that name, or LabError."""
    found = now.blueprint.host(name)
    if found is None:
        there = ", ".join(h.name for h in now.blueprint.hosts)
        raise LabError(f"the lab {lab} has no host {name!r}", hint=f"it has {there}")
    return found


def routers_for(now: State, target: str, kind: str) -> dict[Router, str]:
    """Which routers become what when `target`, a node or a router, is to be behind a NAT of that kind."""
    check_kind(kind, target)
    found = now.blueprint.host(target)
    name = found.router if found else target
    router = now.blueprint.router(name)
    if router is None:
        hint = "give the node a lab.nat in the inventory and run `meshctl lab up`"
        raise LabError(f"{target} has no router in the lab", hint=hint)
    own = name.endswith("-router")
    if not own:
        return {router: CARRIER_NAT if kind == "cgnat" else kind}
    carrier = now.blueprint.router(f"{name.removesuffix('-router')}-carrier")
    if carrier is None and kind == "cgnat":
        hint = "give the node lab: {nat: cgnat} in the inventory and run `meshctl lab up`"
        raise LabError(f"{target} has no carrier above its router", hint=hint)
    if carrier is None:
        return {router: kind}
    if kind == "cgnat":
        return {router: DEFAULT_NAT, carrier: CARRIER_NAT}
    return {router: kind, carrier: "none"}


def _state(raw: dict[str, Any]) -> State:
    plan = raw["blueprint"]
    return State(
        blueprint=Blueprint(
            hosts=tuple(Host(**_tuples(h)) for h in plan["hosts"]),
            routers=tuple(
                Router(**{**_tuples(r), "forwards": tuple(Forward(**f) for f in r["forwards"])})
                for r in plan["routers"]
            ),
            lans=tuple(plan["lans"]),
            links=tuple(Link(**_tuples(k)) for k in plan["links"]),
            hosts_file=tuple((a, tuple(names)) for a, names in plan["hosts_file"]),
        ),
        kinds=raw["kinds"],
        leaders={node: (int(pid), int(start)) for node, (pid, start) in raw["leaders"].items()},
        unplugged=tuple(raw["unplugged"]),
        ssh_over_mesh=bool(raw["ssh_over_mesh"]),
        complete=bool(raw["complete"]),
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were, one map deep."""
    if isinstance(value, dict):
        return {k: _tuples(v) if isinstance(v, list) else v for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
