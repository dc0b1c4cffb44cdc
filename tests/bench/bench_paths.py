"""Paths between hosts behind real NATs: which way packets go.

Everything is measured from outside the agents: by packets that hosts exchange, and by WireGuard's own endpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paths_lab import ANCHORS, DELAY, PathsLab
from paths_way import Ways, latest

from meshctl.core import reachability

KINDS = ("none", "full-cone", "easy", "address-dependent", "symmetric", "symmetric-sequential", "cgnat", "udp-blocked")
# Behind a carrier a home router's mapping is not one of the internet, and without UDP there is none.
MAPPED = frozenset(KINDS) - {"cgnat", "udp-blocked"}


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
        begun, ways = here.from_nothing()
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
        "outcome": " / ".join(sorted({way.outcome() for way in both})), "oracle": predicted(one, other, upnp=upnp),
        "first_s": latest([way.first_s(begun) for way in both]),
        "direct_s": latest([way.direct_s(begun) for way in both]),
    }  # fmt: skip


def predicted(one: str, other: str, *, upnp: bool) -> str:
    """What `meshctl lint` would say; a router that maps a port on request makes its host one with an endpoint."""
    ends = [reachability.End(kind, endpoint=upnp and kind in MAPPED) for kind in (one, other)]
    return reachability.predict(*ends, reachability.Helpers(introducer=True, relay=True, tls=False)).kind
