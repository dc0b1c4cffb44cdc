"""What the inventory means: precedence, interfaces, endpoints, and who may talk to whom."""

from __future__ import annotations

import cProfile
import dataclasses
import datetime
import json
import pstats
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from meshctl.errors import InventoryError, UsageError
from meshctl.inventory import find_inventory, read
from meshctl.model.mesh import LabSettings, Mesh, SecretSource

TWO = """\
version: 1
networks:
  one: {cidr: 10.1.0.0/16}
  two: {cidr: 10.2.0.0/16, keepalive: 7, region: of-network}
"""


def mesh(folder: Path, text: str) -> Mesh:
    file = folder / "inventory.yml"
    file.write_text(text)
    return read(file).mesh


def test_node_beats_group_beats_parent_beats_network_beats_defaults(tmp_path: Path) -> None:
    layers = {
        "defaults: {region: of-defaults}": "of-defaults",
        "defaults: {region: d}\nnetworks: {n: {cidr: 10.1.0.0/16, region: of-network}}": "of-network",
        "groups: {p: {children: [g], vars: {region: of-parent}}, g: {}}": "of-parent",
        "groups: {p: {children: [g], vars: {region: p}}, g: {vars: {region: of-group}}}": "of-group",
    }
    for text, region in layers.items():
        group = "groups: [g]" if "groups" in text else ""
        more = "" if "networks" in text else "\nnetworks: {n: {cidr: 10.1.0.0/16}}"
        assert mesh(tmp_path, f"version: 1\n{text}{more}\nnodes: {{a: {{{group}}}}}").nodes["a"].region == region
    text = "version: 1\nnetworks: {n: {cidr: 10.1.0.0/16}}\ngroups: {g: {vars: {region: g}}}\n"
    assert mesh(tmp_path, text + "nodes: {a: {groups: [g], region: own}}").nodes["a"].region == "own"


@pytest.mark.parametrize(
    ("limit", "bytes_s"), [("100Mbit/s", 12_500_000), ("64kbit/s", 8_000), ("1Gbit/s", 125_000_000)]
)
def test_a_relays_limit_is_bytes_a_second_in_the_model_and_inherited(tmp_path: Path, limit: str, bytes_s: int) -> None:
    text = f"{TWO}defaults: {{relay_limit: {limit}}}\nnodes: {{a: {{}}, b: {{relay_limit: 8kbit/s}}}}"
    assert [node.relay_limit for node in mesh(tmp_path, text).nodes.values()] == [bytes_s, 1000]
    assert mesh(tmp_path, f"{TWO}nodes: {{a: {{}}}}").nodes["a"].relay_limit is None


def test_the_declared_nat_and_capacity_reach_the_model(tmp_path: Path) -> None:
    text = f"{TWO}defaults: {{capacity: 50}}\nnodes: {{a: {{nat: symmetric}}, b: {{capacity: 9}}}}"
    nodes = mesh(tmp_path, text).nodes
    assert [(node.nat, node.capacity) for node in nodes.values()] == [("symmetric", 50), (None, 9)]


def test_of_several_groups_the_one_listed_first_wins_and_a_child_beats_its_parent_wherever_listed(
    tmp_path: Path,
) -> None:
    text = """\
version: 1
networks: {n: {cidr: 10.1.0.0/16}}
groups:
  x: {vars: {region: x}}
  y: {vars: {region: y}}
  parent: {children: [x], vars: {region: parent}}
nodes: {a: {groups: [x, y]}, b: {groups: [y, x]}, c: {groups: [parent, x]}}
"""
    nodes = mesh(tmp_path, text).nodes
    assert [nodes[n].region for n in "abc"] == ["x", "y", "x"]
    assert nodes["a"].groups == {"x", "y", "parent"}


