"""Plugging an element of the lab in: a cable with its addresses and routes, to the internet or into a router's LAN."""

from __future__ import annotations

from ipaddress import ip_network

from meshctl.lab.blueprint import GATEWAY4, GATEWAY6, LAN_BRIDGE, ROUTER6, Link
from meshctl.lab.draft import Draft, Parent
from meshctl.lab.names import INTERNET, device
from meshctl.model.mesh import LabSettings


def _public_addresses(draft: Draft, element: str, ipv6: str | None) -> tuple[str, ...]:
    """Every public address of the element, IPv4 first; drawn where the inventory names none."""
    own = draft.public.get(element, ())
    v4 = [a for a in own if ":" not in a] or [draft.pools.public4(element)]
    v6 = [a for a in own if ":" in a]
    if ipv6 == "native" and not v6:
        v6 = [draft.pools.public6(element)]
    return (*v4, *v6)


def plug_internet(
    draft: Draft, child: str, dev: str, settings: LabSettings, routed: tuple[str, ...] = (), lan6: str = ""
) -> str:
    """A link to the internet. `routed` are IPv4 prefixes behind the child. Returns the primary address."""
    own = _public_addresses(draft, child, None if lan6 else settings.ipv6)
    host_routes = tuple(f"{a}/{128 if ':' in a else 32}" for a in own)
    v6 = bool(lan6) or any(":" in a for a in own)
    draft.links.append(Link(
        child=child, device=dev, parent=INTERNET, parent_device=device(child, dev),
        addresses=(*host_routes, *((f"{ROUTER6}/64",) if v6 else ())),
        gateways=(GATEWAY4, *((GATEWAY6,) if v6 else ())),
        parent_addresses=(f"{GATEWAY4}/32", f"{GATEWAY6}/64"),
        parent_routes=(
            *((p, "") for p in host_routes), *((p, own[0]) for p in routed), *(((lan6, ROUTER6),) if lan6 else ()),
        ),
        delay_ms=settings.delay_ms, jitter_ms=settings.jitter_ms, loss_percent=settings.loss_percent,
    ))
    return own[0]


def plug_lan(
    draft: Draft, child: str, dev: str, parent: Parent, settings: LabSettings,
    routed: tuple[str, ...] = (), lan6: str = "",
) -> str:
    """A link into a router's LAN. Returns the child's IPv4 address there."""
    number = draft.pools.number(parent.name, child)
    lan4 = ip_network(parent.lan4)
    address = str(lan4[number])
    v6 = str(parent.lan6[number]) if parent.lan6 and settings.ipv6 != "none" else ""
    draft.links.append(Link(
        child=child, device=dev, parent=parent.name, parent_device=device(child, dev), bridge=LAN_BRIDGE,
        addresses=(f"{address}/{lan4.prefixlen}", *((f"{v6}/64",) if v6 else ())),
        gateways=(str(lan4[1]), *((GATEWAY6,) if v6 else ())),
        parent_routes=(*((p, address) for p in routed), *(((lan6, v6),) if lan6 else ())),
        delay_ms=settings.delay_ms, jitter_ms=settings.jitter_ms, loss_percent=settings.loss_percent,
    ))
    return address
