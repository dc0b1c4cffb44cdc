"""One address at one gateway: which of the ways to map it is kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import Action
from meshctl.core.agent.portmap_igd import IgdMethod
from meshctl.core.agent.portmap_pcp import PortControl
from meshctl.core.agent.portmap_pinhole import Pinhole
from meshctl.core.agent.portmap_router import is_router
from meshctl.core.agent.portmap_upnp import Upnp
from meshctl.core.agent.portmap_values import Held, Mapped, Method

# How long PCP and NAT-PMP have before UPnP is asked as well: they take one round trip on a LAN, UPnP several, and who
# answers first is kept.
HEAD_START_S = 0.25


class Lease:
    """One address at one gateway. The first way that works is kept, the others stop until it works no more."""

    def __init__(
        self, gateway: str, internal: Address, dice: random.Random, next_id: Callable[[], int],
        remembered: Held | None, now: float,
    ) -> None:  # fmt: skip
        self.gateway, self.internal = gateway, internal
        self.port_control = PortControl(gateway, internal, dice, remembered)
        self.upnp: IgdMethod = (
            Upnp(gateway, internal, dice, next_id, remembered)
            if internal.family == 4
            else Pinhole(gateway, internal, dice, next_id)
        )
        self.methods: tuple[Method, ...] = (self.port_control, self.upnp)
        self._kept: Method | None = None
        self._begin(now)

    @property
    def mapped(self) -> Mapped | None:
        """The mapping, if there is one."""
        return self._kept.mapped if self._kept is not None else None

    @property
    def why(self) -> str:
        """Why there is none (yet), in words."""
        return "" if self.mapped else "; ".join(m.why for m in self.methods if m.why)

    def hears(self, sender: str) -> bool:
        """Whether this address may speak of UPnP for the router."""
        return is_router(sender, self.gateway, self.internal.ip)

    def restart(self, now: float) -> None:
        """It may be another router that has this address now: nothing is awaited of the one before."""
        for method in self.methods:
            method.restart(now)
        self.doubt(now, now)

    def doubt(self, when: float, now: float) -> None:
        """The router may have lost the mapping, or may give one now: ask at that time."""
        for method in self.methods:
            if method.mapped is not None:
                method.doubt(when, now)
            elif not method.idle:
                method.start(when)

    def due(self) -> float | None:
        """When `poll` has something to do."""
        return min((t for t in (m.due() for m in self.methods) if t is not None), default=None)

    def poll(self, now: float) -> None:
        """Do what is due."""
        for method in self.methods:
            method.poll(now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """After anything that happened: keep what works."""
        if self._kept is not None and self._kept.mapped is None:
            self._kept = None
            self._begin(now)
        if self._kept is None:
            self._kept = next((m for m in self.methods if m.mapped is not None), None)
            for method in self.methods:
                if self._kept is not None and method is not self._kept:
                    method.stop()

    def actions(self) -> Iterator[Action]:
        """What is to be sent, once."""
        for method in self.methods:
            yield from method.actions()

    def release(self) -> None:
        """Delete the mapping, and ask no more."""
        for method in self.methods:
            method.release()

    def _begin(self, now: float) -> None:
        for method in self.methods:
            if method.idle:
                method.start(now if method is self.port_control else now + HEAD_START_S)
