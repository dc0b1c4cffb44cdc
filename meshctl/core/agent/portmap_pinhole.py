"""A pinhole in the router's IPv6 firewall by UPnP (WANIPv6FirewallControl:1), where PCP does not open one."""

from __future__ import annotations

from meshctl.core.agent.portmap_igd import IgdMethod
from meshctl.core.agent.portmap_router import control_of
from meshctl.core.agent.portmap_values import LIFETIME_S, REFUSED_S, SILENT_S, Held
from meshctl.core.wire import igd, soap, ssdp
from meshctl.core.wire.httpmessage import HttpResponse
from meshctl.core.wire.upnperrors import Fault, Remedy

PINHOLE = "upnp-pinhole"
# The shortest lease: what is asked for in order to end a pinhole whose number was lost.
_AT_ONCE_S = 1


class Pinhole(IgdMethod):
    """One IPv6 address and port. Asked for over IPv6 and from that very address: routers open for no other host."""

    group = ssdp.GROUP_6
    targets = (*(t for t in ssdp.TARGETS if ":InternetGatewayDevice:" in t), igd.FIREWALL_6)
    useless = "the router's UPnP opens no IPv6 pinholes"

    _number: int | None = None  # by which the router knows the pinhole

    def _services(self, device: igd.Device) -> tuple[igd.Service, ...]:
        return device.firewall

    def _begin(self, now: float) -> None:
        # For a pinhole that is there this renews the lease, and gives its number again (section 2.5.3).
        raw = soap.add_pinhole(self._control, self.internal.ip, self.internal.port, LIFETIME_S)
        self._soap(raw, self._opened, now)

    def _opened(self, response: HttpResponse | None, now: float) -> None:
        got = soap.decode_pinhole(response) if response is not None else None
        if got is None:
            self._refused("the router does not answer", SILENT_S)
            self._next_place(now)
        elif isinstance(got, Fault):
            self._refused(got.pinhole_meaning, SILENT_S if got.pinhole_remedy is Remedy.LATER else REFUSED_S)
            self._next_place(now)
        else:
            control, self._number = self._control, got
            self._clear()
            self._grant(
                Held(self.gateway, self.internal, self.internal, PINHOLE, b"", str(control.url), control.service_type),
                LIFETIME_S, now,
            )  # fmt: skip

    def _delete(self, held: Held) -> None:
        control = control_of(held)
        if control is not None and self._number is not None:
            self._send_last(control.url, soap.delete_pinhole(control, self._number))


def ending(held: Held, control: soap.Control) -> bytes:
    """The request that ends a pinhole of before a restart. Its number may be another pinhole's by now, so it is asked
    for once more, and to end at once."""
    return soap.add_pinhole(control, held.internal.ip, held.internal.port, _AT_ONCE_S)
