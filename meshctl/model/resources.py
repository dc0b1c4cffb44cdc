"""A node's desired state: the resources that its roles ask for, in task order.

Field names are those of Ansible's modules where one exists. All of it is data: `facts` says what the host has,
`core.diff` compares, `ops` turns the difference into steps.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Union

from meshctl.model.keys import PublicKey, Secret


@dataclass(frozen=True)
class Package:
    """Distribution packages. `state` is `present` or `absent`."""

    names: tuple[str, ...]
    state: str = "present"
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A file, directory, link, or the absence of a path. `content` is set exactly for `state == "file"`.

    `sensitive` content is never shown in a diff. `mode` is octal text of four digits (`0644`).
    """

    path: str
    state: str = "file"  # file | directory | link | absent
    content: bytes | None = field(default=None, repr=False)  # may hold secrets
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    target: str = ""  # of a link
    sensitive: bool = False
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sysctl:
    """One kernel parameter, live and across reboots (the file is a resource of its own)."""

    name: str
    value: str
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """A systemd unit. `state` is started, stopped or None (not managed); `enabled` True, False or None.

    `satisfied_by_interface` names a WireGuard interface whose existence counts as started: an adopted wg0 that
    somebody brought up by hand must not be started a second time. `cleanup` is a command that gives back what the unit
    leaves behind outside of its files; it runs when the unit is no longer wanted and has been stopped.
    """

    name: str
    state: str | None = None
    enabled: bool | None = None
    satisfied_by_interface: str = ""
    notify: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """One WireGuard peer as all of its peers see it; shared between nodes, so it holds no pre-shared key.

    `allowed_ips` are canonical prefixes in sorted order, IPv4 before IPv6. `endpoint` and `keepalive_s` are only
    where the agent starts from (DESIGN section 2). `name` is a node of the inventory. `next_key` is the key that it is
    about to switch to: the peers have that beside this one, as a peer of its own (`awaited`).
    """

    name: str
    public_key: PublicKey | None  # None: known after apply
    allowed_ips: tuple[str, ...]
    endpoint: str | None = None
    keepalive_s: int = 0
    next_key: PublicKey | None = None

    def awaited(self) -> Peer:
        """The peer under its next key. A prefix has one owner, so this one has none until its node has switched; where
        it is, its first packet says. Its name is no node's."""
        return Peer(awaited_name(self.name), self.next_key, ())


def awaited_name(name: str) -> str:
    """What the peers of a node call it under its next key."""
    return f"{name} (next key)"


@dataclass(frozen=True)
class WireGuard:
    """One interface, complete. `peers` are sorted by name and `psks` run parallel to them."""

    interface: str
    network: str
    backend: str
    addresses: tuple[str, ...]  # with the network's prefix length: 10.42.0.5/16
    listen_port: int
    mtu: int
    key_file: str  # /etc/wireguard/IFACE.key
    public_key: PublicKey | None  # pinned in the lock; None: not yet born
    peers: tuple[Peer, ...]  # `awaited` ones included
    psks: tuple[Secret | None, ...]
    routes: tuple[str, ...] = ()  # prefixes of allowed_ips that the interface's own prefixes do not cover
    fwmark: int = 0
    key_mode: str = "0600"  # systemd-networkd reads the key as user systemd-network: 0640 with its group
    key_group: str = "root"
    default_route: bool = False  # 0.0.0.0/0 and ::/0 go by an exit node: policy routing as wg-quick does it
    next_public_key: PublicKey | None = None  # to switch to, in the lock while a rotation is pending
    notify: tuple[str, ...] = ()

    @property
    def next_key_file(self) -> str:
        """Where the private half of the next key waits."""
        return f"{self.key_file}.next"

    def without_keyless_peers(self, awaited: Container[str]) -> WireGuard:
        """See NodeDoc.without_keyless_peers."""
        kept = [(p, k) for p, k in zip(self.peers, self.psks) if p.public_key or p.name in awaited]
        return replace(self, peers=tuple(p for p, _ in kept), psks=tuple(k for _, k in kept))


@dataclass(frozen=True)
class Nftables:
    """One nftables table, loaded atomically. `text` is a `table FAMILY NAME { … }` block in canonical layout.

    None: a service of the node makes and fills the table while it runs; only that it goes with its role is ours.
    """

    family: str
    table: str
    text: str | None
    notify: tuple[str, ...] = ()


Resource = Union[Package, File, Sysctl, Service, WireGuard, Nftables]


@dataclass(frozen=True)
class Handler:
    """What a `notify` runs, once, after all resources: restart or reload of a unit."""

    name: str
    service: str
    action: str  # restarted | reloaded


@dataclass(frozen=True)
class NodeDoc:
    """Everything that one node should have."""

    node: str
    resources: tuple[Resource, ...]
    handlers: tuple[Handler, ...] = ()
    warnings: tuple[str, ...] = ()

    def interfaces(self) -> tuple[WireGuard, ...]:
        """The WireGuard resources, in order."""
        return tuple(r for r in self.resources if isinstance(r, WireGuard))

    def without_keyless_peers(self, awaited: Container[str] = ()) -> NodeDoc:
        """This document without peers whose public key is not known; those named in `awaited` stay."""
        if all(p.public_key or p.name in awaited for w in self.interfaces() for p in w.peers):
            return self
        resources = (r.without_keyless_peers(awaited) if isinstance(r, WireGuard) else r for r in self.resources)
        return replace(self, resources=tuple(resources))
