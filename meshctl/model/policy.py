"""Policies with their selectors expanded, before they are compiled (`meshctl.policy`).

A *subject* is who stands at an end of a connection: a node's name, a prefix behind a gateway in canonical text
(`192.168.10.0/24`), or `internet`. The three cannot be confused: names hold no slash, and `internet` is reserved.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.model.position import Position

Subject = str
INTERNET: Subject = "internet"
# Closed intervals of traffic numbers (core.traffic), disjoint and ascending.
Traffic = tuple[tuple[int, int], ...]


def is_prefix(subject: Subject) -> bool:
    """Whether the subject is a prefix behind a gateway."""
    return "/" in subject


@dataclass(frozen=True)
class Side:
    """What `from` or `to` selects. `members` is network -> subjects; `excluded` are prefixes cut out of those."""

    members: Mapping[str, frozenset[Subject]]
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Throttles of a rule, on each node that enforces it. None: no limit."""

    connections_per_second: int | None = None
    bandwidth_bps: int | None = None  # bits a second, both directions together


def whose(owner: object, reason: object) -> str:
    """` [data team; reports]` after what is said of a rule: whose it is and why. What is not a text is left out."""
    about = "; ".join(text for text in (owner, reason) if isinstance(text, str) and text)
    return f" [{about}]" if about else ""


@dataclass(frozen=True)
class Rule:
    """One policy. Sources may open connections of `traffic` to destinations, or (`deny`) may not."""

    name: str
    source: Side
    destination: Side
    traffic: Traffic
    deny: bool = False
    priority: int = 0  # the higher one wins; of equal ones, deny
    both_ways: bool = False
    limits: Limits = Limits()
    expires: datetime.date | None = None
    owner: str = ""
    reason: str = ""
    position: Position = Position()

    def __hash__(self) -> int:
        return hash(self.name)  # unique in an inventory, and a side's mapping has no hash


@dataclass(frozen=True)
class PolicyTest:
    """One entry of `tests:`: what every source must be able, and unable, to open to every destination.

    `can` and `cannot` pair each item as written with its traffic.
    """

    source: Side
    destination: Side
    label: str  # `web -> db`, as written
    can: tuple[tuple[str, Traffic], ...] = ()
    cannot: tuple[tuple[str, Traffic], ...] = ()
    position: Position = Position()
