"""One NAT, by the terms of RFC 4787: mapping, filtering, port allocation, expiry, hairpinning.

Behaviours are those of `meshctl.core.reachability`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

# An address and a port.
Place = tuple[str, int]

PRESERVING, RANDOM, SEQUENTIAL = "preserving", "random", "sequential"
_PORTS = range(1024, 65536)


@dataclass(frozen=True)
class Behaviour:
    """How it maps and filters. `expiry_s` is counted from the last packet that left (REQ-6)."""

    mapping: str = INDEPENDENT
    filtering: str = ADDRESS_AND_PORT
    allocation: str = PRESERVING
    expiry_s: float = 120.0
    hairpin: bool = False
    blocked: bool = False  # lets no UDP out


@dataclass
class _Mapping:
    inner: Place
    outer: Place
    used_at: float
    heard: dict[object, float] = field(default_factory=dict)  # whom it was used towards, as the filter sees them


class Nat:
    """The table of one NAT with one outer address."""

    def __init__(self, behaviour: Behaviour, outer: str, dice: random.Random) -> None:
        self.behaviour = behaviour
        self.outer = outer
        self._dice = dice
        self._by_inner: dict[tuple[Place, object], _Mapping] = {}
        self._by_outer: dict[int, _Mapping] = {}
        self._forwards: dict[int, Place] = {}
        self._answers: dict[tuple[Place, Place], _Mapping] = {}  # flows that came in by an opened port
        self._next_port = dice.choice(_PORTS)

    def outward(self, source: Place, destination: Place, now: float) -> Place | None:
        """The source that the world sees; None when the packet does not get out."""
        if self.behaviour.blocked:
            return None
        mapping = self._mapping(source, destination, now)
        if mapping is None:
            return None
        mapping.used_at = now
        mapping.heard[self._seen(destination)] = now
        return mapping.outer

    def inward(self, source: Place, port: int, now: float) -> Place | None:
        """Whom behind it a packet to one of its ports is for; None when nobody, or not from `source`."""
        mapping = self._by_outer.get(port)
        if mapping is not None and not self._dead(mapping, now) and self._lets_in(mapping, source, now):
            self._answers.pop((mapping.inner, source), None)
            return mapping.inner
        known = self._came_in(source, port, now)
        if known is not None:
            return known
        inner = self._forwards.get(port)
        if inner is not None:
            self._answers[inner, source] = _Mapping(inner, (self.outer, port), now)
        return inner

    def forward(self, port: int, inner: Place | None) -> None:
        """Open a port by hand or by a port mapping protocol; None closes it."""
        if inner is None:
            self._forwards.pop(port, None)
        else:
            self._forwards[port] = inner

    def holder(self, port: int, now: float) -> Place | None:
        """Whose outgoing packets have that port at the moment."""
        mapping = self._by_outer.get(port)
        return mapping.inner if mapping is not None and not self._dead(mapping, now) else None

    @property
    def forwarded(self) -> tuple[tuple[int, Place], ...]:
        """The ports that are open by `forward`, and to whom."""
        return tuple(sorted(self._forwards.items()))

    def forget(self) -> None:
        """What a rebinding, or a reboot, does: every mapping is gone."""
        self._by_inner.clear()
        self._by_outer.clear()
        self._answers.clear()

    def reboot(self) -> None:
        """Mappings are gone, and so are the ports that were opened by a protocol."""
        self.forget()
        self._forwards.clear()

    def _mapping(self, source: Place, destination: Place, now: float) -> _Mapping | None:
        key = source, self._apart(destination)
        for found in (self._answers.get((source, destination)), self._by_inner.get(key)):
            if found is not None and not self._dead(found, now):
                return found
        forwarded = next((port for port, inner in self._forwards.items() if inner == source), None)
        if forwarded is not None:
            return _Mapping(source, (self.outer, forwarded), now)
        port = self._allocate(source[1], now)
        if port is None:
            return None
        made = self._by_inner[key] = self._by_outer[port] = _Mapping(source, (self.outer, port), now)
        return made

    def _came_in(self, source: Place, port: int, now: float) -> Place | None:
        """Whose the flow is that came in there when the port was open: as long as it lasts, as in Linux's conntrack."""
        flows = ((inner, flow) for (inner, peer), flow in self._answers.items() if peer == source)
        return next((inner for inner, flow in flows if flow.outer[1] == port and not self._dead(flow, now)), None)

    def _dead(self, mapping: _Mapping, now: float) -> bool:
        return now - mapping.used_at >= self.behaviour.expiry_s

    def _lets_in(self, mapping: _Mapping, source: Place, now: float) -> bool:
        if self.behaviour.filtering == INDEPENDENT and mapping.outer[1] not in self._forwards:
            return True
        heard = mapping.heard.get(self._seen(source))
        return heard is not None and now - heard < self.behaviour.expiry_s

    def _apart(self, destination: Place) -> object:
        """What makes two destinations need two mappings."""
        return {INDEPENDENT: None, ADDRESS: destination[0], ADDRESS_AND_PORT: destination}[self.behaviour.mapping]

    def _seen(self, remote: Place) -> object:
        """What the filter tells remotes apart by."""
        return remote[0] if self.behaviour.filtering == ADDRESS else remote

    def _allocate(self, wanted: int, now: float) -> int | None:
        order = {
            PRESERVING: lambda: wanted,
            RANDOM: lambda: self._dice.choice(_PORTS),
            SEQUENTIAL: lambda: self._next_port,
        }
        port = order[self.behaviour.allocation]()
        for _ in _PORTS:
            holder = self._by_outer.get(port)
            if port not in self._forwards and (holder is None or self._dead(holder, now)):
                self._next_port = port + 1 if port + 1 in _PORTS else _PORTS[0]
                return port
            port = port + 1 if port + 1 in _PORTS else _PORTS[0]
        return None
