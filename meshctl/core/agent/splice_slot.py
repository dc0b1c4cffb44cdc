"""What the splices of a node share: one attempt at a time, and local ports."""

from __future__ import annotations

import random
from collections.abc import Iterable

from meshctl.core.agent.mutex import Mutex
from meshctl.model.keys import PublicKey

# Local ports to open: what few services listen on, and below those that Linux takes by itself (ip_local_port_range).
LOCAL_PORTS = range(10000, 32768)


class SpliceSlot(Mutex):
    """Held by the peer with which an attempt is under way. `reserved`: WireGuard's own ports."""

    def __init__(self, reserved: Iterable[int] = ()) -> None:
        super().__init__()
        self.reserved = frozenset(reserved)
        self._held: dict[PublicKey, int] = {}

    def hold(self, peer: PublicKey, port: int | None) -> None:
        """The peer's splice has this local port; None: it has gone."""
        self._held.pop(peer, None)
        if port is not None:
            self._held[peer] = port

    @property
    def taken(self) -> frozenset[int]:
        """Local ports that WireGuard or a splice has."""
        return self.reserved.union(self._held.values())

    def draw(self, count: int, dice: random.Random) -> tuple[int, ...]:
        """So many local ports that nobody has."""
        taken = self.taken
        return tuple(sorted(dice.sample([port for port in LOCAL_PORTS if port not in taken], count)))
