"""A small world as plain values, so that it can be drawn from a seed, printed, and taken apart to shrink a failure.

Numbers stand for addresses: site 3 has 81.3.0.1 outside and 2a01:3::/64, anchor 1 is 80.1.0.1, node 5 is 10.42.0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from simnat import Behaviour

INTERNET = ""  # the site of those that have a public address
# From the last fault's end until everything must be as good as it can be.
SETTLE_S = 32.0
# What a router may say of itself in answer to a port mapping, other than the truth.
LIES = ("", "unspecified", "private", "foreign")


@dataclass(frozen=True)
class Link:
    """How everybody's access is."""

    delay_s: float = 0.010
    jitter_s: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    mtu: int = 1500

    @property
    def clean(self) -> bool:
        """Whether nothing is lost or late, so that the times that are promised are owed."""
        return not (self.jitter_s or self.loss or self.duplication) and self.delay_s <= Link.delay_s


@dataclass(frozen=True)
class SiteSpec:
    """A LAN behind a NAT. `lan` is its /24 as text (`192.168.1`), `carrier` the site it hangs on, if any."""

    number: int
    nat: Behaviour
    lan: str
    carrier: str = INTERNET
    v6: bool = False
    speaks: tuple[str, ...] = ()
    lie: str = ""

    @property
    def name(self) -> str:
        """As faults and nodes call it."""
        return f"site{self.number}"


@dataclass(frozen=True)
class NodeSpec:
    """One host. `kind`: anchor, node, client (stock, without agent) or malicious (has keys, and misuses them)."""

    name: str
    number: int
    site: str = INTERNET
    kind: str = "node"
    v4: bool = True
    v6: bool = False
    second: bool = False  # has one more address, which leads nowhere and which every other such host has too
    starts_at: float = 0.0
    userspace: bool = False  # its WireGuard is not the kernel's
    written: int = 0  # the one family in which the inventory has an anchor, if it has not both
    far_s: float = 0.0  # so much farther away it is than the others, each way: only of anchors
    others: int = 0  # so many more addresses that lead nowhere: of networks inside a router, say
    gateless: bool = False  # its agent is told of no default gateway: it has a line of its own, with nobody at the end

    @property
    def is_fixed(self) -> bool:
        """Whether its endpoint is written down though it has no agent: a client that is on the internet at first."""
        return self.kind == "client" and self.site == INTERNET

    @property
    def honest(self) -> NodeSpec:
        """The same without harm."""
        return replace(self, kind="node") if self.kind == "malicious" else self

    @property
    def has_agent(self) -> bool:
        """Whether the core runs there."""
        return self.kind != "client"


@dataclass(frozen=True)
class Flow:
    """Pings from `a` to `b`, answered by b's kernel, or by nobody if `one_way`. `size`: bytes that each and its answer
    have inside the tunnel with their headers, if that is more than they need."""

    a: str
    b: str
    starts_at: float
    every_s: float
    ends_at: float
    size: int = 0
    one_way: bool = False


@dataclass(frozen=True)
class Fault:
    """Something that happens to `target` (a node, site or anchor) at a time, and ends."""

    kind: str
    at: float
    lasts_s: float
    target: str = ""
    value: str = ""

    @property
    def ends_at(self) -> float:
        """When it is over, and repair may begin."""
        return self.at + self.lasts_s

    def __str__(self) -> str:
        return f"{self.kind} {self.target} {self.value} for {self.lasts_s:.1f} s".replace("  ", " ")


@dataclass(frozen=True)
class WorldSpec:
    """All that makes a world. `pairs` are those that policy permits, each once with names in order."""

    seed: int
    link: Link
    sites: tuple[SiteSpec, ...]
    nodes: tuple[NodeSpec, ...]
    pairs: tuple[tuple[str, str], ...]
    flows: tuple[Flow, ...] = ()
    faults: tuple[Fault, ...] = ()
    overrides: tuple[tuple[str, str, str], ...] = ()  # of the configuration: (node, peer, mode)
    outsider: bool = False
    named_anchors: bool = False
    quiet_at: float = 12.0  # nothing is done to the world after this
    seconds: float = field(default=12.0 + SETTLE_S)
    stun: str = ""  # the manner of a STUN server (`simstun`), which all nodes know; "": there is none
    ttl_s: int | None = None  # of anchors' names, as resolvers say it, or do not

    def node(self, name: str) -> NodeSpec:
        """The host of that name. Raises KeyError."""
        return self._nodes[name]

    def site(self, name: str) -> SiteSpec:
        """The site of that name. Raises KeyError."""
        return self._sites[name]

    @property
    def anchors(self) -> tuple[NodeSpec, ...]:
        """In the order of their numbers."""
        return tuple(n for n in self.nodes if n.kind == "anchor")

    def permits(self, a: str, b: str) -> bool:
        """Whether policy lets the two reach each other."""
        return (min(a, b), max(a, b)) in self._permitted

    @cached_property
    def _nodes(self) -> dict[str, NodeSpec]:
        return {n.name: n for n in self.nodes}

    @cached_property
    def _sites(self) -> dict[str, SiteSpec]:
        return {s.name: s for s in self.sites}

    @cached_property
    def _permitted(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.pairs)

