"""Random inventories for hypothesis, as the dicts that their YAML says."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

INTERNET_HOSTS = ("9.9.9.9", "2620:fe::fe")
_PORTS = (1, 22, 23, 80, 443, 1000, 1500, 2000, 65534, 65535)
_LANS = {
    "192.168.10.0/24": ("192.168.10.0/28", "192.168.10.8/29", "192.168.10.0/25", "192.168.10.9/32"),
    "fd99::/64": ("fd99::/80", "fd99::8/125"),
}
SERVICES = {"web": ["tcp/80", "tcp/443"], "dns": ["udp/53", "tcp/53"]}


def address(network: str, number: int) -> list[str]:
    """Node `number`'s addresses in a network."""
    return [f"10.{42 if network == 'corp' else 43}.0.{number}", f"fd{42 if network == 'corp' else 43}::{number:x}"]


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
    number = {"corp": 42, "lab": 43}
    return {
        "version": 1,
        "networks": {n: {"cidr": [f"10.{number[n]}.0.0/16", f"fd{number[n]}::/64"]} for n in networks},
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
        "gate": node(2, draw(some), roles=["gateway"], routes=list(_LANS)),
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
    made = inventory(nodes, networks)
    if draw(st.integers(0, 4)) == 0:
        made["networks"][networks[-1]]["policy"] = "open"
    return made


def traffic() -> st.SearchStrategy[list[str]]:
    """A value for `allow` or `deny`."""
    def ports(protocol: str, low: int, high: int) -> str:
        return f"{protocol}/{low}" if low == high else f"{protocol}/{min(low, high)}-{max(low, high)}"

    one = st.builds(ports, st.sampled_from(["tcp", "udp", "sctp"]), st.sampled_from(_PORTS), st.sampled_from(_PORTS))
    return st.lists(one | st.sampled_from(["any", "icmp", *SERVICES]), min_size=1, max_size=3)


@st.composite
def policies(draw: st.DrawFn, layout: dict[str, Any]) -> list[dict[str, Any]]:
    """One to seven rules over what the layout has."""
    selectors = ["*", "*", "outer", "inner", "tag:red", "tag:inherited", "role:anchor", "role:gateway"]
    selectors += [*layout["nodes"], *layout["networks"], *_LANS, *(p for inner in _LANS.values() for p in inner)]
    sources = st.lists(_maybe_excluded(selectors), min_size=1, max_size=3)
    destinations = st.lists(_maybe_excluded([*selectors, "internet", "internet"]), min_size=1, max_size=3)
    made = []
    for index in range(draw(st.integers(1, 7))):
        rule: dict[str, Any] = {"name": f"r{index}", "from": draw(sources), "to": draw(destinations)}
        rule[draw(st.sampled_from(["allow", "allow", "deny"]))] = draw(traffic())
        rule["priority"] = draw(st.integers(-1, 2))
        rule["both_ways"] = "internet" not in rule["to"] and draw(st.booleans())
        made.append(rule)
    return made


def _maybe_excluded(selectors: list[str]) -> st.SearchStrategy[str]:
    plain = st.sampled_from(selectors)
    return st.one_of(plain, plain, plain, plain.filter(lambda s: s != "*").map(lambda s: f"!{s}"))
