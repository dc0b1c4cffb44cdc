"""From the inventory to the lab's blueprint: who is public, who stands behind which router, with which addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network, ip_network
from typing import Any

from meshctl.inventory.nodes import lab_settings
from meshctl.lab.addresses import Pools, lan_pair, literal
from meshctl.lab.blueprint import GATEWAY4, GATEWAY6, LAN_BRIDGE, ROUTER6, WAN, Blueprint, Forward, Host, Link, Router
from meshctl.lab.names import INTERNET, LabError, device
from meshctl.model.mesh import LabSettings, Mesh, Node

NAT_KINDS = (
    "none", "easy", "full-cone", "address-dependent", "symmetric", "symmetric-sequential", "cgnat", "udp-blocked",
)
DEFAULT_NAT = "easy"
# A carrier's NAT behaves as RFC 6888 asks (REQ-1: RFC 4787): endpoint-independent mapping. The home router above which
# it stands does the same. Another kind of carrier is written as a router of its own that homes are `behind`.
CARRIER_NAT = "easy"


@dataclass
class _Parent:
    """Where a child can be plugged in."""

    name: str
    lan4: str = ""  # prefix
    lan6: IPv6Network | None = None


@dataclass
class _Draft:
    """The blueprint while it grows."""

    mesh: Mesh
    pools: Pools
    declared: Mapping[str, LabSettings]
    parents: dict[str, _Parent] = field(default_factory=dict)
    routers: dict[str, Router] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    lans: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    public: dict[str, tuple[str, ...]] = field(default_factory=dict)  # element -> addresses that it must carry


def design(mesh: Mesh) -> Blueprint:
    """The lab for `mesh`. Raises LabError where the inventory asks for what cannot be built."""
    draft = _Draft(mesh, Pools(_busy(mesh)), _routers(mesh))
    _check_names(draft)
    for node in mesh.nodes.values():
        _claim_endpoints(draft, node)
    _check_claims(draft)
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


def check_kind(kind: str, where: str) -> str:
    """`kind` if it is a NAT kind, else LabError."""
    if kind not in NAT_KINDS:
        raise LabError(f"{kind!r} is not a NAT kind", where=where, hint=f"one of {', '.join(NAT_KINDS)}")
    return kind


def _routers(mesh: Mesh) -> Mapping[str, LabSettings]:
    routers: Mapping[str, Mapping[str, Any]] = mesh.lab.get("routers") or {}
    return {name: lab_settings(raw or {}) for name, raw in routers.items()}


def _own_router(node: Node) -> str:
    """The NAT kind of the node's own router, "" when it has none."""
    lab = node.lab
    if lab.nat is None and (lab.behind or any(a.endpoint for a in node.attachments)):
        return ""
    kind = check_kind(lab.nat or DEFAULT_NAT, node.name)
    return "" if kind == "none" else kind


def _outermost(draft: _Draft, node: Node) -> str:
    """The element with the public address: the node itself, or the router that is nearest to the internet."""
    at = node.lab.behind
    seen: list[str] = []
    while at:
        if at not in draft.declared:
            raise LabError(f"no router {at!r} in lab.routers", where=node.name, hint="declare it, or drop `behind`")
        if at in seen:
            raise LabError(f"routers stand behind each other: {', '.join(seen)}", where=at)
        seen.append(at)
        at = draft.declared[at].behind
    if seen:
        return seen[-1]
    kind = _own_router(node)
    if not kind:
        return node.name
    return f"{node.name}-carrier" if kind == "cgnat" else f"{node.name}-router"


def _endpoints(node: Node) -> Iterator[tuple[str, int, int]]:
    """(host, port, listen port) of each endpoint of the node."""
    for attachment in node.attachments:
        if attachment.endpoint:
            host, _, port = attachment.endpoint.rpartition(":")
            yield host.strip("[]"), int(port), attachment.listen_port


