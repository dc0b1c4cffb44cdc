"""Port mappings: each of this host's addresses at each of its gateways, by whichever way works first, kept alive.

A gateway may lie as it likes: nothing counts that does not come from it, all that it can cause is bounded, and what it
maps is only one more address that peers try; whether the node answers there is shown by authentic checks alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from meshctl.core.agent.address import Address, LocalAddress, canonical, is_private, within
from meshctl.core.agent.events import Action, HttpReply, MappingDatagram
from meshctl.core.agent.portmap_announce import Announcements
from meshctl.core.agent.portmap_lease import Lease
from meshctl.core.agent.portmap_state import MAX_HELD, Sweeper, dump, load
from meshctl.core.agent.portmap_values import Held, Mapped
from meshctl.core.wire import pcp
from meshctl.core.wire.specialranges import Reach, reach

MAX_LEASES = 16
# IPv6 hosts have addresses by the dozen; a pinhole for each is not what a router's table is for.
MAX_PINHOLES = 2


class PortMapper:
    """All mappings of this host. `state` is what `state()` said before a restart, b"" the first time."""

    def __init__(self, dice: random.Random, state: bytes = b"") -> None:
        self._dice = dice
        self._number = 0
        self._leases: dict[tuple[str, Address], Lease] = {}
        self._before = {(h.gateway, h.internal, h.protocol): h for h in load(state)}
        self._sweeper = Sweeper(self._next_id)
        self._announcements = Announcements()
        self._actions: list[Action] = []

    def set_network(
        self, addresses: Iterable[LocalAddress], gateways: Iterable[str], ports: Iterable[int], now: float
    ) -> None:
        """These are the host's addresses (none of a mesh interface), its default gateways, and WireGuard's ports now.

        What stays the same is left alone. What is needed no more is deleted, where its gateway can still be asked.
        """
        own, routers = tuple(sorted(set(addresses))), {canonical(g.partition("%")[0]) for g in gateways}
        wanted = list(_wanted(own, sorted(routers), sorted(set(ports))))[:MAX_LEASES]
        here = {a.ip for a in own}
        for key in [k for k in self._leases if k not in wanted]:
            self._end(key, key[0] in routers and key[1].ip in here)
        for key in wanted:
            if key not in self._leases:
                self._leases[key] = Lease(*key, self._dice, self._next_id, self._remembered(key), now)
        self._sweep(routers, here)

    def receive(self, datagram: MappingDatagram, now: float) -> None:
        """A datagram from the port of PCP and NAT-PMP, or one of SSDP; of a gateway's, or for nothing."""
        sender = datagram.gateway
        if sender.port == pcp.SERVER_PORT:
            for _, lease in sorted(self._leases.items()):
                if lease.gateway == sender.ip:
                    lease.port_control.receive(datagram.data, now)
                    lease.settle(now)
            return
        hearing = [lease for _, lease in sorted(self._leases.items()) if lease.hears(sender.ip)]
        doubt_at = self._announcements.hear(datagram.data, sender.ip, now) if hearing else None
        for lease in hearing:
            if doubt_at is not None:
                lease.doubt(doubt_at, now)
            lease.upnp.receive(datagram.data, sender.ip, now)
            lease.settle(now)

    def reply(self, reply: HttpReply, now: float) -> None:
        """The answer to a request."""
        swept = self._sweeper.reply(reply)
        if swept is not None:
            self._before.pop((swept.gateway, swept.internal, swept.protocol), None)
        for _, lease in sorted(self._leases.items()):
            lease.upnp.reply(reply, now)
            lease.settle(now)

    def poll(self, now: float) -> None:
        """Do what is due."""
        for _, lease in sorted(self._leases.items()):
            lease.poll(now)

    def doubt(self, now: float) -> None:
        """The host slept, or may stand behind other routers than before, whose addresses are the same: every mapping
        may have ended, and is asked for again."""
        for _, lease in sorted(self._leases.items()):
            lease.restart(now)

    def due(self) -> float | None:
        """When `poll` has something to do."""
        return min((t for t in (lease.due() for lease in self._leases.values()) if t is not None), default=None)

    def actions(self) -> Iterator[Action]:
        """What is to be sent, once."""
        actions, self._actions = self._actions, []
        yield from actions
        for _, lease in sorted(self._leases.items()):
            yield from lease.actions()
        yield from self._sweeper.actions()

    def mapped(self) -> tuple[Mapped, ...]:
        """What works, by gateway and address. `expires_at` is to be heeded: a mapping is renewed well before it."""
        found = (lease.mapped for _, lease in sorted(self._leases.items()))
        return tuple(m for m in found if m is not None)

    def why(self) -> tuple[tuple[str, Address, str], ...]:
        """Gateway, address and the reason in words, where there is no mapping."""
        return tuple((*key, lease.why) for key, lease in sorted(self._leases.items()) if not lease.mapped)

    def state(self) -> bytes:
        """What must be known after a crash to take the mappings over or delete them; the same bytes if unchanged."""
        return dump([*(m.held for m in self.mapped()), *self._leftovers()][:MAX_HELD])

    # Inside

    def _next_id(self) -> int:
        self._number += 1
        return self._number

    def _remembered(self, key: tuple[str, Address]) -> Held | None:
        """What was held there before; it is taken over."""
        found = [h for h in self._before.values() if (h.gateway, h.internal) == key]
        return found[0] if found else None

    def _leftovers(self) -> list[Held]:
        """Of before, and not replaced by what is held now."""
        held = {(m.held.gateway, m.held.internal, m.held.protocol) for m in self.mapped()}
        return [h for key, h in sorted(self._before.items()) if key not in held]

    def _end(self, key: tuple[str, Address], reachable: bool) -> None:
        lease = self._leases.pop(key)
        mapped = lease.mapped
        if reachable:
            lease.release()
            if mapped is not None:
                self._before = {k: h for k, h in self._before.items() if (h.gateway, h.internal) != key}
        elif mapped is not None and mapped.held.permanent and len(self._before) < MAX_HELD:
            # It stays at that router until we come back; all others end by themselves.
            self._before[mapped.held.gateway, mapped.held.internal, mapped.held.protocol] = mapped.held
        self._actions += lease.actions()

    def _sweep(self, routers: set[str], here: set[str]) -> None:
        """Delete what was held before and is wanted no more, where it can be; what ends by itself is then forgotten."""
        for key, held in sorted(self._before.items()):
            if (held.gateway, held.internal) in self._leases:
                continue
            if held.gateway in routers and (held.internal.ip in here or held.permanent):
                self._sweeper.sweep(held)
            if not held.permanent:
                del self._before[key]


def _wanted(
    addresses: tuple[LocalAddress, ...], gateways: list[str], ports: list[int]
) -> Iterator[tuple[str, Address]]:
    """Gateway and address: private IPv4 addresses at a gateway on their own prefix, global IPv6 ones at each router."""
    for gateway in gateways:
        if ":" in gateway:
            ips = [a.ip for a in addresses if ":" in a.ip and reach(a.ip) is Reach.GLOBAL][:MAX_PINHOLES]
        else:
            ips = [a.ip for a in addresses if ":" not in a.ip and is_private(a.ip) and within(gateway, (a.prefix,))]
        for ip in sorted(set(ips)):
            yield from ((gateway, Address(ip, port)) for port in ports)
