"""What `meshctl policy diff` tells, in examples and against the reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from asking import borders, number, read, sound
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_strategies import INTERNET_HOSTS, inventory, layouts, node, policies
from reference import Packet, Reference

from meshctl.core.traffic import words
from meshctl.model.mesh import Mesh
from meshctl.model.policy import Traffic
from meshctl.policy import compile_policies
from meshctl.policy.diff import Change, diff_policies


def changes(base: dict[str, Any], head: dict[str, Any]) -> tuple[Change, ...]:
    return diff_policies(compile_policies(read(base)), compile_policies(read(head)))


def told(base: dict[str, Any], head: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each change in a few words."""
    return [
        (
            "+" if c.gained else "-", ",".join(c.source.names), ",".join(c.destination.names),
            ",".join(words(c.traffic)), c.ends,
        )
        for c in changes(base, head)
    ]  # fmt: skip


def fleet(*rules: dict[str, Any], **nodes: dict[str, Any]) -> dict[str, Any]:
    """Two webs (in `inner`), two databases (tagged `db`), a gateway; and more."""
    made = {
        "web1": node(1, ("corp",), endpoint=True, groups=["inner"]),
        "web2": node(2, ("corp",), endpoint=True, groups=["inner"]),
        "db1": node(3, ("corp",), endpoint=True, tags=["db"]),
        "db2": node(4, ("corp",), endpoint=True, tags=["db"]),
        "gate": node(5, ("corp",), endpoint=True, roles=["gateway"], routes=["192.168.10.0/24"]),
    }
    numbered = [{"name": f"r{index}", **rule} for index, rule in enumerate(rules)]
    return inventory({**made, **nodes}, policies=numbered)


def allow(source: str, destination: str, *traffic: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "to": destination, "allow": list(traffic), **more}


SSH = allow("*", "*", "tcp/22")


def test_equal_versions_differ_in_nothing() -> None:
    assert told(fleet(SSH), fleet(SSH)) == []


def test_a_rule_written_otherwise_that_permits_the_same_is_no_change() -> None:
    head = fleet(allow("inner", "tag:db", "tcp/1-5", "tcp/6-10"))
    assert told(fleet(allow("inner", "tag:db", "tcp/1-10")), head) == []


def test_a_new_rule_is_told_by_the_names_of_its_groups() -> None:
    assert told(fleet(SSH), fleet(SSH, allow("inner", "tag:db", "tcp/5432"))) == [
        ("+", "inner", "tag:db", "tcp/5432", "common")
    ]


def test_everybody_is_told_as_a_star_though_nobody_reaches_himself() -> None:
    assert told(fleet(SSH), fleet(allow("*", "*", "tcp/22-23"))) == [("+", "*", "*", "tcp/23", "common")]


def test_a_narrowed_rule_is_a_loss() -> None:
    assert told(fleet(allow("inner", "db1", "any")), fleet(allow("inner", "db1", "tcp/22"))) == [
        ("-", "inner", "db1", "tcp/1-21,tcp/23-65535,udp,sctp,icmp,other", "common")
    ]


def test_a_set_without_a_name_is_told_with_what_it_lacks() -> None:
    head = fleet(SSH, {"from": ["*", "!web1"], "to": "db1", "allow": ["udp/53"]})
    assert told(fleet(SSH), head)[0] == ("+", "*,!web1", "db1", "udp/53", "common")


def test_a_new_node_is_told_apart_from_what_others_gain() -> None:
    base, head = fleet(SSH), fleet(SSH, web3=node(6, ("corp",), endpoint=True, groups=["inner"]))
    pairs = [("*", "web3"), ("web3", "*")]
    assert told(base, head) == [("+", *pair, "tcp/22", "added") for pair in pairs]
    assert told(head, base) == [("-", *pair, "tcp/22", "removed") for pair in pairs]


def test_a_group_that_changes_is_not_named_for_those_who_were_in_it_before() -> None:
    base = fleet(SSH)
    head = fleet(SSH, allow("inner", "db1", "udp/53"), web3=node(6, ("corp",), endpoint=True, groups=["inner"]))
    common = [change for change in told(base, head) if change[4] == "common"]
    assert common == [("+", "web1,web2", "db1", "udp/53", "common")]


