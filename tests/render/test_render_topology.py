"""Topology: examples of every rule, and invariants over random meshes, walked hop by hop."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from render_meshes import mesh, node, rule

from meshctl.core.prefixes import covers, host_prefix, overlap
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET
from meshctl.model.resources import Peer
from meshctl.model.topology import Link, Topology
from meshctl.policy import compile_mesh
from meshctl.policy.firewall import FirewallTable, Lookup

FRA = node("fra", 1, endpoint=True, roles=("anchor",), region="eu")
NYC = node("nyc", 2, endpoint=True, roles=("anchor",), region="us")


def compile_topology(made: Mesh) -> Topology:
    return compile_mesh(made).topology


def peers(topology: Topology, name: str, index: int = 0) -> dict[str, Peer]:
    return {p.name: p for p in topology.interfaces(name)[index].peers}


def test_permitted_pairs_are_peers_and_others_are_not() -> None:
    t = compile_topology(
        mesh(node("a", 5, endpoint=True), node("b", 6), node("c", 7, endpoint=True), rules=(rule("a", "b"),))
    )
    assert list(peers(t, "a")) == ["b"]
    assert list(peers(t, "b")) == ["a"]
    assert peers(t, "c") == {}


def test_anchors_are_peers_of_every_node_of_their_network() -> None:
    t = compile_topology(mesh(FRA, NYC, node("a", 5), rules=()))
    assert list(peers(t, "a")) == ["fra", "nyc"]
    assert list(peers(t, "fra")) == ["a", "nyc"]


def test_only_peers_with_an_endpoint_get_one_and_keepalive_comes_from_nodes_without() -> None:
    t = compile_topology(mesh(FRA, node("a", 5, endpoint=True), node("b", 6)))
    assert peers(t, "b")["a"].endpoint == "203.0.113.5:51820"
    assert peers(t, "b")["a"].keepalive_s == 25
    assert peers(t, "fra")["a"].keepalive_s == 0
    assert peers(t, "a")["b"].endpoint is None
    assert peers(t, "a")["b"].keepalive_s == 0


def test_pairs_without_endpoint_wait_for_the_agent_unless_a_side_asks_for_the_routed_relay() -> None:
    t = compile_topology(mesh(FRA, node("a", 5), node("b", 6), node("c", 7, relay="routed")))
    assert peers(t, "a")["b"].allowed_ips == ("10.42.0.6/32", "fd42:42::6/128")
    assert "c" not in peers(t, "a")
    assert "10.42.0.7/32" in peers(t, "a")["fra"].allowed_ips
    assert peers(t, "c")["fra"].allowed_ips == (
        "10.42.0.1/32", "10.42.0.5/32", "10.42.0.6/32", "fd42:42::1/128", "fd42:42::5/128", "fd42:42::6/128",
    )
    assert peers(t, "fra")["c"].allowed_ips == ("10.42.0.7/32", "fd42:42::7/128")


def test_a_listed_anchor_is_preferred_then_the_region_s_then_the_first_by_name() -> None:
    a, b = node("a", 5, relay="routed"), node("b", 6, relay="routed")
    us, listing = node("c", 7, relay="routed", region="us"), node("d", 8, relay="routed", anchors=("nyc",))
    t = compile_topology(mesh(FRA, NYC, a, b, us, listing))
    assert t.interfaces("a")[0].routed == {"b": "fra", "c": "nyc", "d": "nyc"}


def test_routes_of_a_gateway_go_to_its_permitted_sources_alone() -> None:
    gateway = node("gw", 3, endpoint=True, roles=("gateway",), routes=("192.168.10.0/24",))
    rules = (rule("a", "192.168.10.0/24"), rule("gw", "b"))
    t = compile_topology(mesh(FRA, gateway, node("a", 5), node("b", 6), rules=rules))
    assert "192.168.10.0/24" in peers(t, "a")["gw"].allowed_ips
    assert t.interfaces("a")[0].routes == ("192.168.10.0/24",)
    assert "192.168.10.0/24" not in peers(t, "b")["gw"].allowed_ips
    assert "192.168.10.0/24" not in peers(t, "fra")["gw"].allowed_ips
    assert peers(t, "gw")["a"].allowed_ips == ("10.42.0.5/32", "fd42:42::5/128")


def test_an_anchor_routes_to_a_gateway_s_lan_when_it_carries_somebody_who_uses_it() -> None:
    gateway = node("gw", 3, roles=("gateway",), routes=("192.168.10.0/24",), relay="routed")
    t = compile_topology(mesh(FRA, NYC, gateway, node("a", 5), rules=(rule("a", "192.168.10.0/24"),)))
    assert "192.168.10.0/24" in peers(t, "a")["fra"].allowed_ips
    assert t.interfaces("fra")[0].routes == ("192.168.10.0/24",)
    assert t.interfaces("nyc")[0].routes == ()
    assert t.interfaces("fra")[0].carried == {"a": ["gw"], "gw": ["a"]}


def test_a_gateway_met_in_two_networks_is_routed_to_in_one() -> None:
    both = ("corp", "lab")
    gateway = node("gw", 3, endpoint=True, networks=both, roles=("gateway",), routes=("192.168.10.0/24",))
    t = compile_topology(mesh(gateway, node("a", 5, networks=both)))
    assert [link.routes for link in t.interfaces("a")] == [("192.168.10.0/24",), ()]


def test_an_exit_node_gets_the_default_routes_of_the_network_s_families() -> None:
    exit_node = node("exit", 4, endpoint=True, roles=("gateway",), exit_node=True)
    user = node("a", 5, exit_via="exit", networks=("corp", "lab"))
    t = compile_topology(mesh(exit_node, user, node("b", 6)))
    corp, lab = t.interfaces("a")
    assert peers(t, "a")["exit"].allowed_ips == ("0.0.0.0/0", "10.42.0.4/32", "::/0", "fd42:42::4/128")
    assert corp.default_route
    assert not lab.default_route
    assert corp.fwmark == lab.fwmark == 51820  # both interfaces' own packets stay out of the tunnel
    assert corp.routes == ()
    assert t.interfaces("exit")[0].exit_users == {"a"}
    assert t.interfaces("b")[0].fwmark == 0


def test_an_exit_node_that_cannot_be_used_is_a_warning_with_its_reason() -> None:
    hidden = node("exit", 4, exit_node=True, relay="routed")
    t = compile_topology(mesh(FRA, hidden, node("a", 5, exit_via="exit"), node("b", 6)))
    assert t.warnings["a"] == ("exit node exit is only reached through anchor fra; give exit an endpoint",)
    t = compile_topology(mesh(FRA, hidden, node("a", 5, exit_via="exit"), rules=()))
    assert "no policy lets a" in t.warnings["a"][0]


def test_a_client_has_direct_peers_with_an_endpoint_and_one_anchor_for_the_rest() -> None:
    phone = node("phone", 9, client=True, region="us")
    others = (node("a", 5), node("b", 6, endpoint=True))
    t = compile_topology(mesh(FRA, NYC, phone, *others, rules=(rule("phone", "a b"),)))
    assert list(peers(t, "phone")) == ["b", "nyc"]
    assert "10.42.0.5/32" in peers(t, "phone")["nyc"].allowed_ips
    assert "phone" in peers(t, "nyc")
    assert "phone" not in peers(t, "fra")
    assert "10.42.0.9/32" in peers(t, "a")["nyc"].allowed_ips


def test_a_client_with_the_routed_profile_has_its_anchor_alone_and_its_peers_know() -> None:
    phone = node("phone", 9, client=True, vars={"client_profile": "routed"})
    t = compile_topology(mesh(FRA, phone, node("b", 6, endpoint=True)))
    assert list(peers(t, "phone")) == ["fra"]
    assert "phone" not in peers(t, "b")
    assert "10.42.0.9/32" in peers(t, "b")["fra"].allowed_ips


def test_without_an_anchor_a_pair_stays_direct_for_the_agent_to_find_a_path() -> None:
    t = compile_topology(mesh(node("a", 5, relay="routed"), node("b", 6)))
    assert list(peers(t, "a")) == ["b"]


def test_a_full_mesh_shares_its_peers() -> None:
    nodes = [node(f"n{i:02}", i, endpoint=True) for i in range(1, 31)]
    t = compile_topology(mesh(*nodes))
    assert len({id(p) for links in t.links.values() for p in links[0].peers}) == len(nodes)


# -- invariants -------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d", "e", "f", "g"]


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    nodes = [node("x1", 100, endpoint=True, roles=("anchor",), region="eu")]
    if draw(st.booleans()):
        nodes.append(node("x2", 101, endpoint=True, roles=("anchor",), region="us"))
    anchors = [n.name for n in nodes]
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=7, unique=True)), start=1):
        client = draw(st.booleans())
        gateway = not client and draw(st.booleans())
        nodes.append(
            node(
                name, number, endpoint=not client and draw(st.booleans()), client=client,
                relay=draw(st.sampled_from(["auto", "routed"])), region=draw(st.sampled_from(["", "eu", "us"])),
                anchors=tuple(draw(st.permutations(anchors))) if draw(st.booleans()) else (),
                roles=("gateway",) if gateway else (), routes=(f"192.168.{number}.0/24",) if gateway else (),
                vars={"client_profile": draw(st.sampled_from(["direct", "routed"]))} if client else {},
            )
        )
    sources = [n.name for n in nodes]
    targets = [*sources, *(route for n in nodes for route in n.routes)]
    froms, tos = (st.sets(st.sampled_from(names), min_size=1).map(sorted).map(" ".join) for names in (sources, targets))
    rules = draw(st.lists(st.builds(rule, froms, tos), max_size=4))
    return mesh(*nodes, rules=None if draw(st.booleans()) and draw(st.booleans()) else tuple(rules))


def link_of(t: Topology, name: str) -> Link:
    return t.interfaces(name)[0]


def next_hop(link: Link, target: str) -> Peer | None:
    found = [p for p in link.peers if any(covers(a, target) for a in p.allowed_ips)]
    assert len(found) <= 1
    return found[0] if found else None


def accepts(link: Link, sender: str, source: str) -> bool:
    peer = next((p for p in link.peers if p.name == sender), None)
    return peer is not None and any(covers(a, source) for a in peer.allowed_ips)


def table(m: Mesh, name: str) -> FirewallTable:
    compiled = compile_mesh(m)
    return FirewallTable(m, compiled.decisions, compiled.topology.interfaces(name))


def judged(lookup: Lookup, address: str) -> str:
    """The verdict for an address (a prefix: for its first one), `goto denied` where nothing is said."""
    first = ip_network(address).network_address
    of_family = lookup.v4 if first.version == 4 else lookup.v6
    for element in (*of_family.hosts, *of_family.nets):
        place, _, verdict = element.partition(" : ")
        low, _, high = place.partition("-")
        if ip_address(low) <= first <= ip_address(high) if high else first in ip_network(place):
            return verdict
    return "goto denied"


def forwards(m: Mesh, name: str, source: str, target: str) -> bool:
    made = table(m, name)
    column = {f"goto {c.name}": c for c in made.columns}.get(judged(made.behind, target))
    return column is not None and judged(column, source) != "goto denied"


def takes(m: Mesh, name: str, source: str) -> bool:
    return judged(table(m, name).inward[0].sources, source) != "goto denied"


def walk(m: Mesh, t: Topology, a: str, b: str, source: str, target: str) -> list[str]:
    """Nodes that a packet passes; every hop must have a peer for it and take it from where it comes."""
    path, here = [a], a
    while here != b:
        peer = next_hop(link_of(t, here), target)
        assert peer is not None, f"{here} has no peer for {target}"
        assert accepts(link_of(t, peer.name), here, source), f"{peer.name} does not take {source} from {here}"
        here = peer.name
        path.append(here)
        assert len(path) <= 3
    return path


def permitted(m: Mesh) -> set[tuple[str, str]]:
    """(source, destination): pairs of nodes, and of a node and a prefix that is not its own."""
    return {
        (s, d)
        for r in m.rules for s in r.source.members["corp"] for d in r.destination.members["corp"]
        if s != d and d != INTERNET and d not in m.nodes[s].routes
    }


def gateway_of(m: Mesh, prefix: str) -> str:
    return next(n.name for n in m.nodes.values() if prefix in n.routes)


@settings(deadline=None)
@given(meshes())
def test_every_permitted_pair_has_a_path_there_and_back_that_the_firewalls_let_through(m: Mesh) -> None:
    t = compile_topology(m)
    for a, b in permitted(m):
        if b not in m.nodes:
            continue
        for one, other in zip(link_of(t, a).attachment.addresses, link_of(t, b).attachment.addresses, strict=True):
            source, target = host_prefix(one), host_prefix(other)
            there = walk(m, t, a, b, source, target)
            assert walk(m, t, b, a, target, source) == there[::-1]
            assert all(forwards(m, middle, source, target) for middle in there[1:-1])
            assert takes(m, b, source)


@settings(deadline=None)
@given(meshes())
def test_every_permitted_source_has_a_path_into_a_gateway_s_lan(m: Mesh) -> None:
    t = compile_topology(m)
    for a, route in permitted(m):
        if route in m.nodes:
            continue
        source = host_prefix(link_of(t, a).attachment.addresses[0])
        path = walk(m, t, a, gateway_of(m, route), source, route)
        assert all(forwards(m, hop, source, route) for hop in path[1:])


@settings(deadline=None)
@given(meshes())
def test_what_no_policy_permits_appears_in_neither_config_and_no_firewall(m: Mesh) -> None:
    t = compile_topology(m)
    allowed = permitted(m)
    meets = {(a, b if b in m.nodes else gateway_of(m, b)) for a, b in allowed}
    for a, b in permutations(m.nodes, 2):
        source = host_prefix(link_of(t, a).attachment.addresses[0])
        target = host_prefix(link_of(t, b).attachment.addresses[0])
        if (a, b) not in allowed:
            assert not takes(m, b, source)
            for anchor in {"x1", "x2"} & m.nodes.keys() - {a, b}:
                assert not forwards(m, anchor, source, target)
        if {(a, b), (b, a)} & meets or m.nodes[a].is_anchor or m.nodes[b].is_anchor:
            continue
        assert next_hop(link_of(t, a), target) is None
        assert b not in {p.name for p in link_of(t, a).peers}


@settings(deadline=None)
@given(meshes())
def test_allowed_ips_of_two_peers_never_overlap_and_both_ends_agree_on_the_anchor(m: Mesh) -> None:
    t = compile_topology(m)
    for name in m.nodes:
        link = link_of(t, name)
        for one, other in permutations(link.peers, 2):
            assert not any(overlap(x, y) for x in one.allowed_ips for y in other.allowed_ips)
        assert all(link_of(t, other).routed[name] == anchor for other, anchor in link.routed.items())
        assert [p.name for p in link.peers] == sorted(p.name for p in link.peers)
        assert all(name in {p.name for p in link_of(t, peer.name).peers} for peer in link.peers)


def test_a_full_mesh_makes_one_peer_object_a_node_not_one_a_pair() -> None:
    count = 300
    t = compile_topology(mesh(*(node(f"n{i}", 1) for i in range(count))))
    peers = [peer for name in t.links for peer in link_of(t, name).peers]
    assert len(peers) == count * (count - 1)
    assert len({id(peer) for peer in peers}) == count
