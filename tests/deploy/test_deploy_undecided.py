"""A rotation that was killed in the window of an apply, and what others do meanwhile. Hunted: a lock with a key that
its node gives back at the end of the window, and peers that have lost the one that it then has."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sshmesh import Mesh

from meshctl.deploy.applier import agent_command
from meshctl.deploy.options import RunOptions
from meshctl.deploy.progress import Silent
from meshctl.deploy.rotate import rotate
from meshctl.inventory import load_schema, read
from meshctl.inventory.lock import LockEntry
from meshctl.model.places import PENDING_PATH, REVERT_LINK
from meshctl.render.secret import ring_for

OF_BEFORE_A_BOOT = f"""sed -i 's/"boot": "[^"]*"/"boot": "before"/' {PENDING_PATH}"""
END_OF_WINDOW = f"{OF_BEFORE_A_BOOT}; {agent_command(REVERT_LINK, 'revert')}"
BOTH_KEYS = "wg show wg0 peers"


@pytest.fixture
def talking(mesh: Mesh) -> Mesh:
    """Hosts with a wire between them, whose pair has a session. They see their own interfaces in /sys."""
    one, two = mesh.hosts["one"], mesh.hosts["two"]
    ends = [host.namespaces[2].split("/")[2] for host in (one, two)]
    subprocess.run(
        ["ip", "link", "add", "wire", "netns", ends[0], "type", "veth", "peer", "name", "wire", "netns", ends[1]],
        check=True,
    )
    for number, host in enumerate((one, two), 1):
        host.sh(f"mount -t sysfs sysfs /sys; ip address add 192.0.2.{number}/24 dev wire; ip link set wire up")
    mesh.apply("--confirm", "off")
    assert_they_talk(mesh)
    return mesh


def entry(mesh: Mesh, node: str = "two") -> LockEntry:
    return read(mesh.path).lock.entry(node, "corp")


def assert_they_talk(mesh: Mesh) -> None:
    """Within the seconds that a peer takes to follow."""
    for source, to in (("one", "two"), ("two", "one")):
        (address,) = entry(mesh, to).addresses
        pings = f"for i in 1 2 3 4 5 6 7 8; do ping -c 1 -W 1 {address} && exit; done"
        assert "1 received" in mesh.hosts[source].sh(pings), f"{source} -> {to}"


class KilledError(BaseException):
    """As by SIGKILL: nothing is done about it."""


class Killer(Silent):
    """Ends a rotation just before a node is confirmed, once a command in host `where` says `end`."""

    def __init__(self, mesh: Mesh, where: str, command: str) -> None:
        self._host, self._command = mesh.hosts[where], command

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:  # noqa: ARG002
        if phase == "confirming" and "end" in self._host.sh(self._command):
            raise KilledError


def killed_rotation(mesh: Mesh, where: str, command: str) -> None:
    inventory = read(mesh.path)
    options = RunOptions(confirm_timeout_s=600.0, who="ann@desk")
    with pytest.raises(KilledError):
        rotate(inventory, ring_for(inventory.mesh), options, ["two"], None, Killer(mesh, where, command))


@pytest.fixture
def switched(talking: Mesh) -> tuple[Mesh, LockEntry]:
    """Node two works with its next key, and nobody has confirmed that."""
    before = entry(talking).public_key
    killed_rotation(talking, "two", f"wg show wg0 public-key | grep -q {before} || echo end")
    found = entry(talking)
    assert found.public_key == before
    assert live_key(talking) == str(found.next_public_key)
    return talking, found


def live_key(mesh: Mesh) -> str:
    return mesh.hosts["two"].sh("wg show wg0 public-key").strip()


def keys(mesh: Mesh, *words: str, code: int = 0) -> dict[str, Any]:
    done = mesh.run("keys", words[0], "-i", str(mesh.path), "-o", "json", *words[1:])
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    Draft202012Validator(load_schema(f"keys-{words[0]}")).validate(document)
    return document


def test_a_key_that_its_node_may_give_back_is_not_the_one_that_counts(switched: tuple[Mesh, LockEntry]) -> None:
    mesh, before = switched
    both = {str(before.public_key), str(before.next_public_key)}
    for command in (("apply",), ("keys", "rotate", "--pending"), ("keys", "rotate", "two"), ("keys", "rotate", "one"),
                    ("lock", "--rekey", "two")):  # fmt: skip
        done = mesh.run(*command, "-i", str(mesh.path))
        assert done.returncode == 1, done.stdout + done.stderr
        assert "waits to be confirmed" in done.stdout + done.stderr
        assert "not cleaned up" not in done.stdout
        assert entry(mesh) == before, command
        assert both <= set(mesh.hosts["one"].sh(BOTH_KEYS).split()), command
    assert_they_talk(mesh)
    mesh.hosts["two"].sh(END_OF_WINDOW)
    assert live_key(mesh) == str(before.public_key)
    assert_they_talk(mesh)
    done = mesh.run("keys", "rotate", "--pending", "-i", str(mesh.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert live_key(mesh) == str(entry(mesh).public_key) == str(before.next_public_key)
    assert str(before.public_key) not in mesh.hosts["one"].sh(BOTH_KEYS)
    assert_they_talk(mesh)


def test_a_node_that_may_go_back_is_said_to_wait_and_not_to_have_old_keys(switched: tuple[Mesh, LockEntry]) -> None:
    mesh, _ = switched
    (key,) = keys(mesh, "status", "two")["keys"]
    assert (key["state"], key["waits_for"]) == ("unconfirmed", ["two"])
    told = mesh.run("keys", "status", "two", "-i", str(mesh.path)).stdout
    assert "it takes its old key again unless that is confirmed; `meshctl apply --resume` decides it" in told
    planned = mesh.run("plan", "-i", str(mesh.path)).stderr
    assert "two: works with its next key, and takes the old one again unless that is confirmed" in planned
    assert "works with its next key already" not in planned
    document = keys(mesh, "rotate", "--pending", code=1)
    (because,) = document["nodes"]["two"]["because"]
    assert document["nodes"]["two"]["status"] == "pending"
    assert because["node"] == "two"
    assert because["message"].startswith("an apply of ann@desk, begun ")
    assert because["message"].endswith(", waits to be confirmed there")
    assert document["behind"] == {}


@pytest.mark.parametrize("command", [("apply",), ("keys", "rotate", "--pending")], ids=" ".join)
def test_a_switch_that_is_confirmed_after_all_counts(
    switched: tuple[Mesh, LockEntry], command: tuple[str, ...]
) -> None:
    mesh, before = switched
    assert mesh.run("confirm", "--yes", "-i", str(mesh.path), "--limit", "two").returncode == 0
    done = mesh.run(*command, "-i", str(mesh.path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (entry(mesh).public_key, entry(mesh).next_public_key) == (before.next_public_key, None)
    assert str(before.public_key) not in mesh.hosts["one"].sh(BOTH_KEYS)
    assert_they_talk(mesh)


def test_a_switch_that_nobody_may_confirm_any_more_is_undone_first_and_done_anew(
    switched: tuple[Mesh, LockEntry],
) -> None:
    mesh, before = switched
    mesh.hosts["two"].sh(OF_BEFORE_A_BOOT)
    assert keys(mesh, "rotate", "--pending")["nodes"]["two"]["status"] == "rotated"
    assert live_key(mesh) == str(entry(mesh).public_key) == str(before.next_public_key)
    assert_they_talk(mesh)


def test_a_peer_that_may_lose_the_next_key_again_has_the_node_wait(talking: Mesh) -> None:
    mesh, one = talking, talking.hosts["one"]
    killed_rotation(mesh, "one", "test $(wg show wg0 peers | wc -l) = 2 && echo end; true")
    before = entry(mesh)
    assert str(before.next_public_key) in one.sh(BOTH_KEYS)
    (key,) = keys(mesh, "status", "two")["keys"]
    assert (key["state"], key["prepared"], key["waits_for"]) == ("pending", 0, ["one"])
    node = keys(mesh, "rotate", "--pending", code=1)["nodes"]["two"]
    assert (node["status"], [reason["node"] for reason in node["because"]]) == ("pending", ["one"])
    assert live_key(mesh) == str(before.public_key) == str(entry(mesh).public_key)
    one.sh(END_OF_WINDOW)
    assert str(before.next_public_key) not in one.sh(BOTH_KEYS)
    assert_they_talk(mesh)
    assert keys(mesh, "rotate", "--pending")["nodes"]["two"]["status"] == "rotated"
    assert_they_talk(mesh)