def test_a_way_to_the_internet_is_gained_by_those_alone_who_use_an_exit_node() -> None:
    way_out = node(6, ("corp",), endpoint=True, roles=["gateway"], exit_node=True)
    user = node(7, ("corp",), exit_via="out")
    base, head = (fleet(SSH, *rules, out=way_out, user=user) for rules in ((), (allow("*", "internet", "any"),)))
    assert told(base, head) == [("+", "user", "internet", "any", "common")]


def test_a_prefix_that_one_version_tells_apart_is_told_less_the_rest() -> None:
    lan, part = "192.168.10.0/24", "192.168.10.0/28"
    base = fleet(SSH)
    head = fleet(SSH, {"from": "web1", "to": [lan, f"!{part}"], "allow": ["tcp/80"]})
    assert told(base, head) == [("+", "web1", f"{lan},!{part}", "tcp/80", "common")]
    assert told(head, fleet(SSH, allow("web1", lan, "tcp/80"))) == [("+", "web1", part, "tcp/80", "common")]


def test_the_rules_of_both_versions_are_named() -> None:
    deny = {"from": "inner", "to": "db1", "deny": ["tcp/22"], "priority": 1}
    (change,) = changes(fleet(SSH, deny), fleet(SSH))
    assert change.base is not None
    assert change.head is not None
    assert (change.base.name, change.head.name, change.gained) == ("r1", "r0", True)
    assert change.head.position.line > 0


@st.composite
def versions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two inventories that share some nodes; in one of them a LAN may stand behind another gateway."""
    layout, other = draw(layouts()), draw(layouts())
    other["networks"] = {**layout["networks"], **other["networks"]}
    layout["networks"] = {**other["networks"], **layout["networks"]}
    if draw(st.booleans()):
        lans = other["nodes"]["gate"].pop("routes")
        other["nodes"]["hub"] = {**other["nodes"]["hub"], "roles": ["anchor", "gateway"], "routes": lans}
    base = {**layout, "policies": draw(policies(layout))}
    if draw(st.booleans()):
        return base, {**layout, "policies": draw(policies(layout))}
    return base, {**other, "policies": draw(policies(other))}


def places(network: str, meshes: Iterable[Mesh]) -> dict[str, str]:
    """Address -> who it is, as the changes call him: the borders of every prefix that either version tells apart."""
    nodes: dict[str, str] = {}
    prefixes: set[str] = set()
    for mesh in meshes:
        policy = compile_policies(mesh).networks.get(network)
        if policy is None:
            continue
        prefixes.update(policy.prefixes)
        for name, found in policy.nodes.items():
            attachment = found.attachment(network)
            nodes.update(dict.fromkeys(attachment.addresses if attachment else (), name))
    nets = sorted(map(ip_network, prefixes), key=lambda net: net.prefixlen)
    for address in {str(net[index]) for net in nets for index in (0, -1)}:
        nodes[address] = str([net for net in nets if ip_address(address) in net][-1])
    return {**nodes, **dict.fromkeys(INTERNET_HOSTS, "internet")}


def packets(network: str, where: dict[str, str], what: list[tuple[str, int]]) -> Iterator[tuple[str, str, int, Packet]]:
    for source, one in where.items():
        for destination, other in where.items():
            if ip_address(source).version == ip_address(destination).version:
                for protocol, port in what:
                    packet = Packet(network, source, destination, protocol, port)
                    yield one, other, number(protocol, port), packet


@given(versions(), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_told_changes_applied_to_the_bases_table_give_the_heads(
    both: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    written, meshes = zip(*map(sound, both), strict=True)
    about: dict[tuple[str, str, str], list[Change]] = {}
    for c in diff_policies(compile_policies(meshes[0]), compile_policies(meshes[1])):
        for pair in product(c.source.subjects, c.destination.subjects):
            about.setdefault((c.network, *pair), []).append(c)
    base, head = map(Reference, written)
    interesting = sorted({border for mesh in meshes for border in borders(mesh)})
    what = data.draw(st.lists(st.sampled_from(interesting), min_size=2, max_size=2, unique=True))
    for network in both[0]["networks"].keys() & both[1]["networks"].keys():
        for one, other, point, packet in packets(network, places(network, meshes), what):
            found = [c for c in about.get((network, one, other), ()) if holds(c.traffic, point)]
            was, now = base.allowed(packet), head.allowed(packet)
            if was != now:
                assert [c.gained for c in found] == [now], (packet, one, other)
            elif was:
                assert not found, (packet, one, other)


def holds(traffic: Traffic, point: int) -> bool:
    return any(low <= point <= high for low, high in traffic)
