"""WireGuard's counters, and the two settings that are the agent's."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshctl.agent.node.handler import Plain
from meshctl.agent.node.wgread import Device, Line, read_device
from meshctl.agent.node.wgset import set_peer
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, PeerStatus, PollWg, SetEndpoint, SetKeepalive, WgStatus
from meshctl.model.keys import PublicKey

# One that has said nothing in its time (wglink.TIMEOUT_S) is asked again after this: all else waits meanwhile.
AGAIN_S = 5.0


class WireGuard(Plain):
    """All interfaces of this node's configuration. `marks` is by listen port: the fwmark of each interface, as it was
    last read. `wall` is the clock that WireGuard's handshake times are of."""

    actions = (PollWg, SetEndpoint, SetKeepalive)

    def __init__(self, document: AgentDocument, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._known: dict[str, Device] = {}  # as last read, by interface
        self._silent_until: dict[str, float] = {}  # by interface, of the monotonic clock
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
        """See Handler. Raises ValueError for a peer of no network, OSError when WireGuard says no, or nothing. After a
        reading, too: what there is to tell is told then."""
        if isinstance(action, PollWg):
            failures = self._read()
            self._events.append(WgStatus(self._statuses()))
            if failures:
                raise OSError("; ".join(failures))
        elif isinstance(action, SetEndpoint):
            self._set(action.peer, endpoint=action.address)
        elif isinstance(action, SetKeepalive):
            self._set(action.peer, keepalive_s=action.interval_s)

    def poll(self, _now: float) -> list[Event]:
        """See Handler."""
        events, self._events = self._events, []
        return events

    # Inside

    def _read(self) -> list[str]:
        """Read all interfaces; which of them could not be read, and why. These stay as they were known: that a
        WireGuard is busy ends neither its tunnels nor its mark. One that is not there has no peers."""
        before, self._known = self._known, {}
        failures = []
        for name in self._interfaces:
            device = before.get(name)
            try:
                with self._patience(name):
                    device = read_device(name, device.peers if device is not None else {})
            except (OSError, ValueError) as error:
                failures.append(f"{name}: {error}")
            if device is not None:
                self._known[name] = device
        self.marks.clear()
        self.marks.update((device.listen_port, device.fwmark) for device in self._known.values())
        return failures

    def _statuses(self) -> tuple[PeerStatus, ...]:
        wall = self._wall()
        return tuple(
            _status(line, wall, userspace=device.userspace)
            for device in self._known.values()
            for line in device.peers.values()
        )

    def _set(self, peer: PublicKey, endpoint: Address | None = None, keepalive_s: int | None = None) -> None:
        interface = self._interface_of.get(peer)
        if interface is None:
            raise ValueError(f"{peer} is no peer of this node")
        with self._patience(interface):
            set_peer(interface, peer, endpoint, keepalive_s)

    @contextmanager
    def _patience(self, interface: str) -> Iterator[None]:
        """Around what the interface's WireGuard is asked. Raises OSError when it does not answer, and at once when it
        did not a moment ago."""
        silence = OSError("WireGuard does not answer")
        if time.monotonic() < self._silent_until.get(interface, 0.0):
            raise silence
        try:
            yield
        except socket.timeout:
            self._silent_until[interface] = time.monotonic() + AGAIN_S
            raise silence from None


def _status(line: Line, wall: float, *, userspace: bool) -> PeerStatus:
    age = wall - line.handshake if line.handshake else None
    return PeerStatus(line.public_key, line.endpoint, age, line.rx_bytes, line.tx_bytes, line.keepalive_s, userspace)
