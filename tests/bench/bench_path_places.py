"""Pairs of hosts that have more in common, or less, than a NAT each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paths_lab import DELAY, PathsLab
from paths_way import latest
from simnat import Behaviour
from simoracle import Oracle, Situation
from simspec import NodeSpec, SiteSpec

SLOW = {"delay": DELAY}
# One anchor is written down by its IPv4 address and one by its IPv6 address, so that everybody reaches one at least.
ANCHORS = {
    "mid": {"roles": ["anchor"], "endpoint": "203.0.113.10:51820", "lab": {"ipv6": "native", **SLOW}},
    "far": {"roles": ["anchor"], "endpoint": "[2001:db8::10]:51820", "lab": {"ipv6": "native", **SLOW}},
}
ROUTERS = {
    "home": {"nat": "easy", **SLOW},
    "carrier": {"nat": "cgnat", **SLOW},
    "loop": {"nat": "cgnat", **SLOW},
    "station": {"nat": "easy", "ipv6": "native", **SLOW},
}
NODES = {
    **{f"home-{which}": {"lab": {"behind": "home"}} for which in "ab"},
    **{f"{up}-{which}": {"lab": {"behind": up, "nat": "easy"}} for up in ("carrier", "loop") for which in "ab"},
    "six": {"lab": {"behind": "station"}},
    "dual": {"lab": {"nat": "easy", "ipv6": "native", **SLOW}},
    "four": {"lab": {"nat": "easy", **SLOW}},
}  # fmt: skip
# No router of the lab hairpins by itself. Here what comes from inside for a mapping goes back inside, from its
# sender's; what was refused before is forgotten.
HAIRPIN = """
set -e
wan=$(ip -4 -o addr show dev wan | awk '{sub("/.*", "", $4); print $4; exit}')
nft "insert rule inet lab prerouting iifname lan ip daddr $wan meta l4proto udp dnat ip to udp dport map @owner"
nft "insert rule inet lab postrouting oifname lan ct status dnat meta l4proto udp \
  snat ip to $wan : ip saddr . udp sport map @mapped"
conntrack -F
"""
NO_IPV4 = "ip -4 addr flush dev $(ip -4 -o addr show scope global | awk '$2 !~ /^wg/ {print $2; exit}')"


@dataclass(frozen=True)
class Place:
    """Two hosts of the lab, and the same for the oracle: sites and ends."""

    what: str
    pair: tuple[str, str]
    sites: tuple[SiteSpec, ...]
    ends: tuple[NodeSpec, NodeSpec]

    def foretold(self) -> str:
        """The oracle's word."""
        anchors = (NodeSpec("a0", 0, kind="anchor", v6=True), NodeSpec("a1", 1, kind="anchor", v6=True))
        one, other = self.ends
        situation = Situation(self.sites, tuple((end.name, end.site) for end in self.ends), (*anchors, *self.ends))
        return Oracle().outcome(situation, one.name, other.name)


def carried(*, hairpin: bool) -> tuple[SiteSpec, ...]:
    """Two homes behind one carrier."""
    homes = [SiteSpec(number, Behaviour(), "192.168.1", carrier="site0") for number in (1, 2)]
    return SiteSpec(0, Behaviour(hairpin=hairpin), "100.64.200"), *homes


def ends(one: str, other: str, **more: bool) -> tuple[NodeSpec, NodeSpec]:
    """Two hosts in these sites; `more` is about the second one."""
    return NodeSpec("n0", 2, one), NodeSpec("n1", 3, other, **more)


APART = tuple(SiteSpec(number, Behaviour(), "192.168.1", v6=True) for number in (1, 2))
SIX_ONLY = {"v4": False, "v6": True}
PLACES = (
    Place("the same LAN", ("home-a", "home-b"), (SiteSpec(0, Behaviour(), "192.168.1"),), ends("site0", "site0")),
    Place("two homes, the same CGNAT", ("carrier-a", "carrier-b"), carried(hairpin=False), ends("site1", "site2")),
    Place("the same, and the CGNAT hairpins", ("loop-a", "loop-b"), carried(hairpin=True), ends("site1", "site2")),
    Place(
        "dual stack, IPv6 only", ("dual", "six"), APART,
        (NodeSpec("n0", 2, "site1", v6=True), NodeSpec("n1", 3, "site2", **SIX_ONLY)),
    ),
    Place("IPv4 only, IPv6 only", ("four", "six"), APART, ends("site1", "site2", **SIX_ONLY)),
)  # fmt: skip


def measure() -> list[dict[str, Any]]:
    """One row for each place."""
    here = PathsLab({**ANCHORS, **NODES}, lab={"routers": ROUTERS})
    try:
        here.sh("loop", HAIRPIN)
        here.sh("six", NO_IPV4)
        begun, ways = here.from_nothing()
    finally:
        here.down()
    rows = []
    for place in PLACES:
        both = ways[place.pair], ways[place.pair[::-1]]
        rows.append({
            "what": place.what, "oracle": place.foretold(),
            "outcome": " / ".join(sorted({way.outcome() for way in both})),
            "first_s": latest([way.first_s(begun) for way in both]),
            "direct_s": latest([way.direct_s(begun) for way in both]),
        })  # fmt: skip
    return rows
