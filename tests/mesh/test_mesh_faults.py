"""One host fails in its own way; the others go on, and the next apply succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from meshlab import MeshLab, changes_of

from meshctl import lab

pytestmark = pytest.mark.lab


# Stands before the real `ip` and, at the first change that it is asked for, ends every SSH session of the host.
CUTS_SSH = """#!/bin/sh
case "$*" in *"link set"*) pkill -f 'sshd: root' ;; esac
exec /usr/sbin/ip "$@"
"""


def change_every_node(mesh: MeshLab) -> None:
    """Give apply something to do on every node."""
    mesh.edit(lambda d: d["defaults"].update(mtu=1400))


def test_a_host_that_is_down_is_named_and_the_others_go_on(mesh: MeshLab) -> None:
    change_every_node(mesh)
    mesh.sh("home1", "systemctl stop ssh.socket ssh.service || systemctl stop ssh")
    try:
        nodes = mesh.apply(code=1)
        assert nodes["home1"]["status"] == "unreachable"
        assert {n["status"] for name, n in nodes.items() if name != "home1"} == {"changed"}
        assert "home1" in nodes["home1"]["error"]["message"] or nodes["home1"]["error"]["kind"] == "refused"
    finally:
        mesh.sh("home1", "systemctl start ssh")
    assert set(changes_of(mesh.apply())) == {"home1"}


def test_a_host_with_another_host_key_is_refused(mesh: MeshLab) -> None:
    change_every_node(mesh)
    mesh.sh("home1", "mkdir /root/keys; mv /etc/ssh/ssh_host_* /root/keys/; ssh-keygen -A; systemctl restart ssh")
    try:
        nodes = mesh.apply(code=1)
        assert nodes["home1"]["status"] == "unreachable"
        assert nodes["home1"]["error"]["kind"] == "host-key"
    finally:
        mesh.sh("home1", "mv -f /root/keys/ssh_host_* /etc/ssh/; rmdir /root/keys; systemctl restart ssh")


def test_a_full_disk_fails_before_anything_is_touched(mesh: MeshLab) -> None:
    change_every_node(mesh)
    state = "cat /etc/wireguard/wg0.conf; wg show wg0 allowed-ips | sort; cat /sys/class/net/wg0/mtu"
    before = mesh.sh("home1", state)
    mesh.sh("home1", "mount -t tmpfs -o size=64k tmpfs /var/lib/meshctl")
    mesh.sh("home1", "head -c 1M /dev/zero > /var/lib/meshctl/fill || true")
    try:
        nodes = mesh.apply(code=1)
        assert nodes["home1"]["status"] == "failed"
        assert nodes["home1"]["error"]["kind"] == "disk-full"
        assert mesh.sh("home1", state) == before
    finally:
        mesh.sh("home1", "umount /var/lib/meshctl")
    assert set(changes_of(mesh.apply())) == {"home1"}


def test_ssh_cut_in_the_middle_of_an_apply_leaves_a_node_that_goes_back(mesh: MeshLab) -> None:
    change_every_node(mesh)
    # The node's applier stops the very sshd session that it was started from, as a lost link would.
    mesh.sh("home1", f"cat > /usr/local/bin/ip <<'EOF'\n{CUTS_SSH}\nEOF\nchmod +x /usr/local/bin/ip")
    try:
        nodes = mesh.apply(code=1)
        assert nodes["home1"]["status"] == "failed", "it was reached, and then lost"
        error = nodes["home1"]["error"]
        assert (error["kind"], error["step"]) == ("unreachable", "apply")
        assert "the node may still be finishing what it has begun; it was undone" in error["message"]
        assert {n["status"] for name, n in nodes.items() if name != "home1"} == {"changed"}
    finally:
        mesh.sh("home1", "rm /usr/local/bin/ip")
    assert mesh.sh("home1", "cat /sys/class/net/wg0/mtu").strip() == "1420", "as it said"
    assert mesh.sh("home1", "find /etc /opt/meshctl /var/lib/meshctl -name '.meshctl-*'") == "", "nothing is left over"
    assert {name for name, n in mesh.apply().items() if n["status"] == "changed"} == {"home1"}
    assert mesh.plan()["changes"] == []
    assert mesh.reaches("home1", mesh.address("home2"))


def test_ctrl_c_says_what_was_applied_and_leaves_no_half_written_file(mesh: MeshLab) -> None:
    change_every_node(mesh)
    words = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), "--lab", mesh.name, "--forks", "1"]
    env = {**os.environ, "CI": "true"}
    process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "changed" in line:
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "not applied" in out + seen + err
    assert "Traceback" not in out + seen + err


def test_a_reboot_brings_the_mesh_back(mesh: MeshLab) -> None:
    done = mesh.run("lab", "reboot", "--name", mesh.name, "home1")
    assert done.code == 0, done.err
    assert mesh.plan()["changes"] == [], "what boots is what was applied"
    assert mesh.reaches("home1", mesh.address("home2"))
    assert mesh.reaches("home1", "192.168.10.10")


def test_an_existing_interface_is_adopted_without_dropping_it(mesh: MeshLab) -> None:
    """A wg0 that wg-quick made by hand, with a peer of its own, becomes ours while its traffic goes on."""
    before = mesh.sh("nyc1", "wg show wg0 private-key")
    # Forget that meshctl was ever here: only the interface and its classic configuration stay.
    mesh.sh(
        "nyc1",
        "cd /etc/wireguard; printf 'PrivateKey = %s\\n' $(cat wg0.key) > /tmp/k;"
        " sed -i '/PostUp/d;/\\[Interface\\]/r /tmp/k' wg0.conf; rm -r /tmp/k wg0.key /var/lib/meshctl /opt/meshctl",
    )
    with mesh.lossless(("fra1", "nyc1"), ("nyc1", "home2")):
        mesh.apply()
    assert mesh.sh("nyc1", "cat /etc/wireguard/wg0.key; wg show wg0 private-key") == before + before
    assert "PrivateKey" not in mesh.sh("nyc1", "cat /etc/wireguard/wg0.conf")


def test_the_controller_never_sees_a_private_key(mesh: MeshLab) -> None:
    keys = [mesh.sh(n, "cat /etc/wireguard/wg0.key").strip() for n in ("fra1", "nyc1", "office", "home1", "home2")]
    change_every_node(mesh)
    outputs = [mesh.on_lab("plan", "--diff"), mesh.on_lab("apply", "--diff"), mesh.on_lab("plan", "-o", "json")]
    said = "".join(o.out + o.err for o in outputs)
    written = "".join(
        p.read_text(errors="replace")
        for folder in (mesh.path.parent, lab.lock_path(mesh.name).parent)
        for p in folder.glob("*")
        if p.is_file()
    )
    assert not [k for k in keys if k in said or k in written]
