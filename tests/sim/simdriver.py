"""Runs one agent's core: hands it events, does its actions, wakes it when it asked to be."""

from __future__ import annotations

import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from simkernel import is_stun
from simnat import Place

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS

if TYPE_CHECKING:
    from simnode import Core, Node

# A core that is woken so often at one moment spins, though it does something; and so often though it does nothing.
MAX_WAKES, MAX_IDLE_WAKES = 200, 3
_SPUN_S = 0.05
_DNS_S, _LAN_S, _HTTP_TIMEOUT_S = 0.03, 0.004, 3.0
_ROUNDING_S = 1e-6


def raised(error: Exception) -> str:
    """What a core raised, and the last places that it came through."""
    places = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{error!r} by " + " < ".join(f"{Path(p.filename).name}:{p.lineno}" for p in reversed(places))


class Driver:
    """One run of the agent on a host, from its start until it is killed."""

    def __init__(self, node: Node, core: Core) -> None:
        self.node, self.core, self.alive = node, core, True
        self._clock = node.world.clock
        self._now = node.now
        self._todo: deque[ev.Event] = deque()
        self._running = False
        self._given_at = self._wake_at = -1.0
        self._armed: float | None = None
        self._wakes = self._idle_wakes = self._acted = 0

    def kill(self) -> None:
        """Nothing more happens in it; what it did to the kernel stays."""
        self.alive = False
        self._todo.clear()

    def give(self, event: ev.Event) -> None:
        """An event, at once, or as late as the host is slow."""
        if not self.node.slow_s:
            self._handle(event)
            return
        delay = self.node.dice.random() * self.node.slow_s
        self._given_at = max(self._given_at, self._clock.now + delay)
        self._clock.at(self._given_at, lambda: self._handle(event))

    def stun(self, local: Place, remote: Place, data: bytes) -> None:
        """What the raw socket heard."""
        kernel, port = self.node.kernel, local[1]
        if port == kernel.port or port in kernel.splices.values() or any(port in p for p in kernel.opened.values()):
            self.give(ev.Datagram(Address(*local), Address(*remote), data))
        elif port in RELAY_PORTS and self.node.spec.kind == "anchor":
            self.give(ev.RelayDatagram(port, Address(*remote), data))

    def wind_up(self) -> None:
        """Let it give back what it holds; that is its end."""
        self._guarded(lambda: self.core.stop(self._time()))
        self.kill()

    # Inside

    def _time(self) -> float:
        self._now = max(self._now, self.node.now)
        return self._now

    def _handle(self, event: ev.Event) -> None:
        if self.alive and self.node.kernel.up:
            self._todo.append(event)
            if not self._running:
                self._guarded(self._run)

    def _run(self) -> None:
        while self._todo and self.alive:
            self.core.handle(self._todo.popleft(), self._time())
            self._drain()

    def _guarded(self, call: object) -> None:
        """Call, and do what is then to be done. What the core raises is a finding, and ends this run of the agent."""
        self._running, world = True, self.node.world
        world.deciding = self
        try:
            call()  # type: ignore[operator]
            self._drain()
        except Exception as error:
            self.kill()
            world.found("raised", self.node.name, raised(error))
        finally:
            self._running, world.deciding = False, None
        self._arm()

    def _drain(self) -> None:
        while self.alive and (action := self.core.poll_action()) is not None:
            self._acted += 1
            _DO[type(action)](self, action)

    def _arm(self) -> None:
        due = self.core.poll_timeout() if self.alive else None
        if due is None:
            return
        when = max(due[0] - self.node.offset, self._clock.now)
        if self._armed is None or when < self._armed:
            self._armed = when
            self._clock.at(when, lambda: self._ring(when))

    def _ring(self, when: float) -> None:
        if self._armed != when or not self.alive:
            return
        self._armed = None
        due = self.core.poll_timeout()
        if due is None:
            return
        if not self.node.kernel.up:  # asleep: it is late then
            self._armed = self._clock.now + _SPUN_S
            self._clock.at(self._armed, lambda again=self._armed: self._ring(again))
            return
        now = self._time()
        if due[0] > now + _ROUNDING_S:
            self._arm()
            return
        self._now = max(now, due[0])
        self._count_wake(due[1])
        before = self._acted
        self.give(ev.Wake())
        self._idle_wakes = 0 if self._acted > before else self._idle_wakes + 1

    def _count_wake(self, reason: str) -> None:
        if self._clock.now != self._wake_at:
            self._wake_at, self._wakes, self._idle_wakes = self._clock.now, 0, 0
        self._wakes += 1
        if self._wakes > MAX_WAKES or self._idle_wakes > MAX_IDLE_WAKES:
            self.node.world.found("spins", self.node.name, f"woken {self._wakes} times at once, for: {reason}")
            self.kill()

    # Actions

    def _send_probe(self, action: ev.SendProbe) -> None:
        source = action.local.ip or self.node.kernel.source_for(action.remote) or ""
        self.node.world.watch.probe(self.node, action)
        if is_stun(action.data):
            self.node.kernel.send((source, action.local.port), action.remote, action.data)
        else:
            self.node.world.found("probes that are no STUN", self.node.name, str(action.remote))

    def _send_signal(self, action: ev.SendSignal) -> None:
        self.node.world.watch.signal(self.node, action)
        self.node.kernel.wg.send(action.mesh_ip, b"S" + action.data)

    def _set_endpoint(self, action: ev.SetEndpoint) -> None:
        peer = self.node.peer_name(action.peer)
        self.node.world.watch.endpoint(self.node, peer, action.address)
        self.node.kernel.wg.set_endpoint(action.peer.raw()[:16], action.address)

    def _set_keepalive(self, action: ev.SetKeepalive) -> None:
        self.node.say(f"keepalive of {self.node.peer_name(action.peer)}: {action.interval_s} s")
        self.node.kernel.wg.set_keepalive(action.peer.raw()[:16], action.interval_s)

    def _poll_wg(self, _action: ev.PollWg) -> None:
        self._todo.append(ev.WgStatus(self.node.statuses()))

    def _resolve(self, action: ev.Resolve) -> None:
        answer = ev.Resolved(action.name, self.node.world.resolve(action.name))
        self._clock.after(_DNS_S, lambda: self.give(answer))

    def _send_mapping(self, action: ev.SendMapping) -> None:
        gateway = self.node.gateway
        if gateway is not None and action.gateway.ip in (gateway.ip, "239.255.255.250"):
            for answer in gateway.datagram(action):
                self._clock.after(_LAN_S, lambda answer=answer: self.give(answer))

    def _http_request(self, action: ev.HttpRequest) -> None:
        gateway = self.node.gateway
        if gateway is not None and f"//{gateway.ip}:" in action.url:
            answer = gateway.http(action)
            self._clock.after(_LAN_S, lambda: self.give(answer))
        else:
            silence = ev.HttpReply(action.request_id, 0, b"")
            self._clock.after(_HTTP_TIMEOUT_S, lambda: self.give(silence))

    def _install_relay(self, action: ev.InstallRelay) -> None:
        self.node.world.watch.relay(self.node, action)
        self.node.kernel.relays[action.port] = (action.a, action.b)

    def _remove_relay(self, action: ev.RemoveRelay) -> None:
        self.node.say(f"relay {action.port} removed")
        self.node.kernel.relays.pop(action.port, None)

    def _open_ports(self, action: ev.OpenPorts) -> None:
        self.node.say(f"{len(action.ports)} ports open for {self.node.peer_name(action.peer)}")
        self.node.kernel.opened[action.peer.text] = action.ports

    def _install_splice(self, action: ev.InstallSplice) -> None:
        self.node.say(f"splice {action.local_port} to {action.remote} for {self.node.peer_name(action.peer)}")
        self.node.kernel.splices[action.remote] = action.local_port

    def _remove_splice(self, action: ev.RemoveSplice) -> None:
        self.node.say(f"splice {action.local_port} to {action.remote} removed")
        self.node.kernel.splices.pop(action.remote, None)

    def _save_state(self, action: ev.SaveState) -> None:
        self.node.saved = action.data


_DO = {
    ev.SendProbe: Driver._send_probe, ev.SendSignal: Driver._send_signal, ev.SetEndpoint: Driver._set_endpoint,
    ev.SetKeepalive: Driver._set_keepalive, ev.PollWg: Driver._poll_wg, ev.Resolve: Driver._resolve,
    ev.SendMapping: Driver._send_mapping, ev.HttpRequest: Driver._http_request,
    ev.InstallRelay: Driver._install_relay, ev.RemoveRelay: Driver._remove_relay, ev.OpenPorts: Driver._open_ports,
    ev.InstallSplice: Driver._install_splice, ev.RemoveSplice: Driver._remove_splice,
    ev.SaveState: Driver._save_state,
}  # fmt: skip
