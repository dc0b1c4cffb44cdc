"""The networks of a world: the internet, and sites behind NATs, some behind a carrier's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from simclock import Clock
from simgateway import Gateway
from simnet import Cable, Router, Segment
from simspec import INTERNET, Link, SiteSpec

# Another outer address after each reconnect, out of so many.
_OUTER_ADDRESSES = 200


class Site:
    """A LAN and its router."""

    def __init__(self, clock: Clock, outside: Segment, spec: SiteSpec, link: Link, dice: random.Random) -> None:
        self.spec = spec
        self._renumbered = 0
        self.prefix_v6 = f"2a01:{spec.number + 1:x}:"
        self.cable = access_cable(link)
        self.router = Router(
            clock, outside, self._outer(), spec.nat, dice, cable=self.cable,
            prefix_v6=self.prefix_v6 if spec.v6 else "",
        )  # fmt: skip
        self.inside = self.router.inside
        self.gateway = Gateway(clock, spec, self.router.nat)

    def renumber(self) -> None:
        """Another outer address, as after a reconnect."""
        self._renumbered = (self._renumbered + 1) % _OUTER_ADDRESSES
        self.router.renumber(self._outer())

    def reboot(self) -> None:
        """The router has forgotten all."""
        self.router.reboot()
        self.gateway.reboot()

    def host_ips(self, number: int, *, v4: bool, v6: bool) -> tuple[str, ...]:
        """What the node with that number gets here; IPv4 when there is nothing else."""
        host = 10 + number % 240
        six = (f"{self.prefix_v6}:{number + 16:x}",) if v6 and self.spec.v6 else ()
        return ((f"{self.spec.lan}.{host}",) if v4 or not six else ()) + six

    def _outer(self) -> str:
        if self.spec.carrier:
            return f"100.64.{self.spec.number % 250}.{2 + self._renumbered}"
        return f"81.{self.spec.number // 250}.{self.spec.number % 250}.{1 + self._renumbered}"


class Underlay:
    """The internet and all sites of a world. `nowhere` is a segment without anybody."""

    def __init__(
        self, clock: Clock, sites: Iterable[SiteSpec], link: Link, dice: Callable[[str], random.Random]
    ) -> None:
        self.internet = Segment(clock, dice("internet"))
        self.nowhere = Segment(clock, dice("nowhere"))
        self.nowhere.leads_on = False
        self.sites: dict[str, Site] = {}
        for spec in sorted(sites, key=lambda s: (s.carrier != INTERNET, s.number)):
            outside = self.sites[spec.carrier].inside if spec.carrier else self.internet
            self.sites[spec.name] = Site(clock, outside, spec, link, dice(spec.name))


def access_cable(link: Link) -> Cable:
    """How somebody hangs on the internet."""
    return Cable(link.delay_s, link.jitter_s, link.loss, duplication=link.duplication, mtu=link.mtu)
