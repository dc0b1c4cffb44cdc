"""Asking many hosts, in parallel; their agents, by the sockets that they answer at (meshctl.agent.node.ask).

What runs on a host is this controller's own few lines, sent along with the request: it does not matter which version of
the agent is there, nor where it is installed. What a host answers is believed as far as it has the right form.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from meshctl.agent.node.ask import EXIT_NO_AGENT, SOCKET
from meshctl.deploy.applier import PYTHON
from meshctl.deploy.door import Door, NetworkDoor
from meshctl.deploy.hints import hint
from meshctl.deploy.local import LocalTransport, this_machine
from meshctl.deploy.options import RunOptions
from meshctl.deploy.parallel import Interrupts, Workers
from meshctl.deploy.progress import Progress
from meshctl.deploy.selection import select
from meshctl.deploy.ssh import Connections
from meshctl.deploy.transport import Completed, Transport
from meshctl.errors import RemoteError
from meshctl.inventory.report import printable
from meshctl.model.mesh import Mesh

# The agent answers in milliseconds; a host under load may take a while to start Python.
TIMEOUT_S = 30.0
NOT_FOUND = 127

T = TypeVar("T")

Document = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """By node, each node in one of the two."""

    documents: Mapping[str, Document]
    errors: Mapping[str, RemoteError]


class Asking:
    """The hosts of one command, which may be asked again and again: connections are kept. A context manager."""

    def __init__(self, mesh: Mesh, options: RunOptions, door: Door | None = None) -> None:
        """Raises UsageError."""
        self._mesh, self._options = mesh, options
        names = select(mesh, options.limit)
        self.names = (this_machine(mesh, frozenset(names)),) if options.local else names
        self._interrupts = Interrupts()
        self._connections = Connections(
            mesh.nodes, door or NetworkDoor(), options.accept_new_host_keys, options.sudo_password
        )

    def __enter__(self) -> Asking:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.__exit__()
        self._connections.close()

    def ask(self, request: Document, progress: Progress, form: Callable[[Document], object]) -> Answers:
        """Ask all that are to have an agent. `form` raises KeyError, TypeError, ValueError, AttributeError or
        OverflowError for an answer that it cannot read. Raises KeyboardInterrupt."""
        self._connections.forget_lost()

        def ask_one(name: str, transport: Transport) -> Document:
            return _read(name, transport.run(_command(request), _program(), TIMEOUT_S), form)

        names = tuple(name for name in self.names if self._mesh.nodes[name].has_agent)
        return Answers(*self.each("asking", ask_one, progress, names))

    def each(
        self, phase: str, work: Callable[[str, Transport], T], progress: Progress, names: tuple[str, ...] | None = None
    ) -> tuple[dict[str, T], dict[str, RemoteError]]:
        """`work` for these hosts (all) in parallel, which may raise RemoteError; by node, each in one of the two.
        Raises KeyboardInterrupt."""
        names = self.names if names is None else names
        done: dict[str, T] = {}
        errors: dict[str, RemoteError] = {}

        def heard(name: str, found: T | RemoteError) -> None:
            if isinstance(found, RemoteError):
                errors[name] = found
            else:
                done[name] = found
            progress.done(phase, name, f"failed: {found.message}" if isinstance(found, RemoteError) else "ok")

        progress.begin(phase, names)
        try:
            Workers(
                lambda name: self._one(name, work), names, self._options.forks, self._interrupts
            ).run(heard, None)
        finally:
            progress.end()
        return dict(sorted(done.items())), dict(sorted(errors.items()))

    def pause(self, seconds: float) -> None:
        """Wait. Raises KeyboardInterrupt."""
        if self._interrupts.pause(seconds):
            raise KeyboardInterrupt

    # Inside

    def _one(self, name: str, work: Callable[[str, Transport], T]) -> T | RemoteError:
        """In a thread. Never raises."""
        try:
            return work(name, self._transport(name))
        except RemoteError as error:
            return error
        except Exception as error:
            message = f"internal error: {type(error).__name__}: {error}"
            return RemoteError(message, node=name, kind="protocol", hint="please report it")

    def _transport(self, name: str) -> Transport:
        node = self._mesh.nodes[name]
        if self._options.local:
            return LocalTransport(node, self._options.sudo_password)
        return self._connections.transport(node)


def _command(request: Document) -> str:
    return f"exec {PYTHON} - {shlex.quote(str(SOCKET))} {shlex.quote(json.dumps(request))}"


def _program() -> bytes:
    return (resources.files("meshctl") / "agent/node/ask.py").read_bytes()


def _read(name: str, completed: Completed, form: Callable[[Document], object]) -> Document:
    """The answer. Raises RemoteError."""
    said = printable(completed.last_line())
    if completed.status == EXIT_NO_AGENT:
        raise RemoteError(
            f"no agent answers: {said}", node=name, kind="no-agent", step="ask",
            hint=f"look at it there: systemctl status meshctl-agent; journalctl -u meshctl-agent (on {name})",
        )  # fmt: skip
    if completed.status == NOT_FOUND:
        raise RemoteError("python3 is missing", node=name, kind="python", step="ask", hint=hint("python", name))
    if completed.status:
        raise RemoteError(
            f"asking the agent ended with status {completed.status}: {said}", node=name,
            kind="command", step="ask",
        )  # fmt: skip
    try:
        document = json.loads(completed.text(), parse_constant=_finite, parse_float=_finite)
        if "error" in document:
            raise RemoteError(printable(str(document["error"])), node=name, kind="command", step="ask")
        form(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise RemoteError(
            f"the agent's answer cannot be read ({type(error).__name__})", node=name, kind="protocol", step="ask",
            hint="is the agent of another version? apply brings this one",
        ) from error  # fmt: skip
    found: Document = document
    return found


def _finite(number: str) -> float:
    """Python's parser takes NaN, Infinity and 1e999, and its writer gives what no other parser takes."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    return value
