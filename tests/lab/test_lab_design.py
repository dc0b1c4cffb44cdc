"""The blueprint: where nodes stand and with which addresses, without touching the machine."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.lab.addresses import lan_pair
from meshctl.lab.blueprint import Blueprint, Forward
from meshctl.lab.design import design
from meshctl.lab.names import INTERNET, LabError, check_name, prefix
from meshctl.model.mesh import Attachment, LabSettings, Mesh, Network, Node, SshSettings

NETWORK = Network("corp", ("10.42.0.0/16", "fd42:42::/48"))


def node(name: str, endpoint: str | None = None, *, routes: tuple[str, ...] = (), **lab: object) -> Node:
    attachment = Attachment("corp", "wg0", ("10.42.0.1",), 51820, endpoint=endpoint)
    return Node(name, (attachment,), SshSettings(host=name), routes=routes, lab=LabSettings(**lab))  # type: ignore[arg-type]


def mesh(*nodes: Node, **routers: dict[str, object]) -> Mesh:
    by_name = {n.name: n for n in sorted(nodes, key=lambda n: n.name)}
    return Mesh({"corp": NETWORK}, by_name, {}, lab={"routers": routers})


def above(blueprint: Blueprint, name: str) -> list[str]:
    """What stands between the element and the internet, nearest first."""
    chain = []
    while name != INTERNET:
        name = next(k.parent for k in blueprint.links if k.child == name)
        chain.append(name)
    return chain


def test_a_node_with_an_endpoint_is_public_and_any_other_behind_an_easy_router() -> None:
    plan = design(mesh(node("a", "203.0.113.1:51820"), node("b")))
    assert above(plan, "a") == [INTERNET]
    assert plan.hosts[0].address == "203.0.113.1"
    assert above(plan, "b") == ["b-router", INTERNET]
    assert plan.routers[0].nat == "easy"


def test_cgnat_puts_a_carrier_above_the_home_router_and_is_itself_one_when_declared() -> None:
    plan = design(mesh(node("a", nat="cgnat"), node("b", behind="cgn", nat="easy"), cgn={"nat": "cgnat"}))
    assert above(plan, "a") == ["a-router", "a-carrier", INTERNET]
    assert above(plan, "b") == ["b-router", "cgn", INTERNET]
    for name in ("a-router", "b-router"):
        router = plan.router(name)
        assert router is not None
        assert ip_address(router.wan) in ip_network("100.64.0.0/10")


def test_nodes_behind_one_router_share_its_lan() -> None:
    plan = design(mesh(node("a", behind="home"), node("b", behind="home"), home={}))
    router = plan.router("home")
    assert router is not None
    lan = ip_interface(router.lan[0]).network
    assert all(ip_address(h.address) in lan for h in plan.hosts)
    assert plan.hosts[0].address != plan.hosts[1].address


def test_an_endpoint_behind_two_routers_is_forwarded_by_both() -> None:
    plan = design(mesh(node("a", "203.0.113.5:443", behind="outer", nat="easy"), outer={}))
    outer, inner = plan.router("outer"), plan.router("a-router")
    assert outer is not None
    assert inner is not None
    assert outer.wan == "203.0.113.5"
    assert outer.forwards == (Forward("203.0.113.5", 443, inner.wan, 443),)
    assert inner.forwards == (Forward(inner.wan, 443, plan.hosts[0].address, 51820),)


def test_endpoint_names_resolve_to_an_address_that_the_host_has() -> None:
    plan = design(mesh(node("a", "a.example.net:51820")))
    assert plan.hosts_file == ((plan.hosts[0].address, ("a", "a.example.net")),)
    assert f"{plan.hosts[0].address}/32" in plan.links[0].addresses


def test_adding_a_node_moves_nobody() -> None:
    nodes = [node("a"), node("b", nat="symmetric"), node("c", nat="cgnat"), node("d", nat="none")]
    small, large = design(mesh(*nodes)), design(mesh(*nodes, node("aa"), node("bb", behind="home"), home={}))
    assert set(small.links) <= set(large.links)


@given(st.sets(st.integers(0, 4095), max_size=30), st.integers(1, 12))
def test_drawn_addresses_never_overlap_the_inventorys_own_or_each_other(blocks: set[int], count: int) -> None:
    taken = tuple(str(IPv4Network((0xAC100000 + (b << 8), 24))) for b in sorted(blocks))
    plan = design(mesh(node("gw", routes=taken), *(node(f"n{i}") for i in range(count))))
    lans = [ip_interface(r.lan[0]).network for r in plan.routers]
    assert not any(a.overlaps(b) for a, b in combinations([*lans, *map(ip_network, taken)], 2))
    assert len({r.wan for r in plan.routers}) == count + 1


@pytest.mark.parametrize(
    ("lan", "expected"),
    [
        ("192.168.10.0/24", ("192.168.10.1/24", "192.168.10.10/24", "192.168.10.1")),
        ("192.168.10.8/29", ("192.168.10.9/29", "192.168.10.14/29", "192.168.10.9")),
        ("10.9.9.9/32", ("169.254.1.1/32", "10.9.9.9/32", "169.254.1.1")),
        ("fd00:10::/64", ("fd00:10::1/64", "fd00:10::10/64", "fd00:10::1")),
    ],
)
def test_the_device_on_a_gateways_lan_has_its_documented_address(lan: str, expected: tuple[str, str, str]) -> None:
    assert lan_pair(ip_network(lan)) == expected


def test_a_default_route_is_no_lan() -> None:
    assert design(mesh(node("a", routes=("0.0.0.0/0", "192.168.7.0/24")))).lans == ("a-lan",)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (mesh(node("a", nat="cone")), "'cone' is not a NAT kind"),
        (mesh(node("a", behind="nowhere")), "no router 'nowhere'"),
        (mesh(node("a", "203.0.113.1:1"), node("b", "203.0.113.1:2")), "the same address 203.0.113.1"),
        (mesh(node("a", behind="x"), x={"behind": "y"}, y={"behind": "x"}), "behind each other"),
        (mesh(node("a", behind="x"), x={"debian": "bullseye"}), "a router runs no Debian 'bullseye'"),
        (mesh(node("a"), node("a-router", "203.0.113.1:1")), "names both"),
        (mesh(node("a", nat="easy", ipv6="native", behind="x"), x={}), "IPv6 behind x, which has none"),
        (mesh(node("a", "[2001:db8::1]:51820", nat="easy")), "no IPv6 endpoint through a router"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(wrong: Mesh, message: str) -> None:
    with pytest.raises(LabError, match=message.replace("[", r"\[")):
        design(wrong)


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a/b", "Demo", "a" * 33, "a-"])
def test_a_lab_name_that_could_be_mistaken_for_another_is_refused(name: str) -> None:
    with pytest.raises(LabError):
        check_name(name)


def test_one_labs_prefix_is_never_the_prefix_of_anothers() -> None:
    assert not prefix("a-b").startswith(prefix("a"))


def test_delay_belongs_to_the_line_outside_the_nodes_own_router() -> None:
    plan = design(mesh(replace(node("a"), lab=LabSettings(nat="easy", delay_ms=20.0))))
    assert {k.child: k.delay_ms for k in plan.links} == {"a": 0.0, "a-router": 20.0}
