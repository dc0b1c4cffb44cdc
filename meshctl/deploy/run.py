"""The two runs: `plan` reads every host and compares; `apply` then converges those that differ.

The steps are those of docs/architecture.md, "An apply, from the outside in".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshctl import inventory as inventories
from meshctl.core.psk import PskRing
from meshctl.core.topology import compile_topology
from meshctl.deploy import filediff, guard, keys, zipapp
from meshctl.deploy.door import Door, NetworkDoor
from meshctl.deploy.host import Host
from meshctl.deploy.local import LocalTransport, this_machine
from meshctl.deploy.outcome import (
    CHANGED,
    FAILED,
    UNCHANGED,
    ApplyOutcome,
    FileDiff,
    NodeOutcome,
    PlanOutcome,
    status_of,
)
from meshctl.deploy.parallel import Interrupts, Workers
from meshctl.deploy.planfile import StoredPlan, check_fresh
from meshctl.deploy.progress import Progress, Silent
from meshctl.deploy.selection import select
from meshctl.deploy.ssh import Connections
from meshctl.deploy.transport import Transport
from meshctl.errors import MeshctlError, RemoteError
from meshctl.inventory import Inventory
from meshctl.model.keys import Secret
from meshctl.render import Renderer

DEFAULT_FORKS = 64
LOG = logging.getLogger("meshctl")


@dataclass(frozen=True)
class RunOptions:
    """What the command line decides. `plan` is a stored plan that must still hold."""

    limit: tuple[str, ...] = ()
    forks: int = DEFAULT_FORKS
    local: bool = False
    locked: bool = False
    allow_destructive: bool = False
    accept_new_host_keys: bool = False
    sudo_password: Secret | None = None
    diff: bool = False
    plan: StoredPlan | None = None


def plan(
    inventory: Inventory, ring: PskRing | None, options: RunOptions, door: Door | None = None,
    progress: Progress | None = None,
) -> PlanOutcome:  # fmt: skip
    """What apply would do. Contacts the hosts, changes nothing anywhere. Host failures are in the outcome.

    Raises InventoryError, RenderError or UsageError before any host is contacted.
    """
    with _Run(inventory, ring, options, door, progress) as run:
        run.read()
        return run.planned()


def apply(
    inventory: Inventory, ring: PskRing | None, options: RunOptions, door: Door | None = None,
    progress: Progress | None = None,
) -> ApplyOutcome:  # fmt: skip
    """Converge the hosts; keys that were born on the way are written to the lock.

    Raises like `plan`, and DestructiveError or StalePlanError before any host is changed.
    """
    with _Run(inventory, ring, options, door, progress) as run:
        run.check_lock()
        try:
            run.read()
        except KeyboardInterrupt:
            raise MeshctlError("interrupted while reading the hosts: nothing was applied") from None
        run.refuse()
        run.make_keys()
        diffs = run.file_diffs()
        run.converge()
        return run.applied(diffs)


def collect_keys(
    inventory: Inventory, options: RunOptions, door: Door | None = None, progress: Progress | None = None
) -> tuple[Inventory, tuple[RemoteError, ...]]:
    """The inventory with the public keys that its hosts have already, and the hosts that could not be read.

    Makes no key and changes no host: a node without one gets it with its first apply.
    """
    with _Run(inventory, None, options, door, progress) as run:
        run.read()
        return run.with_learned_keys(), run.errors()


class _Run:
    """The state of one run: the hosts that it is about, and the inventory as it becomes known."""

    def __init__(
        self, inventory: Inventory, ring: PskRing | None, options: RunOptions, door: Door | None,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._inventory = inventory
        self._ring = ring
        self._options = options
        self._progress: Progress = progress or Silent()
        self._interrupted = False
        self._interrupts = Interrupts()
        names = select(inventory.mesh, options.limit)
        if options.local:
            names = (this_machine(inventory.mesh, frozenset(names)),)
        self._connections = Connections(
            inventory.mesh.nodes, door or NetworkDoor(), options.accept_new_host_keys, options.sudo_password
        )
        renderer = self._renderer()
        # Only a node of this run gets its key in this run; a peer of any other without a key is left out.
        self._hosts = {
            name: Host(name, renderer.node(name).without_keyless_peers(frozenset(names)), self._connector(name))
            for name in names
        }

    def __enter__(self) -> _Run:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.__exit__()
        self._connections.close()

    def check_lock(self) -> None:
        """With --locked: raises MeshctlError when the lock would have to change, before a host is contacted."""
        if not self._options.locked:
            return
        missing = [h.name for h in self._hosts.values() if any(w.public_key is None for w in h.doc.interfaces())]
        if self._inventory.lock_changes or missing:
            reason = f"it has no key for {', '.join(missing)}" if missing else "it does not match the inventory"
            raise MeshctlError(
                f"the lock is stale: {reason}", where=str(self._inventory.lock_path),
                hint="apply once without --locked and commit the lock",
            )  # fmt: skip

    def read(self) -> None:
        """Facts and changes of every host, in parallel."""
        self._each("reading", list(self._hosts), Host.read)

    def planned(self) -> PlanOutcome:
        """The plan as it stands."""
        hosts = self._hosts.values()
        return PlanOutcome(
            changes=tuple(change for host in hosts if host.error is None for change in host.changes),
            errors=self.errors(),
            warnings=self._warnings(),
            diffs=self.file_diffs(),
        )

    def errors(self) -> tuple[RemoteError, ...]:
        """What stopped hosts so far, by node."""
        return tuple(host.error for host in self._hosts.values() if host.error is not None)

    def with_learned_keys(self) -> Inventory:
        """The inventory with the keys that the hosts have and the lock has not."""
        found = keys.learned(self._hosts.values())
        return self._inventory.with_keys(found) if found else self._inventory

    def refuse(self) -> None:
        """Raises StalePlanError or DestructiveError."""
        if self._options.plan is not None:
            outcome = self.planned()
            check_fresh(self._options.plan, outcome)
        if not self._options.allow_destructive:
            guard.refuse(guard.destructive(self._hosts.values(), self._inventory))

    def make_keys(self) -> None:
        """Keys where there are none, their public halves into the lock, and every document rendered with them."""
        if needing := [host.name for host in self._hosts.values() if keys.needs_key(host)]:
            agent = zipapp.build()
            self._each("keys", needing, lambda host: host.converge(keys.first_changes(host), agent), finish=True)
        updated = self.with_learned_keys()
        if not self._options.locked and updated.lock_changes:
            inventories.write_lock(updated)
        renderer = None
        if updated is not self._inventory:
            self._inventory = updated
            renderer = self._renderer()
        for host in self._hosts.values():
            host.doc = (renderer.node(host.name) if renderer else host.doc).without_keyless_peers()
            if host.error is None:
                self._guarded(host, Host.compare)

    def converge(self) -> None:
        """The main transactions of all hosts that still differ."""
        changing = [host.name for host in self._hosts.values() if host.error is None and host.changes]
        if not changing or self._interrupted:
            return
        agent = zipapp.build()

        def converge_one(host: Host) -> None:
            host.converge(host.changes, agent)
            host.check_converged()

        for wave in order(changing):
            self._each("applying", wave, converge_one, finish=True)

    def applied(self, diffs: tuple[FileDiff, ...]) -> ApplyOutcome:
        """The outcome of all hosts, by name."""
        return ApplyOutcome(
            nodes={name: self._outcome(host) for name, host in self._hosts.items()},
            warnings=self._warnings(), interrupted=self._interrupted, diffs=diffs,
        )  # fmt: skip

    def file_diffs(self) -> tuple[FileDiff, ...]:
        """Texts for --diff; the old ones are fetched from the hosts."""
        if not self._options.diff:
            return ()
        found: list[FileDiff] = []
        self._each("diff", [h.name for h in self._hosts.values() if h.error is None and h.changes],
                   lambda host: found.extend(filediff.fetch(host)))  # fmt: skip
        return tuple(sorted(found, key=lambda d: (d.node, d.path)))

    def _outcome(self, host: Host) -> NodeOutcome:
        error = host.error
        if error is None and self._interrupted and host.changes:
            error = RemoteError(
                "interrupted: not applied", node=host.name, kind="interrupted", hint="apply again"
            )
        if error is not None:
            changes = tuple(host.applied)
            return NodeOutcome(status_of(error, host.facts is not None), changes, error, host.duration_s)
        return NodeOutcome(CHANGED if host.applied else UNCHANGED, tuple(host.applied), None, host.duration_s)

    def _warnings(self) -> tuple[str, ...]:
        """What to tell besides changes: rendering's warnings, the applier's, and nodes that are left out."""
        found = [f"{h.name}: {w}" for h in self._hosts.values() for w in (*h.doc.warnings, *h.warnings)]
        absent = {
            name for name, _ in self._inventory.missing_keys if name not in self._hosts or self._hosts[name].error
        }
        return (*dict.fromkeys(found), *keys.left_out(self._inventory.mesh, absent))

    def _renderer(self) -> Renderer:
        mesh = self._inventory.mesh
        return Renderer(mesh, compile_topology(mesh), self._ring)

    def _connector(self, name: str) -> Callable[[], Transport]:
        node = self._inventory.mesh.nodes[name]
        if self._options.local:
            return lambda: LocalTransport(node, self._options.sudo_password)
        return lambda: self._connections.transport(node)

    def _each(self, phase: str, names: Sequence[str], work: Callable[[Host], None], finish: bool = False) -> None:
        """`work` for the named hosts in parallel; its RemoteErrors become the hosts'.

        With `finish`, Ctrl-C lets running hosts end and starts no new ones.
        """
        if not names or self._interrupted:
            return
        workers = Workers(lambda name: self._guarded(self._hosts[name], work), names, self._options.forks,
                          self._interrupts)  # fmt: skip
        self._progress.begin(phase, tuple(names))

        def interrupted(running: frozenset[str]) -> None:
            self._interrupted = True
            self._progress.note(
                f"Interrupted: waiting for {', '.join(sorted(running)) or 'nothing'}; "
                "Ctrl-C again leaves them to finish by themselves."
            )

        try:
            workers.run(lambda name, _: self._progress.done(phase, name, self._word(phase, self._hosts[name])),
                        interrupted if finish else None)  # fmt: skip
        finally:
            self._progress.end()
        for name in workers.running:
            self._hosts[name].error = RemoteError(
                "interrupted: was being applied, the node finishes it by itself", node=name, kind="interrupted",
                hint="run plan to see what became of it",
            )  # fmt: skip

    @staticmethod
    def _guarded(host: Host, work: Callable[[Host], None]) -> None:
        started = time.monotonic()
        try:
            work(host)
        except RemoteError as error:
            host.error = error
        except Exception as error:
            # A worker thread must never end in a traceback; a bug is reported like a failed host.
            LOG.debug("%s", host.name, exc_info=error)
            host.error = RemoteError(
                f"internal error: {type(error).__name__}: {error}", node=host.name, kind="protocol",
                hint="please report it",
            )  # fmt: skip
        host.duration_s += time.monotonic() - started

    @staticmethod
    def _word(phase: str, host: Host) -> str:
        if host.error is not None:
            return f"{FAILED}: {host.error.message}"
        if phase == "applying":
            return CHANGED
        if phase == "reading":
            return f"{len(host.changes)} to do" if host.changes else "as wanted"
        return "ok"


def order(names: Sequence[str]) -> list[list[str]]:
    """The one place where it is decided which nodes go together, and in which order: today, all at once."""
    return [sorted(names)]
