"""Runs one agent's core: hands it events, does its actions, wakes it when it asked to be."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import simactions
from simnat import Place

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS

if TYPE_CHECKING:
    from simnode import Core, Node

# A core that is woken so often at one moment spins, though it does something; and so often though it does nothing.
MAX_WAKES, MAX_IDLE_WAKES = 200, 3
_SPUN_S = 0.05
_ROUNDING_S = 1e-6
# `ruletable.SWEEP_AFTER_S`: rules of an agent before that this one has not asked for by then are over.
SWEEP_AFTER_S = 2.0


def raised(error: Exception) -> str:
    """What a core raised, and the last places that it came through."""
    places = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{error!r} by " + " < ".join(f"{Path(p.filename).name}:{p.lineno}" for p in reversed(places))


class Driver:
    """One run of the agent on a host, from its start until it is killed."""

    def __init__(self, node: Node, core: Core) -> None:
        self.node, self.core, self.alive = node, core, True
        self.clock = node.world.clock
        self._now = node.now
        self.todo: deque[ev.Event] = deque()
        self._running = False
        self._given_at = self._wake_at = -1.0
        self._armed: float | None = None
        self._wakes = self._idle_wakes = self._acted = 0
        self.splices_before = {*node.kernel.splices}
        self.relays_before = {*node.kernel.relays}
        if self.splices_before or self.relays_before:
            self.clock.after(SWEEP_AFTER_S, self._sweep)

    def kill(self) -> None:
        """Nothing more happens in it; what it did to the kernel stays."""
        self.alive = False
        self.todo.clear()

    def give(self, event: ev.Event) -> None:
        """An event, at once, or as late as the host is slow, and behind those that came before."""
        if not self.node.slow_s and self._given_at <= self.clock.now:
            self._handle(event)
            return
        delay = self.node.dice.random() * self.node.slow_s
        self._given_at = max(self._given_at, self.clock.now + delay)
        self.clock.at(self._given_at, lambda: self._handle(event))

    def stun(self, local: Place, remote: Place, data: bytes) -> None:
        """What the raw socket heard."""
        before = self._acted
        self.give_stun(local, remote, data)
        if self.node.world.copyist is not None:
            self.node.world.copyist.heard_stun(self.node, local, remote, data, answered=self._acted > before)

    def give_stun(self, local: Place, remote: Place, data: bytes) -> None:
        """The same, unheard by others."""
        kernel, port = self.node.kernel, local[1]
        if port == kernel.port or port in kernel.splices.values() or any(port in p for p in kernel.opened.values()):
            self.give(ev.Datagram(Address(*local), Address(*remote), data))
        elif port in RELAY_PORTS and self.node.spec.kind == "anchor":
            self.give(ev.RelayDatagram(port, Address(*remote), data))

    def wind_up(self) -> None:
        """Its host leaves the mesh: it gives back what it holds; that is its end."""
        self._guarded(self._give_back)
        self.kill()

    # Inside

    def _time(self) -> float:
        now = self.clock.now + self.node.offset
        if now > self._now:
            self._now = now
        return self._now

    def _handle(self, event: ev.Event) -> None:
        if self.alive and self.node.kernel.up:
            self.todo.append(event)
            if not self._running:
                self._guarded(self._run)

    def _run(self) -> None:
        while self.todo and self.alive:
            event = self.todo.popleft()
            self.core.handle(event, self._time())
            self._drain()
            if isinstance(event, ev.Reconfigured):
                self._reconfigured(event)

    def _give_back(self) -> None:
        self.core.handle(ev.Reconfigured(AgentConfig(self.node.name, ())), self._time())
        self._drain()

    def _reconfigured(self, event: ev.Reconfigured) -> None:
        node = self.node
        node.runs = event.config
        node.world.watch.reconfigured(node)
        if node.world.copyist is not None:
            node.world.copyist.reconfigured(node)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Call, and do what is then to be done. What the core raises is a finding, and ends this run of the agent."""
        self._running, world = True, self.node.world
        world.deciding = self
        try:
            call()
        except Exception as error:
            self.kill()
            world.found("raised", self.node.name, raised(error))
        finally:
            self._running, world.deciding = False, None
        self._arm()

    def _sweep(self) -> None:
        if self.alive:
            for remote in sorted(self.splices_before):
                self.node.say(f"splice to {remote} swept away")
                del self.node.kernel.splices[remote]
            for port in sorted(self.relays_before):
                self.node.say(f"relay {port} swept away")
                del self.node.kernel.relays[port]

    def _drain(self) -> None:
        while self.alive and (action := self.core.poll_action()) is not None:
            self._acted += 1
            simactions.do(self, action)

    def _arm(self) -> None:
        due = self.core.poll_timeout() if self.alive else None
        if due is None:
            return
        when = max(due[0] - self.node.offset, self.clock.now)
        if self._armed is None or when < self._armed:
            self._armed = when
            self.clock.at(when, partial(self._ring, when))

    def _ring(self, when: float) -> None:
        if self._armed != when or not self.alive:
            return
        self._armed = None
        due = self.core.poll_timeout()
        if due is None:
            return
        if not self.node.kernel.up:  # asleep: it is late then
            self._armed = self.clock.now + _SPUN_S
            self.clock.at(self._armed, partial(self._ring, self._armed))
            return
        now = self._time()
        if due[0] > now + _ROUNDING_S:
            self._arm()
            return
        self._now = max(now, due[0])
        self._count_wake(due[1])
        self.node.world.watch.wake(self.node, due[1])
        before = self._acted
        self.give(ev.Wake())
        self._idle_wakes = 0 if self._acted > before else self._idle_wakes + 1

    def _count_wake(self, reason: str) -> None:
        if self.clock.now != self._wake_at:
            self._wake_at, self._wakes, self._idle_wakes = self.clock.now, 0, 0
        self._wakes += 1
        if self._wakes > MAX_WAKES or self._idle_wakes > MAX_IDLE_WAKES:
            self.node.world.found("spins", self.node.name, f"woken {self._wakes} times at once, for: {reason}")
            self.kill()
