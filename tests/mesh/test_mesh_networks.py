"""Nodes in two networks: an interface and a port in each, and one agent for both.

alice is behind an easy NAT and bob behind a symmetric one, so that each network's direct path is a splice, and needs
two anchors to be found: one alone does not show that a NAT gives another destination another port.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import running
from jsonschema import Draft202012Validator
from meshlab import MeshLab, changes_of

from meshctl.inventory import load_schema

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
defaults: {ssh: {user: root}}
networks:
  corp: {cidr: [10.42.0.0/16], policy: open}
  dmz:  {cidr: [10.43.0.0/16], policy: open, interface: wg1, listen_port: 51821}
nodes:
  fra:   {roles: [anchor], endpoint: {corp: "203.0.113.10:51820", dmz: "203.0.113.10:51821"}}
  nyc:   {roles: [anchor], endpoint: {corp: "198.51.100.10:51820", dmz: "198.51.100.10:51821"}}
  alice: {lab: {nat: easy}}
  bob:   {lab: {nat: symmetric}}
"""
ANCHORS = {"fra": "203.0.113.10", "nyc": "198.51.100.10"}
INTERFACES = {"corp": ("wg0", 51820, "10.42.0.0/16"), "dmz": ("wg1", 51821, "10.43.0.0/16")}
DIRECT = {(network, *pair): "direct" for network in INTERFACES for pair in (("alice", "bob"), ("bob", "alice"))}
# One attempt in fifty to splice hits no port, or more on a busy machine; the next one comes after half a minute.
FOUND_S, STEP_S = 80.0, 0.2
NODES = (*ANCHORS, "alice", "bob")
# What an agent sends, counted where it leaves the host: what is said in the mesh by its network's interface, between
# addresses of that network; probes from its network's port, and to the anchor's of the same. Anything else is astray.
COUNTED = ("corp_said", "corp_probed", "dmz_said", "dmz_probed", "astray")
WATCH = "\n".join([
    "table inet watch {", *(f"counter {name} {{}}" for name in COUNTED),
    "chain out { type filter hook output priority 400;",
    *(f"oifname {interface} ip saddr {cidr} ip daddr {cidr} udp dport 51871 counter name {network}_said accept"
      for network, (interface, _, cidr) in INTERFACES.items()),
    "udp dport 51871 counter name astray accept",
    "meta l4proto != udp accept", "@th,96,32 != 0x2112a442 accept",
    'oifname "wg*" counter name astray accept',
    *(f"ip daddr {ip} udp sport {own} udp dport {other} counter name astray accept"
      for ip in ANCHORS.values() for own, other in ((51820, 51821), (51821, 51820))),
    *(f"udp sport {port} counter name {network}_probed accept" for network, (_, port, _) in INTERFACES.items()),
    "counter name astray", "}; }",
])  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """The lab after a first apply."""
    with running(tmp_path_factory.mktemp("networks"), "networks", INVENTORY) as mesh:
        nodes = mesh.apply()
        assert {node["status"] for node in nodes.values()} == {"changed"}, nodes
        yield mesh


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for the condition, and fail with what there is instead when it does not come true in FOUND_S."""
    end = time.monotonic() + FOUND_S
    while not condition():
        assert time.monotonic() < end, f"not within {FOUND_S:.0f} s: {what()}"
        time.sleep(STEP_S)


def states(mesh: MeshLab) -> dict[tuple[str, str, str], str]:
    """(network, from, to) -> state, by `meshctl status`."""
    document: dict[str, Any] = mesh.on_lab("status", "-o", "json").json()
    Draft202012Validator(load_schema("status")).validate(document)
    return {(path["network"], path["from"], path["to"]): path["state"] for path in document["paths"]}


def await_found(mesh: MeshLab, wanted: dict[tuple[str, str, str], str]) -> None:
    """Until these paths are as they are wanted."""
    until(lambda: wanted.items() <= states(mesh).items(), lambda: states(mesh))


def relays(mesh: MeshLab, anchor: str) -> dict[int, str]:
    """Port -> network of each relay, as the anchor's agent has it."""
    document = mesh.run("agent", "status", anchor, "-o", "json", "-i", str(mesh.path), "--lab", mesh.name).json()
    return {relay["port"]: relay["network"] for relay in document["nodes"][anchor]["relays"]}


def in_kernel(mesh: MeshLab, node: str, name: str, pattern: str) -> set[int]:
    """What the pattern finds in a map of the agent's tables."""
    listed = mesh.sh(node, f"nft list map inet {name} 2>/dev/null || true")
    return set(map(int, re.findall(pattern, listed)))


def relay_ports(mesh: MeshLab, anchor: str) -> set[int]:
    """Those for which the anchor's kernel forwards."""
    return in_kernel(mesh, anchor, "meshctl_relays to_ip_v4", r"[\d.]+ \. \d+ \. (\d+) : ")


