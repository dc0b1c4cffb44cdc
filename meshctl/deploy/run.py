"""The two runs: `plan` reads every host and compares; `apply` then converges those that differ.

The steps are those of docs/architecture.md, "An apply, from the outside in".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import cached_property, partial

from meshctl.core.psk import PskRing
from meshctl.deploy import applier, confirm, filediff, guard, histories, keys, psks, reporting
from meshctl.deploy import rollback as rollbacks
from meshctl.deploy.door import Door, NetworkDoor
from meshctl.deploy.host import Host, Terms
from meshctl.deploy.local import LocalTransport, this_machine
from meshctl.deploy.options import MANUAL, OFF, RunOptions
from meshctl.deploy.outcome import ApplyOutcome, FileDiff, PlanOutcome
from meshctl.deploy.phases import Phases, guarded
from meshctl.deploy.planfile import check_fresh
from meshctl.deploy.progress import Progress, Silent
from meshctl.deploy.rollback import RollbackOutcome
from meshctl.deploy.rollout import Anew, Rollout
from meshctl.deploy.selection import select
from meshctl.deploy.ssh import Connections
from meshctl.deploy.transport import Transport
from meshctl.deploy.waves import through
from meshctl.errors import MeshctlError, RemoteError
from meshctl.inventory import Inventory, write_lock
from meshctl.model.resources import NodeDoc
from meshctl.policy import compile_mesh
from meshctl.render import Renderer, zipapp


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

    Raises like `plan`, and DestructiveError or StalePlanError before anything is applied.
    """
    with _Run(inventory, ring, options, door, progress) as run:
        run.check_lock()
        try:
            run.read()
            run.settle()
        except KeyboardInterrupt:
            raise MeshctlError("interrupted while reading the hosts: nothing was applied") from None
        run.refuse()
        run.make_keys()
        diffs = run.file_diffs()
        run.converge()
        run.note_cleaned_up()
        return run.applied(diffs)


def rollback(
    inventory: Inventory, options: RunOptions, to: str, door: Door | None = None, progress: Progress | None = None
) -> RollbackOutcome:
    """Have the hosts be again as they were after a run (`rollbacks.choose`); the inventory says how they are reached.

    Raises UsageError, or MeshctlError when there is nothing to go back to, before anything is taken back.
    """
    with _Run(inventory, None, options, door, progress) as run:
        try:
            run.read(compare=False)
            run.settle()
            run.read_histories()
        except KeyboardInterrupt:
            raise MeshctlError("interrupted while reading the hosts: nothing was changed") from None
        chosen = run.go_back(to)
        run.converge()
        return run.gone_back(chosen)


def confirm_pending(
    inventory: Inventory, options: RunOptions, door: Door | None = None, progress: Progress | None = None, *,
    unchecked: bool = False,
) -> ApplyOutcome:  # fmt: skip
    """Confirm what waits for a person: a host where something did is `confirmed`. What waits for its own run, which has
    not checked it yet, is refused unless `unchecked`. Raises UsageError before any contact."""
    with _Run(inventory, None, options, door, progress) as run:
        run.read(compare=False)
        run.confirm(unchecked=unchecked)
        return run.confirmed()