def test_ssh_vars_and_lab_merge_key_by_key_and_roles_and_tags_add_up(tmp_path: Path) -> None:
    text = """\
version: 1
defaults: {ssh: {user: root, port: 2222}, vars: {a: 1, b: 1}, lab: {nat: easy}, tags: [d]}
networks: {n: {cidr: 10.1.0.0/16}}
groups: {g: {nodes: [x], vars: {ssh: {port: 22022}, vars: {b: 2, c: 2}, roles: [gateway], tags: [g]}}}
nodes:
  x:
    {ssh: {host: x.example.net, jump: y}, vars: {c: 3}, roles: [anchor], tags: [own],
     lab: {delay: 0.5s, jitter: 30ms, loss: 1.5%}}
  y: {}
"""
    node = mesh(tmp_path, text).nodes["x"]
    assert (node.ssh.host, node.ssh.user, node.ssh.port, node.ssh.jump) == ("x.example.net", "root", 22022, ("y",))
    assert node.vars == {"a": 1, "b": 2, "c": 3}
    assert node.roles == ("wireguard", "firewall", "gateway", "anchor", "agent")
    assert node.tags == {"d", "g", "own"}
    assert node.lab == LabSettings(nat="easy", delay_ms=500.0, jitter_ms=30.0, loss_percent=1.5)


def test_every_network_is_an_interface_with_a_port_of_its_own(tmp_path: Path) -> None:
    text = (
        TWO + "nodes: {a: {}, b: {interface: mesh, listen_port: 6000}, c: {networks: [two]}, d: {interface: {two: x}}}"
    )
    nodes = mesh(tmp_path, text).nodes
    seen = {n: [(a.network, a.interface, a.listen_port, a.keepalive_s) for a in nodes[n].attachments] for n in nodes}
    assert seen == {
        "a": [("one", "wg0", 51820, 25), ("two", "wg1", 51821, 7)],
        "b": [("one", "mesh", 6000, 25), ("two", "mesh1", 6001, 7)],
        "c": [("two", "wg0", 51820, 7)],
        "d": [("one", "wg0", 51820, 25), ("two", "x", 51821, 7)],
    }


def test_an_anchors_endpoint_is_its_ssh_host_and_port_unless_given(tmp_path: Path) -> None:
    text = (
        TWO
        + """\
nodes:
  a: {roles: [anchor], ssh: {host: a.example.net}}
  b: {roles: [anchor], networks: [one], ssh: {host: "2001:db8::1"}, listen_port: 5000}
  c: {networks: [one], endpoint: "[2001:db8::2]:7000"}
  d: {networks: [one]}
"""
    )
    nodes = mesh(tmp_path, text).nodes
    assert [a.endpoint for a in nodes["a"].attachments] == ["a.example.net:51820", "a.example.net:51821"]
    assert [nodes[n].attachments[0].endpoint for n in "bcd"] == ["[2001:db8::1]:5000", "[2001:db8::2]:7000", None]


def test_addresses_go_to_the_network_that_holds_them(tmp_path: Path) -> None:
    text = TWO + "nodes: {a: {address: [10.2.0.7, 10.1.0.9]}, b: {address: {two: 10.2.0.8}}}"
    nodes = mesh(tmp_path, text).nodes
    assert [a.addresses for a in nodes["a"].attachments] == [("10.1.0.9",), ("10.2.0.7",)]
    assert nodes["b"].attachments[1].addresses == ("10.2.0.8",)


def test_top_level_settings_reach_the_mesh(tmp_path: Path) -> None:
    text = (
        TWO
        + """\
nodes: {a: {}}
stun: ["stun:x:3478"]
turn: ["turns:x:443?transport=tcp"]
secret: {command: [pass, show, x]}
lab: {routers: {r: {nat: cgnat}}}
"""
    )
    found = mesh(tmp_path, text)
    assert (found.stun, found.turn) == (("stun:x:3478",), ("turns:x:443?transport=tcp",))
    assert found.secret == SecretSource(command=("pass", "show", "x"))
    assert found.lab == {"routers": {"r": {"nat": "cgnat"}}}
    assert found.base_dir == str(tmp_path)


