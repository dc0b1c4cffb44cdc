"""The blueprint while it grows, and what the inventory asks of it: NAT kinds, names, public addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network, ip_network

from meshctl.lab.addresses import Pools, literal
from meshctl.lab.blueprint import Host, Link, Router
from meshctl.lab.names import INTERNET, LabError
from meshctl.model.mesh import LabSettings, Mesh, Node

NAT_KINDS = (
    "none", "easy", "full-cone", "address-dependent", "symmetric", "symmetric-sequential", "cgnat", "udp-blocked",
)
DEFAULT_NAT = "easy"
# A carrier's NAT behaves as RFC 6888 asks (REQ-1: RFC 4787): endpoint-independent mapping. The home router above which
# it stands does the same. Another kind of carrier is written as a router of its own that homes are `behind`.
CARRIER_NAT = "easy"
# A namespace is a file (NAME_MAX is 255, linux/limits.h), whose name has the lab's own before the element's.
NAME_MAX = 200


@dataclass
class Parent:
    """Where a child can be plugged in."""

    name: str
    lan4: str = ""  # prefix
    lan6: IPv6Network | None = None


@dataclass
class Draft:
    """The blueprint while it grows."""

    mesh: Mesh
    pools: Pools
    declared: Mapping[str, LabSettings]
    parents: dict[str, Parent] = field(default_factory=dict)
    routers: dict[str, Router] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    lans: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    public: dict[str, tuple[str, ...]] = field(default_factory=dict)  # element -> addresses that it must carry


def check_kind(kind: str, where: str) -> str:
    """`kind` if it is a NAT kind, else LabError."""
    if kind not in NAT_KINDS:
        raise LabError(f"{kind!r} is not a NAT kind", where=where, hint=f"one of {', '.join(NAT_KINDS)}")
    return kind


def own_router(node: Node) -> str:
    """The NAT kind of the node's own router, "" when it has none."""
    lab = node.lab
    if lab.nat is None and (lab.behind or any(a.endpoint for a in node.attachments)):
        return ""
    kind = check_kind(lab.nat or DEFAULT_NAT, node.name)
    return "" if kind == "none" else kind


def outermost(draft: Draft, node: Node) -> str:
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
    kind = own_router(node)
    if not kind:
        return node.name
    return f"{node.name}-carrier" if kind == "cgnat" else f"{node.name}-router"


def endpoints(node: Node) -> Iterator[tuple[str, int, int]]:
    """(host, port, listen port) of each endpoint of the node."""
    for attachment in node.attachments:
        if attachment.endpoint:
            host, _, port = attachment.endpoint.rpartition(":")
            yield host.strip("[]"), int(port), attachment.listen_port


def claim_endpoints(draft: Draft, node: Node) -> None:
    """Note the addresses of the node's endpoints at the element that must carry them. Raises LabError."""
    owner = outermost(draft, node)
    addresses = [str(a) for host, _, _ in endpoints(node) if (a := literal(host))]
    if owner != node.name and any(":" in a for a in addresses):
        hint = "give the node lab: {nat: none}, or an endpoint by name or IPv4 address"
        raise LabError("the lab forwards no IPv6 endpoint through a router", where=node.name, hint=hint)
    draft.public[owner] = tuple(dict.fromkeys([*draft.public.get(owner, ()), *addresses]))


def check_claims(draft: Draft) -> None:
    """Raises LabError when two elements would have to carry one address."""
    owners: dict[str, str] = {}
    for owner, addresses in draft.public.items():
        for address in addresses:
            if address in owners:
                hint = "put them behind one router of lab.routers"
                raise LabError(f"{owners[address]} and {owner} have the same address {address}", where=owner, hint=hint)
            owners[address] = owner


def busy(mesh: Mesh) -> Iterator[str]:
    """Addresses and prefixes that are the inventory's own, so that the lab draws none of them for itself."""
    for network in mesh.networks.values():
        yield from network.cidrs
    for node in mesh.nodes.values():
        yield from (r for r in node.routes if ip_network(r).prefixlen)
        names = [host for host, _, _ in endpoints(node)] + [node.ssh.host]
        yield from (str(a) for name in names if (a := literal(name)))


def check_names(draft: Draft) -> None:
    """Raises LabError when two elements would have one name, or one cannot name a namespace."""
    taken: dict[str, str] = {INTERNET: "the lab's internet"}
    names = [(n, f"node {n}") for n in draft.mesh.nodes] + [(n, f"router {n}") for n in draft.declared]
    for name, node in draft.mesh.nodes.items():
        names += [(f"{name}{tail}", f"a part of {name}") for tail in ("-router", "-carrier")]
        names += [(lan, f"a LAN of {name}") for lan, _ in lan_names(node)]
    for name, what in names:
        if "/" in name or len(name) > NAME_MAX:
            raise LabError(f"{name!r} cannot name a network namespace", where=what)
        if name in taken:
            raise LabError(f"{name!r} names both {taken[name]} and {what} in the lab", hint="rename one of them")
        taken[name] = what


def lan_names(node: Node) -> Iterator[tuple[str, str]]:
    """(device's name, prefix) for each LAN behind the node; a default route is no LAN."""
    prefixes = [r for r in node.routes if ip_network(r).prefixlen]
    for index, prefix in enumerate(prefixes):
        yield f"{node.name}-lan{index + 1 if index else ''}", prefix
