"""A rotation that was cut short between the switch and the clean-up. Hunted: an old key that lets its thief in after
`meshctl revoke`, since nobody remembered it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sshmesh import Mesh

from meshctl.deploy.options import OFF, RunOptions
from meshctl.deploy.progress import Silent
from meshctl.deploy.rotate import rotate
from meshctl.inventory import load_schema, read, write_lock
from meshctl.model.keys import PublicKey
from meshctl.render.secret import ring_for

NAMES_IT = "wg show all peers; cat /etc/wireguard/wg0.conf"
LEDGER = "/var/lib/meshctl/ledger.json"


@pytest.fixture
def applied(mesh: Mesh) -> Mesh:
    """A mesh whose hosts see their own interfaces in /sys, where a node that switches looks for them."""
    for host in mesh.hosts.values():
        host.sh("mount -t sysfs sysfs /sys")
    mesh.apply("--confirm", "off")
    return mesh


class KilledError(BaseException):
    """As by SIGKILL: nothing is done about it."""


class Killer(Silent):
    """Ends a rotation as soon as the lock has node two's new key, before anybody has lost the old one."""

    def __init__(self, mesh: Mesh, old: str) -> None:
        self._mesh, self._old = mesh, old

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:  # noqa: ARG002
        if str(read(self._mesh.path).lock.entry("two", "corp").public_key) != self._old:
            raise KilledError


@pytest.fixture
def old(applied: Mesh) -> str:
    """The key that node two had before a rotation that was killed after the switch."""
    mesh = applied
    key = mesh.hosts["two"].sh("wg show wg0 public-key").strip()
    inventory = read(mesh.path)
    with pytest.raises(KilledError):
        rotate(inventory, ring_for(inventory.mesh), RunOptions(confirm=OFF), ["two"], None, Killer(mesh, key))
    entry = read(mesh.path).lock.entry("two", "corp")
    assert str(entry.public_key) == mesh.hosts["two"].sh("wg show wg0 public-key").strip() != key
    assert entry.next_public_key is None
    assert key in mesh.hosts["one"].sh(NAMES_IT)
    return key


def without_memory(mesh: Mesh) -> None:
    """The lock as it was written before it kept old keys."""
    lock = read(mesh.path).lock_path
    lock.write_text(re.sub(r", old_public_keys: [^}]*", "", lock.read_text()))


