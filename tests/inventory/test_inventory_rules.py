"""Every rule of the inventory: an input that breaks it, the code it gives, and the place it names."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from meshctl.errors import Diagnostic, InventoryError
from meshctl.inventory import read

HEAD = """\
version: 1
networks: {corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}}
"""
ANCHOR = '  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}\n'


def findings(folder: Path, text: str) -> tuple[Diagnostic, ...]:
    """What `read` says about an inventory of this text, errors and warnings."""
    file = folder / "inventory.yml"
    file.write_text(textwrap.dedent(text))
    try:
        return read(file).warnings
    except InventoryError as error:
        return error.diagnostics


def nodes(body: str, more: str = "") -> str:
    """A sound mesh with an anchor, and these nodes."""
    return f"{HEAD}nodes:\n{ANCHOR}{textwrap.indent(body, '  ')}\n{more}"


# name of the case: (inventory, code, the text at the place that is named, a word of message or hint)
ERRORS = {
    "a node and a group share a name": (nodes("web: {}", "groups: {web: {}}"), "duplicate-name", "web", "node"),
    "two policies share a name": (
        nodes(
            "a: {}",
            "policies:\n- {name: p, from: a, to: hub, allow: [any]}\n- {name: p, from: hub, to: a, allow: [any]}",
        ),
        "duplicate-name",
        "p",
        "rename",
    ),
    "a node is called internet": (nodes("internet: {}"), "reserved-name", "internet", "another name"),
    "two nodes have one address": (
        nodes("a: {address: 10.42.0.5}\nb: {address: [10.42.0.5]}"),
        "duplicate-address",
        "10.42.0.5",
        "10.42.0.1 is free",
    ),
    "two nodes are one machine": (
        nodes("a: {ssh: {host: x.example.net}}\nb: {ssh: {host: X.example.net}}"),
        "duplicate-host",
        "X.example.net",
        "`a`",
    ),
    "a network is multicast": (
        nodes("a: {}").replace("10.42.0.0/16", "224.1.0.0/16"),
        "bad-prefix",
        "224.1.0.0/16",
        "10.0.0.0/8",
    ),
    "a network is link-local": (
        nodes("a: {}").replace("fd42:42::/48", "fe80::/64"),
        "bad-prefix",
        "fe80::/64",
        "fd00::/8",
    ),
    "an endpoint is everywhere": (nodes("a: {endpoint: '0.0.0.0:1'}"), "bad-endpoint", "0.0.0.0:1", "unspecified"),
    "an endpoint is a loopback": (nodes("a: {endpoint: '[::1]:1'}"), "bad-endpoint", "[::1]:1", "no other node"),
    "a STUN server has no such port": (
        nodes("a: {}", "stun: ['stun:x.example.net:99999']"),
        "out-of-range",
        "stun:x.example.net:99999",
        "65535",
    ),
    "networks overlap": (
        HEAD.replace("}}", "}, lab: {cidr: 10.42.8.0/24}}")
        + f"nodes:\n{ANCHOR.replace('hub: {', 'hub: {networks: [corp], ')}",
        "overlapping-networks",
        "10.42.8.0/24",
        "10.42.0.0/16",
    ),
    "routes overlap": (
        nodes("a: {roles: [gateway], routes: [10.9.0.0/16]}\nb: {roles: [gateway], routes: [10.9.1.0/24]}"),
        "overlapping-routes",
        "10.9.1.0/24",
        "route of `a`",
    ),
    "a route overlaps a network": (
        nodes("a: {roles: [gateway], routes: [10.42.7.0/24]}"),
        "overlapping-routes",
        "10.42.7.0/24",
        "network `corp`",
    ),
    "one node's routes overlap": (
        nodes("a: {roles: [gateway], routes: [10.9.0.0/16, 10.9.1.0/24]}"),
        "overlapping-routes",
        "10.9.1.0/24",
        "remove",
    ),
    "an address is outside its network": (
        nodes("a: {address: 10.43.0.5}"),
        "address-outside-network",
        "10.43.0.5",
        "10.42.0.0/16",
    ),
    "an address is the network's": (nodes("a: {address: 10.42.0.0}"), "reserved-address", "10.42.0.0", "network"),
    "an address is the broadcast": (
        nodes("a: {address: 10.42.255.255}"),
        "reserved-address",
        "10.42.255.255",
        "broadcast",
    ),
    "an address has a prefix length": (
        nodes("a: {address: 10.42.0.5/16}"),
        "bad-address",
        "10.42.0.5/16",
        "write 10.42.0.5",
    ),
    "an address has leading zeros": (nodes("a: {address: 10.42.0.05}"), "bad-address", "10.42.0.05", "octal"),
    "a node has two v4 addresses": (
        nodes("a: {address: [10.42.0.5, 10.42.0.6]}"),
        "too-many-addresses",
        "10.42.0.6",
        "each family",
    ),
    "a prefix has host bits": (
        "version: 1\nnetworks: {corp: {cidr: 10.42.0.1/16}}\nnodes: {a: {}}",
        "bad-prefix",
        "10.42.0.1/16",
        "10.42.0.0/16",
    ),
    "a network has two v4 prefixes": (
        "version: 1\nnetworks: {corp: {cidr: [10.1.0.0/16, 10.2.0.0/16]}}\nnodes: {a: {}}",
        "too-many-prefixes",
        "10.2.0.0/16",
        "family",
    ),
    "a network has no room": (
        "version: 1\nnetworks: {corp: {cidr: 10.1.0.0/30}}\nnodes: {a: {}, b: {}, c: {}}",
        "no-room",
        "10.1.0.0/30",
        "10.1.0.0/29",
    ),
    "a group is unknown": (nodes("a: {groups: [wbe]}", "groups: {web: {}}"), "unknown-group", "wbe", "`web`"),
    "a child group is unknown": (
        nodes("a: {}", "groups: {web: {children: [dbb]}, db: {}}"),
        "unknown-group",
        "dbb",
        "`db`",
    ),
    "a group's node is unknown": (
        nodes("web1: {}", "groups: {web: {nodes: [web2]}}"),
        "unknown-node",
        "web2",
        "`web1`",
    ),
    "groups contain each other": (
        nodes("a: {}", "groups: {x: {children: [y]}, y: {children: [x]}}"),
        "group-cycle",
        "",
        "x → y → x",
    ),
    "a role is unknown": (nodes("a: {roles: [gatway]}"), "unknown-role", "gatway", "`gateway`"),
    "a network is unknown": (nodes("a: {networks: [crop]}"), "unknown-network", "crop", "`corp`"),
    "a port map names an unknown network": (nodes("a: {listen_port: {crop: 1}}"), "unknown-network", "crop", "`corp`"),
    "a policy selects an unknown name": (
        nodes("web1: {}", "policies: [{name: p, from: wbe1, to: hub, allow: [any]}]"),
        "unknown-selector",
        "wbe1",
        "`web1`",
    ),
    "a policy selects a tag by its bare name": (
        nodes("a: {tags: [http]}", "policies: [{name: p, from: http, to: hub, allow: [any]}]"),
        "unknown-selector",
        "http",
        "`tag:http`",
    ),
    "a policy selects an unknown tag": (
        nodes("a: {tags: [http]}", "policies: [{name: p, from: 'tag:htp', to: hub, allow: [any]}]"),
        "unknown-tag",
        "tag:htp",
        "`http`",
    ),
    "a policy selects an unknown role": (
        nodes("a: {}", "policies: [{name: p, from: 'role:anchr', to: a, allow: [any]}]"),
        "unknown-role",
        "role:anchr",
        "`anchor`",
    ),
    "a policy names a prefix that nobody has": (
        nodes("a: {}", "policies: [{name: p, from: a, to: 10.9.0.0/24, allow: [any]}]"),
        "unknown-prefix",
        "10.9.0.0/24",
        "gateway",
    ),
    "a test names an unknown node": (
        nodes("web1: {}", "tests: [{from: web2, to: hub, can: [any]}]"),
        "unknown-selector",
        "web2",
        "`web1`",
    ),
    "a policy allows an unknown service": (
        nodes("a: {}", "services: {postgres: [tcp/5432]}\npolicies: [{name: p, from: a, to: hub, allow: [postgre]}]"),
        "unknown-service",
        "postgre",
        "`postgres`",
    ),
    "a policy's port is out of range": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [tcp/70000]}]"),
        "out-of-range",
        "tcp/70000",
        "65535",
    ),
    "a policy's port range is backwards": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [udp/20-10]}]"),
        "out-of-range",
        "udp/20-10",
        "udp/10-20",
    ),
    "a policy expired long ago": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], expires: 2020-01-31}]"),
        "policy-expired",
        "2020-01-31",
        "new date",
    ),
    "a policy allows what another denies as strongly": (
        nodes(
            "a: {}",
            "policies:\n- {name: no, from: a, to: hub, deny: [any]}\n- {name: p, from: a, to: hub, allow: [tcp/22]}",
        ),
        "contradiction",
        "",
        "priority",
    ),
    "a policy has the internet for a source": (
        nodes("a: {}", "policies: [{name: p, from: internet, to: a, allow: [any]}]"),
        "internet-source",
        "internet",
        "alone",
    ),
    "a policy limits what it denies": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, deny: [any], limits: {connections_per_second: 1}}]"),
        "limits-on-deny",
        "",
        "remove",
    ),
    "a test wants the same both ways": (
        nodes("a: {}", "tests: [{from: a, to: hub, can: [tcp/20-30], cannot: [tcp/22]}]"),
        "contradiction",
        "tcp/22",
        "remove",
    ),
    "a policy's date is of another form": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], expires: 2027-W01-1}]"),
        "bad-date",
        "2027-W01-1",
        "YYYY-MM-DD",
    ),
    "a policy limits to nothing": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], limits: {bandwidth: 0.001kbit}}]"),
        "out-of-range",
        "0.001kbit",
        "1kbit",
    ),
    "a policy limits to more than there is": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], limits: {bandwidth: 1001gbit}}]"),
        "out-of-range",
        "1001gbit",
        "1000gbit",
    ),
    "a service is called as a protocol": (nodes("a: {}", "services: {udp: [tcp/22]}"), "reserved-name", "udp", "word"),
    "a service is called as all traffic": (nodes("a: {}", "services: {any: [tcp/1]}"), "reserved-name", "any", "word"),
    "a node is called as an address": (nodes('"10.42.0.7": {}'), "bad-name", "10.42.0.7", "another name"),
    "a policy's date is none": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], expires: 2026-02-30}]"),
        "bad-date",
        "2026-02-30",
        "YYYY-MM-DD",
    ),
    "a policy neither allows nor denies": (
        nodes("a: {}", "policies: [{name: p, from: a, to: hub}]"),
        "missing-key",
        "",
        "`allow` or `deny`",
    ),
    "hidden nodes have no anchor": (
        HEAD + "nodes: {a: {}, b: {}}\npolicies: [{name: p, from: a, to: b, allow: [any]}]",
        "no-anchor",
        "a",
        "anchor",
    ),
    "a routed client has no anchor": (
        HEAD + "nodes: {a: {endpoint: '203.0.113.1:1'}, c: {client: true, relay: routed, peers: [a]}}",
        "no-anchor",
        "c",
        "anchor",
    ),
    "an endpoint is inside the mesh": (
        nodes("a: {endpoint: '10.42.3.4:51820'}"),
        "endpoint-inside-mesh",
        "10.42.3.4:51820",
        "routing loop",
    ),
    "an anchor's default endpoint is inside the mesh": (
        nodes("a: {roles: [anchor], ssh: {host: 10.42.3.4}}"),
        "endpoint-inside-mesh",
        "10.42.3.4",
        "set endpoint",
    ),
    "an endpoint is behind a route": (
        nodes("a: {roles: [gateway], routes: [198.51.100.0/24], endpoint: '198.51.100.7:51820'}"),
        "endpoint-inside-mesh",
        "198.51.100.7:51820",
        "route of `a`",
    ),
    "two nodes have one endpoint": (
        nodes("a: {endpoint: '203.0.113.1:51820'}"),
        "duplicate-endpoint",
        "203.0.113.1:51820",
        "`a`",
    ),
    "an endpoint has no port": (
        nodes("a: {endpoint: 203.0.113.9}"),
        "bad-endpoint",
        "203.0.113.9",
        "203.0.113.9:51820",
    ),
    "an IPv6 endpoint has no brackets": (
        nodes("a: {endpoint: 'fe80:1:2:3:4:5:6:7:51820'}"),
        "bad-endpoint",
        "fe80:1:2:3:4:5:6:7:51820",
        "[fe80:1:2:3:4:5:6:7]:51820",
    ),
    "an endpoint's port is too high": (
        nodes("a: {endpoint: 'a.example.net:99999'}"),
        "bad-endpoint",
        "a.example.net:99999",
        "65535",
    ),
    "an endpoint's address has too high a number": (
        nodes("a: {endpoint: '300.1.1.1:51820'}"),
        "bad-endpoint",
        "300.1.1.1:51820",
        "address",
    ),
    "a listen port is too high": (nodes("a: {listen_port: 70000}"), "out-of-range", "70000", "65535"),
    "a listen port is octal to YAML 1.1": (nodes("a: {listen_port: 051820}"), "bad-value", "051820", "51820"),
    "an interface's name is too long": (
        nodes("a: {interface: wireguard-corp-1}"),
        "bad-format",
        "wireguard-corp-1",
        "15 characters",
    ),
    "an interface's name has a slash": (nodes("a: {interface: wg/0}"), "bad-format", "wg/0", "no slash"),
    "an exit node is not one": (nodes("a: {exit_via: hub}"), "not-an-exit-node", "hub", "exit_node: true"),
    "an exit node is unknown": (
        nodes("out: {roles: [gateway], exit_node: true}\na: {exit_via: ot}"),
        "unknown-node",
        "ot",
        "`out`",
    ),
    "a node is its own exit": (nodes("a: {exit_via: a}"), "exit-loop", "a", "own exit"),
    "an exit node uses another": (
        nodes("x: {roles: [gateway], exit_node: true}\ny: {roles: [gateway], exit_node: true, exit_via: x}"),
        "exit-loop",
        "x",
        "remove exit_via",
    ),
    "an exit node is no gateway": (nodes("a: {exit_node: true}"), "not-a-gateway", "true", "roles: [gateway]"),
    "routes on a node that is no gateway": (
        nodes("a: {routes: [10.9.0.0/24]}"),
        "not-a-gateway",
        "",
        "roles: [gateway]",
    ),
    "a route is the internet": (
        nodes("a: {roles: [gateway], routes: [0.0.0.0/0]}"),
        "default-route",
        "0.0.0.0/0",
        "exit_node: true",
    ),
    "a client has nobody to talk to": (nodes("phone: {client: true}"), "client-without-peer", "phone", "policy"),
    "a client has routes": (
        nodes("phone: {client: true, routes: [10.9.0.0/24]}"),
        "client-setting",
        "routes",
        "client",
    ),
    "jumps go round": (
        nodes("a: {ssh: {jump: b}}\nb: {ssh: {jump: [x.example.net, a]}}"),
        "jump-loop",
        "b",
        "a → b → a",
    ),
    "a node jumps through itself": (nodes("a: {ssh: {jump: a}}"), "jump-loop", "a", "a → a"),
    "a jump is a client": (
        nodes("phone: {client: true, peers: [hub]}\na: {ssh: {jump: phone}}"),
        "bad-jump",
        "phone",
        "client",
    ),
    "a jump's port is none": (
        nodes("a: {ssh: {jump: 'ops@x.example.net:ssh'}}"),
        "bad-jump",
        "ops@x.example.net:ssh",
        "port",
    ),
    "an MTU cannot carry IPv6": (nodes("a: {mtu: 1200}"), "bad-mtu", "1200", "IPv6"),
    "an MTU is tiny": (nodes("a: {mtu: 500}"), "bad-mtu", "500", "576"),
    "an MTU is huge": (nodes("a: {mtu: 65500}"), "bad-mtu", "65500", "65455"),
    "preferred anchors are unknown": (nodes("a: {anchors: [hbu]}"), "unknown-node", "hbu", "`hub`"),
    "a preferred anchor is none": (nodes("a: {anchors: [b]}\nb: {}"), "not-an-anchor", "b", "hub"),
    "a client's peer is unknown": (nodes("p: {client: true, peers: [hb]}"), "unknown-node", "hb", "`hub`"),
    "a lab router is unknown": (
        nodes("a: {lab: {behind: hoem}}", "lab: {routers: {home: {}}}"),
        "unknown-router",
        "hoem",
        "`home`",
    ),
    "lab routers stand behind each other": (
        nodes("a: {}", "lab: {routers: {x: {behind: y}, y: {behind: x}}}"),
        "router-cycle",
        "y",
        "x → y → x",
    ),
    "an unknown key": (nodes("a: {listenport: 1}"), "unknown-key", "listenport", "`listen_port`"),
    "an unknown key in a group": (nodes("a: {}", "groups: {g: {var: {}}}"), "unknown-key", "var", "`vars`"),
    "an unknown key at the top": (nodes("a: {}", "polices: []"), "unknown-key", "polices", "`policies`"),
    "a key that is missing": ("version: 1\nnodes: {a: {}}", "missing-key", "", "networks"),
    "another version": (HEAD.replace("1", "2", 1) + "nodes: {a: {}}", "bad-value", "2", "1"),
    "a boolean of YAML 1.1": (nodes("a: {psk: no}"), "wrong-type", "no", "false"),
    "a text where a list belongs": (nodes("a: {roles: anchor}"), "wrong-type", "anchor", "[anchor]"),
    "a node that is a number": (nodes("a: 5"), "wrong-type", "5", "mapping"),
    "a name with a space": (nodes("'a b': {}"), "bad-name", "a b", "Letters"),
    "a NAT kind that does not exist": (nodes("a: {nat: symetric}"), "bad-value", "symetric", "`symmetric`"),
    "a STUN URI of another scheme": (nodes("a: {}", "stun: ['http:x']"), "bad-format", "http:x", "stun:"),
    "a TURN transport that does not exist": (
        nodes("a: {}", "turn: ['turn:x?transport=sctp']"),
        "bad-format",
        "turn:x?transport=sctp",
        "transport=tcp",
    ),
    "a list with the same role twice": (nodes("a: {roles: [gateway, gateway]}"), "duplicate-item", "", "gateway"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_inventory_is_refused_where(name: str, tmp_path: Path) -> None:
    text, code, at, word = ERRORS[name]
    errors = [d for d in findings(tmp_path, text) if d.severity == "error"]
    assert [d.code for d in errors] == [code]
    assert word in f"{errors[0].message} {errors[0].hint}"
    line = (tmp_path / "inventory.yml").read_text().splitlines()[errors[0].line - 1]
    assert line[errors[0].column - 1 :].lstrip("'\"").startswith(at)
    assert errors[0].text == at


WARNINGS = {
    "a client has ssh settings": (
        nodes("p: {client: true, ssh: {port: 1}}", "policies: [{name: p1, from: p, to: hub, allow: [any]}]"),
        "ignored-setting",
        "`ssh`",
    ),
    "a client has roles": (
        nodes("p: {client: true, roles: [gateway]}", "policies: [{name: p1, from: p, to: hub, allow: [any]}]"),
        "ignored-setting",
        "`roles`",
    ),
    "a node that is no anchor limits relays": (nodes("a: {relay_limit: 1Gbit/s}"), "ignored-setting", "`relay_limit`"),
    "a node that is no client has peers": (nodes("a: {peers: [hub]}"), "ignored-setting", "policy"),
    "a client's peer is not permitted": (nodes("p: {client: true, peers: [hub]}"), "peer-not-permitted", "policy"),
    "a jump is nearly a node": (nodes("web1: {}\na: {ssh: {jump: web2}}"), "jump-not-a-node", "`web1`"),
    "a policy matches nobody": (
        nodes("a: {}", "policies: [{name: p, from: a, to: a, allow: [any]}]"),
        "matches-nothing",
        "one and the same node",
    ),
    "a policy is decided by a better one": (
        nodes(
            "a: {}",
            "policies:\n- {name: p, from: a, to: hub, allow: [any]}\n- {name: q, from: a, to: hub, allow: [tcp/22]}",
        ),
        "shadowed",
        "`p`",
    ),
    "a policy names a group without nodes": (
        nodes("a: {}", "groups: {g: {}}\npolicies: [{name: p, from: [a, g], to: hub, allow: [any]}]"),
        "empty-group",
        "`g`",
    ),
}


def test_a_policy_without_a_name_may_also_have_expired(tmp_path: Path) -> None:
    text = nodes("a: {}", "policies: [{from: a, to: hub, allow: [any], expires: 2020-01-31}]")
    assert {d.code for d in findings(tmp_path, text)} == {"missing-key", "policy-expired"}


def test_a_name_that_ends_in_a_line_break_is_none(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, nodes('"a\\n": {}'))
    assert (found.code, found.severity) == ("bad-name", "error")


def test_the_last_date_of_the_calendar_is_a_date(tmp_path: Path) -> None:
    text = nodes("a: {}", "policies: [{name: p, from: a, to: hub, allow: [any], expires: 9999-12-31}]")
    assert findings(tmp_path, text) == ()


def test_a_policy_that_has_expired_hides_nothing_of_the_others(tmp_path: Path) -> None:
    policies = """policies:
      - {name: old, from: a, to: hub, allow: [tcp/1], expires: 2020-01-31}
      - {name: no, from: a, to: hub, deny: [tcp/22]}
      - {name: yes, from: a, to: hub, allow: [tcp/22]}
      - {name: self, from: a, to: a, allow: [any]}
    """
    found = findings(tmp_path, nodes("a: {}", textwrap.dedent(policies)))
    assert [d.code for d in found] == ["policy-expired", "contradiction", "matches-nothing"]


def test_a_contradiction_names_those_that_contradict_and_those_that_do_not(tmp_path: Path) -> None:
    policies = """policies:
      - {name: x, from: a, to: hub, allow: [tcp/1-10]}
      - {name: hi, from: a, to: hub, allow: [tcp/1-5], priority: 9}
      - {name: no, from: a, to: hub, deny: [tcp/6-10]}
    """
    (found,) = findings(tmp_path, nodes("a: {}", textwrap.dedent(policies)))
    first, second = found.message.split(";")
    assert "`no`" in first
    assert "`hi`" not in first
    assert "`hi`" in second
    assert "decides the rest" in second


def test_a_group_without_nodes_is_reported_at_each_place(tmp_path: Path) -> None:
    rules = "".join(f"\n- {{name: p{i}, from: [a, g], to: hub, allow: [tcp/{i}]}}" for i in (1, 2))
    found = findings(tmp_path, nodes("a: {}", f"groups: {{g: {{}}}}\npolicies:{rules}"))
    assert [d.code for d in found] == ["empty-group"] * 2
    assert len({d.line for d in found}) == 2


def test_a_prefix_behind_gateways_of_two_networks_is_meant_in_both(tmp_path: Path) -> None:
    text = """
        version: 1
        networks: {one: {cidr: 10.1.0.0/16}, two: {cidr: 10.2.0.0/16}}
        nodes:
          a: {networks: [one], endpoint: "203.0.113.1:51820"}
          b: {networks: [two], endpoint: "203.0.113.2:51820"}
          ga: {networks: [one], roles: [gateway], routes: [192.168.0.0/24]}
          gb: {networks: [two], roles: [gateway], routes: [192.168.0.0/24]}
        policies: [{name: p, from: "*", to: 192.168.0.8/29, allow: [any]}]
    """
    file = tmp_path / "inventory.yml"
    file.write_text(textwrap.dedent(text))
    (rule,) = read(file).mesh.rules
    assert {network: set(found) for network, found in rule.destination.members.items()} == {
        "one": {"192.168.0.8/29"},
        "two": {"192.168.0.8/29"},
    }


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_given_where(name: str, tmp_path: Path) -> None:
    text, code, word = WARNINGS[name]
    found = findings(tmp_path, text)
    assert [(d.code, d.severity) for d in found] == [(code, "warning")]
    assert word in f"{found[0].message} {found[0].hint}"


ACCEPTED = {
    "a jump outside the mesh": nodes("a: {ssh: {jump: [ops@bastion.example.net:2222, '[2001:db8::1]:22', alias]}}"),
    "names that YAML 1.1 reads as booleans": nodes("no: {}\non: {}\ny: {}"),
    "equal routes in networks that no node shares": """
        version: 1
        networks: {one: {cidr: 10.1.0.0/16}, two: {cidr: 10.2.0.0/16}}
        nodes:
          a: {networks: [one], roles: [gateway], routes: [192.168.0.0/24]}
          b: {networks: [two], roles: [gateway], routes: [192.168.0.0/24]}
        """,
    "an IPv4 network with a small MTU": "version: 1\nnetworks: {n: {cidr: 10.1.0.0/16}}\nnodes: {a: {mtu: 1200}}",
    "two addresses of a /31": "version: 1\nnetworks: {n: {cidr: 10.1.0.0/31}}\nnodes: {a: {}, b: {}}",
    "a merge key": nodes("a: &base {region: eu}\nb: {<<: *base, tags: [x]}"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_inventory_is_accepted_with(name: str, tmp_path: Path) -> None:
    assert findings(tmp_path, ACCEPTED[name]) == ()


def test_all_faults_are_reported_in_one_run(tmp_path: Path) -> None:
    text = nodes(
        "a: {listenport: 1, endpoint: nowhere}\nb: {address: 9.9.9.9, roles: [gatway], groups: [x]}",
        "policies: [{name: p, from: c, to: hub, allow: [tcp/0]}]\nstun: ['x:y']",
    )
    assert {d.code for d in findings(tmp_path, text)} == {
        "unknown-key",
        "bad-endpoint",
        "address-outside-network",
        "unknown-role",
        "unknown-group",
        "unknown-selector",
        "out-of-range",
        "bad-format",
    }


def test_a_policy_that_lacks_something_is_judged_for_the_rest(tmp_path: Path) -> None:
    policies = """
