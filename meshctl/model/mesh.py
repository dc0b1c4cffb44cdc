"""The resolved inventory: what the repository says, with groups, defaults and allocation already applied.

Addresses are kept as canonical text (`10.42.0.5`, `fd42::5`, `10.42.0.0/16`), validated by `inventory.resolve`,
because a mesh of a thousand nodes makes a million peer entries and every one of them is text in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshctl.model.keys import PublicKey
from meshctl.model.policy import PolicyTest, Rule
from meshctl.model.position import Position

# Linux interface names are IFNAMSIZ - 1 characters at most (linux/if.h).
INTERFACE_NAME_MAX = 15
# 1500 less 40 (IPv6) less 8 (UDP) less 32 (WireGuard): what wg-quick uses over Ethernet, for both families.
DEFAULT_MTU = 1420
# The role of managed nodes that run the agent.
AGENT_ROLE = "agent"
# The smallest MTU that may carry IPv6 (RFC 8200 section 5).
IPV6_MIN_MTU = 1280


@dataclass(frozen=True)
class Network:
    """One WireGuard network. `cidrs` has at most one IPv4 and one IPv6 prefix, in canonical text."""

    name: str
    cidrs: tuple[str, ...]
    dns_domain: str = ""
    position: Position = Position()


@dataclass(frozen=True)
class SshSettings:
    """How the controller reaches a node. `jump` is a chain of node names or `user@host:port`, nearest first.

    What is None or empty is open to ssh_config, and has OpenSSH's default after that.
    """

    host: str
    port: int | None = None
    user: str = ""
    key: str = ""
    jump: tuple[str, ...] = ()
    sudo: bool = False
    config: str = ""  # an ssh_config file; "" means ~/.ssh/config, "none" means no file
    known_hosts: str = ""  # "" means ~/.ssh/known_hosts
    connect_timeout_s: float | None = None
    command_timeout_s: float = 300.0
    keepalive_s: int = 15


@dataclass(frozen=True)
class LabSettings:
    """Where a node stands in the digital twin (DESIGN section 8). `None` means: the lab's default."""

    nat: str | None = None
    behind: str | None = None
    upnp: bool = False
    ipv6: str | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    debian: str = ""


@dataclass(frozen=True)
class Attachment:
    """A node's membership of one network: one WireGuard interface.

    `addresses` are host addresses without prefix length, one for each family of the network, IPv4 first.
    `endpoint` is `host:port` or `[v6]:port` where the node is reachable from outside, else None.
    `public_key` is None until the node (or, for a client, `meshctl client show`) has made one; `next_public_key` is
    the one that the node is to switch to, while a rotation is pending.
    """

    network: str
    interface: str
    addresses: tuple[str, ...]
    listen_port: int
    mtu: int = DEFAULT_MTU
    endpoint: str | None = None
    keepalive_s: int = 25
    public_key: PublicKey | None = None
    next_public_key: PublicKey | None = None


@dataclass(frozen=True)
class Node:
    """One machine of the inventory, with every setting that precedence gives it."""

    name: str
    attachments: tuple[Attachment, ...]
    ssh: SshSettings
    roles: tuple[str, ...] = ()  # in the order in which they are applied, `wireguard` included
    groups: frozenset[str] = frozenset()  # parents included
    tags: frozenset[str] = frozenset()
    region: str = ""
    backend: str = "wg-quick"  # or "systemd-networkd"
    client: bool = False  # a stock client: rendered, shown, never contacted
    revoked: bool = False  # cut off: never contacted, without a key, and so nobody's peer
    peers: tuple[str, ...] = ()  # a client's named peers; () for other nodes
    routes: tuple[str, ...] = ()  # prefixes behind a gateway
    exit_node: bool = False  # offers a way to the internet
    exit_via: str | None = None  # uses that node's way to the internet
    relay: str = "auto"  # or "routed": by way of an anchor that could read (DESIGN 7.4)
    relay_limit: int | None = None  # bytes a second that an anchor relays for a pair, each way; None: any number
    anchors: tuple[str, ...] = ()  # preferred anchors, best first; () means same region first, then by name
    psk: bool = True
    nat: str | None = None  # the NAT in front, as declared (a lab.nat kind); None: unknown
    capacity: int | None = None  # how many peers the node should have at most; None: any number
    rotate_every_s: int | None = None  # how old its keys may be; None: any age
    vars: Mapping[str, Any] = field(default_factory=dict)  # free variables for roles and templates
    lab: LabSettings = LabSettings()
    position: Position = Position()

    def attachment(self, network: str) -> Attachment | None:
        """This node's interface in `network`, or None."""
        return next((a for a in self.attachments if a.network == network), None)

    @property
    def is_anchor(self) -> bool:
        """Whether the node has the `anchor` role."""
        return "anchor" in self.roles

    @property
    def has_agent(self) -> bool:
        """Whether an agent finds the node's paths."""
        return AGENT_ROLE in self.roles


@dataclass(frozen=True)
class SecretSource:
    """Where the mesh secret is read when MESHCTL_SECRET is unset: one of a file or a command."""

    file: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mesh:
    """Everything that the later stages need to know of the inventory. Mappings are sorted by name."""

    networks: Mapping[str, Network]
    nodes: Mapping[str, Node]
    groups: Mapping[str, frozenset[str]]  # group -> nodes, children's nodes included
    rules: tuple[Rule, ...] = ()  # as written; `policy.compile_policies` puts them in order
    tests: tuple[PolicyTest, ...] = ()
    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    secret: SecretSource = SecretSource()
    lab: Mapping[str, Any] = field(default_factory=dict)  # the top-level `lab:` block (routers), schema-checked
    base_dir: str = "."  # folder of the inventory: the user's roles/ and templates/ stand there

    def managed(self) -> tuple[Node, ...]:
        """Nodes that are contacted over SSH, by name."""
        return tuple(n for n in self.nodes.values() if not n.client and not n.revoked)
