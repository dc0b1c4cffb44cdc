"""Worlds of two hours: two or three nodes to which next to nothing happens, for what is bounded by the hour."""

from __future__ import annotations

import random
from dataclasses import replace

from simspec import SETTLE_S, Fault, Flow, WorldSpec

LONG_S = 7200.0
_FAULTS = (0, 1, 2, 4)
_NODES, _AGENTS = (2, 2, 3), 4  # two hours of an agent cost 0.7 s of processor time
# What an operator's day has: a router that forgets, another address, a restart. Each is over in a moment.
_SPARSE = ("rebind", "renumber", "agent dies", "anchor's agent dies")
_FIRST_S = 60.0
# How often the last node is a stock client, and for how long that leaves: until nobody keeps it alive any more.
_CLIENTS, LEAVES_S = 0.5, 600.0
_BURSTS, _BURST_S, _PINGS_S = 3, 60.0, 1.0  # each hour has a talk or two; idle agents cost the least


def lengthened(spec: WorldSpec, dice: random.Random) -> WorldSpec:
    """A drawn world with few of its nodes, for two hours, and with a few faults far apart."""
    nodes = tuple(n.honest for n in spec.nodes)
    agents = [n.name for n in nodes if n.kind != "anchor"][: dice.choice(_NODES)]
    anchors = [n.name for n in nodes if n.kind == "anchor"][: _AGENTS - len(agents)]
    kept = tuple(n for n in nodes if n.name in (*agents, *anchors))
    pairs = tuple(p for p in spec.pairs if set(p) <= set(agents))
    targets = {
        "rebind": [s.name for s in spec.sites], "renumber": [s.name for s in spec.sites],
        "agent dies": [n.name for n in kept if n.kind == "node"], "anchor's agent dies": anchors,
    }  # fmt: skip
    client = dice.random() < _CLIENTS and len(agents) > 2
    if client:  # behind a NAT, if there is one, so that anchors have to tell where it is
        kept = tuple(replace(n, kind="client", site=spec.sites[0].name) if n.name == agents[-1] else n for n in kept)
        targets["agent dies"] = agents[:-1]
    times = sorted(dice.uniform(_FIRST_S, LONG_S - _FIRST_S) for _ in range(dice.choice(_FAULTS)))
    faults = tuple(_fault(dice, at, targets) for at in times)
    if client:
        faults += (Fault("unplug", dice.uniform(_FIRST_S, LONG_S - 2 * LEAVES_S), LEAVES_S, agents[-1]),)
    starts = [dice.uniform(_FIRST_S, LONG_S - _FIRST_S - _BURST_S) for _ in range(_BURSTS)]
    flows = tuple(Flow(*dice.choice(pairs), start, _PINGS_S, start + _BURST_S) for start in starts)
    return replace(
        spec, nodes=kept, pairs=pairs, flows=flows, faults=faults, overrides=(), outsider=False, quiet_at=LONG_S,
        seconds=LONG_S + SETTLE_S,
    )  # fmt: skip


def _fault(dice: random.Random, at: float, targets: dict[str, list[str]]) -> Fault:
    kind = dice.choice(_SPARSE)
    return Fault(kind, at, 5.0 if "dies" in kind else 0.0, dice.choice(targets[kind]))