POLICY_NODES = (
    TWO
    + """\
groups: {web: {vars: {tags: [http]}}}
nodes:
  hub: {roles: [anchor], endpoint: {one: "203.0.113.1:1", two: "203.0.113.1:2"}}
  w1: {groups: [web]}
  w2: {groups: [web], networks: [one]}
  w3: {networks: [one], exit_via: gw}
  gw: {networks: [one], roles: [gateway], routes: [192.168.0.0/16], exit_node: true}
  c: {client: true, networks: [one], peers: [gw]}
policies:
  - {name: c-gw, from: c, to: gw, allow: [any]}
"""
)


def pairs(found: Mesh, policy: str) -> dict[str, tuple[list[str], list[str]]]:
    """network -> (sources, destinations), where the policy selects anybody on both sides."""
    rule = next(r for r in found.rules if r.name == policy)
    sides = {n: (sorted(rule.source.members[n]), sorted(rule.destination.members[n])) for n in rule.source.members}
    return {network: both for network, both in sides.items() if all(both)}


SELECTORS = {
    "from: w1, to: hub": {"one": (["w1"], ["hub"]), "two": (["w1"], ["hub"])},
    "from: web, to: hub": {"one": (["w1", "w2"], ["hub"]), "two": (["w1"], ["hub"])},
    "from: ['tag:http'], to: ['role:anchor']": {"one": (["w1", "w2"], ["hub"]), "two": (["w1"], ["hub"])},
    "from: two, to: hub": {"two": (["hub", "w1"], ["hub"])},
    "from: w2, to: 192.168.7.0/24": {"one": (["w2"], ["192.168.7.0/24"])},
    "from: 192.168.7.0/24, to: w2": {"one": (["192.168.7.0/24"], ["w2"])},
    "from: w3, to: internet": {"one": (["w3"], ["internet"])},
    "from: ['*', '!c', '!two'], to: hub": {"one": (["gw", "w2", "w3"], ["hub"])},
    "from: ['!web'], to: w2": {"one": (["c", "gw", "hub", "w3"], ["w2"])},
}


@pytest.mark.parametrize("selectors", SELECTORS)
def test_a_policy_permits_the_pairs_that_it_names(selectors: str, tmp_path: Path) -> None:
    found = mesh(tmp_path, f"{POLICY_NODES}  - {{name: p, {selectors}, allow: [any]}}\n")
    assert pairs(found, "p") == SELECTORS[selectors]
    assert next(r.position.line for r in found.rules if r.name == "p") == POLICY_NODES.count("\n") + 1


def test_what_is_excluded_of_a_prefix_is_kept_beside_it(tmp_path: Path) -> None:
    policy = "  - {name: p, from: w2, to: [192.168.0.0/16, '!192.168.7.0/24'], allow: [any]}\n"
    rule = next(r for r in mesh(tmp_path, POLICY_NODES + policy).rules if r.name == "p")
    assert (rule.destination.members["one"], rule.destination.excluded) == ({"192.168.0.0/16"}, ("192.168.7.0/24",))


def test_an_open_network_permits_everyone_and_a_closed_one_nobody(tmp_path: Path) -> None:
    text = TWO.replace("10.1.0.0/16", "10.1.0.0/16, policy: open") + "nodes: {a: {endpoint: {one: 'x:1'}}, b: {}}"
    assert pairs(mesh(tmp_path, text), "open:one") == {"one": (["a", "b"], ["a", "b"])}


