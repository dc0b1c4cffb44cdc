"""A mapping by UPnP: the actions of WANIPConnection and its kin (SOAP), at each place that the router names."""

from __future__ import annotations

import random
from collections.abc import Callable

from meshctl.core.agent.address import Address
from meshctl.core.agent.portmap_igd import IgdMethod
from meshctl.core.agent.portmap_router import control_of
from meshctl.core.agent.portmap_values import LIFETIME_S, REFUSED_S, SILENT_S, Held, unusable
from meshctl.core.wire import igd, soap
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import HttpResponse
from meshctl.core.wire.upnperrors import Fault, Remedy

UPNP = "upnp"
DESCRIPTION = "meshctl"
PORT_TRIES = 4
# Of the dynamic ports (RFC 6335 section 6), when the own one is taken.
OTHER_PORTS = range(49152, 65536)
# What a router of version 2 says that has not got the action that chooses a port.
_NO_ACTION = (401, 602)


class Upnp(IgdMethod):
    """One IPv4 mapping."""

    def __init__(
        self, gateway: str, internal: Address, dice: random.Random, next_id: Callable[[], int],
        remembered: Held | None = None,
    ) -> None:  # fmt: skip
        super().__init__(gateway, internal, dice, next_id)
        known = remembered is not None and remembered.protocol == UPNP
        self._wanted = remembered.external.port if remembered is not None and known else internal.port

    def _services(self, device: igd.Device) -> tuple[igd.Service, ...]:
        return device.mapping

    # The steps at one place, in their order

    def _begin(self, now: float) -> None:
        self._lease_s, self._port_tries = LIFETIME_S, 0
        self._port = self.mapped.external.port if self.mapped else self._wanted
        self._any_port = self._control.service_type == igd.WAN_IP_2 and self.mapped is None
        self._soap(soap.get_external_address(self._control), self._external, now)

    def _external(self, response: HttpResponse | None, now: float) -> None:
        got = soap.decode_external_address(response) if response is not None else None
        if isinstance(got, Fault):
            why = got.meaning
        elif got is None:
            why = "the router does not answer" if response is None else "the router has no address outside yet"
        else:
            self._outside = got
            why = unusable(Address(got, self._port), self.internal)
        if why:
            self._refused(why, REFUSED_S)
            self._next_place(now)
        else:
            self._add(now)

    def _add(self, now: float) -> None:
        action = soap.add_any_port_mapping if self._any_port else soap.add_port_mapping
        mapping = soap.PortMapping(self._port, self.internal.ip, self.internal.port, self._lease_s, DESCRIPTION)
        self._soap(action(self._control, mapping), self._added, now)

    def _added(self, response: HttpResponse | None, now: float) -> None:
        if response is None:
            self._refused("the router does not answer", SILENT_S)
            self._next_place(now)
            return
        got = soap.decode_reserved_port(response) if self._any_port else soap.decode_done(response)
        if isinstance(got, Fault):
            self._remedy(got, now)
            return
        self._port = self._port if got is None else got
        self._soap(soap.get_port_mapping(self._control, self._port), self._verified, now)

    def _remedy(self, fault: Fault, now: float) -> None:
        self._refused(fault.meaning, SILENT_S if fault.remedy is Remedy.LATER else REFUSED_S)
        if self._any_port and fault.code in _NO_ACTION:
            self._any_port = False
            self._add(now)
        elif fault.remedy is Remedy.OTHER_PORT:
            self._other_port(now)
        elif fault.remedy is Remedy.SAME_PORT and self._port != self.internal.port:
            self._port = self.internal.port
            self._add(now)
        elif fault.remedy is Remedy.PERMANENT and self._lease_s:
            self._lease_s = 0
            self._add(now)
        else:
            self._next_place(now)

    def _other_port(self, now: float) -> None:
        self._port_tries += 1
        if self._port_tries >= PORT_TRIES:
            self._next_place(now)
            return
        self._port = self.dice.choice(OTHER_PORTS)
        self._add(now)

    def _verified(self, response: HttpResponse | None, now: float) -> None:
        """Some routers say yes to a port that leads to another host. Many cannot tell; then their word stands."""
        entry = decode_entry(response)
        if entry is not None and (entry.internal_host, entry.internal_port) != self.internal:
            self._refused("the router maps the port to another host", REFUSED_S)
            self._other_port(now)
            return
        before = self.mapped.held if self.mapped else None
        permanent = not self._lease_s or (entry is not None and not entry.lease_s)
        external = Address(self._outside, self._port)
        control = self._control
        self._wanted = self._port
        self._clear()
        self._grant(
            Held(self.gateway, self.internal, external, UPNP, b"", str(control.url), control.service_type, permanent),
            LIFETIME_S, now,
        )  # fmt: skip
        if before is not None and before.external.port != external.port:
            self._delete(before)

    def _delete(self, held: Held) -> None:
        control = control_of(held)
        if control is not None:
            self._send_last(control.url, soap.delete_port_mapping(control, held.external.port))


def decode_entry(response: HttpResponse | None) -> soap.MappedTo | None:
    """What the router's table has of a port; None when it does not tell."""
    try:
        entry = soap.decode_port_mapping(response) if response is not None else None
    except WireError:
        return None
    return None if isinstance(entry, Fault) else entry
