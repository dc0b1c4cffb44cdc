"""lint: predictions of pairs, findings with their place, and the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from meshctl import inventory
from meshctl.cli import run
from meshctl.inventory.schema import load_schema
from meshctl.model.mesh import Mesh, Node
from meshctl.policy import compile_mesh
from meshctl.policy.lint import LintReport, lint
from meshctl.policy.paths import Prediction
from meshctl.policy.wire import OVERHEAD

HUB = {"roles": ["anchor"], "endpoint": "203.0.113.1:51820"}
HUB2 = {"roles": ["anchor"], "endpoint": "203.0.113.2:51820"}


def read(folder: Path, nodes: dict[str, Any], **more: Any) -> Mesh:
    """The mesh of these nodes, in one open network unless said otherwise."""
    file = folder / "inventory.yml"
    networks = {"corp": {"cidr": "10.42.0.0/16", "policy": "open"}}
    file.write_text(yaml.safe_dump({"version": 1, "networks": networks, "nodes": nodes, **more}, sort_keys=False))
    return inventory.read(file).mesh


def linted(folder: Path, nodes: dict[str, Any], **more: Any) -> LintReport:
    return lint(compile_mesh(read(folder, nodes, **more)))


def pair(report: LintReport, one: str, other: str) -> Prediction:
    return next(p for p in report.pairs if (p.one, p.other) == (one, other))


def codes(report: LintReport) -> set[str]:
    return {d.code for d in report.findings}


def test_declared_nats_decide_and_nat_comes_before_the_labs(tmp_path: Path) -> None:
    report = linted(tmp_path, {
        "hub": HUB,
        "a": {"nat": "easy"},
        "b": {"nat": "symmetric", "lab": {"nat": "easy"}},
        "c": {"lab": {"nat": "symmetric"}},
        "d": {},
    })  # fmt: skip
    found = {(p.one, p.other): p.outcome for p in report.pairs}
    assert found == {
        ("a", "b"): "spliced",
        ("a", "c"): "spliced",
        ("a", "d"): "unknown",
        ("a", "hub"): "direct",
        ("b", "c"): "relayed",
        ("b", "d"): "unknown",
        ("b", "hub"): "direct",
        ("c", "d"): "unknown",
        ("c", "hub"): "direct",
        ("d", "hub"): "direct",
    }


def test_only_permitted_pairs_are_predicted(tmp_path: Path) -> None:
    rule = {"name": "one-way", "from": "b", "to": "a", "allow": ["tcp/22"]}
    report = linted(
        tmp_path, {"hub": HUB, "a": {}, "b": {}}, networks={"corp": {"cidr": "10.42.0.0/16"}}, policies=[rule]
    )
    assert [(p.one, p.other) for p in report.pairs] == [("a", "b")]


def test_a_routed_relay_takes_what_the_smallest_of_all_three_takes(tmp_path: Path) -> None:
    nodes = {"hub": {**HUB, "mtu": 1320}, "a": {"relay": "routed"}, "b": {"mtu": 1380}}
    report = linted(tmp_path, nodes)
    found = pair(report, "a", "b")
    assert (found.outcome, found.via, found.mtu, found.wire_mtu) == ("relayed", "hub", 1320, 1320 + OVERHEAD)
    finding = next(d for d in report.findings if d.code == "anchor-mtu")
    assert (finding.path, "1320" in finding.message) == ("nodes.hub", True)
    assert "anchor-mtu" not in codes(linted(tmp_path, {**nodes, "hub": {**HUB, "mtu": 1380}}))


def test_a_blind_relay_costs_no_bytes(tmp_path: Path) -> None:
    hard = {"nat": "symmetric"}
    found = pair(linted(tmp_path, {"hub": {**HUB, "mtu": 1320}, "a": hard, "b": hard}), "a", "b")
    assert (found.outcome, found.via, found.mtu) == ("relayed", "", 1420)


def test_turn_over_tls_costs_its_framing_and_every_other_path_the_same(tmp_path: Path) -> None:
    hard, blocked = {"nat": "symmetric"}, {"nat": "udp-blocked"}
    nodes = {"hub": HUB, "a": hard, "b": hard, "home": blocked, "r": {"relay": "routed"}}
    report = linted(tmp_path, nodes)
    wire = {(p.one, p.other): p.wire_mtu for p in report.pairs}
    assert wire["a", "hub"] == wire["a", "b"] == wire["a", "r"] == 40 + 8 + 32 + 1420
    # IPv6, TCP with timestamps, TLS 1.3 record, ChannelData, WireGuard; to the TURN server, the longer half of the way.
    assert wire["a", "home"] == wire["home", "hub"] == wire["home", "r"] == 40 + 32 + 22 + 4 + 32 + 1420
    odd = linted(tmp_path, {"hub": {**HUB, "mtu": 1401}, "home": blocked})
    assert pair(odd, "home", "hub").wire_mtu == 40 + 32 + 22 + 4 + 32 + 1401 + 3  # ChannelData in TCP fills up to 4


def test_a_stock_client_without_udp_reaches_nobody_and_that_is_an_error_at_the_node(tmp_path: Path) -> None:
    nodes = {"hub": HUB, "web": {}, "phone": {"client": True, "nat": "udp-blocked"}}
    report = linted(tmp_path, nodes)
    assert pair(report, "phone", "web").outcome == "unreachable"
    lines = (tmp_path / "inventory.yml").read_text().splitlines()
    found = [d for d in report.findings if d.code == "unreachable-pair" and d.path == "nodes.phone"]
    assert [(d.severity, lines[d.line - 1].strip()) for d in found] == [("error", "phone:")]


def test_without_udp_a_managed_node_needs_an_anchor_or_a_turn_server(tmp_path: Path) -> None:
    nodes = {"web": {"endpoint": "203.0.113.1:51820"}, "home": {"nat": "udp-blocked"}}
    assert pair(linted(tmp_path, nodes), "home", "web").outcome == "unreachable"
    turn = {"turn": ["turns:turn.example.net:443"]}
    assert pair(linted(tmp_path, nodes, **turn), "home", "web").outcome == "relayed"


@pytest.mark.parametrize(
    ("turn", "outcome"),
    [
        ("turn:h:3478", "unreachable"),
        ("turn:h:3478?transport=udp", "unreachable"),
        ("turn:h:3478?transport=tcp", "unreachable"),
        ("turns:h:443?transport=udp", "unreachable"),
        ("turns:h:443", "relayed"),
        ("turns:h:443?transport=tcp", "relayed"),
    ],
)
def test_without_udp_a_turn_server_helps_that_speaks_tls_over_tcp(tmp_path: Path, turn: str, outcome: str) -> None:
    nodes = {"web": {"endpoint": "203.0.113.1:51820"}, "home": {"nat": "udp-blocked"}}
    assert pair(linted(tmp_path, nodes, turn=[turn]), "home", "web").outcome == outcome


def test_routers_on_the_way_out_count_with_the_nodes_own(tmp_path: Path) -> None:
    routers = {
        "carrier": {"nat": "symmetric"},
        "middle": {"nat": "easy", "behind": "carrier"},
        "wall": {"nat": "udp-blocked"},
        "plain": {},
    }

    def outcome(**settings: Any) -> str:
        nodes = {"hub": HUB, "a": settings, "b": {"nat": "easy"}}
        return pair(linted(tmp_path, nodes, lab={"routers": routers}), "a", "b").outcome

    assert outcome(lab={"nat": "easy", "behind": "carrier"}) == "spliced"
    assert outcome(lab={"nat": "full-cone", "behind": "middle"}) == "spliced"
    assert outcome(lab={"behind": "middle"}) == "spliced"
    assert outcome(lab={"nat": "symmetric", "behind": "plain"}) == "spliced"
    assert outcome(lab={"nat": "none", "behind": "wall"}) == "relayed"
    assert outcome(lab={"behind": "plain"}) == "direct"  # a router without a kind is `easy`, as the lab builds it
    # `nat` says what all of them are together.
    assert outcome(nat="easy", lab={"nat": "easy", "behind": "carrier"}) == "direct"


def test_an_anchor_without_udp_serves_nobody(tmp_path: Path) -> None:
    def report(**others: Any) -> LintReport:
        return linted(tmp_path, {"hub": {**HUB, "nat": "udp-blocked"}, **others})

    hidden = {"a": {"nat": "easy"}, "b": {"nat": "easy"}}
    alone = report(**hidden)
    assert pair(alone, "a", "b").outcome == "unreachable"
    assert [(d.severity, d.path) for d in alone.findings if d.code == "anchor-without-udp"] == [
        ("warning", "nodes.hub")
    ]
    two = report(hub2=HUB2, **hidden)
    assert pair(two, "a", "b").outcome == "direct"
    assert "`hub2` is the only anchor" in next(d.message for d in two.findings if d.code == "single-anchor")
    routed = report(hub2=HUB2, a={"relay": "routed", "anchors": ["hub"]}, b={})
    found = pair(routed, "a", "b")
    assert (found.outcome, found.via) == ("unreachable", "hub")
    assert "anchor hub" in found.reason
    assert "anchor-without-udp" not in codes(linted(tmp_path, {"hub": HUB, **hidden}))


def test_one_anchor_is_a_single_point_of_failure_only_where_somebody_needs_it(tmp_path: Path) -> None:
    hidden = {"a": {"nat": "easy"}, "b": {"nat": "easy"}}
    assert "single-anchor" in codes(linted(tmp_path, {"hub": HUB, **hidden}))
    assert "single-anchor" not in codes(linted(tmp_path, {"hub": HUB, "hub2": HUB2, **hidden}))
    assert "single-anchor" not in codes(linted(tmp_path, {"hub": HUB, "a": {}}))


def test_a_routed_pair_hangs_on_its_one_anchor_however_many_there_are(tmp_path: Path) -> None:
    nodes = {"hub": HUB, "hub2": HUB2, "a": {"relay": "routed", "anchors": ["hub2"]}, "b": {}, "c": {}}
    found = [d for d in linted(tmp_path, nodes).findings if d.code == "single-anchor"]
    assert [(d.path, d.severity) for d in found] == [("nodes.hub2", "warning")]
    assert "`hub2` alone routes 2 pairs of network `corp`" in found[0].message
    one = linted(tmp_path, {"hub": HUB, "a": {"relay": "routed"}, "b": {}, "c": {}})
    alone = sorted(d.message for d in one.findings if d.code == "single-anchor")
    assert ["only anchor" in m for m in alone] == [False, True]  # b and c are introduced, not routed
    assert "1 pair cannot" in alone[1]


def test_anchors_of_one_region_are_a_single_point_of_failure(tmp_path: Path) -> None:
    def regions(one: str, other: str) -> set[str]:
        anchors = {"hub": {**HUB, "region": one}, "hub2": {**HUB2, "region": other}}
        return codes(linted(tmp_path, {**anchors, "a": {}, "b": {}}))

    assert "anchors-in-one-region" in regions("eu", "eu")
    assert "anchors-in-one-region" not in regions("eu", "us")


def gateways(folder: Path) -> Mesh:
    return read(folder, {
        "hub": HUB,
        "gate": {"roles": ["gateway"], "routes": ["192.168.10.0/24"]},
        "gate2": {"roles": ["gateway"], "routes": ["192.168.20.0/24"]},
    })  # fmt: skip


def changed(mesh: Mesh, name: str, **values: Any) -> Mesh:
    node: Node = dataclasses.replace(mesh.nodes[name], **values)
    return dataclasses.replace(mesh, nodes={**mesh.nodes, name: node})


def test_routes_that_overlap_at_one_node_are_an_error(tmp_path: Path) -> None:
    mesh = gateways(tmp_path)
    assert "overlapping-routes" not in codes(lint(compile_mesh(mesh)))
    narrow = dataclasses.replace(mesh.rules[0], destination=mesh.rules[0].source)
    for route in ("192.168.10.128/25", "10.42.7.0/24"):
        side = dataclasses.replace(narrow.source, members={"corp": narrow.source.members["corp"] | {route}})
        clash = changed(mesh, "gate2", routes=(route,))
        rules = (mesh.rules[0], dataclasses.replace(narrow, name="more", destination=side))
        report = lint(compile_mesh(dataclasses.replace(clash, rules=rules)))
        assert any(d.code == "overlapping-routes" and route in d.message for d in report.findings)


def test_an_endpoint_that_a_peer_routes_into_the_mesh_is_a_loop(tmp_path: Path) -> None:
    mesh = gateways(tmp_path)
    hub = mesh.nodes["hub"].attachments[0]
    for endpoint, loops in (("192.168.10.9:51820", True), ("192.168.30.9:51820", False), ("hub.example.net:1", False)):
        moved = changed(mesh, "hub", attachments=(dataclasses.replace(hub, endpoint=endpoint),))
        found = [d for d in lint(compile_mesh(moved)).findings if d.code == "endpoint-inside-mesh"]
        assert [d.path for d in found] == (["nodes.hub"] if loops else [])


def test_a_rule_whose_gateway_its_sources_never_meet_is_found_at_the_rule(tmp_path: Path) -> None:
    networks = {"corp": {"cidr": "10.42.0.0/16"}, "lab": {"cidr": "10.43.0.0/16"}}
    nodes = {
        "hub": {**HUB, "networks": ["corp"]},
        "a": {"networks": ["corp"]},
        "gate": {"networks": ["lab"], "roles": ["gateway"], "routes": ["192.168.10.0/24"]},
    }
    rule = {"name": "to-lan", "from": "a", "to": ["192.168.10.0/24", "hub"], "allow": ["any"]}
    report = linted(tmp_path, nodes, networks=networks, policies=[rule])
    found = [d for d in report.findings if d.code == "gateway-not-reached"]
    lines = (tmp_path / "inventory.yml").read_text().splitlines()
    assert ["- " in lines[d.line - 1] for d in found] == [True]
    assert "`to-lan` names 192.168.10.0/24 behind `gate`" in found[0].message
    nodes["a"]["networks"] = ["corp", "lab"]
    nodes["hub"]["networks"] = ["corp", "lab"]
    nodes["hub"]["endpoint"] = {"corp": "203.0.113.1:51820", "lab": "203.0.113.1:51821"}
    assert "gateway-not-reached" not in codes(linted(tmp_path, nodes, networks=networks, policies=[rule]))


def test_every_source_that_never_meets_the_gateway_is_named(tmp_path: Path) -> None:
    networks = {"n1": {"cidr": "10.42.0.0/16"}, "n2": {"cidr": "10.43.0.0/16"}}
    gate = {"networks": ["n1"], "roles": ["gateway"], "routes": ["192.168.5.0/24"], "endpoint": "203.0.113.1:51820"}
    nodes = {"a": {"networks": ["n1"]}, "gate": gate, **{f"b{i}": {"networks": ["n2"]} for i in range(7)}}
    nodes["b2"]["endpoint"] = "203.0.113.2:51820"

    def unmet(**rule: Any) -> list[str]:
        policies = [{"name": "to-lan", "allow": ["any"], **rule}]
        found = linted(tmp_path, nodes, networks=networks, policies=policies).findings
        return [d.message for d in found if d.code == "gateway-not-reached"]

    (message,) = unmet(**{"from": ["a", "b1"], "to": ["192.168.5.0/24", "a", "b2"]})
    assert ("`b1`" in message, "`a`" in message) == (True, False)
    (message,) = unmet(**{"from": ["192.168.5.0/24", "a", "b2"], "to": ["a", "b1"]})
    assert ("`b1`" in message, "`a`" in message) == (True, False)
    (message,) = unmet(**{"from": "*", "to": ["192.168.5.0/24", "a", "b2"]})
    assert "`b4` and 2 more" in message
    nodes["b1"]["networks"] = ["n1", "n2"]
    assert unmet(**{"from": ["a", "b1"], "to": "192.168.5.0/24"}) == []


def test_an_ipv4_endpoint_in_ipv6_spelling_is_inside_the_mesh_too(tmp_path: Path) -> None:
    mesh = gateways(tmp_path)
    hub = mesh.nodes["hub"].attachments[0]
    for endpoint, loops in (("[::ffff:10.42.0.78]:51820", True), ("[::ffff:10.99.0.78]:51820", False)):
        moved = changed(mesh, "hub", attachments=(dataclasses.replace(hub, endpoint=endpoint),))
        assert ("endpoint-inside-mesh" in codes(lint(compile_mesh(moved)))) == loops


@pytest.mark.parametrize("key", ["stun", "turn"])
def test_a_server_behind_the_mesh_is_a_loop_for_those_who_route_its_address(tmp_path: Path, key: str) -> None:
    hosts = {
        "192.168.10.9": True, "192.168.10.9:3478": True, "10.42.0.7": True, "[::ffff:10.42.0.7]:3478": True,
        "192.168.30.9": False, "turn.example.net:3478": False,
    }  # fmt: skip
    for host, loops in hosts.items():
        mesh = dataclasses.replace(gateways(tmp_path), **{key: (f"{key}:{host}",)})
        found = [d for d in lint(compile_mesh(mesh)).findings if d.code == "endpoint-inside-mesh"]
        assert [(d.severity, f"`{key}:{host}`" in d.message) for d in found] == [("error", True)] * loops, host


def test_more_peers_than_the_declared_capacity_are_a_warning(tmp_path: Path) -> None:
    nodes = {"hub": {**HUB, "capacity": 2}, "a": {}, "b": {}}
    assert "over-capacity" not in codes(linted(tmp_path, nodes))
    assert "over-capacity" in codes(linted(tmp_path, {**nodes, "c": {}}))


def test_a_node_that_is_logged_in_to_through_the_mesh_must_let_its_jump_host_in(tmp_path: Path) -> None:
    nodes = {
        "hub": {**HUB, "groups": ["ops"]},
        "inside": {"address": "10.42.0.9", "ssh": {"host": "10.42.0.9", "port": 2222, "jump": "hub"}},
        "other": {"groups": ["ops"]},
    }
    networks = {"corp": {"cidr": "10.42.0.0/16"}}

    def denied(*rules: dict[str, Any], jump: str = "hub") -> list[tuple[str, str]]:
        nodes["inside"]["ssh"]["jump"] = jump
        policies = [{"name": f"r{i}", "to": "inside", **rule} for i, rule in enumerate(rules)]
        found = linted(tmp_path, nodes, networks=networks, policies=policies, groups={"ops": {}}).findings
        return [(d.severity, d.path) for d in found if d.code == "login-denied"]

    assert denied({"from": "ops", "allow": ["tcp/22"]}) == [("error", "nodes.inside")]
    assert denied({"from": "other", "allow": ["tcp/2222"]}) == [("error", "nodes.inside")]
    assert denied({"from": "ops", "allow": ["tcp/2222"]}) == []
    # A jump host outside the inventory may be anybody of the mesh.
    assert denied({"from": "other", "allow": ["tcp/2222"]}, jump="bastion.example.net") == []


def test_a_login_address_in_another_spelling_is_the_same_address(tmp_path: Path) -> None:
    networks = {"corp": {"cidr": ["10.42.0.0/16", "fd42:42::/48"]}}
    for host in ("10.42.0.5", "fd42:42::5", "FD42:42:0::5", "fd42:42:0:0:0:0:0:5", "::ffff:10.42.0.5"):
        nodes = {"hub": HUB, "a": {"address": ["10.42.0.5", "fd42:42::5"], "ssh": {"host": host}}}
        assert "login-denied" in codes(linted(tmp_path, nodes, networks=networks)), host
    nodes["a"]["ssh"] = {"host": "10.42.0.6"}
    assert "login-denied" not in codes(linted(tmp_path, nodes, networks=networks))


def test_a_jump_host_outside_the_network_of_the_address_never_gets_in(tmp_path: Path) -> None:
    networks = {"corp": {"cidr": "10.42.0.0/16"}, "lab": {"cidr": "10.43.0.0/16"}}
    inside = {"networks": ["corp"], "address": "10.42.0.9", "ssh": {"host": "10.42.0.9", "jump": "bastion"}}
    nodes = {"a": {"networks": ["corp"], "endpoint": "203.0.113.1:51820"}, "inside": inside}
    rule = {"name": "ssh", "from": "*", "to": "inside", "allow": ["tcp/22"]}
    for network, denied in (("lab", True), ("corp", False)):
        nodes["bastion"] = {"networks": [network], "endpoint": "203.0.113.2:51820"}
        found = linted(tmp_path, nodes, networks=networks, policies=[rule]).findings
        messages = [d.message for d in found if d.code == "login-denied"]
        assert ["`bastion` is not in network `corp`" in m for m in messages] == [True] * denied


SILENT = {"nat": "symmetric", "keepalive": 0}


def silent(folder: Path, *rules: dict[str, Any], **nodes: Any) -> LintReport:
    """What is found where `x` sends nothing of its own accord, with the hub as anchor unless said otherwise."""
    policies = [{"name": f"r{i}", "allow": ["tcp/22"], **rule} for i, rule in enumerate(rules)]
    network = {"networks": {"corp": {"cidr": "10.42.0.0/16"}}}
    return linted(folder, {"hub": HUB, "x": SILENT, **nodes}, policies=policies, **network)


@pytest.mark.parametrize("client", [False, True])
def test_a_node_that_never_sends_first_is_found_by_nobody(tmp_path: Path, client: bool) -> None:
    nodes = {"x": {**SILENT, "client": client}, "y": {}}
    to_x = silent(tmp_path, {"from": "hub", "to": "x"}, {"from": "y", "to": "x"}, **nodes)
    for one, other in (("hub", "x"), ("x", "y")):
        found = pair(to_x, one, other)
        assert found.outcome == "unreachable"
        assert "has no endpoint and no keepalive: nobody learns where that is" in found.reason
    findings = [(d.severity, d.path) for d in to_x.findings if d.code in ("no-keepalive", "unreachable-pair")]
    assert findings == [("warning", "nodes.x")]
    message = next(d.message for d in to_x.findings if d.code == "no-keepalive")
    assert "`hub`, `y`" in message


def test_a_node_that_opens_connections_itself_is_found_from_then_on(tmp_path: Path) -> None:
    from_x = silent(tmp_path, {"from": "x", "to": "hub"})
    assert (pair(from_x, "hub", "x").outcome, "no-keepalive" in codes(from_x)) == ("direct", False)
    both = silent(tmp_path, {"from": "x", "to": "hub", "both_ways": True})
    assert (pair(both, "hub", "x").outcome, "no-keepalive" in codes(both)) == ("direct", True)
    assert "found only after it has sent" in pair(both, "hub", "x").reason
    for spoken in ({"keepalive": 25}, {"keepalive": 0, "endpoint": "203.0.113.9:51820"}):
        report = silent(tmp_path, {"from": "hub", "to": "x"}, x=spoken)
        assert (pair(report, "hub", "x").outcome, "no-keepalive" in codes(report)) == ("direct", False)


def test_what_is_behind_a_silent_gateway_is_found_by_nobody_either(tmp_path: Path) -> None:
    gateway = {**SILENT, "roles": ["gateway"], "routes": ["192.168.10.0/24"]}
    inward = silent(tmp_path, {"from": "hub", "to": "192.168.10.0/24"}, x=gateway)
    assert pair(inward, "hub", "x").outcome == "unreachable"
    outward = silent(tmp_path, {"from": "192.168.10.0/24", "to": "hub"}, x=gateway)
    assert pair(outward, "hub", "x").outcome == "direct"
    assert "no-keepalive" not in codes(outward)


def test_a_silent_exit_node_is_found_by_none_of_its_users(tmp_path: Path) -> None:
    out = {"x": {**SILENT, "roles": ["gateway"], "exit_node": True}, "hub": {**HUB, "exit_via": "x"}}
    report = silent(tmp_path, {"from": "hub", "to": "internet"}, **out)
    assert pair(report, "hub", "x").outcome == "unreachable"


def test_nodes_that_forward_are_told_of_other_firewalls(tmp_path: Path) -> None:
    nodes = {"hub": HUB, "gate": {"roles": ["gateway"], "routes": ["192.168.10.0/24"]}, "a": {}}
    found = [d.path for d in linted(tmp_path, nodes).findings if (d.code, d.severity) == ("forward-policy", "note")]
    assert found == ["nodes.gate"]
    carried = {**nodes, "a": {"relay": "routed"}}
    found = [d.path for d in linted(tmp_path, carried).findings if d.code == "forward-policy"]
    assert sorted(found) == ["nodes.gate", "nodes.hub"]


def test_one_note_for_all_tells_whose_input_firewalld_would_refuse(tmp_path: Path) -> None:
    nodes = {"hub": HUB, "quiet": {}, "phone": {"client": True}, **{f"n{i}": {} for i in range(7)}}
    rules = [{"name": "in", "from": ["phone", "quiet"], "to": [f"n{i}" for i in range(7)], "allow": ["tcp/22"]}]
    networks = {"corp": {"cidr": "10.42.0.0/16"}}
    found = [d for d in linted(tmp_path, nodes, networks=networks, policies=rules).findings if d.code == "input-policy"]
    assert [(d.severity, d.path, d.line) for d in found] == [("note", "nodes", 0)]
    assert "8 nodes: `hub`, `n0`, `n1`, `n2`, `n3` and 3 more" in found[0].message
    assert "quiet" not in found[0].message
    assert "input-policy" not in codes(linted(tmp_path, {"alone": {}}))


def test_the_json_follows_its_schema_and_exit_codes_follow_fail_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path, {"hub": HUB, "a": {"nat": "easy"}, "b": {"nat": "symmetric"}})
    file = str(tmp_path / "inventory.yml")
    assert run(["lint", file, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(load_schema("lint")).validate(document)
    assert document["counts"] == {"direct": 2, "spliced": 1, "relayed": 0, "unreachable": 0, "unknown": 0}
    assert [w["code"] for w in document["warnings"]] == ["single-anchor"]
    assert run(["lint", file, "--fail-on", "warning"]) == 1
    shown = capsys.readouterr().out
    assert "warning[single-anchor]: `hub` is the only anchor" in shown
    assert "corp: spliced, MTU 1420: one mapping is unknown" in shown
    assert run(["lint", file, "--pairs"]) == 0
    assert "corp: a - b: spliced, MTU 1420" in capsys.readouterr().out


def test_annotations_for_github_stand_at_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, {"web": {"endpoint": "203.0.113.1:51820"}, "home": {"nat": "udp-blocked"}})
    file = str(tmp_path / "inventory.yml")
    assert run(["lint", file, "--format", "github"]) == 1
    shown = capsys.readouterr().out
    line = (tmp_path / "inventory.yml").read_text().splitlines().index("  home:") + 1
    assert shown.startswith(f"::error file={file},line={line},col=3,title=unreachable-pair::`home` will not reach")


def test_an_invalid_inventory_is_answered_as_validate_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "inventory.yml"
    file.write_text("version: 1\nnodes: {a: {nat: wrong}}\n")
    assert run(["lint", str(file), "--format", "github"]) == 65
    assert capsys.readouterr().out.startswith("::error ")
    assert run(["lint", str(file), "-o", "json"]) == 65
    Draft202012Validator(load_schema("validate")).validate(json.loads(capsys.readouterr().out))