def _claim_endpoints(draft: _Draft, node: Node) -> None:
    owner = _outermost(draft, node)
    addresses = [str(a) for host, _, _ in _endpoints(node) if (a := literal(host))]
    if owner != node.name and any(":" in a for a in addresses):
        hint = "give the node lab: {nat: none}, or an endpoint by name or IPv4 address"
        raise LabError("the lab forwards no IPv6 endpoint through a router", where=node.name, hint=hint)
    draft.public[owner] = tuple(dict.fromkeys([*draft.public.get(owner, ()), *addresses]))


def _check_claims(draft: _Draft) -> None:
    owners: dict[str, str] = {}
    for owner, addresses in draft.public.items():
        for address in addresses:
            if address in owners:
                hint = "put them behind one router of lab.routers"
                raise LabError(f"{owners[address]} and {owner} have the same address {address}", where=owner, hint=hint)
            owners[address] = owner


def _busy(mesh: Mesh) -> Iterator[str]:
    for network in mesh.networks.values():
        yield from network.cidrs
    for node in mesh.nodes.values():
        yield from (r for r in node.routes if ip_network(r).prefixlen)
        names = [host for host, _, _ in _endpoints(node)] + [node.ssh.host]
        yield from (str(a) for name in names if (a := literal(name)))


def _check_names(draft: _Draft) -> None:
    taken: dict[str, str] = {INTERNET: "the lab's internet"}
    names = [(n, f"node {n}") for n in draft.mesh.nodes] + [(n, f"router {n}") for n in draft.declared]
    for name, node in draft.mesh.nodes.items():
        names += [(f"{name}{tail}", f"a part of {name}") for tail in ("-router", "-carrier")]
        names += [(lan, f"a LAN of {name}") for lan, _ in _lan_names(node)]
    for name, what in names:
        if "/" in name or len(name) > 200:
            raise LabError(f"{name!r} cannot name a network namespace", where=what)
        if name in taken:
            raise LabError(f"{name!r} names both {taken[name]} and {what} in the lab", hint="rename one of them")
        taken[name] = what


def _public_addresses(draft: _Draft, element: str, ipv6: str | None) -> tuple[str, ...]:
    """Every public address of the element, IPv4 first; drawn where the inventory names none."""
    own = draft.public.get(element, ())
    v4 = [a for a in own if ":" not in a] or [draft.pools.public4(element)]
    v6 = [a for a in own if ":" in a]
    if ipv6 == "native" and not v6:
        v6 = [draft.pools.public6(element)]
    return (*v4, *v6)


def _plug_internet(
    draft: _Draft, child: str, dev: str, settings: LabSettings, routed: tuple[str, ...] = (), lan6: str = ""
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
        delay_ms=settings.delay_ms, loss_percent=settings.loss_percent,
    ))
    return own[0]


def _plug_lan(
    draft: _Draft, child: str, dev: str, parent: _Parent, settings: LabSettings,
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
        delay_ms=settings.delay_ms, loss_percent=settings.loss_percent,
    ))
    return address


def _router(
    draft: _Draft, name: str, kind: str, above: _Parent, settings: LabSettings, *, carrier: bool = False
) -> _Parent:
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
        wan = _plug_internet(draft, name, WAN, settings, routed, str(lan6 or ""))
    else:
        wan = _plug_lan(draft, name, WAN, above, settings, routed, str(lan6 or ""))
    lan = (f"{lan4[1]}/{lan4.prefixlen}", *((f"{lan6[1]}/64", f"{GATEWAY6}/64") if lan6 else ()))
    draft.routers[name] = Router(name, kind, wan, lan, settings.upnp)
    draft.parents[name] = _Parent(name, str(lan4), lan6)
    return draft.parents[name]


def _own(draft: _Draft, node: str, kind: str, above: _Parent, settings: LabSettings) -> _Parent:
    """The node's own router, and for the cgnat kind the carrier's router above it."""
    if kind != "cgnat":
        return _router(draft, f"{node}-router", kind, above, settings)
    far = replace(settings, upnp=False)
    carrier = _router(draft, f"{node}-carrier", CARRIER_NAT, above, far, carrier=True)
    near = replace(settings, delay_ms=0.0, loss_percent=0.0)
    return _router(draft, f"{node}-router", DEFAULT_NAT, carrier, near)


