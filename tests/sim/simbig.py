"""Large worlds: hundreds of agents behind NATs of all kinds, each with about four peers; and a star."""

from __future__ import annotations

import random

from simchanges import NATS
from simdraw import behaviour
from simspec import INTERNET, Fault, Flow, Link, NodeSpec, SiteSpec, WorldSpec

_PEERS = 4
_ANCHORS = 2
_SECONDS = 600.0
_QUIET_AT = 480.0
_TALKING = 15
_EASY = 76  # of 80 NATs, as among people's
_FAULTS = 40

_HUB_STARTS_S = 2.0
_STAR_S = 3.5


def star_world(leaves: int) -> WorldSpec:
    """A hub that starts when all are there who may reach it, and nobody else: behind hard NATs, with one anchor."""
    names = ["hub", *(f"n{n}" for n in range(leaves))]
    sites = tuple(SiteSpec(n, NATS["hard"], f"192.168.{n}") for n in range(len(names)))
    starts = (_HUB_STARTS_S, *(0.0 for _ in range(leaves)))
    nodes = (NodeSpec(name, 1 + n, sites[n].name, starts_at=starts[n]) for n, name in enumerate(names))
    pairs = tuple(("hub", name) for name in names[1:])
    return WorldSpec(0, Link(), sites, (NodeSpec("a0", 0, kind="anchor"), *nodes), pairs, seconds=_STAR_S)


def big_world(agents: int, seed: int = 0) -> WorldSpec:
    """The same each time."""
    dice = random.Random(f"big {agents} {seed}")  # noqa: S311
    sites = tuple(
        SiteSpec(n, behaviour(dice, _EASY), f"192.168.{n % 200}", v6=dice.random() < 0.3)
        for n in range(agents * 2 // 3)
    )
    anchors = tuple(NodeSpec(f"a{n}", n, kind="anchor", v6=True) for n in range(_ANCHORS))
    names = [f"n{n}" for n in range(agents)]
    nodes = tuple(
        NodeSpec(
            name, _ANCHORS + n, INTERNET if n % 10 == 0 else sites[n % len(sites)].name,
            v6=dice.random() < 0.4, starts_at=dice.uniform(0.0, 20.0),
        )
        for n, name in enumerate(names)
    )  # fmt: skip
    pairs: set[tuple[str, str]] = set()
    for name in names:
        for _ in range(_PEERS // 2):
            other = dice.choice(names)
            if other != name:
                pairs.add((min(name, other), max(name, other)))
    ordered = tuple(sorted(pairs))
    flows = tuple(
        Flow(*dice.choice(ordered), dice.uniform(0.0, 100.0), 1.0, _QUIET_AT + 60.0) for _ in range(_TALKING)
    )
    faults = sorted(
        (
            Fault(kind, dice.uniform(60.0, _QUIET_AT - 20.0), 0.0 if kind != "agent dies" else 10.0, target)
            for kind, target in (
                dice.choice((("rebind", s.name), ("renumber", s.name), ("agent dies", n)))
                for s, n in ((dice.choice(sites), dice.choice(names)) for _ in range(_FAULTS))
            )
        ),
        key=lambda f: (f.at, f.target),
    )
    return WorldSpec(
        seed, Link(), sites, (*anchors, *nodes), ordered, flows, tuple(faults), quiet_at=_QUIET_AT, seconds=_SECONDS
    )
