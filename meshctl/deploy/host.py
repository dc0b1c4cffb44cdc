"""One host's part of a run: read its facts, send it a transaction, check what became of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from meshctl import facts as facts_of
from meshctl import ops
from meshctl.core.change import Change
from meshctl.core.diff import diff
from meshctl.core.history import Entry
from meshctl.deploy import applier, rollback
from meshctl.deploy.hints import hint
from meshctl.deploy.rollback import Way
from meshctl.deploy.transport import Completed, NotSentError, Transport
from meshctl.errors import RemoteError
from meshctl.model.facts import HostFacts, PendingApply
from meshctl.model.mesh import Mesh
from meshctl.model.places import FACTS_SHELL, REVERT_LINK
from meshctl.model.resources import NodeDoc, Peer
from meshctl.model.steps import Result, Step, Transaction
from meshctl.render import zipapp

FACTS_COMMAND = f"exec sh -c {shlex.quote(FACTS_SHELL)}"
# Failures of a connection that was there before.
LOST = ("unreachable", "timeout")

Connect = Callable[[], Transport]


@dataclass(frozen=True)
class Terms:
    """On which a run applies: its `id` is that of all its transactions, each to be confirmed in that time (0: not at
    all), by a person if `manual`. `who` and `revision` are for the host's history; `prepares` and `part_of` as a
    transaction has them."""

    id: str
    who: str = ""
    revision: str = ""
    window_s: float = 0.0
    prepares: str = ""
    part_of: str = ""
    manual: bool = False

    def preparing(self) -> Terms:
        """Of what must be there before a main transaction can be made; nobody confirms that."""
        return replace(self, id=f"{self.id}-keys", window_s=0.0, prepares=self.id)

    def first_round(self) -> Terms:
        """Of the part of a main transaction that is done on all hosts before the rest."""
        return replace(self, id=f"{self.id}-new", part_of=self.id)


@dataclass
class Host:
    """A node during one run. `facts` is None until it was reached; `error` is what stopped it."""

    name: str
    doc: NodeDoc
    connect: Connect
    transport: Transport | None = None
    facts: HostFacts | None = None
    changes: tuple[Change, ...] = ()
    applied: list[Change] = field(default_factory=list)
    kept: list[Change] = field(default_factory=list)  # applied by transactions before, which nothing undoes any more
    warnings: list[str] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)  # `IFACE PEER` whose endpoint is a name that does not resolve
    error: RemoteError | None = None
    duration_s: float = 0.0
    pending: PendingApply | None = None  # what its node undoes unless it is confirmed
    confirmed: bool = False
    endpoints: dict[tuple[str, str], str] = field(default_factory=dict)  # where WireGuard sent before, to whom
    history: tuple[Entry, ...] = ()
    way: Way | None = None  # back to another state; None for an apply
    gone_back: bool = False

    @property
    def is_undecided(self) -> bool:
        """Whether the host may still be again what it was before an apply, which waits there to be confirmed."""
        return self.facts is not None and self.facts.pending is not None and not self.confirmed

    def read(self, *, compare: bool = True) -> None:
        """Connect, run the facts script, compare. Raises RemoteError."""
        self.transport = self.connect()
        completed = self.transport.run(FACTS_COMMAND, self._script().encode())
        if completed.status != 0:
            raise RemoteError(
                f"the facts script ended with status {completed.status}: {completed.last_line()}",
                node=self.name, kind="command", step="facts", hint=hint("command", self.name),
            )  # fmt: skip
        self.facts = facts_of.parse(self.name, completed.text())
        if compare:
            self.compare()

    def compare(self) -> None:
        """Compare the facts at hand with the document. Who goes back has nothing more to do, whatever that says."""
        if self.facts is not None:
            self.changes = () if self.way else tuple(diff(self.doc, self.facts))

    def go_back(self, runs: Sequence[str], mesh: Mesh) -> None:
        """What is to be done is to be as it was after the first of these runs, the newest. Raises RemoteError."""
        way = rollback.way(self.name, self.history, runs)
        if way is not None:
            rollback.refuse_rotated(self.name, way, mesh)
        self.way = way
        self.changes = self.way.changes() if self.way else ()

    @property
    def differs(self) -> bool:
        """Whether there is something to do. What is to be taken back may have no change that its journal tells of."""
        return bool(self.changes or (self.way and self.way.entries and not self.gone_back))

    def converge(
        self, changes: tuple[Change, ...], agent: zipapp.Zipapp, terms: Terms, towards: NodeDoc | None = None
    ) -> None:
        """Send these changes as one transaction and take over the facts that it ends with. `towards` is the document
        that they lead to, when it is not the host's own. Raises RemoteError."""
        if self.transport is None or self.facts is None:
            raise RuntimeError("converge comes after read")
        self.kept += self.applied
        self.applied = []
        applier.check_python(self.name, self.facts)
        steps = self._steps(towards or self.doc, self.facts, changes)
        self.endpoints = {
            (name, key.text): peer.endpoint for name, facts in self.facts.interfaces.items()
            for key, peer in facts.peers.items() if peer.endpoint
        }  # fmt: skip
        window_s, who = terms.window_s, terms.who
        revision = self.way.state.revision if self.way else terms.revision
        transaction = Transaction(
            terms.id, self.name, steps, self._script(), window_s, who, revision,
            tuple(change.to_json() for change in changes), terms.prepares, terms.part_of,
            self.facts.ledger.digest if steps else "", terms.manual,
        )  # fmt: skip
        command, stdin = applier.command_for(agent, transaction.encode(), present=agent.hash in self.facts.agents)
        pending = PendingApply(transaction.id, who, window_s) if window_s else None
        try:
            result = applier.read_result(self.name, self._run_applier(command, stdin, pending))
        except RemoteError as error:
            if error.kind == "interrupted" and window_s:  # the node would see it when its timer ends
                self.transport.run(applier.agent_command(REVERT_LINK, "revert"))
                self.pending = None
            raise
        self.warnings.extend(result.warnings)
        self.unresolved = peers_of(self.doc, [steps[index] for index in result.unresolved])
        self.applied.extend(c for c in applied_changes(changes, steps, result.done) if not self.awaits_name(c))
        if result.failure is not None:
            failure = result.failure
            if result.undone is not None:
                self.applied.clear()
            step = describe(steps[failure.index]) if 0 <= failure.index < len(steps) else result.phase
            message = failure.message.removeprefix(f"{step}: ")
            message += _became(result)
            self.pending = None
            raise RemoteError(message, node=self.name, kind=failure.kind, step=step, hint=hint(failure.kind, self.name))
        facts = facts_of.parse(self.name, result.facts)
        # What applies before this run have left is known from the first look.
        self.facts = replace(facts, pending=self.facts.pending, undone=self.facts.undone)
        self.gone_back = self.way is not None
        self.compare()

    def check_converged(self, changes: tuple[Change, ...]) -> None:
        """Raises RemoteError of kind not-converged when any of these, which are still to do, is more than a name that
        does not resolve."""
        if left := [change for change in changes if not self.awaits_name(change)]:
            names = ", ".join(f"{c.action} {c.kind} {c.name}" for c in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise RemoteError(
                f"applied, but still to do: {names}{more}", node=self.name, kind="not-converged", step="verify",
                hint=hint("not-converged", self.name),
            )  # fmt: skip

    def awaits_name(self, change: Change) -> bool:
        """Whether the change is nothing but an endpoint whose name did not resolve just now."""
        endpoint_alone = change.kind == "peer" and set(change.after or ()) == {"endpoint"}
        return endpoint_alone and change.name in self.unresolved

    def _run_applier(self, command: str, stdin: bytes, pending: PendingApply | None) -> Completed:
        """A connection that broke while others had their turn is opened anew. Raises RemoteError."""
        try:
            return self._send(command, stdin, pending)
        except NotSentError:
            self.transport = self.connect()
            return self._send(command, stdin, pending)

    def _send(self, command: str, stdin: bytes, pending: PendingApply | None) -> Completed:
        """From the moment on that something may have been sent there is something pending. A connection that breaks
        after that leaves a node that goes on by itself: raises RemoteError that says so, NotSentError before."""
        if self.transport is None:
            raise RuntimeError("send comes after read")
        self.pending = pending
        try:
            return self.transport.run(command, stdin)
        except NotSentError:
            self.pending = None
            raise
        except RemoteError as error:
            if error.kind not in LOST:
                raise
            raise RemoteError(
                f"{error.message}; the node may still be finishing what it has begun", node=self.name, kind=error.kind,
                step="apply", hint="run apply again: it does what is left",
            ) from error  # fmt: skip

    def _steps(self, doc: NodeDoc, facts: HostFacts, changes: tuple[Change, ...]) -> tuple[Step, ...]:
        if self.way is not None:
            return (Step("restore", argv=self.way.ids, target=self.way.state.id),)
        return tuple(ops.steps_for(doc, facts, changes))

    def _script(self) -> str:
        return facts_of.script(facts_of.request_for(self.doc))


def _became(result: Result) -> str:
    """What the node has done about a failure, in words."""
    if result.undone is None:
        return ""
    if not result.undone:
        return "; what was done is undone"
    return f"; what was done is undone, but for {', '.join(result.undone)}"


def applied_changes(changes: tuple[Change, ...], steps: tuple[Step, ...], done: tuple[int, ...]) -> list[Change]:
    """The changes all of whose steps ran. One without a step of its own (the second peer of one `wg addconf`) goes
    with the one before it; what the ledger alone takes note of is done when all is."""
    ran = set(done)
    if len(ran) == len(steps):
        return list(changes)
    pending = {step.change for index, step in enumerate(steps) if index not in ran}
    own = {step.change for step in steps}
    applied, with_it = [], False
    for index, change in enumerate(changes):
        if index in own:
            with_it = index not in pending
        if with_it:
            applied.append(change)
    return applied


def peers_of(doc: NodeDoc, steps: list[Step]) -> set[str]:
    """The names, as changes have them, of the peers that endpoint steps are about."""
    wanted = {(step.interface, step.peer) for step in steps}
    return {f"{at[0]} {peer.name}" for at, peer in peers_by_key(doc).items() if at in wanted} if wanted else set()


def peers_by_key(doc: NodeDoc) -> dict[tuple[str, str], Peer]:
    """The peers by interface and public key; without those of unknown key."""
    return {(w.interface, p.public_key.text): p for w in doc.interfaces() for p in w.peers if p.public_key}


def describe(step: Step) -> str:
    """A step in a few words; never its input or content."""
    return " ".join(step.argv) if step.do == "run" else f"{step.do} {step.path}".strip()
