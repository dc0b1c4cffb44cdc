"""WireGuard's counters, and the two settings that are the agent's."""

from __future__ import annotations

import time
from collections.abc import Callable

from meshctl.agent.node.handler import Plain
from meshctl.agent.node.wgread import Line, read_device
from meshctl.agent.node.wgset import set_peer
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, PeerStatus, PollWg, SetEndpoint, SetKeepalive, WgStatus
from meshctl.model.keys import PublicKey


class WireGuard(Plain):
    """All interfaces of this node's configuration. `marks` is by listen port, as of the last reading: the fwmark of
    each interface. `wall` is the clock that WireGuard's handshake times are of."""

    actions = (PollWg, SetEndpoint, SetKeepalive)

    def __init__(self, document: AgentDocument, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._known: dict[str, dict[bytes | str, Line]] = {}  # of the last reading, by interface
        self._events: list[Event] = []
        self.marks: dict[int, int] = {}
        self._configure(document.config)

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        self._configure(document.config)

    def _configure(self, config: AgentConfig) -> None:
        self._interfaces = sorted(n.interface for n in config.networks)
        self._interface_of = {p.public_key: n.interface for n in config.networks for p in n.peers}

    def do(self, action: Action) -> None:
        """See Handler. Raises ValueError for a peer of no network, OSError when WireGuard says no."""
        if isinstance(action, PollWg):
            self._events.append(WgStatus(self.read()))
        elif isinstance(action, SetEndpoint):
            set_peer(self._interface_with(action.peer), action.peer, endpoint=action.address)
        elif isinstance(action, SetKeepalive):
            set_peer(self._interface_with(action.peer), action.peer, keepalive_s=action.interval_s)

    def poll(self, _now: float) -> list[Event]:
        """See Handler."""
        events, self._events = self._events, []
        return events

    def read(self) -> tuple[PeerStatus, ...]:
        """All peers of the node's interfaces. An interface that is not there has none. Raises OSError, ValueError."""
        before, self._known = self._known, {}
        self.marks.clear()
        found: list[PeerStatus] = []
        for name in self._interfaces:
            device = read_device(name, before.get(name, {}))
            if device is not None:
                self._known[name] = device.peers
                self.marks[device.listen_port] = device.fwmark
                wall = self._wall()
                found += [_status(line, wall, userspace=device.userspace) for line in device.peers.values()]
        return tuple(found)

    def _interface_with(self, peer: PublicKey) -> str:
        interface = self._interface_of.get(peer)
        if interface is None:
            raise ValueError(f"{peer} is no peer of this node")
        return interface


def _status(line: Line, wall: float, *, userspace: bool) -> PeerStatus:
    age = wall - line.handshake if line.handshake else None
    return PeerStatus(line.public_key, line.endpoint, age, line.rx_bytes, line.tx_bytes, line.keepalive_s, userspace)
