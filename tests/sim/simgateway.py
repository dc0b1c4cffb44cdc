"""A site's router as its hosts see it: it answers PCP, NAT-PMP and UPnP and opens its NAT, or says what is not so."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from simclock import Clock
from simnat import Nat
from simspec import SiteSpec

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, HttpRequest, MappingDatagram, SendMapping

sys.path.insert(0, str(Path(__file__).parents[1] / "agentcore"))
from agentcore_portmap_gateway import GATEWAY, Router

_PORT = re.compile(rb"<NewExternalPort>(\d+)<")
_OUTSIDE = {"unspecified": "0.0.0.0", "private": "10.99.0.1", "foreign": "83.66.0.1"}  # noqa: S104 - a lie


class Gateway:
    """One router. `outside` is what it believes its own address to be; `closed` says when it closed a host's port."""

    def __init__(self, clock: Clock, spec: SiteSpec, nat: Nat) -> None:
        self.ip = f"{spec.lan}.1"
        self._clock, self._spec, self._nat = clock, spec, nat
        self._model = Router(frozenset(spec.speaks))
        self.closed: list[tuple[float, str]] = []

    @property
    def mappings(self) -> tuple[tuple[int, str], ...]:
        """(outer port, host) of all that are open."""
        return tuple(sorted((port, host) for port, (host, _, _) in self._model.table.items()))

    def datagram(self, sent: SendMapping) -> list[MappingDatagram]:
        """The answers to a datagram that reached it."""
        self._refresh()
        answers = self._model.datagram(replace(sent, data=self._granted(sent)), self._clock.now)
        self._open()
        here = self.ip.encode()
        return [
            replace(a, gateway=Address(self.ip, a.gateway.port), data=a.data.replace(GATEWAY.encode(), here))
            for a in answers
        ]

    def http(self, request: HttpRequest) -> HttpReply:
        """The answer to a request."""
        self._refresh()
        wanted = _PORT.search(request.body)
        port = int(wanted[1]) if wanted else 0
        in_use = self._in_use(port, request.source)
        if in_use:
            self._model.table[port] = ("another host", 0, 0)
        answer = self._model.http(request, self._clock.now)
        if in_use:
            self._model.table.pop(port, None)
        self._open()
        return answer

    def reboot(self) -> None:
        """It has forgotten all, and its epoch begins anew."""
        self._model.table.clear()
        self._model.booted_at = self._clock.now

    def _granted(self, sent: SendMapping) -> bytes:
        """The request, for another outer port when a host has the one that it asks for."""
        data = sent.data
        at = {5351: {2: 42, 0: 6}}.get(sent.gateway.port, {}).get(data[0] if data else -1)
        if at is None or len(data) < at + 2:
            return data
        wanted = int.from_bytes(data[at : at + 2], "big") or int.from_bytes(data[at - 2 : at], "big")
        while self._model.table.get(wanted, (sent.source,))[0] != sent.source or self._in_use(wanted, sent.source):
            wanted = wanted % 65535 + 1
        return data[:at] + wanted.to_bytes(2, "big") + data[at + 2 :]

    def _in_use(self, port: int, host: str) -> bool:
        """Whether the port is that of another host's flows."""
        holder = self._nat.holder(port, self._clock.now)
        return holder is not None and holder[0] != host and port not in self._model.table

    def _refresh(self) -> None:
        self._model.outside = _OUTSIDE.get(self._spec.lie, self._nat.outer)

    def _open(self) -> None:
        for port, (host, _) in self._nat.forwarded:
            if port not in self._model.table:
                self._nat.forward(port, None)
                self.closed.append((self._clock.now, host))
        for port, (host, internal, _) in sorted(self._model.table.items()):
            self._nat.forward(port, (host, internal))
