"""Scenarios on the simulator's model of WireGuard, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace

from simclock import Clock
from simnat import Place
from simnet import Cable, Host, Packet, Segment
from simwg import WireGuard, counted_size
from simwgtimers import WgTimers
from wgscenarios import Scenario
from wgstage import DELAY_S, INNER, INNER_HEADERS, OUTER, PORT, Got, Record, Sent, Shown, Stage, other

_SECRET = b"secret of a pair"
# A virtual clock starts anywhere, for what depends on the phase of the kernel's own clock; less than an hour.
_STARTS_S = 3600.0
CABLE = Cable(delay_s=DELAY_S / 2)


class _Watched(Host):
    """A host whose messages are written down, and lost or held."""

    def __init__(self, stage: Virtual, name: str) -> None:
        super().__init__()
        self._stage, self._name = stage, name
        self.outside = ""
        self.lost: tuple[int, ...] = ()
        self.hold = False
        self.held: list[Packet] = []
        self.first: dict[int, bytes] = {}

    def send(self, source: Place, destination: Place, data: bytes) -> None:
        """Write it down, and send it unless it is to be lost or held."""
        kind = data[0]
        source = (self.outside or source[0], source[1])
        self.first.setdefault(kind, data)
        sent = Sent(self._stage.now, source[0], destination[0], kind, counted_size(data))
        self._stage.record.sent[self._name].append(sent)
        if self.hold:
            self.hold = False
            self.held.append(Packet(source, destination, data))
        elif kind not in self.lost:
            self._stage.internet.send(Packet(source, destination, data), CABLE)

    def translated(self, packet: Packet) -> None:
        """A packet to the outer address of the NAT in front of it."""
        (inside,) = self.addresses
        self._receive(Packet(packet.source, (inside, PORT), packet.data))


class Virtual(Stage):
    """The stage in the model. `seed` draws the jitter of timers and the time at which the world starts."""

    def __init__(self, seed: int, tick_s: float, *, endpoint: bool = True) -> None:
        super().__init__()
        self._tick_s = tick_s
        self._dice = random.Random(seed)  # noqa: S311
        self._clock = Clock()
        self._started = self._clock.now = self._dice.random() * _STARTS_S
        self.internet = Segment(self._clock, self._dice)
        self._hosts = {name: _Watched(self, name) for name in OUTER}
        self._wg = {name: self._wireguard(name, host) for name, host in self._hosts.items()}
        for name, host in self._hosts.items():
            self.move(name, OUTER[name])
            host.bind(PORT, self._wg[name].receive)
            place = (OUTER["b"], PORT) if name == "a" and endpoint else None
            self._wg[name].add(_key(other(name)), _SECRET, [INNER[other(name)]], place)

    def _wireguard(self, name: str, host: Host) -> WireGuard:
        def got(source: str, data: bytes) -> None:
            self.record.got.append(Got(self.now, name, source, INNER_HEADERS + len(data)))

        made = WireGuard(self._clock, host, PORT, _key(name), self._dice, got)
        made.timers.tick_s = self._tick_s
        made.timers.booted_s = 0.0  # both are namespaces of one kernel
        return made

    @property
    def now(self) -> float:
        """Seconds from the start."""
        return self._clock.now - self._started

    def until(self, when: float) -> None:
        """See Stage."""
        self._clock.run(self._started + when)

    def send(self, node: str, size: int, source: str = "") -> None:
        """See Stage."""
        self._wg[node].send(INNER[other(node)], bytes(size - INNER_HEADERS), source or INNER[node])

    def set_endpoint(self, node: str, ip: str) -> None:
        """See Stage."""
        self._wg[node].set_endpoint(_key(other(node)), (ip, PORT))

    def set_keepalive(self, node: str, seconds: int) -> None:
        """See Stage."""
        self._wg[node].set_keepalive(_key(other(node)), seconds)

    def move(self, node: str, ip: str) -> None:
        """See Stage."""
        host = self._hosts[node]
        for address in host.addresses:
            host.leave(address)
        if ip:
            host.join(self.internet, ip, CABLE)

    def add_address(self, node: str, ip: str) -> None:
        """See Stage."""
        self._hosts[node].join(self.internet, ip, CABLE)

    def rebind(self, node: str, ip: str) -> None:
        """See Stage."""
        host = self._hosts[node]
        for address in host.addresses:
            self.internet.detach(address)
        self.internet.attach(ip, CABLE, host.translated)
        host.outside = ip

    def lose(self, node: str, *kinds: int) -> None:
        """See Stage."""
        self._hosts[node].lost = kinds

    def hold_next(self, node: str) -> None:
        """See Stage."""
        self._hosts[node].hold = True

    def release(self, node: str) -> None:
        """See Stage."""
        for packet in self._hosts[node].held:
            self.internet.send(packet, CABLE)
        self._hosts[node].held.clear()

    def replay(self, node: str, kind: int, source: str) -> None:
        """See Stage."""
        packet = Packet((source, PORT), (OUTER[other(node)], PORT), self._hosts[node].first[kind])
        self.internet.send(packet, CABLE)

    def show(self, node: str) -> None:
        """See Stage."""
        (peer,) = self._wg[node].peers()
        at = None if peer.handshake_at is None else peer.handshake_at - self._started
        endpoint = f"{peer.endpoint[0]}:{peer.endpoint[1]}" if peer.endpoint else ""
        self.record.shown.append(Shown(self.now, node, endpoint, at, peer.rx_bytes, peer.tx_bytes))


def play(scenario: Scenario, seed: int, tick_s: float = WgTimers.tick_s) -> Record:
    """One run of the model."""
    stage = Virtual(seed, tick_s, endpoint=scenario.endpoint)
    scenario.play(stage)
    return replace(stage.record, tick_s=tick_s)


def _key(name: str) -> bytes:
    return name.encode() * 16
