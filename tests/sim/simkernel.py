"""A host's kernel: its addresses, WireGuard, and the rules that an agent gave it. All of that outlives the agent."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from simclock import Clock
from simnat import Place
from simnet import Host, Packet
from simwg import WireGuard

_COOKIE = b"\x21\x12\xa4\x42"
_STUN_HEADER = 20


def is_stun(data: bytes) -> bool:
    """What the agent's raw socket takes for STUN: WireGuard drops it."""
    return len(data) >= _STUN_HEADER and data[4:8] == _COOKIE and data[0] < 0x40


class Listener(Protocol):
    """Who hears STUN: the agent, when it runs."""

    def stun(self, local: Place, remote: Place, data: bytes) -> None:
        """A message came to `local`."""


class Kernel(Host):
    """`inner(source, data)` gets what came through the tunnel. `up` is False while the host is off or asleep."""

    def __init__(
        self, clock: Clock, port: int, key: bytes, dice: random.Random, inner: Callable[[str, bytes], None], *,
        userspace: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self._clock, self._key, self._dice, self._inner, self._userspace = clock, key, dice, inner, userspace
        self.port = port
        self.up = True
        self.listener: Listener | None = None
        self.heard: Callable[[bytes], None] | None = None  # somebody wants to know what arrives
        self.sieve: Callable[[Place, bytes], bool] | None = None  # something on the way drops what this is false for
        self.opened: dict[str, tuple[int, ...]] = {}  # by peer: ports for a splice
        self.splices: dict[Place, int] = {}  # remote -> local port
        self.relays: dict[int, tuple[Place, Place]] = {}
        self.tunnel_packets = 0  # that WireGuard has sent
        self.wg = WireGuard(clock, self, port, key, dice, inner, userspace=userspace)

    def restart(self) -> None:
        """Off and on again: no rules, no keys, no peers."""
        self.wg.stop()
        self.opened.clear()
        self.splices.clear()
        self.relays.clear()
        self.wg = WireGuard(
            self._clock, self, self.port, self._key, self._dice, self._inner, userspace=self._userspace
        )

    def send(self, source: Place, destination: Place, data: bytes) -> None:
        """A packet of WireGuard or of the agent; WireGuard's may leave from a splice's port."""
        if not self.up:
            return
        if source[1] == self.port and not is_stun(data):
            self.tunnel_packets += 1
            source = (source[0], self.splices.get(destination, source[1]))
        if self.sieve is not None and not self.sieve(destination, data):
            return
        super().send(source, destination, data)

    def _receive(self, packet: Packet) -> None:
        if not self.up or packet.destination[0] not in self._homes:
            return
        if self.sieve is not None and not self.sieve(packet.source, packet.data):
            return
        if self.heard is not None:
            self.heard(packet.data)
        port = packet.destination[1]
        if is_stun(packet.data):
            if self.listener is not None:
                self.listener.stun(packet.destination, packet.source, packet.data)
        elif port == self.port or self.splices.get(packet.source) == port:
            self.wg.receive(packet)
        elif port in self.relays:
            self._relay(packet, self.relays[port])

    def _relay(self, packet: Packet, ends: tuple[Place, Place]) -> None:
        if packet.source in ends:
            other = ends[1] if packet.source == ends[0] else ends[0]
            source = self.source_for(other)
            if source is not None:
                super().send((source, packet.destination[1]), other, packet.data)
