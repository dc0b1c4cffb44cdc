"""Paths between hosts behind real NATs: which way packets go.

Everything is measured from outside the agents: by packets that hosts exchange, and by WireGuard's own endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from paths_lab import START, PathsLab, Ways, now

from meshctl.core import reachability

DELAY = "20ms"  # one way, on every line
ANCHORS = {
    "mid": {"roles": ["anchor"], "endpoint": "203.0.113.10:51820", "lab": {"delay": DELAY}},
    "far": {"roles": ["anchor"], "endpoint": "198.51.100.10:51820", "lab": {"delay": DELAY}},
}
KINDS = ("none", "full-cone", "easy", "address-dependent", "symmetric", "symmetric-sequential", "cgnat", "udp-blocked")
# Behind a carrier a home router's mapping is not one of the internet, and without UDP there is none.
MAPPED = frozenset(KINDS) - {"cgnat", "udp-blocked"}
# A splice may need a second attempt, 30 s after the first.
MATRIX_S = 60.0
SELDOM_S = 0.1


def measure() -> list[dict[str, Any]]:
    """Every pair of kinds, without port mapping and with it."""
    return [*matrix(upnp=False), *matrix(upnp=True)]


def matrix(*, upnp: bool) -> list[dict[str, Any]]:
    """Every pair of kinds, all at once in one lab."""
    nodes: dict[str, Any] = dict(ANCHORS)
    for kind in KINDS:
        for which in ("a", "b"):
            asks = {"upnp": True} if upnp and kind != "none" else {}
            nodes[f"{kind}-{which}"] = {"lab": {"nat": kind, "delay": DELAY, **asks}}
    here = PathsLab(nodes)
    try:
        begun, ways = from_nothing(here, MATRIX_S, SELDOM_S)
        return [matrix_row(ways, begun, one, other, upnp=upnp) for one, other in kind_pairs()]
    finally:
        here.down()


def kind_pairs() -> Iterator[tuple[str, str]]:
    """Each pair of kinds once."""
    for at, one in enumerate(KINDS):
        for other in KINDS[at:]:
            yield one, other


def matrix_row(ways: Ways, begun: float, one: str, other: str, *, upnp: bool) -> dict[str, Any]:
    """What became of one pair, and what should have."""
    both = ways[f"{one}-a", f"{other}-b"], ways[f"{other}-b", f"{one}-a"]
    return {
        "a": one, "b": other, "upnp": upnp,
        "outcome": " / ".join(sorted({way.kind() for way in both})), "oracle": predicted(one, other, upnp=upnp),
        "first_s": latest([way.first_s(begun) for way in both]),
        "direct_s": latest([way.direct_s(begun) for way in both]),
    }  # fmt: skip


def predicted(one: str, other: str, *, upnp: bool) -> str:
    """What `meshctl lint` would say; a router that maps a port on request makes its host one with an endpoint."""
    ends = [reachability.End(kind, endpoint=upnp and kind in MAPPED) for kind in (one, other)]
    return reachability.predict(*ends, reachability.Helpers(introducer=True, relay=True, tls=False)).kind


def latest(seconds: list[float | None]) -> float | None:
    """The later of two ends' times; None where an end has none."""
    found = [s for s in seconds if s is not None]
    return max(found) if len(found) == len(seconds) else None


def from_nothing(here: PathsLab, seconds: float, every_s: float) -> tuple[float, Ways]:
    """Start all agents at once on hosts that know nothing yet. When that was, and what meters saw."""
    here.fresh()
    with here.meters(every_s) as ways:
        begun = now()
        here.everywhere(START)
        time.sleep(max(0.0, begun + seconds - now()))
    return begun, ways