policies:
- {name: p, from: nowhere, to: hub, allow: [foo], deny: [tcp/5-2]}
- {name: p, from: [], to: 9.9.9.0/24, allow: [any]}
tests: [{from: nobody, to: hub}]
"""
    assert {d.code for d in findings(tmp_path, nodes("a: {}", policies))} == {
        "missing-key",
        "unknown-selector",
        "unknown-service",
        "out-of-range",
        "duplicate-name",
        "empty-list",
        "unknown-prefix",
    }


def test_a_fault_in_a_group_is_reported_once_however_many_nodes_inherit_it(tmp_path: Path) -> None:
    text = nodes("a: {groups: [g]}\nb: {groups: [g]}", "groups: {g: {vars: {mtu: 1000}}}")
    assert [d.path for d in findings(tmp_path, text)] == ["groups.g.vars.mtu"]


def test_two_interfaces_of_one_node_with_one_port_are_refused(tmp_path: Path) -> None:
    head = "version: 1\nnetworks: {one: {cidr: 10.1.0.0/16}, two: {cidr: 10.2.0.0/16}}\n"
    for key, value, code in (("listen_port", "5000", "port-clash"), ("interface", "wg7", "interface-clash")):
        found = findings(tmp_path, f"{head}nodes: {{a: {{{key}: {{one: {value}, two: {value}}}}}}}")
        assert [(d.code, d.text) for d in found] == [(code, value)]


def test_one_endpoint_for_two_networks_is_refused(tmp_path: Path) -> None:
    head = "version: 1\nnetworks: {one: {cidr: 10.1.0.0/16}, two: {cidr: 10.2.0.0/16}}\n"
    found = findings(tmp_path, head + "nodes: {a: {endpoint: 'a.example.net:51820'}}")
    assert [d.code for d in found] == ["ambiguous-endpoint"]
    assert "one: HOST:51820, two: HOST:51821" in found[0].hint


@pytest.mark.parametrize("value", [".nan", "9" * 50, "!!python/object:os.system {}"])
def test_a_value_that_cannot_be_read_is_one_finding(value: str, tmp_path: Path) -> None:
    assert len(findings(tmp_path, nodes(f"a: {{listen_port: {value}}}"))) == 1
