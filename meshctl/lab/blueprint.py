"""What a lab is made of, as data: namespaces, links between them, routers, hosts. No effect happens here.

Elements are named: `internet`; each node by its name; its own router `NODE-router`, the carrier above that
`NODE-carrier`; routers of the inventory's `lab.routers` by their names; devices on a gateway's LANs `NODE-lan`,
`NODE-lan2`, ... Link-local next hops keep the isolated internet free of addresses that an inventory might want.
"""

from __future__ import annotations

from dataclasses import dataclass

# Next hops on links to the internet: link-local (RFC 3927, RFC 4291), so that they clash with no inventory.
GATEWAY4 = "169.254.0.1"
GATEWAY6 = "fe80::1"
ROUTER6 = "fe80::2"
LAN_BRIDGE = "lan"
WAN = "wan"
# The Debian release that hosts run, where a node says nothing else.
SUITE = "bookworm"


@dataclass(frozen=True)
class Link:
    """One cable. The child's device has the addresses (with prefix length) and default routes.

    `parent_device` is a device of its own in the parent, with `parent_addresses`, or a port of `bridge` when that is
    set. `parent_routes` are (prefix, next hop) in the parent; "" as next hop means on-link. Delay and loss hold each
    way; with jitter a packet takes up to that much longer, and may be overtaken.
    """

    child: str
    device: str
    parent: str
    parent_device: str
    bridge: str = ""
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    parent_addresses: tuple[str, ...] = ()
    parent_routes: tuple[tuple[str, str], ...] = ()
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0


@dataclass(frozen=True)
class Forward:
    """A static port forward: UDP to `address`:`port` of the router goes to `to_address`:`to_port` in its LAN."""

    address: str
    port: int
    to_address: str
    to_port: int


@dataclass(frozen=True)
class Router:
    """`lan` is the bridge's own addresses with prefix length, IPv4 first. `wan` is the address that NAT uses."""

    name: str
    nat: str
    wan: str
    lan: tuple[str, ...]
    upnp: bool = False
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True)
class Host:
    """A Debian host. `router` is the nearest one that is its own (what `lab nat NODE` changes), "" for a public host.

    `ssh_names` are what a known_hosts file may call it; `interfaces` its WireGuard interfaces; `debian` its release.
    """

    name: str
    address: str
    router: str = ""
    client: bool = False
    ssh_names: tuple[str, ...] = ()
    jump: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    debian: str = SUITE


@dataclass(frozen=True)
class Blueprint:
    """The whole lab. Tuples are sorted by name; `hosts_file` is (address, names) for every host's /etc/hosts."""

    hosts: tuple[Host, ...]
    routers: tuple[Router, ...]
    lans: tuple[str, ...]
    links: tuple[Link, ...]
    hosts_file: tuple[tuple[str, tuple[str, ...]], ...]

    def elements(self) -> tuple[str, ...]:
        """Names of all namespaces but the internet's."""
        return (*(r.name for r in self.routers), *(h.name for h in self.hosts), *self.lans)

    def host(self, name: str) -> Host | None:
        """The host of that name, or None."""
        return next((h for h in self.hosts if h.name == name), None)

    def router(self, name: str) -> Router | None:
        """The router of that name, or None."""
        return next((r for r in self.routers if r.name == name), None)

    def links_of(self, element: str) -> tuple[Link, ...]:
        """Links that end in `element`, as child or parent."""
        return tuple(link for link in self.links if element in (link.child, link.parent))
