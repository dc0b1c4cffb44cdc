"""`ip -j addr`, `ip -j route` and `ip -j rule` of WireGuard interfaces."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshctl.model.facts import InterfaceFacts

FAMILIES = (4, 6)


@dataclass(frozen=True)
class LinkFacts:
    """What `ip` knows of one interface. `tables` are the tables, by family, with a default route by it."""

    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    mtu: int
    up: bool
    tables: Mapping[int, frozenset[str]]

    def complete(self, facts: InterfaceFacts) -> InterfaceFacts:
        """`facts` (from `wg`) with these fields."""
        return replace(facts, addresses=self.addresses, routes=self.routes, mtu=self.mtu, up=self.up)


def parse_links(lines: list[str]) -> dict[str, LinkFacts]:
    """By name. The batch prints two arrays an interface, addresses and then routes; an interface that went away in
    between prints none. Raises ValueError (JSON), KeyError or TypeError."""
    links: dict[str, LinkFacts] = {}
    address_array: Any = None
    for array in _arrays("\n".join(lines)):
        if address_array is None:
            address_array = array
            continue
        if address_array:
            link = _link(address_array[0], array)
            links[address_array[0]["ifname"]] = link
        address_array = None
    return links


def _arrays(text: str) -> Iterator[list[Any]]:
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        array, position = decoder.raw_decode(text, position)
        if not isinstance(array, list):
            raise ValueError("not a JSON array")
        yield array


def _link(addresses: Any, routes: list[Any]) -> LinkFacts:
    tables: dict[int, set[str]] = {family: set() for family in FAMILIES}
    main = []
    families = _families(routes)
    for route, family in zip(routes, families):
        if route.get("type", "unicast") != "unicast":
            continue
        table = str(route.get("table", "main"))
        if table != "main":
            if route["dst"] == "default":
                tables[family].add(table)
        elif route.get("protocol") != "kernel":
            main.append(_prefix(route["dst"], family))
    return LinkFacts(
        addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in addresses["addr_info"]),
        routes=tuple(main),
        mtu=int(addresses["mtu"]),
        up="UP" in addresses["flags"],
        tables={family: frozenset(names) for family, names in tables.items()},
    )


def _families(routes: list[Any]) -> list[int]:
    """IPv6 routes carry a preference (RFC 4191) in iproute2's output and IPv4 routes never do; that alone tells two
    `default`s apart."""
    return [6 if "pref" in route or ":" in str(route["dst"]) else 4 for route in routes]


def _prefix(text: str, family: int) -> str:
    if text == "default":
        return "0.0.0.0/0" if family == 4 else "::/0"
    return str(ipaddress.ip_network(text))


@dataclass(frozen=True)
class Rule:
    """One rule of `ip rule`. `mark` is 0 for any; `suppress` says that only routes longer than /0 count."""

    priority: int
    table: str
    mark: int
    inverted: bool
    suppress: bool


def parse_rules(lines: list[str]) -> tuple[Rule, ...]:
    """`ip -j rule` of one family, in order of priority. Raises ValueError (JSON), KeyError or TypeError."""
    rules = (
        Rule(
            priority=int(rule["priority"]),
            table=str(rule.get("table", "")),
            mark=int(str(rule.get("fwmark", "0")), 0),
            inverted="not" in rule,
            suppress=rule.get("suppress_prefixlen") == 0,
        )
        for array in _arrays("\n".join(lines))
        for rule in array
    )
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def policy_routing(
    fwmark: int, tables: Mapping[int, frozenset[str]], rules: Mapping[int, tuple[Rule, ...]]
) -> frozenset[str]:
    """Which pieces of wg-quick's way to send everything by one interface are there: for each family `N route`,
    `N rule` (not the mark: its table) and `N suppress` (main's own routes first)."""
    pieces: set[str] = set()
    for family in FAMILIES:
        rule = next((r for r in rules[family] if r.inverted and fwmark and r.mark == fwmark), None)
        has_route = (rule.table if rule else str(fwmark)) in tables[family]
        suppressing = [r for r in rules[family] if r.suppress and r.table == "main"]
        # Others may use such a rule too: it counts only beside a piece that is surely ours.
        in_front = any(rule is None or r.priority < rule.priority for r in suppressing) and (rule or has_route)
        found = {"rule": rule, "route": has_route, "suppress": in_front}
        pieces.update(f"{family} {name}" for name, there in found.items() if there)
    return frozenset(pieces)
