"""Keys are rotated while packets flow: both keys are valid until the new one carries them, whoever dies on the way.

Hunted: a pair that falls silent, a node that is half old and half new, a lock that says what no node has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import running
from jsonschema import Draft202012Validator
from meshlab import MeshLab, Run, await_decided

from meshctl import lab
from meshctl.inventory import load_schema

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
defaults: {ssh: {user: root}}
networks:
  corp: {cidr: [10.42.0.0/16, "fd42:42::/48"], policy: open}
nodes:
  hub:   {roles: [anchor], endpoint: "203.0.113.10:51820"}
  alice: {lab: {nat: easy}}
  web:   {endpoint: "203.0.113.20:51820", agent: false, keys: {rotate_every: 90d}}
"""
NODES = ("hub", "alice", "web")
PAIRS = tuple((a, b) for a in NODES for b in NODES if a != b)
WINDOW = ("--confirm-timeout", "30")
# Nothing of the host is heard, and nobody gets in.
OFF = """
systemctl stop ssh.socket ssh.service || systemctl stop ssh
nft 'table netdev off {
  chain in { type filter hook ingress device eth0 priority 0; policy drop; }
}'
"""
KILLER = "while :; do pkill -P 1 -f py[z].follow; sleep 0.05; done"
ON = "nft delete table netdev off; systemctl start ssh"


@pytest.fixture(scope="module")
def keys_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    with running(tmp_path_factory.mktemp("keys"), "keys", INVENTORY) as mesh:
        mesh.apply()
        for source, to in PAIRS:
            assert mesh.reaches(source, mesh.address(to)), f"{source} -> {to}"
        yield mesh


def keys(mesh: MeshLab, *words: str) -> Run:
    return mesh.run("keys", *words, "-i", str(mesh.path), "--lab", mesh.name)


def rotate(mesh: MeshLab, *words: str, code: int = 0) -> dict[str, Any]:
    done = keys(mesh, "rotate", *words, *WINDOW, "-o", "json")
    assert done.code == code, f"{done.out}\n{done.err}"
    document: dict[str, Any] = done.json()
    Draft202012Validator(load_schema("keys-rotate")).validate(document)
    return document


def state(mesh: MeshLab, node: str) -> dict[str, Any]:
    done = keys(mesh, "status", node, "-o", "json")
    document = done.json()
    Draft202012Validator(load_schema("keys-status")).validate(document)
    found: dict[str, Any] = document["keys"][0]
    return found


def pinned(mesh: MeshLab) -> dict[str, dict[str, str]]:
    lock = yaml.safe_load(lab.lock_path(mesh.name).read_text())
    return {name: networks["corp"] for name, networks in lock["nodes"].items()}


def works_with_its_pinned_key_alone(mesh: MeshLab, *nodes: str) -> None:
    lock = pinned(mesh)
    for node in nodes:
        assert not {"next_public_key", "cleanup_pending"} & lock[node].keys()
        assert mesh.sh(node, "wg show wg0 public-key; wg pubkey </etc/wireguard/wg0.key").split() == [
            lock[node]["public_key"]
        ] * 2
        assert mesh.sh(node, "ls /etc/wireguard/*.next 2>/dev/null || true") == ""
        peers = {lock[other]["public_key"] for other in NODES if other != node}
        assert set(mesh.sh(node, "wg show wg0 peers").split()) == peers
    assert mesh.plan()["changes"] == []


def test_every_key_of_a_mesh_is_rotated_while_all_pairs_talk(keys_mesh: MeshLab) -> None:
    before = pinned(keys_mesh)
    with keys_mesh.lossless(*PAIRS):
        assert {n: r["status"] for n, r in rotate(keys_mesh)["nodes"].items()} == dict.fromkeys(NODES, "rotated")
    after = pinned(keys_mesh)
    assert all(after[name]["public_key"] != before[name]["public_key"] for name in NODES)
    works_with_its_pinned_key_alone(keys_mesh, *NODES)


