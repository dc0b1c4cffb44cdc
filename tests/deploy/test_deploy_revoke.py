"""`meshctl revoke` on hosts behind real sshd processes. Hunted: a thief that a boot, the end of a window or somebody
else's apply lets in again, while all is said to be done."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hosts import Host, start
from jsonschema import Draft202012Validator
from sshlab import SshLab
from sshmesh import Mesh

from meshctl.deploy import revoke as revoking
from meshctl.deploy.options import RunOptions
from meshctl.inventory import Inventory, load_schema, read
from meshctl.model.mesh import Node, SshSettings
from meshctl.model.places import PENDING_PATH
from meshctl.render.secret import ring_for

NAMES_IT = "wg show all peers; cat /etc/wireguard/wg0.conf"
LEDGER = "/var/lib/meshctl/ledger.json"


@pytest.fixture
def thief(mesh: Mesh) -> str:
    """The key of node two, a peer of node one's."""
    mesh.apply("--confirm", "off")
    key = mesh.hosts["two"].sh("wg show wg0 public-key").strip()
    assert key in mesh.hosts["one"].sh("wg show wg0 peers")
    return key


def revoke(mesh: Mesh, code: int = 0) -> dict[str, Any]:
    done = mesh.run("revoke", "two", "-i", str(mesh.path), "-o", "json")
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    Draft202012Validator(load_schema("revoke")).validate(document)
    return document


def test_what_was_cut_short_half_way_is_not_done_until_no_file_names_the_thief(mesh: Mesh, thief: str) -> None:
    one = mesh.hosts["one"]
    # Nothing can take the place of a mount: the ledger's intent is written, and the file for the next boot is not.
    one.sh("mount --bind /etc/wireguard/wg0.conf /etc/wireguard/wg0.conf")
    assert revoke(mesh, code=1)["nodes"]["one"]["done"] is False
    one.sh("umount /etc/wireguard/wg0.conf")
    assert thief in one.sh("cat /etc/wireguard/wg0.conf")
    assert revoke(mesh)["nodes"]["one"]["done"] is True
    assert thief not in one.sh(NAMES_IT)
    assert thief in json.loads(one.sh(f"cat {LEDGER}"))["revoked"]


def test_a_host_whose_ledger_has_the_key_and_a_file_too_is_not_done(mesh: Mesh, thief: str) -> None:
    one = mesh.hosts["one"]
    one.sh("cp /etc/wireguard/wg0.conf /run/before")
    revoke(mesh)
    one.sh("cat /run/before >/etc/wireguard/wg0.conf")
    revoke(mesh)
    assert thief not in one.sh(NAMES_IT)


def test_a_file_of_somebody_elses_that_names_the_thief_is_told(mesh: Mesh, thief: str) -> None:
    mesh.hosts["one"].sh("cp /etc/wireguard/wg0.conf /etc/wireguard/own.conf")
    error = revoke(mesh, code=1)["nodes"]["one"]["error"]
    assert (error["kind"], "/etc/wireguard/own.conf" in error["message"]) == ("not-converged", True)
    mesh.hosts["one"].sh("rm /etc/wireguard/own.conf")
    assert revoke(mesh)["nodes"]["one"]["done"] is True


def test_what_an_apply_would_change_besides_is_left_alone_once_all_have_heard(mesh: Mesh, thief: str) -> None:
    revoke(mesh)
    one = mesh.hosts["one"]
    one.sh("echo '# drift' >>/etc/wireguard/wg0.conf")
    revoke(mesh)
    assert "# drift" in one.sh("cat /etc/wireguard/wg0.conf")


def test_an_apply_that_waits_to_be_confirmed_is_undone_and_brings_nobody_back(mesh: Mesh, thief: str) -> None:
    one = mesh.hosts["one"]
    mesh.motd = "changed"
    mesh.write()
    mesh.apply("--limit", "one", "--confirm", "manual", "--confirm-timeout", "600")
    document = revoke(mesh)
    assert document["nodes"]["one"]["done"] is True
    assert "one: an apply of " in document["warnings"][0]
    assert "that waited to be confirmed was undone" in document["warnings"][0]
    assert thief not in one.sh(NAMES_IT)
    assert one.sh(f"ls {PENDING_PATH} 2>/dev/null || true") == ""
    assert one.sh("cat /etc/app/motd") == "hello"


def test_an_apply_that_is_at_work_is_waited_for(mesh: Mesh, thief: str) -> None:
    one = mesh.hosts["one"]
    busy = subprocess.Popen([*one.namespaces, "flock", "/run/meshctl/apply.lock", "sleep", "6"])
    try:
        assert revoke(mesh)["nodes"]["one"]["done"] is True
    finally:
        busy.wait(timeout=20)
    assert thief not in one.sh(NAMES_IT)


