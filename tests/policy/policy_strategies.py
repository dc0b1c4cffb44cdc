"""Random inventories, as the dicts that their YAML says: layouts for hypothesis to draw, rules by a seeded generator.

Rules come from a generator because hypothesis takes 20 ms to draw a set of them and this takes 0.1. What fails is made
small by leaving rules out (`asking.smallest`).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

from hypothesis import strategies as st

INTERNET_HOSTS = ("9.9.9.9", "2620:fe::fe")
_PORTS = (1, 22, 23, 24, 80, 443, 1000, 1500, 2000, 65534, 65535)
LANS = {
    "192.168.10.0/24": ("192.168.10.0/28", "192.168.10.8/29", "192.168.10.0/25", "192.168.10.9/32"),
    "fd99::/64": ("fd99::/80", "fd99::8/125"),
}
SERVICES = {"web": ["tcp/80", "tcp/443"], "dns": ["udp/53", "tcp/53"]}
_NUMBER = {"corp": 42, "lab": 43}


def address(network: str, number: int) -> list[str]:
    """Node `number`'s addresses in a network."""
    return [f"10.{_NUMBER[network]}.0.{number}", f"fd{_NUMBER[network]}::{number:x}"]


def node(number: int, networks: tuple[str, ...], *, endpoint: bool = False, **more: Any) -> dict[str, Any]:
    """One entry of `nodes:`."""
    made: dict[str, Any] = {
        "networks": list(networks),
        "address": {network: address(network, number) for network in networks},
        **more,
    }
    if endpoint:
        made["endpoint"] = {n: f"203.0.113.{number}:{51820 + i}" for i, n in enumerate(networks)}
    return made


def inventory(nodes: dict[str, Any], networks: tuple[str, ...] = ("corp",), **more: Any) -> dict[str, Any]:
    """An inventory of these nodes, with two groups of which one holds the other."""
    return {
        "version": 1,
        "networks": {n: {"cidr": [f"10.{_NUMBER[n]}.0.0/16", f"fd{_NUMBER[n]}::/64"]} for n in networks},
        "groups": {"inner": {"vars": {"tags": ["inherited"]}}, "outer": {"children": ["inner"]}},
        "services": SERVICES,
        "nodes": nodes,
        **more,
    }


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Six to eight nodes: an anchor, a gateway, an exit node, and plain ones, some of them its users."""
    networks = draw(st.sampled_from([("corp",), ("corp",), ("corp", "lab")]))
    some = st.sampled_from([networks, *[(n,) for n in networks]])
    nodes = {
        "hub": node(1, networks, endpoint=True, roles=["anchor"]),
        "gate": node(2, draw(some), roles=["gateway"], routes=list(LANS)),
        "exit": node(3, draw(some), roles=["gateway"], endpoint=True, exit_node=True),
    }
    for number in range(4, draw(st.integers(7, 9))):
        more: dict[str, Any] = {"groups": draw(st.sampled_from([[], ["inner"], ["outer"]]))}
        more["tags"] = draw(st.sampled_from([[], ["red"], ["blue", "red"]]))
        member = draw(some)
        if draw(st.booleans()) and set(member) & set(nodes["exit"]["networks"]):
            more["exit_via"] = "exit"
        nodes[f"n{number}"] = node(number, member, **more)
    nodes["n4"] = {**nodes["n4"], "groups": ["inner"], "tags": ["red"]}
    nodes["phone"] = node(20, ("corp",), client=True, peers=["hub"], groups=draw(st.sampled_from([[], ["inner"]])))
    made = inventory(nodes, networks)
    if draw(st.integers(0, 4)) == 0:
        made["networks"][networks[-1]]["policy"] = "open"
    return made


def policies(layout: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One to seven rules over what the layout has."""
    return st.integers(0, 2**32 - 1).map(lambda seed: RuleMaker(layout, seed).policies())


class RuleMaker:
    """Rules over what a layout has.

    Half of them speak of the same sources and destinations and half of the priorities are equal, since rules that
    never meet would not show how they are weighed against each other.
    """

    def __init__(
        self,
        layout: dict[str, Any],
        seed: int,
        lans: Mapping[str, Collection[str]] = LANS,
        ports: tuple[int, ...] = _PORTS,
    ) -> None:
        """`lans` maps what is behind gateways to parts of it that rules may name."""
        self._chance = random.Random(seed)  # noqa: S311
        self._ports = ports
        labels = ["outer", "inner", "tag:red", "tag:inherited", "role:anchor", "role:gateway"]
        prefixes = [*lans, *(p for inner in lans.values() for p in inner)]
        self._selectors = ["*", "*", *labels, *layout["nodes"], *layout["networks"], *prefixes]

    def policies(self) -> list[dict[str, Any]]:
        """One to seven rules."""
        chance = self._chance
        focus = self._side(), self._side("internet", "internet")
        made = []
        for index in range(chance.randint(1, 7)):
            source, destination = focus if chance.random() < 0.5 else (self._side(), self._side("internet"))
            if chance.random() < 0.1 and "internet" not in destination:
                source, destination = destination, source
            rule = {"name": f"r{index}", "from": source, "to": destination}
            rule[chance.choice(["allow", "allow", "deny"])] = self._traffic()
            rule["priority"] = chance.choice([0, 0, 0, 1, -1, 2])
            rule["both_ways"] = "internet" not in destination and chance.random() < 0.4
            made.append(rule)
        return made

    def _side(self, *more: str) -> list[str]:
        return [self._selector([*self._selectors, *more, *more]) for _ in range(self._chance.choice([1, 1, 2, 3]))]

    def _selector(self, among: list[str]) -> str:
        chosen = self._chance.choice(among)
        return f"!{chosen}" if chosen != "*" and self._chance.random() < 0.25 else chosen

    def _traffic(self) -> list[str]:
        return [self._item() for _ in range(self._chance.choice([1, 1, 2, 3]))]

    def _item(self) -> str:
        chance = self._chance
        if chance.random() < 0.4:
            return chance.choice(["any", "icmp", *SERVICES])
        protocol = chance.choice(["tcp", "tcp", "udp", "sctp"])
        low, high = sorted((chance.choice(self._ports), chance.choice(self._ports)))
        return f"{protocol}/{low}" if low == high else f"{protocol}/{low}-{high}"
