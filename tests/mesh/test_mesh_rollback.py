"""Going back to a state that was applied before, in a mesh that one of its hosts is reached by. Hunted: a host that is
locked out by it, a key that is lost with its network, and a plan that sees a difference too many or none."""

from __future__ import annotations

import json
from difflib import unified_diff
from typing import Any

import pytest
from meshlab import MeshLab, await_decided
from meshstate import BOOTED, LIVE, state
from test_mesh_confirm import WINDOW, role

pytestmark = pytest.mark.lab

# A network of its own for two of the hosts, by where they are in it.
LAN = {"cidr": ["10.44.0.0/16"], "policy": "open", "interface": "wg2", "listen_port": 51822}
PLACES = {
    "web1": {"corp": "203.0.113.20:51820", "dmz": "203.0.113.20:51821", "lan": "203.0.113.20:51822"},
    "nyc1": {"corp": "198.51.100.10:51820", "lan": "198.51.100.10:51822"},
}
KEYS = "cd /etc/wireguard; grep . *.key"


def back(mesh: MeshLab, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """`meshctl rollback WORDS`; the nodes of its document."""
    done = mesh.run("rollback", "-i", str(mesh.path), "--lab", mesh.name, "-o", "json", *words)
    assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
    nodes: dict[str, dict[str, Any]] = done.json()["nodes"]
    return nodes


def history(mesh: MeshLab, node: str) -> list[dict[str, Any]]:
    done = mesh.run("history", node, "-i", str(mesh.path), "--lab", mesh.name, "-o", "json")
    entries: list[dict[str, Any]] = done.json()["nodes"][node]["entries"]
    return entries


def without_new_keys(mesh: MeshLab, node: str) -> list[str]:
    return [line for line in state(mesh, node, LIVE) if "wg2.key" not in line]


def test_a_network_that_was_born_goes_from_the_whole_mesh_and_its_keys_stay(small: MeshLab) -> None:
    before = {node: without_new_keys(small, node) for node in PLACES}
    small.edit(lambda d: d["networks"].update(lan=LAN))
    for node, places in PLACES.items():
        small.edit(lambda d, node=node, places=places: d["nodes"][node].update(endpoint=places, networks=[*places]))
    small.apply()
    address = small.address("nyc1", network="lan")
    assert small.reaches("web1", address)
    keys = {node: small.sh(node, KEYS) for node in PLACES}
    nodes = back(small)
    assert {name: node["status"] for name, node in nodes.items()} == {
        "fra1": "unchanged", "home1": "unchanged", "nyc1": "changed", "web1": "changed"}  # fmt: skip
    assert ("interface", "delete", "wg2") in {
        (c["kind"], c["action"], c["name"]) for c in nodes["web1"]["changes"]}  # fmt: skip
    for node, was in before.items():
        assert [*unified_diff(was, without_new_keys(small, node), node, n=0, lineterm="")] == []
    assert {node: small.sh(node, KEYS) for node in PLACES} == keys
    assert {c["node"] for c in small.plan()["changes"] if c["name"] == "wg2"} == {*PLACES}
    back(small)
    assert small.plan()["changes"] == []
    assert small.reaches("web1", address)


def test_a_rollback_that_closes_the_way_in_is_undone_by_the_node(small: MeshLab) -> None:
    shut = f"ip saddr {small.address('fra1')} tcp dport 22 drop"
    rules = f"table inet app {{ chain in {{ type filter hook input priority 0; policy accept; {shut}; }}; }}\n"
    role(small, tasks__main_yml="- nftables: {table: app, src: app.j2}\n", templates__app_j2=rules)
    small.apply()
    small.reset()
    small.apply()
    small.edit(lambda d: d["nodes"]["home1"]["ssh"].update(jump="fra1"))
    before = state(small, "home1")
    home1 = back(small, "home1", *WINDOW, code=1)["home1"]
    assert home1["status"] == "failed"
    assert home1["error"]["kind"] == "unconfirmed"
    await_decided(small, "home1")
    assert state(small, "home1") == before
    assert small.plan()["changes"] == []


def test_a_power_cut_in_a_rollback_brings_the_host_up_as_it_was_before_it(small: MeshLab) -> None:
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390))
    small.apply()
    there = history(small, "web1")[0]["id"]
    before = state(small, "web1", BOOTED)
    back(small, "web1", "--confirm", "manual", "--confirm-timeout", "600")
    assert state(small, "web1", BOOTED) != before
    assert small.run("lab", "reboot", "--name", small.name, "--power-cut", "web1").code == 0
    await_decided(small, "web1")
    small.sh("web1", "timeout 30 systemctl is-system-running --wait || true")
    assert state(small, "web1", BOOTED) == before
    newest, applied, *_ = history(small, "web1")
    assert (newest["became"], newest["present"]) == ("undone", False)
    assert "the host was started anew" in newest["why"]
    assert (applied["id"], applied["present"]) == (there, True)
    told = json.loads(small.sh("web1", "cat /var/lib/meshctl/undone.json"))
    assert told["id"] == newest["id"]


def test_no_secret_of_the_hosts_is_in_what_is_shown(small: MeshLab) -> None:
    secrets = set()
    for node in ("web1", "fra1"):
        secrets |= set(small.sh(node, "cat /etc/wireguard/*.key; wg show all preshared-keys | cut -f 3").split())
    done = small.run("history", "-i", str(small.path), "--lab", small.name, "-o", "json")
    shown = done.out + done.err + small.run("history", "-i", str(small.path), "--lab", small.name).out
    assert "public_key" in shown
    assert [secret for secret in secrets - {"(none)"} if secret in shown] == []