def collect_keys(
    inventory: Inventory, options: RunOptions, door: Door | None = None, progress: Progress | None = None
) -> tuple[Inventory, tuple[RemoteError, ...]]:
    """The inventory with the public keys that its hosts have already, and the hosts that could not be read.

    Makes no key and changes no host: a node without one gets it with its first apply.
    """
    with _Run(inventory, None, options, door, progress) as run:
        run.read()
        run.refuse_undecided()
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
        self._phases = Phases(options.forks, progress or Silent())
        names = select(inventory.mesh, options.limit)
        self._canaries = frozenset(select(inventory.mesh, options.canary, "--canary") if options.canary else ())
        if options.local:
            names = (this_machine(inventory.mesh, frozenset(names)),)
        self._door = door or NetworkDoor()
        self._id = applier.new_id()
        self._opened: list[Connections] = []
        self._connections = self._new_connections()
        renderer = self._renderer()
        # Only a node of this run gets its key in this run; a peer of any other without a key is left out.
        self._hosts = {
            name: Host(
                name, renderer.node(name).without_keyless_peers(frozenset(names)),
                self._connector(name, self._connections),
            )
            for name in names
        }

    def __enter__(self) -> _Run:
        self._phases.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._phases.__exit__()
        for connections in self._opened:
            connections.close()

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

    def read(self, *, compare: bool = True) -> None:
        """Facts and changes of every host, in parallel."""
        self._phases.each("reading", list(self._hosts.values()), partial(Host.read, compare=compare))

    def planned(self) -> PlanOutcome:
        """The plan as it stands."""
        return reporting.plan_outcome(self._hosts, self._inventory, self.file_diffs())

    def errors(self) -> tuple[RemoteError, ...]:
        """What stopped hosts so far, by node."""
        return reporting.errors(self._hosts)

    def with_learned_keys(self) -> Inventory:
        """The inventory with the keys that the hosts have and the lock has not."""
        found = keys.learned(self._hosts.values())
        return self._inventory.with_keys(found) if found else self._inventory

    def refuse_undecided(self) -> None:
        """A host that may take an old key again has none yet that somebody could pin."""
        for host in self._hosts.values():
            if host.is_undecided and host.error is None and any(w.public_key is None for w in host.doc.interfaces()):
                host.error = confirm.undecided(host)

    def settle(self) -> None:
        """What applies before this one have left to be decided. A host that goes back is another one, and read anew: so
        this comes before anything is refused, counted or planned by what it is."""
        if self._options.resume:
            self._rollout.resume()
        self._rollout.end_abandoned()

    def refuse(self) -> None:
        """Raises StalePlanError or DestructiveError."""
        if self._options.plan is not None:
            check_fresh(self._options.plan, reporting.plan_outcome(self._hosts, self._inventory))
        if not self._options.allow_destructive:
            guard.refuse((*guard.destructive(self._hosts.values(), self._inventory), *self._lone_ends()))

    def make_keys(self) -> None:
        """Keys where there are none, their public halves into the lock, and every document rendered with them."""
        if needing := [host for host in self._hosts.values() if keys.needs_key(host)]:
            agent = zipapp.build()
            terms = self._terms().preparing()

            def make(host: Host) -> None:
                host.converge(keys.first_changes(host), agent, terms)

            self._phases.each("keys", needing, make, finish=True)
        updated = keys.pinned(self.with_learned_keys(), write=not self._options.locked)
        renderer = None
        if updated.mesh is not self._inventory.mesh:
            self._inventory = updated
            renderer = self._renderer()
        for host in self._hosts.values():
            host.doc = (renderer.node(host.name) if renderer else host.doc).without_keyless_peers()
            if host.error is None:
                guarded(host, Host.compare)
        if renderer and not self._options.allow_destructive:  # of a host whose key is learned just now
            guard.refuse(self._lone_ends())

    def converge(self) -> None:
        """The main transactions of all hosts that still differ."""
        self._rollout.converge(self._inventory.mesh)

    def note_cleaned_up(self) -> None:
        """Old keys that no peer of their node has any more are so in the lock; else a later run sees to that."""
        if (pairs := keys.cleaned_up(self._hosts, self._inventory)) and not self._options.locked:
            with contextlib.suppress(MeshctlError):
                self._inventory = write_lock(self._inventory.cleaned_up(pairs))

    @cached_property
    def _rollout(self) -> Rollout:
        mesh = self._inventory.mesh
        outside = self._outside(node.name for node in mesh.managed() if node.name not in self._hosts)
        return Rollout(
            self._hosts, outside, self._options, self._terms(), self._phases, self._anew,
            through(mesh, self._ways()), self._canaries,
        )  # fmt: skip

    def _outside(self, names: Iterable[str]) -> dict[str, Host]:
        """Hosts that this run is not about."""
        return {name: Host(name, NodeDoc(name, ()), self._connector(name, self._connections)) for name in names}

    def _lone_ends(self) -> tuple[str, ...]:
        """Why pre-shared keys must not be changed like that; this machine alone cannot ask others."""
        asked = (lambda _: {}) if self._options.local else self._outside
        return psks.lone_ends(self._hosts, self._inventory.mesh, asked, self._phases)

    def read_histories(self) -> None:
        """What was applied to each host that was reached."""

        def read(host: Host) -> None:
            if host.transport is not None:
                host.history = histories.read(host.name, host.transport)

        self._phases.each("history", [host for host in self._hosts.values() if host.error is None], read)

    def go_back(self, to: str) -> str:
        """What each host has to do to be as it was after that run; its id. Raises UsageError or MeshctlError."""
        known = {host.name: host.history for host in self._hosts.values() if host.error is None}
        chosen = rollbacks.choose(known, to)
        order = rollbacks.runs(known)
        runs = order[order.index(chosen) :]
        for name in known:
            host = self._hosts[name]
            guarded(host, partial(Host.go_back, runs=runs, mesh=self._inventory.mesh))
            if host.way and host.way.entries:
                self._phases.note(f"{name}: {host.way.words}")
        return chosen

    def gone_back(self, chosen: str) -> RollbackOutcome:
        """The outcome of `go_back` and `converge`."""
        return reporting.rollback_outcome(self._hosts, chosen, interrupted=self._phases.interrupted)

    def confirm(self, *, unchecked: bool) -> None:
        """Have all hosts keep what waits to be confirmed. They were read over connections of this run's own."""
        runs = confirm.runs_of(self._hosts.values())
        for host in self._hosts.values():
            if host.error is None:
                guarded(host, partial(confirm.find, runs=runs, unchecked=unchecked))
            if host.pending:
                self._phases.note(f"{host.name}: {host.pending.words}")
        waiting = [host for host in self._hosts.values() if host.pending]
        self._phases.each("confirming", waiting, confirm.keep, finish=True)

    def confirmed(self) -> ApplyOutcome:
        """The outcome of `confirm`."""
        return reporting.confirm_outcome(self._hosts)

    def _terms(self) -> Terms:
        window_s = 0.0 if self._options.confirm == OFF else self._options.confirm_timeout_s
        manual = self._options.confirm == MANUAL
        return Terms(self._id, self._options.who, self._options.revision, window_s, manual=manual)

    def applied(self, diffs: tuple[FileDiff, ...]) -> ApplyOutcome:
        """The outcome of all hosts, by name."""
        return reporting.apply_outcome(self._hosts, self._inventory, diffs, interrupted=self._phases.interrupted)

    def file_diffs(self) -> tuple[FileDiff, ...]:
        """Texts for --diff; the old ones are fetched from the hosts."""
        if not self._options.diff:
            return ()
        found: list[FileDiff] = []
        self._phases.each("diff", self._differing(), lambda host: found.extend(filediff.fetch(host)))
        return tuple(sorted(found, key=lambda d: (d.node, d.path)))

    def _differing(self) -> list[Host]:
        meant = self._options.switch or self._hosts.keys()
        return [host for host in self._hosts.values() if host.error is None and host.differs and host.name in meant]

    def _renderer(self) -> Renderer:
        before = compile_mesh(self._inventory.mesh)
        if not self._options.switch:
            return Renderer(before, self._ring)
        # Agents know each other by their keys: those of a pair hear of a new one at the same time, afterwards.
        return Renderer(compile_mesh(self._inventory.switched(self._options.switch).mesh), self._ring, before)

    def _new_connections(self) -> Connections:
        options = self._options
        nodes = self._inventory.mesh.nodes
        self._opened.append(Connections(nodes, self._door, options.accept_new_host_keys, options.sudo_password))
        return self._opened[-1]

    def _ways(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """How SSH goes to each node, for as far as its settings can be read."""
        found = {}
        for node in () if self._options.local else self._inventory.mesh.managed():
            with contextlib.suppress(RemoteError):
                way = self._connections.way(node)
                found[node.name] = way.host, way.jumps
        return found

    def _anew(self) -> Anew:
        """What makes connections that nothing of before now is in, each time that it is called; the first ones share
        their jump hosts."""
        first = self._new_connections()

        def anew(name: str) -> Callable[[], Transport]:
            shared = iter((first,))
            return lambda: self._connector(name, next(shared, None) or self._new_connections())()

        return anew

    def _connector(self, name: str, connections: Connections) -> Callable[[], Transport]:
        node = self._inventory.mesh.nodes[name]
        if self._options.local:
            return lambda: LocalTransport(node, self._options.sudo_password)
        return lambda: connections.transport(node)
