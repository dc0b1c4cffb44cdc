"""`meshctl revoke` on hosts behind real sshd processes. Hunted: a thief that a boot, the end of a window or somebody
else's apply lets in again, while all is said to be done."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sshmesh import Mesh

from meshctl.inventory import load_schema
from meshctl.model.places import PENDING_PATH

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
