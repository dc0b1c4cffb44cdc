"""Ways into a node, and a node that changes its place: jump host and mesh, sudo, learned host keys, networks, names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshlab import MeshLab, Run, changes_of

from meshctl import inventory, lab
from meshctl.lab.door import LabDoor

pytestmark = pytest.mark.lab

KEY = "cat /etc/wireguard/wg0.key | wg pubkey"
ADDRESS = "ip -4 -o addr show dev eth0 | awk '{sub(\"/.*\", \"\", $4); print $4}'"


def test_after_the_bootstrap_a_node_is_reached_by_jump_host_and_mesh_alone(small: MeshLab) -> None:
    assert LabDoor(small.name).by_mesh("home1")
    small.edit(lambda d: d["defaults"].update(mtu=1380))
    assert set(changes_of(small.apply())) == {"fra1", "nyc1", "web1", "home1"}
    assert small.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1380"

    small.sh("nyc1", "systemctl stop ssh")
    try:
        nodes = small.apply(code=1)
    finally:
        small.sh("nyc1", "systemctl start ssh")
    assert nodes["home1"]["status"] == "unreachable"
    assert nodes["home1"]["error"]["message"].startswith("jump host nyc1")


class Production:
    """The lab's hosts as production: by their own addresses over the lab's internet, as a user with sudo."""

    def __init__(self, small: MeshLab, folder: Path) -> None:
        self.small = small
        self.path = folder / "inventory.yml"
        self.known_hosts = folder / "known_hosts"
        self.document = copy.deepcopy(small.original)
        ssh = {"user": "ops", "sudo": True, "config": "none", "known_hosts": str(self.known_hosts),
               "key": str(lab.state_dir(small.name) / "id_ed25519")}  # fmt: skip
        self.document["defaults"]["ssh"] = ssh
        for node in ("fra1", "nyc1", "web1"):
            self.document["nodes"][node]["ssh"] = {"host": small.sh(node, ADDRESS).strip()}
        (folder / "inventory.lock.yml").write_text(lab.lock_path(small.name).read_text())
        self.write()

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.document, sort_keys=False))

    def run(self, command: str, *words: str) -> Run:
        secret = str(lab.secret_file(self.small.name))
        words = (command, str(self.path), "--secret-file", secret, "-o", "json", *words)
        return self.small.from_inside("nyc1", *words)

    def apply(self, *words: str, code: int = 0) -> dict[str, Any]:
        done = self.run("apply", *words)
        assert done.code == code, done.err
        nodes: dict[str, Any] = done.json()["nodes"]
        return nodes


@pytest.fixture
def production(small: MeshLab, tmp_path: Path) -> Production:
    script = (
        "id ops >/dev/null 2>&1 || useradd -m -s /bin/sh ops;"
        " install -d -o ops ~ops/.ssh; install -o ops /root/.ssh/authorized_keys ~ops/.ssh/;"
        " echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops"
    )
    for node in ("fra1", "nyc1", "web1", "home1"):
        small.sh(node, script)
    return Production(small, tmp_path)


def test_a_user_with_sudo_gets_in_once_the_host_keys_are_learned(production: Production) -> None:
    production.document["defaults"]["mtu"] = 1390
    production.write()
    nodes = production.apply(code=1)
    assert {(n["status"], n["error"]["kind"]) for n in nodes.values()} == {("unreachable", "host-key")}
    assert not production.known_hosts.exists()
    nodes = production.apply("--accept-new-host-keys")
    assert {node["status"] for node in nodes.values()} == {"changed"}
    assert len(production.known_hosts.read_text().splitlines()) == len(nodes), "each key once, the jump's too"
    assert {node["status"] for node in production.apply().values()} == {"unchanged"}, "and they are known now"
    assert production.small.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1390"
    assert production.small.sh("web1", "stat -c '%U %a' /etc/wireguard/wg0.key /etc/wireguard/wg0.conf") == (
        "root 600\nroot 600\n"
    )


def test_a_renamed_node_keeps_its_key_and_its_tunnels(production: Production) -> None:
    small = production.small
    key = small.sh("web1", KEY)
    production.apply("--accept-new-host-keys")
    nodes = production.document["nodes"]
    address = small.address("web1")
    nodes["www1"] = {**nodes.pop("web1"), "address": {"corp": address, "dmz": small.address("web1", network="dmz")}}
    production.write()
    refused = production.run("apply")
    assert refused.code == 1
    assert "web1 is removed while others use its endpoint" in refused.err
    with small.lossless(("home1", "web1"), ("fra1", "web1")):
        changed = changes_of(production.apply("--allow-destructive"))
    assert {kind for changes in changed.values() for kind, _, _ in changes} <= {"file", "table"}
    assert {node["status"] for node in production.apply().values()} == {"unchanged"}
    mesh = inventory.read(production.path).mesh
    assert str(mesh.nodes["www1"].attachments[0].public_key) == key.strip()


def test_a_node_in_two_networks_has_an_interface_in_each_and_comes_back_with_its_key(small: MeshLab) -> None:
    shown = small.run("client", "show", "home2", "-i", str(small.path), "--lab", small.name, "--conf", "--rekey")
    assert shown.code == 0, shown.err
    small.apply()
    small.sh("home2", f"umask 077; mkdir -p /etc/wireguard; cat > /etc/wireguard/wg1.conf <<'EOF'\n{shown.out}\nEOF")
    small.sh("home2", "wg-quick up wg1 2>&1")
    dmz = small.address("web1", network="dmz")
    key = small.sh("web1", "cat /etc/wireguard/wg1.key")
    try:
        assert small.reaches("home2", dmz)
        assert small.reaches("home1", small.address("web1"))
        assert small.is_denied("home2", small.address("web1")), "one network does not lead into the other"

        small.edit(lambda d: d["nodes"]["web1"].update(networks=["corp"], endpoint="203.0.113.20:51820"))
        small.edit(lambda d: d["nodes"].pop("home2"))
        with small.lossless(("home1", "web1")):
            small.apply("--allow-destructive")
        assert small.sh("web1", "wg show interfaces").split() == ["wg0"]
        assert small.sh("web1", "ls /etc/wireguard").split() == ["wg0.conf", "wg0.key", "wg1.key"], "the key stays"

        small.reset()
        with small.lossless(("home1", "web1")):
            small.apply()
        assert small.sh("web1", "cat /etc/wireguard/wg1.key") == key
    finally:
        small.sh("home2", "wg-quick down wg1 2>&1")
    assert json.dumps(small.plan()["changes"]) == "[]"