def revoke(mesh: Mesh) -> dict[str, Any]:
    done = mesh.run("revoke", "two", "-i", str(mesh.path), "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def state(mesh: Mesh, code: int = 0) -> tuple[str, list[str]]:
    """Of node two's key, and for whom it waits."""
    done = mesh.run("keys", "status", "two", "-i", str(mesh.path), "-o", "json")
    assert done.returncode == code, done.stdout + done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(load_schema("keys-status")).validate(document)
    (key,) = document["keys"]
    return key["state"], key["waits_for"]


@pytest.mark.parametrize("booted", [False, True])
def test_an_old_key_that_was_not_cleaned_up_is_revoked_with_its_node(mesh: Mesh, old: str, booted: bool) -> None:
    one = mesh.hosts["one"]
    if booted:  # a boot gives the AllowedIPs to the key that comes first in the file
        one.sh(f"wg set wg0 peer {old} allowed-ips {read(mesh.path).lock.entry('two', 'corp').addresses[0]}/32")
    document = revoke(mesh)
    assert old in document["revoked"]["two"]
    assert old not in one.sh(NAMES_IT)
    assert old in json.loads(one.sh(f"cat {LEDGER}"))["revoked"]
    assert old in map(str, read(mesh.path).lock.revoked["two"].keys)
    assert read(mesh.path).lock.keys_of("two") == ()


@pytest.mark.parametrize("booted", [False, True])
def test_a_lock_that_does_not_remember_it_lets_nobody_stay_in_either(mesh: Mesh, old: str, booted: bool) -> None:
    without_memory(mesh)
    one = mesh.hosts["one"]
    if booted:
        one.sh(f"wg set wg0 peer {old} allowed-ips {read(mesh.path).lock.entry('two', 'corp').addresses[0]}/32")
    revoke(mesh)
    assert old not in one.sh(NAMES_IT)


def test_what_the_ledger_has_forgotten_is_known_by_the_address_that_it_has(applied: Mesh) -> None:
    one, (address,) = applied.hosts["one"], read(applied.path).lock.entry("two", "corp").addresses
    key = str(PublicKey("B" * 42 + "A="))
    one.sh(f"wg set wg0 peer {key} allowed-ips {address}/32")
    revoke(applied)
    assert key not in one.sh(NAMES_IT)


def test_a_peer_that_an_apply_would_remove_too_stays_until_there_is_one(applied: Mesh) -> None:
    mesh, one, key = applied, applied.hosts["one"], PublicKey("B" * 42 + "A=")
    mesh.nodes["three"] = {"ssh": {"port": 1}}
    mesh.write()
    write_lock(read(mesh.path).with_keys({("three", "corp"): key}))
    mesh.apply("--confirm", "off", "--limit", "one,two")
    assert str(key) in one.sh("wg show wg0 peers")
    del mesh.nodes["three"]
    mesh.write()
    revoke(mesh)
    assert str(key) in one.sh("wg show wg0 peers"), "it is no thief, and may be somebody's way in"
    assert str(key) in json.loads(one.sh(f"cat {LEDGER}"))["interfaces"]["wg0"]["peers"]
    mesh.apply("--confirm", "off", "--allow-destructive")
    assert str(key) not in one.sh(NAMES_IT)


def test_a_checkout_from_before_a_rotation_lets_nobody_in_again(applied: Mesh) -> None:
    mesh = applied
    lock = read(mesh.path).lock_path
    before, old = lock.read_text(), str(read(mesh.path).lock.entry("two", "corp").public_key)
    inventory = read(mesh.path)
    assert rotate(inventory, ring_for(inventory.mesh), RunOptions(confirm=OFF), ["two"]).ok
    revoke(mesh)
    lock.write_text(before)
    refused = mesh.apply("--limit", "one", "--confirm", "off", code=1)
    assert refused["one"]["error"]["kind"] == "revoked"
    assert old not in mesh.hosts["one"].sh(NAMES_IT)


def test_keys_status_says_who_has_an_old_key_until_an_apply_has_removed_it(mesh: Mesh, old: str) -> None:
    assert state(mesh) == ("cleanup", ["one"])
    told = mesh.run("keys", "status", "-i", str(mesh.path)).stdout
    assert "old keys still on one; `meshctl apply` removes them" in told
    mesh.apply("--confirm", "off", "--limit", "two")
    assert state(mesh) == ("cleanup", ["one"])
    mesh.apply("--confirm", "off")
    assert old not in mesh.hosts["one"].sh(NAMES_IT)
    assert state(mesh) == ("current", [])
    entry = read(mesh.path).lock.entry("two", "corp")
    assert (list(map(str, entry.old_public_keys)), entry.cleanup_pending) == ([old], False)


def test_who_is_away_may_have_an_old_key_as_long_as_no_apply_has_reached_it(mesh: Mesh, old: str) -> None:
    mesh.sshlab.servers["one"].process.kill()
    assert state(mesh, code=1) == ("cleanup", ["one"])
    without_memory(mesh)
    assert state(mesh) == ("current", [])


def test_a_rotation_that_comes_to_its_end_has_nothing_to_clean_up(applied: Mesh) -> None:
    mesh = applied
    inventory = read(mesh.path)
    assert rotate(inventory, ring_for(inventory.mesh), RunOptions(confirm=OFF), ["two"]).ok
    entry = read(mesh.path).lock.entry("two", "corp")
    assert (len(entry.old_public_keys), entry.cleanup_pending) == (1, False)
    assert state(mesh) == ("current", [])
