"""An endpoint whose name does not resolve: a warning, and nothing else is held up by it, not even the next boot."""

from __future__ import annotations

import pytest
from meshlab import MeshLab, changes_of

pytestmark = pytest.mark.lab

NAME = "fra1.example.net:51820"
# From the start of the unit to its end, in seconds.
START_TIME = """
for what in ExecMainStart ExecMainExit; do
  systemctl show -p ${what}TimestampMonotonic --value wg-quick@wg0
done"""
WG_QUICK_MAX_S = 5.0


def test_a_dead_name_holds_up_neither_the_apply_nor_the_boot_and_is_set_when_it_resolves(small: MeshLab) -> None:
    key = small.sh("fra1", "wg show wg0 public-key").strip()
    small.edit(lambda d: d["defaults"].update(mtu=1400))
    # No name server answers, as at a boot without a network: wg calls that temporary and would try for ever.
    small.sh("home1", f"sed -i 's/^hosts:.*/hosts: dns/' /etc/nsswitch.conf; wg set wg0 peer {key} remove")
    # Nor does fra1 say something first, which is to be confirmed: that would tell where it is.
    done = small.on_lab("apply", "-o", "json", "--confirm", "off")
    assert done.code == 0, done.err
    assert f"Warning: home1: wg0: endpoint {NAME} is not set" in done.err
    document = done.json()
    assert any(text.startswith(f"home1: wg0: endpoint {NAME} is not set") for text in document["warnings"])
    nodes = document["nodes"]
    assert {node["status"] for node in nodes.values()} == {"changed"}
    assert small.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1400"
    assert f"{key}\t(none)" in small.sh("home1", "wg show wg0 endpoints")
    assert waiting(small) == [("home1", "wg0 fra1", {"endpoint": NAME})]

    again = small.on_lab("apply")
    assert again.code == 0, again.err
    assert "is not set" in again.err
    assert "No changes" not in again.out

    assert small.run("lab", "reboot", "--name", small.name, "home1").code == 0
    started, ended = (int(us) for us in small.sh("home1", START_TIME).split())
    assert (ended - started) / 1e6 < WG_QUICK_MAX_S
    assert small.reaches("home1", small.address("web1"))
    assert waiting(small) == [("home1", "wg0 fra1", {"endpoint": NAME})]

    small.sh("home1", "sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf")
    assert changes_of(small.apply()) == {"home1": [("peer", "update", "wg0 fra1")]}
    assert small.reaches("home1", small.address("fra1"))
    assert small.plan()["changes"] == []


def waiting(mesh: MeshLab) -> list[tuple[str, str, dict[str, str]]]:
    """What `plan` still shows: node, name and wish of each change."""
    return [(c["node"], c["name"], c["after"]) for c in mesh.plan()["changes"]]


def test_a_name_that_resolves_is_set_by_the_boot_itself(small: MeshLab) -> None:
    key = small.sh("fra1", "wg show wg0 public-key").strip()
    assert small.run("lab", "reboot", "--name", small.name, "web1").code == 0
    # Sooner than fra1 would come by itself.
    small.sh("web1", f"timeout 5 sh -c 'until wg show wg0 endpoints | grep -q {key}.*:51820; do sleep 0.05; done'")
    assert small.plan()["changes"] == []