def test_a_peer_that_is_off_leaves_it_pending_and_comes_back_without_hands(keys_mesh: MeshLab) -> None:
    keys_mesh.sh("alice", OFF)
    try:
        found = rotate(keys_mesh, "web", code=1)["nodes"]["web"]
        assert (found["status"], [r["node"] for r in found["because"]]) == ("pending", ["alice"]), found
        told = state(keys_mesh, "web")
        assert (told["state"], told["prepared"], told["peers"], told["waits_for"]) == ("pending", 1, 2, ["alice"])
        assert keys_mesh.reaches("hub", keys_mesh.address("web"))
    finally:
        keys_mesh.sh("alice", ON)
    assert keys_mesh.reaches("alice", keys_mesh.address("web"))
    assert "rotation of web is pending" in keys_mesh.on_lab("plan").err
    keys_mesh.apply()
    told = state(keys_mesh, "web")
    assert (told["state"], told["prepared"], told["waits_for"]) == ("pending", 2, [])
    assert list(rotate(keys_mesh, "--pending")["nodes"]) == ["web"]
    works_with_its_pinned_key_alone(keys_mesh, *NODES)
    lock = pinned(keys_mesh)
    assert rotate(keys_mesh, "--pending")["nodes"] == {}
    assert pinned(keys_mesh) == lock


def test_a_peer_that_does_not_follow_has_the_node_take_its_old_key_again(keys_mesh: MeshLab) -> None:
    before = pinned(keys_mesh)["web"]["public_key"]
    # Who follows dies as soon as it is on its own.
    keys_mesh.sh("hub", f"systemd-run --quiet --unit=killer sh -c '{KILLER}'")
    try:
        found = rotate(keys_mesh, "web", code=1)["nodes"]["web"]
    finally:
        keys_mesh.sh("hub", "systemctl stop killer")
    assert found["status"] == "pending"
    assert "hub (wg0) hears it by its next key, and has not followed" in found["because"][0]["message"]
    assert keys_mesh.sh("web", "wg show wg0 public-key").strip() == pinned(keys_mesh)["web"]["public_key"] == before
    for source, to in PAIRS:
        assert keys_mesh.reaches(source, keys_mesh.address(to)), f"{source} -> {to}"
    rotate(keys_mesh, "--pending")
    works_with_its_pinned_key_alone(keys_mesh, *NODES)


def test_no_rollback_leads_over_a_rotation(keys_mesh: MeshLab) -> None:
    rotate(keys_mesh, "web")
    for words in (["web", "--to", "1"], ["web", "--to", "2"], ["hub", "--to", "1"], ["hub", "--to", "2"], []):
        done = keys_mesh.run("rollback", *words, "-i", str(keys_mesh.path), "--lab", keys_mesh.name, "-o", "json")
        assert done.code == 1, f"{words}: {done.out}\n{done.err}"
        nodes = done.json()["nodes"]
        failed = {name: node["error"]["kind"] for name, node in nodes.items() if node["error"]}
        assert set(failed.values()) == {"rotated"}, f"{words}: {done.out}"
        assert {node["status"] for node in nodes.values()} <= {"failed", "unchanged"}
    works_with_its_pinned_key_alone(keys_mesh, *NODES)


def test_a_controller_that_dies_in_the_middle_of_a_switch_leaves_the_old_key(keys_mesh: MeshLab) -> None:
    before = pinned(keys_mesh)["web"]["public_key"]
    words = ["keys", "rotate", "web", "-i", str(keys_mesh.path), "--lab", keys_mesh.name, *WINDOW]
    with subprocess.Popen([sys.executable, "-m", "meshctl", *words], stderr=subprocess.PIPE, text=True) as controller:
        assert controller.stderr is not None
        for line in controller.stderr:
            if line.startswith("  web: changed"):  # by the switch: nothing else changes on web
                break
        controller.kill()
    assert keys_mesh.reaches("hub", keys_mesh.address("web"))
    await_decided(keys_mesh, "web")
    assert keys_mesh.sh("web", "wg show wg0 public-key").strip() == pinned(keys_mesh)["web"]["public_key"] == before
    for source, to in PAIRS:
        assert keys_mesh.reaches(source, keys_mesh.address(to)), f"{source} -> {to}"
    rotate(keys_mesh)
    assert pinned(keys_mesh)["web"]["public_key"] != before
    works_with_its_pinned_key_alone(keys_mesh, *NODES)