@pytest.fixture
def chain(sshlab: SshLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    """Node three is reached by way of two, and four by way of three."""
    monkeypatch.setenv("MESHCTL_SECRET", secrets.token_urlsafe(48))
    hosts = start(sshlab, "one", "two", "three", "four")
    try:
        mesh = Mesh(sshlab, hosts)
        mesh.nodes["three"]["ssh"]["jump"] = "two"
        mesh.nodes["four"]["ssh"]["jump"] = "three"
        mesh.write()
        mesh.apply("--confirm", "off")
        yield mesh
    finally:
        for host in hosts.values():
            host.close()


def test_no_way_leads_through_the_thief_and_who_is_behind_it_is_named_with_what_to_do(chain: Mesh) -> None:
    thief = chain.hosts["two"].sh("wg show wg0 public-key").strip()
    logins = chain.sshlab.servers["two"].log
    before = len(logins)
    nodes = revoke(chain, code=1)["nodes"]
    assert {name: node["done"] for name, node in nodes.items()} == {"one": True, "three": False, "four": False}
    assert logins[before:] == [], "nobody asked the thief's own sshd"
    for name, way in (("three", "two"), ("four", "three, behind two")):
        error = nodes[name]["error"]
        assert f"by way of {way}, which is revoked" in error["message"]
        assert error["hint"] == "give three another `ssh.jump`, and run revoke again"
        assert thief in chain.hosts[name].sh(NAMES_IT), "half of it would be worse than nothing: see the next boot"
    assert thief not in chain.hosts["one"].sh(NAMES_IT)
    assert thief in json.loads(chain.hosts["one"].sh(f"cat {LEDGER}"))["revoked"]

    chain.nodes["three"]["ssh"]["jump"] = "one"
    del chain.nodes["two"]
    chain.write()
    revoke(chain)
    assert logins[before:] == []
    for name in ("one", "three", "four"):
        assert thief not in chain.hosts[name].sh(NAMES_IT)
        assert thief in json.loads(chain.hosts[name].sh(f"cat {LEDGER}"))["revoked"]


class ByMesh:
    """Says that SSH connects to the nodes' addresses in the mesh, and connects to them all the same."""

    def __init__(self, mesh: Mesh, inventory: Inventory) -> None:
        self._lab = mesh.sshlab
        with mesh.sshlab.known_hosts.open("a") as known:
            for node in inventory.mesh.nodes.values():
                settings = self.settings(node)
                known.write(f"[{settings.host}]:{settings.port} {mesh.sshlab.servers[node.name].host_key}\n")

    def settings(self, node: Node) -> SshSettings:
        return replace(node.ssh, host=node.attachments[0].addresses[0])

    def open(self, node: Node) -> socket.socket | None:
        return socket.create_connection(("127.0.0.1", self._lab.servers[node.name].port), timeout=5)


# The connection is gone before WireGuard has done what it is told over it.
CUT = """#!/bin/sh
case "$*" in *remove*) if mkdir /run/cut; then {how}; fi;; esac
exec /opt/wg "$@"
"""


def cut_by_removal(host: Host, how: str) -> None:
    """Whoever removes a peer on the host first does this."""
    host.sh(f"""cp "$(command -v wg)" /opt/wg
cat >/opt/cut <<'END'\n{CUT.format(how=how)}END
chmod 755 /opt/cut; mount --bind /opt/cut "$(command -v wg)" """)


def inside(mesh: Mesh) -> tuple[Inventory, str]:
    """The mesh, whose only anchor is node two, and two's key."""
    mesh.nodes["two"] |= {"roles": ["anchor"], "vars": {"relay_ports": "40000-49999"}}
    (mesh.folder / "roles" / "anchor" / "tasks").mkdir(parents=True)
    (mesh.folder / "roles" / "anchor" / "tasks" / "main.yml").write_text("[]\n")
    del mesh.nodes["one"]["endpoint"]  # so that who comes from outside needs the anchor to get there
    mesh.write()
    mesh.apply("--confirm", "off")
    return read(mesh.path), mesh.hosts["two"].sh("wg show wg0 public-key").strip()


def test_a_host_whose_connection_the_thief_carries_ends_it_by_itself(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "AWAY_S", 3.0)
    inventory, thief = inside(mesh)
    one, server = mesh.hosts["one"], mesh.sshlab.servers["one"].process.pid
    cut_by_removal(one, f"kill -STOP {server}; pkill -KILL -P {server}")
    try:
        found = revoking.revoke(inventory, ring_for(inventory.mesh), RunOptions(), ["two"], ByMesh(mesh, inventory))
    finally:
        os.kill(server, signal.SIGCONT)
    error = found.nodes["one"]
    assert error is not None
    assert "by way of two, which is revoked" in error.message
    assert "`ssh.host` or `ssh.jump`" in error.hint
    await_that(lambda: thief in json.loads(one.sh(f"cat {LEDGER}"))["revoked"])
    assert thief not in one.sh(NAMES_IT)


@pytest.mark.parametrize("end", ["KILL", "STOP"])
def test_a_connection_that_the_cut_itself_ends_is_made_anew(
    mesh: Mesh, thief: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """It went by what the inventory does not know of, as a ProxyCommand's."""
    monkeypatch.setattr(revoking, "COMMAND_TIMEOUT_S", 8.0)
    one, server = mesh.hosts["one"], mesh.sshlab.servers["one"].process.pid
    cut_by_removal(one, f"pgrep -P {server} >/run/ended; pkill -{end} -P {server}")
    inventory = read(mesh.path)
    try:
        found = revoking.revoke(inventory, ring_for(inventory.mesh), RunOptions(), ["two"])
    finally:
        for pid in one.sh("cat /run/ended").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    assert found.nodes == {"one": None}
    assert thief not in one.sh(NAMES_IT)
    assert thief in json.loads(one.sh(f"cat {LEDGER}"))["revoked"]


def await_that(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
