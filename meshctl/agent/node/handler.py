"""Whoever runs actions of the core, and turns what comes of them into events: one object for each kind of I/O.

The loop asks `sockets()` anew after each action and each event, so a handler opens and closes sockets as it likes.
What takes time is a socket that becomes readable, or a time that comes. Two things are waited for, and all else waits
with them: WireGuard's answers (wglink.TIMEOUT_S at most), and nft(8), when a table is made, put back or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event


class HasFileno(Protocol):
    """A socket, or anything else that `selectors` takes; it is awaited until it can be read."""

    def fileno(self) -> int:
        """The open descriptor."""


# Called with `now` when there is something to read; reads it and says what happened.
Readable = Callable[[float], "list[Event]"]


class Handler(Protocol):
    """`now` is the core's: seconds that never go back, and that go on while the host sleeps.

    An action that cannot be done is logged and forgotten (the core asks again for what matters): `do` raises OSError,
    ValueError or RuntimeError for that, and the loop logs it.
    """

    @property
    def actions(self) -> tuple[type[Action], ...]:
        """The classes of actions that are this handler's."""

    def do(self, action: Action) -> None:
        """Begin it; what comes of it is an event of a socket or of `poll`."""

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """All that are open now."""

    def due(self) -> float | None:
        """When `poll` is to be called at the latest; None: not for a time's sake."""

    def poll(self, now: float) -> list[Event]:
        """What happened besides: time ran out, say. Called when `due` has come, and after `do`."""

    def configure(self, document: AgentDocument, now: float) -> None:
        """The document is another one, before the core hears of it."""

    def close(self) -> None:
        """The agent ends, and another one may begin: what it did to the host stays as it is."""


class Plain:
    """Defaults for handlers: no sockets, no times, nothing to report, nothing to close."""

    actions: tuple[type[Action], ...] = ()

    def do(self, action: Action) -> None:
        """See Handler."""

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return ()

    def due(self) -> float | None:
        """See Handler."""
        return None

    def poll(self, now: float) -> list[Event]:  # noqa: ARG002 - a subclass may want it
        """See Handler."""
        return []

    def configure(self, document: AgentDocument, now: float) -> None:
        """See Handler."""

    def close(self) -> None:
        """See Handler."""