def test_a_lock_that_is_behind_its_node_is_set_right_by_any_apply(keys_mesh: MeshLab) -> None:
    path = Path(lab.lock_path(keys_mesh.name))
    old = pinned(keys_mesh)["web"]["public_key"]
    rotate(keys_mesh, "web")
    new = pinned(keys_mesh)["web"]["public_key"]
    path.write_text(path.read_text().replace(f'public_key: "{new}"', f'public_key: "{old}", next_public_key: "{new}"'))
    assert state(keys_mesh, "web")["state"] == "switched"
    keys_mesh.apply()
    works_with_its_pinned_key_alone(keys_mesh, *NODES)


def test_a_new_mesh_secret_is_applied_while_all_pairs_talk(keys_mesh: MeshLab) -> None:
    shared = "wg show wg0 preshared-keys | cut -f 2 | sort"
    before = {node: keys_mesh.sh(node, shared) for node in NODES}
    secret = Path(lab.secret_file(keys_mesh.name))
    with keys_mesh.lossless(*PAIRS):
        secret.write_text(f"{secret.read_text().strip()} and another\n")
        keys_mesh.apply()
    after = {node: keys_mesh.sh(node, shared) for node in NODES}
    assert all(set(after[node].split()).isdisjoint(before[node].split()) for node in NODES)
    assert keys_mesh.plan()["changes"] == []


def test_a_key_that_is_older_than_it_should_be_is_said_to_be(keys_mesh: MeshLab) -> None:
    assert "rotate_every" not in keys_mesh.on_lab("plan").err
    keys_mesh.sh("web", "touch -d '100 days ago' /etc/wireguard/wg0.key")
    assert "web (100 days); `meshctl keys rotate web`" in keys_mesh.on_lab("plan").err
    assert state(keys_mesh, "web")["is_due"] is True


def test_a_stolen_node_is_cut_off_and_no_old_checkout_lets_it_in_again(keys_mesh: MeshLab) -> None:
    path = Path(lab.lock_path(keys_mesh.name))
    before, key = path.read_text(), pinned(keys_mesh)["web"]["public_key"]
    keys_mesh.sh("alice", OFF)
    first = keys_mesh.run("revoke", "web", "-i", str(keys_mesh.path), "--lab", keys_mesh.name, "-o", "json")
    keys_mesh.sh("alice", ON)
    assert first.code == 1, first.err
    document = first.json()
    Draft202012Validator(load_schema("revoke")).validate(document)
    assert {name: node["done"] for name, node in document["nodes"].items()} == {"hub": True, "alice": False}
    assert list(document["revoked"]) == ["web"]
    assert document["revoked"]["web"][0] == key  # and those that it had before
    again = keys_mesh.run("revoke", "web", "-i", str(keys_mesh.path), "--lab", keys_mesh.name)
    assert again.code == 0, again.out
    for node in ("hub", "alice"):
        assert key not in keys_mesh.sh(node, "wg show all peers; cat /etc/wireguard/wg0.conf")
        assert keys_mesh.is_denied("web", keys_mesh.address(node))
    assert keys_mesh.sh("web", "wg show wg0 peers").strip()  # it was not asked
    nodes = keys_mesh.apply()
    assert sorted(nodes) == ["alice", "hub"]
    told = keys_mesh.on_lab("plan")
    assert "No changes" in told.out
    assert "revoked, so left out: web" in told.err
    now = path.read_text()
    path.write_text(before)
    refused = keys_mesh.apply("--limit", "hub,alice", code=1)
    assert {node["error"]["kind"] for node in refused.values()} == {"revoked"}
    path.write_text(now)
