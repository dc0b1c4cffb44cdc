"""What somebody did by hand is shown by `plan` and put right by `apply`; what is not ours is left alone."""

from __future__ import annotations

import pytest
from meshlab import MeshLab, changes_of

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("wg set wg0 peer $(wg show wg0 peers | head -1) remove", "peer"),
        ("wg set wg0 peer $(wg show wg0 peers | head -1) allowed-ips 10.42.77.0/24", "peer"),
        ("wg set wg0 peer $(wg show wg0 peers | head -1) preshared-key /dev/null", "peer"),
        ("wg set wg0 listen-port 40000", "listen-port"),
        ("wg set wg0 private-key /dev/stdin < /dev/null", "key"),
        ("ip link set wg0 mtu 1300", "mtu"),
        ("ip -4 addr flush dev wg0", "address"),
        ("ip route del 192.168.10.0/24 dev wg0", "route"),
        ("echo >> /etc/wireguard/wg0.conf", "file"),
        ("chmod 644 /etc/wireguard/wg0.conf", "file"),
        ("rm /etc/wireguard/wg0.conf", "file"),
        ("systemctl stop wg-quick@wg0", "unit"),
        ("systemctl disable wg-quick@wg0", "unit"),
        ("systemctl mask --now wg-quick@wg0", "unit"),
        ("nft flush chain inet meshctl input", "table"),
        ("nft delete table inet meshctl", "table"),
    ],
)
def test_drift_made_by_hand_is_shown_by_plan_and_repaired_by_apply(mesh: MeshLab, script: str, kind: str) -> None:
    node = "home1"
    mesh.sh(node, script)
    shown = {(c["node"], c["kind"]) for c in mesh.plan()["changes"]}
    assert (node, kind) in shown
    assert {n for n, _ in shown} == {node}
    assert set(changes_of(mesh.apply())) == {node}
    assert mesh.plan()["changes"] == []
    assert mesh.reaches(node, mesh.address("home2"))


def test_a_roamed_endpoint_and_a_changed_keepalive_are_the_agents_and_no_drift(mesh: MeshLab) -> None:
    peer = "$(wg show wg0 peers | head -1)"
    mesh.sh("home1", f"wg set wg0 peer {peer} endpoint 203.0.113.77:9 persistent-keepalive 7")
    assert mesh.plan()["changes"] == []
    mesh.sh("home1", "systemctl restart wg-quick@wg0")


def test_a_foreign_peer_and_a_foreign_table_are_left_alone(mesh: MeshLab) -> None:
    mesh.sh("nyc1", "wg set wg0 peer $(wg genkey | wg pubkey) allowed-ips 172.31.9.9/32; nft add table inet theirs")
    before = mesh.sh("nyc1", "wg show wg0 allowed-ips | sort; nft list table inet theirs")
    mesh.edit(lambda d: d["nodes"]["nyc1"].update(mtu=1390))
    assert set(changes_of(mesh.apply())) >= {"nyc1"}
    assert mesh.sh("nyc1", "wg show wg0 allowed-ips | sort; nft list table inet theirs") == before
    mesh.sh("nyc1", "wg set wg0 peer $(wg show wg0 allowed-ips | grep 172.31.9.9 | cut -f 1) remove")
    mesh.sh("nyc1", "nft delete table inet theirs")


def test_a_stale_plan_is_refused(mesh: MeshLab) -> None:
    mesh.edit(lambda d: d["nodes"]["home1"].update(mtu=1390))
    saved = mesh.path.parent / "plan.json"
    saved.write_text(mesh.on_lab("plan", "-o", "json").out)
    mesh.sh("home1", "ip link set wg0 mtu 1300")
    words = ("apply", str(saved), "-i", str(mesh.path), "--lab", mesh.name)
    refused = mesh.run(*words)
    assert refused.code == 1
    assert "home1" in refused.err
    assert mesh.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1300", "nothing was touched"
    mesh.sh("home1", "ip link set wg0 mtu 1420")
    assert mesh.run(*words).code == 0
    assert mesh.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1390"
