"""Networks of the simulated world: hosts, routers with NATs, and what happens to packets on the way.

A segment is where hosts see each other: the internet, or a LAN behind a router. What is not on a LAN leaves by its
router; what is not on the internet is lost. IPv6 is routed through a router without being translated, by its firewall.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from simclock import Clock
from simnat import Behaviour, Nat, Place

# Bytes around a UDP datagram's payload.
OVERHEAD_V4, OVERHEAD_V6 = 28, 48
_MAX_HOPS = 16


class Packet(NamedTuple):
    """A UDP datagram."""

    source: Place
    destination: Place
    data: bytes
    hops: int = 0

    @property
    def size(self) -> int:
        """Bytes with its IP and UDP headers."""
        return len(self.data) + (OVERHEAD_V6 if ":" in self.source[0] else OVERHEAD_V4)


@dataclass
class Cable:
    """How a host or router hangs on its segment; every packet passes it in both directions."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0  # probability of each packet, of those to the segment and those from it
    loss_out: float = 0.0  # more of it in the one direction to the segment
    loss_in: float = 0.0  # and in the other
    duplication: float = 0.0
    mtu: int = 1500
    up: bool = True
    side: int = 0  # of a partition: cables of two sides do not reach each other


Receiver = Callable[[Packet], None]


class Segment:
    """Where addresses are reached without a router, but for its own router towards the rest."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        self._clock = clock
        self._dice = dice
        self._members: dict[str, tuple[Cable, Receiver]] = {}
        self._router: tuple[Cable, Receiver] | None = None
        self._prefixes_behind: dict[str, tuple[Cable, Receiver]] = {}
        self.tap: Receiver | None = None  # somebody looks on
        self.on_loss: Receiver | None = None  # and hears what links lose
        self.leads_on = True  # False: hosts have no route out of it

    def attach(self, ip: str, cable: Cable, receiver: Receiver) -> None:
        """Let an address be reached by this cable. The newest holder of an address gets its packets, as with ARP."""
        self._members[ip] = (cable, receiver)

    def detach(self, ip: str) -> None:
        """Take an address away; unknown ones are nothing to do."""
        self._members.pop(ip, None)

    def default(self, cable: Cable, receiver: Receiver) -> None:
        """Set the router for everything else."""
        self._router = (cable, receiver)

    def route(self, prefix: str, cable: Cable, receiver: Receiver) -> None:
        """Send a text prefix of two groups of IPv6 (`2001:7:`) to a router."""
        self._prefixes_behind[prefix] = (cable, receiver)

    def send(self, packet: Packet, cable: Cable) -> None:
        """Carry a packet from the holder of `cable` to whom it is for, if it gets there."""
        if self.tap is not None:
            self.tap(packet)
        source, destination, data, hops = packet
        found = self._members.get(destination[0]) or self._behind(destination[0]) or self._router
        if found is None or hops >= _MAX_HOPS:
            return
        towards, receiver = found
        if not (cable.up and towards.up and cable.side == towards.side):
            return
        if packet.size > cable.mtu or packet.size > towards.mtu:
            return
        loss, loss_there = cable.loss + cable.loss_out, towards.loss + towards.loss_in
        if (loss and self._lost(loss)) or (loss_there and self._lost(loss_there)):
            if self.on_loss is not None:
                self.on_loss(packet)
            return
        arriving = Packet(source, destination, data, hops + 1)
        delay_s, jitter_s = cable.delay_s + towards.delay_s, cable.jitter_s + towards.jitter_s
        twice = self._dice.random() < cable.duplication + towards.duplication
        for _ in range(2 if twice else 1):
            jitter = self._dice.random() * jitter_s if jitter_s else 0.0
            self._clock.at(self._clock.now + delay_s + jitter, partial(receiver, arriving))

    def _behind(self, ip: str) -> tuple[Cable, Receiver] | None:
        first, colon, rest = ip.partition(":")
        return self._prefixes_behind.get(f"{first}:{rest.partition(':')[0]}:") if colon else None

    def _lost(self, loss: float) -> bool:
        return self._dice.random() < loss


class Router:
    """A NAT for IPv4, and a firewall of the same filtering for IPv6, between a segment and an outer one."""

    def __init__(
        self, clock: Clock, outside: Segment, outer: str, behaviour: Behaviour, dice: random.Random, *,
        cable: Cable | None = None, prefix_v6: str = "",
    ) -> None:  # fmt: skip
        self._clock = clock
        self._outside = outside
        self.cable = cable or Cable()
        self.nat = Nat(behaviour, outer, dice)
        self._firewall: dict[tuple[Place, Place], float] = {}
        self.inside = Segment(clock, dice)
        self._inner_cable = Cable(delay_s=0.0005)
        self.inside.default(self._inner_cable, self._outward)
        outside.attach(outer, self.cable, self._inward)
        if prefix_v6:
            outside.route(prefix_v6, self.cable, self._inward_v6)

    def reboot(self) -> None:
        """All that it knew is gone: mappings, ports that were opened, the firewall's states."""
        self.nat.reboot()
        self._firewall.clear()

    def renumber(self, outer: str) -> None:
        """Another outer address, as after a reconnect: what was mapped is gone."""
        self._outside.detach(self.nat.outer)
        self.nat.outer = outer
        self.nat.forget()
        self._outside.attach(outer, self.cable, self._inward)

    def _outward(self, packet: Packet) -> None:
        now = self._clock.now
        if ":" in packet.source[0]:
            if not self.nat.behaviour.blocked:
                self._firewall[packet.source, packet.destination] = now
                self._outside.send(packet, self.cable)
            return
        if packet.destination[0] == self.nat.outer and not self.nat.behaviour.hairpin:
            return
        source = self.nat.outward(packet.source, packet.destination, now)
        if source is None:
            return
        translated = Packet(source, packet.destination, packet.data, packet.hops)
        if packet.destination[0] == self.nat.outer:
            self._inward(translated)
        else:
            self._outside.send(translated, self.cable)

    def _inward(self, packet: Packet) -> None:
        inner = self.nat.inward(packet.source, packet.destination[1], self._clock.now)
        if inner is not None:
            self.inside.send(Packet(packet.source, inner, packet.data, packet.hops), self._inner_cable)

    def _inward_v6(self, packet: Packet) -> None:
        opened = self._firewall.get((packet.destination, packet.source))
        if opened is not None and self._clock.now - opened < self.nat.behaviour.expiry_s:
            self.inside.send(packet, self._inner_cable)