def _declared_router(draft: _Draft, name: str, seen: tuple[str, ...]) -> _Parent:
    """The router of `lab.routers`, built with everything above it. A cgnat one is a carrier's own router."""
    if name in draft.parents:
        return draft.parents[name]
    if name in seen:
        raise LabError(f"routers stand behind each other: {', '.join(seen)}", where=name)
    settings = draft.declared[name]
    above = _Parent(INTERNET)
    if settings.behind:
        if settings.behind not in draft.declared:
            raise LabError(f"no router {settings.behind!r} in lab.routers", where=name, hint="declare it")
        above = _declared_router(draft, settings.behind, (*seen, name))
    kind = check_kind(settings.nat or DEFAULT_NAT, name)
    carrier = kind == "cgnat"
    return _router(draft, name, CARRIER_NAT if carrier else kind, above, settings, carrier=carrier)


def _host(draft: _Draft, node: Node) -> None:
    kind = _own_router(node)
    above = _declared_router(draft, node.lab.behind, ()) if node.lab.behind else _Parent(INTERNET)
    router = above.name if above.name != INTERNET else ""
    settings = node.lab
    if kind:
        # The node's delay, loss and IPv6 are those of its line, which its own router ends.
        above = _own(draft, node.name, kind, above, settings)
        router = above.name
        settings = LabSettings(ipv6=settings.ipv6)
    if above.name == INTERNET:
        address = _plug_internet(draft, node.name, "eth0", settings)
    else:
        address = _plug_lan(draft, node.name, "eth0", above, settings)
    names = dict.fromkeys(n for n in (node.name, node.ssh.host, *(h for h, _, _ in _endpoints(node))) if n)
    draft.hosts[node.name] = Host(
        name=node.name, address=address, router=router,
        client=node.client, ssh_names=tuple(names), jump=node.ssh.jump,
        interfaces=tuple(a.interface for a in node.attachments),
    )
    _forward(draft, node, address)


def _forward(draft: _Draft, node: Node, address: str) -> None:
    """Static port forwards for a node whose endpoint stands on a router, through every router on the way."""
    for host, port, listen_port in _endpoints(node):
        to, to_port, at = address, listen_port, draft.hosts[node.name].router
        while at:
            router = draft.routers[at]
            above = next(k.parent for k in draft.links if k.child == at)
            outer = host if above == INTERNET and literal(host) else router.wan
            forward = Forward(outer, port, to, to_port)
            draft.routers[at] = replace(router, forwards=(*router.forwards, forward))
            to, to_port, at = router.wan, port, "" if above == INTERNET else above


def _lan_names(node: Node) -> Iterator[tuple[str, str]]:
    """(device's name, prefix) for each LAN behind the node; a default route is no LAN."""
    prefixes = [r for r in node.routes if ip_network(r).prefixlen]
    for index, prefix in enumerate(prefixes):
        yield f"{node.name}-lan{index + 1 if index else ''}", prefix


def _lans(draft: _Draft, node: Node) -> None:
    for index, (name, prefix) in enumerate(_lan_names(node)):
        near, far, gateway = lan_pair(ip_network(prefix))
        draft.lans.append(name)
        draft.links.append(Link(
            child=name, device="eth0", parent=node.name, parent_device=f"lan{index}",
            addresses=(far,), gateways=(gateway,), parent_addresses=(near,),
            parent_routes=((far, ""),) if far.endswith(("/32", "/128")) else (),
        ))


def _hosts_file(draft: _Draft) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(address, names): endpoint and SSH host names resolve to the public address, as production's DNS has it."""
    names: dict[str, list[str]] = {}
    for node in draft.mesh.nodes.values():
        owner = _outermost(draft, node)
        address = draft.routers[owner].wan if owner in draft.routers else draft.hosts[owner].address
        for name in (*(h for h, _, _ in _endpoints(node)), node.ssh.host):
            if name and literal(name) is None and name not in names.get(address, []):
                names.setdefault(address, []).append(name)
    return tuple(sorted((address, tuple(sorted(hosts))) for address, hosts in names.items()))
