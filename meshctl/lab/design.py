"""From the inventory to the lab's blueprint: who is public, who stands behind which router, with which addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from meshctl.inventory.nodes import lab_settings
from meshctl.lab.addresses import Pools, lan_pair, literal
from meshctl.lab.blueprint import GATEWAY6, SUITE, WAN, Blueprint, Forward, Host, Link, Router
from meshctl.lab.cables import plug_internet, plug_lan
from meshctl.lab.draft import (
    CARRIER_NAT,
    DEFAULT_NAT,
    Draft,
    Parent,
    busy,
    check_claims,
    check_kind,
    check_names,
    claim_endpoints,
    endpoints,
    lan_names,
    outermost,
    own_router,
)
from meshctl.lab.names import INTERNET, LabError
from meshctl.model.mesh import LabSettings, Mesh, Node


def design(mesh: Mesh) -> Blueprint:
    """The lab for `mesh`. Raises LabError where the inventory asks for what cannot be built."""
    draft = Draft(mesh, Pools(busy(mesh)), _routers(mesh))
    check_names(draft)
    for node in mesh.nodes.values():
        claim_endpoints(draft, node)
    check_claims(draft)
    for name in sorted(draft.declared):
        _declared_router(draft, name, ())
    for node in mesh.nodes.values():
        _host(draft, node)
        _lans(draft, node)
    return Blueprint(
        hosts=tuple(draft.hosts[n] for n in sorted(draft.hosts)),
        routers=tuple(draft.routers[n] for n in sorted(draft.routers)),
        lans=tuple(sorted(draft.lans)),
        links=tuple(sorted(draft.links, key=lambda k: (k.child, k.device))),
        hosts_file=_hosts_file(draft),
    )


def _routers(mesh: Mesh) -> Mapping[str, LabSettings]:
    routers: Mapping[str, Mapping[str, Any]] = mesh.lab.get("routers") or {}
    return {name: lab_settings(raw or {}) for name, raw in routers.items()}


def _router(
    draft: Draft, name: str, kind: str, above: Parent, settings: LabSettings, *, carrier: bool = False
) -> Parent:
    """Build one router that hangs below `above` and return it as a place to plug into."""
    lan4 = draft.pools.lan4(name, carrier=carrier)
    lan6 = None
    if settings.ipv6 == "native":
        if above.name != INTERNET and above.lan6 is None:
            hint = "give that one ipv6: native too"
            raise LabError(f"IPv6 behind {above.name}, which has none", where=name, hint=hint)
        lan6 = draft.pools.lan6(name)
    routed = (str(lan4),)
    if above.name == INTERNET:
        wan = plug_internet(draft, name, WAN, settings, routed, str(lan6 or ""))
    else:
        wan = plug_lan(draft, name, WAN, above, settings, routed, str(lan6 or ""))
    lan = (f"{lan4[1]}/{lan4.prefixlen}", *((f"{lan6[1]}/64", f"{GATEWAY6}/64") if lan6 else ()))
    draft.routers[name] = Router(name, kind, wan, lan, settings.upnp)
    draft.parents[name] = Parent(name, str(lan4), lan6)
    return draft.parents[name]


def _own(draft: Draft, node: str, kind: str, above: Parent, settings: LabSettings) -> Parent:
    """The node's own router, and for the cgnat kind the carrier's router above it."""
    if kind != "cgnat":
        return _router(draft, f"{node}-router", kind, above, settings)
    far = replace(settings, upnp=False)
    carrier = _router(draft, f"{node}-carrier", CARRIER_NAT, above, far, carrier=True)
    near = replace(settings, delay_ms=0.0, jitter_ms=0.0, loss_percent=0.0)
    return _router(draft, f"{node}-router", DEFAULT_NAT, carrier, near)


def _declared_router(draft: Draft, name: str, seen: tuple[str, ...]) -> Parent:
    """The router of `lab.routers`, built with everything above it. A cgnat one is a carrier's own router."""
    if name in draft.parents:
        return draft.parents[name]
    if name in seen:
        raise LabError(f"routers stand behind each other: {', '.join(seen)}", where=name)
    settings = draft.declared[name]
    if settings.debian:
        raise LabError(f"a router runs no Debian {settings.debian!r}", where=name, hint="set `debian` at a node")
    above = Parent(INTERNET)
    if settings.behind:
        if settings.behind not in draft.declared:
            raise LabError(f"no router {settings.behind!r} in lab.routers", where=name, hint="declare it")
        above = _declared_router(draft, settings.behind, (*seen, name))
    kind = check_kind(settings.nat or DEFAULT_NAT, name)
    carrier = kind == "cgnat"
    return _router(draft, name, CARRIER_NAT if carrier else kind, above, settings, carrier=carrier)


def _host(draft: Draft, node: Node) -> None:
    kind = own_router(node)
    above = _declared_router(draft, node.lab.behind, ()) if node.lab.behind else Parent(INTERNET)
    router = above.name if above.name != INTERNET else ""
    settings = node.lab
    if kind:
        # The node's delay, jitter, loss and IPv6 are those of its line, which its own router ends.
        above = _own(draft, node.name, kind, above, settings)
        router = above.name
        settings = LabSettings(ipv6=settings.ipv6)
    if above.name == INTERNET:
        address = plug_internet(draft, node.name, "eth0", settings)
    else:
        address = plug_lan(draft, node.name, "eth0", above, settings)
    names = dict.fromkeys(n for n in (node.name, node.ssh.host, *(h for h, _, _ in endpoints(node))) if n)
    draft.hosts[node.name] = Host(
        name=node.name, address=address, router=router,
        client=node.client, ssh_names=tuple(names), jump=node.ssh.jump,
        interfaces=tuple(a.interface for a in node.attachments), debian=node.lab.debian or SUITE,
    )
    _forward(draft, node, address)


def _forward(draft: Draft, node: Node, address: str) -> None:
    """Static port forwards for a node whose endpoint stands on a router, through every router on the way."""
    for host, port, listen_port in endpoints(node):
        to, to_port, at = address, listen_port, draft.hosts[node.name].router
        while at:
            router = draft.routers[at]
            above = next(k.parent for k in draft.links if k.child == at)
            outer = host if above == INTERNET and literal(host) else router.wan
            forward = Forward(outer, port, to, to_port)
            draft.routers[at] = replace(router, forwards=(*router.forwards, forward))
            to, to_port, at = router.wan, port, "" if above == INTERNET else above


def _lans(draft: Draft, node: Node) -> None:
    for index, (name, prefix) in enumerate(lan_names(node)):
        near, far, gateway = lan_pair(ip_network(prefix))
        draft.lans.append(name)
        draft.links.append(Link(
            child=name, device="eth0", parent=node.name, parent_device=f"lan{index}",
            addresses=(far,), gateways=(gateway,), parent_addresses=(near,),
            parent_routes=((far, ""),) if far.endswith(("/32", "/128")) else (),
        ))


def _hosts_file(draft: Draft) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(address, names): endpoint and SSH host names resolve to the public address, as production's DNS has it."""
    names: dict[str, list[str]] = {}
    for node in draft.mesh.nodes.values():
        owner = outermost(draft, node)
        address = draft.routers[owner].wan if owner in draft.routers else draft.hosts[owner].address
        for name in (*(h for h, _, _ in endpoints(node)), node.ssh.host):
            if name and literal(name) is None and name not in names.get(address, []):
                names.setdefault(address, []).append(name)
    return tuple(sorted((address, tuple(sorted(hosts))) for address, hosts in names.items()))
