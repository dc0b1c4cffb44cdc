"""The loop around the core: sockets → events → core → actions → sockets. All decisions are the core's."""

from __future__ import annotations

import selectors
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.handler import Handler, HasFileno, Readable
from meshctl.agent.node.log import Log
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, Reconfigured, Wake, WgStatus
from meshctl.core.agentcore import AgentCore

# What a handler may raise for an action that cannot be done (see Handler).
FAILURES = (OSError, ValueError, RuntimeError)


def clock() -> float:
    """The core's time: seconds that never go back, and that go on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Counts:
    """Since the agent's start: events that the core has heard, and actions that could not be done, by their class."""

    events: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


class Loop:
    """Runs until `stop` was called. Who handles an action (some have two sides to them) is found by its class."""

    def __init__(
        self, core: AgentCore, handlers: Sequence[Handler], decisions: Decisions, log: Log, counts: Counts | None = None
    ) -> None:  # fmt: skip
        self._core = core
        self._handlers = tuple(handlers)
        self._decisions = decisions
        self._log = log
        self._counts = counts or Counts()
        self._of: dict[type[Action], list[Handler]] = {}
        for handler in self._handlers:
            for kind in handler.actions:
                self._of.setdefault(kind, []).append(handler)
        self._selector = selectors.DefaultSelector()
        self._registered: dict[int, HasFileno] = {}  # by the object's id
        self._stopping = False

    def stop(self) -> None:
        """Save what the next agent is to know, and end; everything stays as it is."""
        self._stopping = True

    def configure(self, document: AgentDocument) -> list[Event]:
        """The document is another one; gives what the core is to be told."""
        now = clock()
        for handler in self._handlers:
            try:
                handler.configure(document, now)
            except FAILURES as error:
                self._log.trouble("configure", str(error), handler=type(handler).__name__)
        self._decisions.configure(document.config)
        return [Reconfigured(document.config)]

    def run(self) -> None:
        """Until `stop`."""
        try:
            self._settle(clock())
            while not self._stopping:
                self._turn()
            self._core.save()
            self._drain()
        finally:
            for handler in self._handlers:
                handler.close()
            self._selector.close()

    def _turn(self) -> None:
        """Wait for one thing at least to happen, and see to all that has."""
        self._register()
        ready = self._selector.select(self._wait(clock()))
        now = clock()
        events: list[Event] = []
        for key, _ in ready:
            read: Readable = key.data
            events += self._ask(read, now)
        timeout = self._core.poll_timeout()
        if timeout is not None and timeout[0] <= now:
            events.append(Wake())
        self._give(events, now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Do what is to be done, and tell the core what came of it, until there is nothing more."""
        while True:
            self._drain()
            events = [event for handler in self._handlers for event in self._ask(handler.poll, now)]
            if not events:
                return
            self._give(events, now)

    def _drain(self) -> None:
        for action in iter(self._core.poll_action, None):
            self._do(action)

    def _do(self, action: Action) -> None:
        try:
            if type(action) not in self._of:
                raise RuntimeError("nothing here can do this")
            for handler in self._of[type(action)]:
                handler.do(action)
        except FAILURES as error:
            self._counts.failures[type(action).__name__] += 1
            self._log.trouble(type(action).__name__, str(error))
        else:
            self._decisions.done(action)

    def _ask(self, read: Readable, now: float) -> list[Event]:
        try:
            return read(now)
        except FAILURES as error:
            self._log.trouble("read", str(error), of=getattr(read, "__qualname__", repr(read)))
            return []

    def _give(self, events: Iterable[Event], now: float) -> None:
        for event in events:
            self._core.handle(event, now)
            self._counts.events[type(event).__name__] += 1
            if isinstance(event, WgStatus):
                self._decisions.look(self._core)

    def _wait(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        timeout = self._core.poll_timeout()
        due = [timeout[0]] if timeout is not None else []
        due += [at for at in (handler.due() for handler in self._handlers) if at is not None]
        return max(0.0, min(due) - now) if due else None

    def _register(self) -> None:
        """Await all sockets that are open now, and no others."""
        wanted = {id(sock): (sock, read) for handler in self._handlers for sock, read in handler.sockets()}
        for number in [number for number in self._registered if number not in wanted]:
            self._selector.unregister(self._registered.pop(number))
        for number, (sock, read) in wanted.items():
            if number not in self._registered:
                self._selector.register(sock, selectors.EVENT_READ, read)
                self._registered[number] = sock