class Host:
    """A machine with addresses on segments, whose UDP ports belong to handlers."""

    def __init__(self) -> None:
        self._homes: dict[str, tuple[Segment, Cable]] = {}
        self._ports: dict[int, Receiver] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted(self._homes))

    def join(self, segment: Segment, ip: str, cable: Cable | None = None) -> None:
        """Take an address on a segment."""
        self._homes[ip] = (segment, cable or Cable())
        segment.attach(ip, self._homes[ip][1], self._receive)

    def leave(self, ip: str) -> None:
        """Give an address up."""
        segment, _ = self._homes.pop(ip)
        segment.detach(ip)

    def bind(self, port: int, receiver: Receiver) -> None:
        """What comes to a port, at whichever address, is for `receiver`."""
        self._ports[port] = receiver

    def unbind(self, port: int) -> None:
        """Nobody listens there any more."""
        self._ports.pop(port, None)

    def source_for(self, destination: Place, wanted: str = "") -> str | None:
        """The address that the kernel sends from: `wanted` while it is one of them, else one on the destination's own
        /24 or /64, else the first that was taken and leads anywhere; None without one of the family."""
        family = ":" in destination[0]
        mine = [ip for ip in self._homes if (":" in ip) == family]
        if wanted in mine:
            return wanted
        link = _link(destination[0])
        near = (ip for ip in mine if _link(ip) == link)
        return next(near, None) or next((ip for ip in mine if self._homes[ip][0].leads_on), None)

    def send(self, source: Place, destination: Place, data: bytes) -> None:
        """Send from one of its addresses; lost when it is not (any more) one of them, or has no way."""
        home = self._homes.get(source[0])
        if home is not None and (":" in source[0]) == (":" in destination[0]):
            segment, cable = home
            segment.send(Packet(source, destination, data), cable)

    def _receive(self, packet: Packet) -> None:
        receiver = self._ports.get(packet.destination[1])
        if receiver is not None and packet.destination[0] in self._homes:
            receiver(packet)


def _link(ip: str) -> str:
    """What an address shares with the others of its link, as text: the world uses /24 and /64."""
    return ip.rpartition("::")[0] if ":" in ip else ip.rpartition(".")[0]