def test_an_expired_policy_is_warned_about_for_two_weeks_and_then_refused(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yml"
    file.write_text(f"{POLICY_NODES}  - {{name: p, from: w1, to: hub, allow: [any], expires: 2026-12-31}}\n")
    assert read(file, today=datetime.date(2026, 12, 31)).warnings == ()
    for today in (datetime.date(2027, 1, 1), datetime.date(2027, 1, 14)):
        assert [d.code for d in read(file, today=today).warnings] == ["policy-expired"]
    with pytest.raises(InventoryError) as refused:
        read(file, today=datetime.date(2027, 1, 15))
    assert [d.code for d in refused.value.diagnostics] == ["policy-expired"]


def test_a_node_without_the_agent_goes_by_an_anchor_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = "nodes: {a: {}, b: {agent: false}, c: {agent: false, relay: auto}, d: {roles: [agent]}}"
    nodes = mesh(tmp_path, TWO + text).nodes
    assert {name: node.has_agent for name, node in nodes.items()} == {
        "a": True, "b": False, "c": False, "d": True
    }  # fmt: skip
    assert {name: node.relay for name, node in nodes.items()} == {
        "a": "auto", "b": "routed", "c": "auto", "d": "auto"
    }  # fmt: skip


def test_the_users_own_roles_folder_is_known(tmp_path: Path) -> None:
    (tmp_path / "roles" / "mine").mkdir(parents=True)
    a = mesh(tmp_path, TWO + "nodes: {a: {roles: [mine]}}").nodes["a"]
    assert a.roles == ("wireguard", "firewall", "mine", "agent")


def test_the_mesh_does_not_depend_on_the_order_of_nodes_in_the_file(tmp_path: Path) -> None:
    one = mesh(tmp_path, TWO + "nodes: {a: {}, b: {}}")
    other = mesh(tmp_path, TWO + "nodes: {b: {}, a: {}}")
    assert list(one.nodes) == list(other.nodes) == ["a", "b"]
    strip = [dataclasses.replace(n, position=one.nodes[n.name].position) for n in other.nodes.values()]
    assert strip == list(one.nodes.values())


def test_the_inventory_is_found_by_argument_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESHCTL_INVENTORY", raising=False)
    with pytest.raises(UsageError, match="no inventory"):
        find_inventory(None)
    (tmp_path / "inventory").mkdir()
    assert find_inventory(None) == Path("inventory")
    (tmp_path / "inventory.yml").touch()
    assert find_inventory(None) == Path("inventory.yml")
    monkeypatch.setenv("MESHCTL_INVENTORY", "env.yml")
    assert find_inventory(None) == Path("env.yml")
    assert find_inventory("arg.yml") == Path("arg.yml")


def test_reading_a_thousand_nodes_costs_little_more_than_parsing_them(tmp_path: Path) -> None:
    # In calls of functions, of which each run makes as many, whatever else the machine does.
    lines = ["version: 1", "networks: {corp: {cidr: [10.42.0.0/16, 'fd42:42::/48'], policy: open}}", "nodes:"]
    lines.append("  hub: {roles: [anchor], endpoint: '203.0.113.1:51820'}")
    lines += [f"  n{i}: {{ssh: {{host: n{i}.example.net}}, region: eu, tags: [a, b]}}" for i in range(999)]
    file = tmp_path / "inventory.yml"
    file.write_text("\n".join(lines))

    def cost(work: Callable[[], object]) -> int:
        profile = cProfile.Profile()
        profile.runcall(work)
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined,no-any-return]

    read(file)
    ours, parser = cost(lambda: read(file)), cost(lambda: yaml.load(file.read_bytes(), yaml.CSafeLoader))
    assert ours < 3 * parser, f"{ours / parser:.1f} times what the parser itself costs"


def test_without_the_fast_validator_the_answer_is_the_same(tmp_path: Path) -> None:
    script = (
        "import sys, json; sys.modules['jsonschema_rs'] = None\n"
        "from meshctl.inventory import read\nfrom meshctl.errors import InventoryError\n"
        "try: print(json.dumps([len(read(sys.argv[1]).mesh.nodes)]))\n"
        "except InventoryError as e: print(json.dumps([d.code for d in e.diagnostics]))\n"
    )
    file = tmp_path / "inventory.yml"
    for nodes, expected in (("{a: {}}", [1]), ("{a: {prot: 1}}", ["unknown-key"])):
        file.write_text(f"{TWO}nodes: {nodes}")
        run = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
        assert json.loads(run.stdout) == expected
