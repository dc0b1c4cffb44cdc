"""Worlds that tests begin with: two nodes at home behind given NATs, and two anchors."""

from __future__ import annotations

from typing import Any

from simnat import Behaviour
from simspec import Fault, Link, NodeSpec, SiteSpec, WorldSpec
from simworld import World

from meshctl.core.reachability import ADDRESS_AND_PORT

HARD = Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, "random")


def spec_of(one: Behaviour, other: Behaviour, seed: int = 0, **changes: Any) -> WorldSpec:
    """Two nodes at home, and two anchors, all started at once."""
    speaks = () if HARD in (one, other) else ("pcp",)
    sites = tuple(SiteSpec(n, nat, f"192.168.{n}", speaks=speaks) for n, nat in enumerate((one, other)))
    anchors = [NodeSpec(f"a{n}", n, kind="anchor") for n in (0, 1)]
    nodes = [NodeSpec(f"n{n}", 2 + n, f"site{n}") for n in (0, 1)]
    settings: dict[str, Any] = {"seconds": 40.0, **changes}
    return WorldSpec(seed, Link(), sites, (*anchors, *nodes), (("n0", "n1"),), **settings)


EASY = spec_of(Behaviour(), Behaviour())
NEVER = spec_of(HARD, HARD)
# A guess hits in the world of this seed. After 20 s no splice can be made any more, and the one that there is breaks.
SPLICED = spec_of(HARD, Behaviour(), 1, faults=(Fault("nat becomes", 20.0, 0.0, "site1", "hard"),), seconds=60.0)


def found(spec: WorldSpec) -> set[str]:
    """The invariants that do not hold."""
    return {f.invariant for f in World(spec).run().findings}