def spliced_ports(mesh: MeshLab, node: str) -> set[int]:
    """WireGuard's ports whose packets a splice has leave from another."""
    return in_kernel(mesh, node, "meshctl_splices out_v4", r"[\d.]+ \. (\d+) \. \d+ : ")


def relays_are_kept(mesh: MeshLab, *networks: str) -> bool:
    """Whether each anchor keeps a relay in each of these networks and in no other, in its kernel too."""
    kept = {anchor: relays(mesh, anchor) for anchor in ANCHORS}
    return all(
        set(found.values()) == set(networks) and relay_ports(mesh, anchor) == set(found)
        for anchor, found in kept.items()
    )


def endpoint(mesh: MeshLab, node: str, interface: str, peer: str) -> str:
    """Where `node` sends what is for `peer` by that interface."""
    key = mesh.sh(peer, f"wg show {interface} public-key").strip()
    return dict(row.split("\t") for row in mesh.sh(node, f"wg show {interface} endpoints").splitlines())[key]


@contextmanager
def watched(mesh: MeshLab, node: str) -> Iterator[dict[str, int]]:
    """What the node's agent has sent meanwhile, by WATCH's counters; known when the block is over."""
    counted: dict[str, int] = {}
    mesh.sh(node, f"nft -f - <<'EOF'\n{WATCH}\nEOF")
    try:
        yield counted
    finally:
        for name in COUNTED:
            words = mesh.sh(node, f"nft list counter inet watch {name}").split()
            counted[name] = int(words[words.index("packets") + 1])
        mesh.sh(node, "nft delete table inet watch")


def test_each_pair_is_found_in_each_network_and_status_names_both(networks: MeshLab) -> None:
    await_found(networks, DIRECT)
    for network, (interface, port, _) in INTERFACES.items():
        assert networks.sh("alice", f"wg show {interface} listen-port").strip() == str(port)
        assert networks.reaches("alice", networks.address("bob", network=network))
        served = endpoint(networks, "fra", interface, "alice")
        assert endpoint(networks, "bob", interface, "alice") == served, "by the outside of its NAT, a network's own"
    assert endpoint(networks, "alice", "wg0", "bob") != endpoint(networks, "alice", "wg1", "bob")
    until(lambda: networks.on_lab("status").code == 0, lambda: networks.on_lab("status").out)


def test_what_agents_say_and_probe_goes_by_the_networks_own_interface_and_port(networks: MeshLab) -> None:
    await_found(networks, DIRECT)
    words = ("-i", str(networks.path), "--lab", networks.name)
    with watched(networks, "alice") as sent:
        assert "everything is found out anew" in networks.run("agent", "rebind", "alice", *words).out
        await_found(networks, DIRECT)
    astray = sent.pop("astray")
    assert min(sent.values()) > 0, sent
    assert astray == 0, sent


def test_a_network_that_goes_takes_all_of_its_own_and_leaves_the_other_alone(networks: MeshLab) -> None:
    await_found(networks, DIRECT)
    assert spliced_ports(networks, "bob") == {51820, 51821}
    until(lambda: relays_are_kept(networks, "corp", "dmz"), lambda: [relays(networks, a) for a in ANCHORS])
    before = untouched(networks)

    networks.edit(without_dmz)
    with networks.lossless(("alice", "bob"), ("bob", "alice")):
        changed = changes_of(networks.apply("--allow-destructive"))
        assert set(changed) == set(NODES)
    assert untouched(networks) == before
    assert {network for network, _, _ in states(networks)} == {"corp"}

    until(lambda: relays_are_kept(networks, "corp"), lambda: [relays(networks, a) for a in ANCHORS])
    until(lambda: spliced_ports(networks, "bob") == {51820}, lambda: spliced_ports(networks, "bob"))
    for node in NODES:
        assert networks.sh(node, "wg show interfaces").split() == ["wg0"]
        assert networks.sh(node, "ls /etc/wireguard").split() == ["wg0.conf", "wg0.key", "wg1.key"], "the key stays"
        heard = networks.sh(node, "ss -Hlun; ss -Hltn")
        assert "10.42." in heard
        assert "10.43." not in heard
        assert ":51821 " not in heard
    assert networks.plan()["changes"] == []

    networks.reset()
    with networks.lossless(("alice", "bob"), ("bob", "alice")):
        networks.apply()
        await_found(networks, DIRECT)
    assert untouched(networks) == before


def without_dmz(document: dict[str, Any]) -> None:
    """The inventory with one network."""
    del document["networks"]["dmz"]
    for anchor, ip in ANCHORS.items():
        document["nodes"][anchor]["endpoint"] = f"{ip}:51820"


def untouched(mesh: MeshLab) -> list[str]:
    """What is the same while nobody touches the path of alice and bob in corp: its ends, and the runs of its units."""
    unit = "systemctl show -p InvocationID --value wg-quick@wg0"
    ends = [endpoint(mesh, "alice", "wg0", "bob"), endpoint(mesh, "bob", "wg0", "alice")]
    return [*ends, *(mesh.sh(node, unit) for node in ("alice", "bob"))]
