"""Pre-shared keys that one end of a pair would get without the other. Hunted: an apply that is confirmed, for the
session of before lives on, and after which nobody hears anybody three minutes later."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest
from sshmesh import ROOT, Mesh

QUICK = ("--confirm", "off")


def psks(mesh: Mesh) -> dict[str, list[str]]:
    return {name: host.sh("wg show wg0 preshared-keys | cut -f 2").split() for name, host in mesh.hosts.items()}


@pytest.fixture
def applied(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> str:
    """The mesh was applied once; a mesh secret that is not the one that it was applied with is set now. The first."""
    mesh.apply(*QUICK)
    first = os.environ["MESHCTL_SECRET"]
    monkeypatch.setenv("MESHCTL_SECRET", secrets.token_urlsafe(48))
    return first


def talk(mesh: Mesh) -> None:
    """The two have a session."""
    pid = mesh.hosts["two"].namespaces[1].split("/")[2]
    mesh.hosts["one"].sh(f"ip link add up0 type veth peer name up0 netns {pid}")
    for number, name in enumerate(("one", "two"), 1):
        mesh.hosts[name].sh(f"ip addr add 192.0.2.{number}/24 dev up0 && ip link set up0 up")
    to = mesh.hosts["two"].sh("ip -4 -o addr show wg0").split()[3].split("/")[0]
    mesh.hosts["one"].sh(f"for n in 1 2 3 4 5 6 7 8 9; do ping -qc 1 -W 1 {to} && exit; done; exit 1")


def test_one_end_alone_does_not_get_another_pre_shared_key(
    mesh: Mesh, applied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = psks(mesh)
    assert before["one"] == before["two"] != []
    done = mesh.run("apply", str(mesh.path), *QUICK, "--limit", "one")
    assert done.returncode == 1
    assert "one would have another pre-shared key than two, which this run does not change" in done.stderr
    assert "mesh secret" in done.stderr
    assert psks(mesh) == before
    mesh.apply(*QUICK, "--limit", "one", "--allow-destructive")
    after = psks(mesh)
    assert after["one"] != before["one"]
    shown = done.stdout + done.stderr
    assert not [psk for found in (before, after) for psk in found["one"] if psk in shown]
    assert "sensitive" not in shown
    # Back to what the other end has needs no word.
    monkeypatch.setenv("MESHCTL_SECRET", applied)
    assert mesh.apply(*QUICK, "--limit", "one")["one"]["status"] == "changed"
    assert psks(mesh) == before


def test_both_ends_in_one_run_get_another_one_and_a_plan_says_whose_all_are(mesh: Mesh, applied: str) -> None:
    before = psks(mesh)
    warning = "another mesh secret than the one that was applied last"
    assert warning in mesh.run("plan", str(mesh.path)).stderr
    assert {node["status"] for node in mesh.apply(*QUICK).values()} == {"changed"}
    after = psks(mesh)
    assert after["one"] == after["two"] != before["one"]
    assert warning not in mesh.run("plan", str(mesh.path)).stderr


def test_a_peer_that_is_not_reached_is_not_left_alone_while_it_talks(mesh: Mesh, applied: str) -> None:
    before = psks(mesh)
    talk(mesh)
    local = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), *QUICK, "--local", "--limit", "one"]
    alone = subprocess.run(
        [*mesh.hosts["one"].namespaces, *local], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert alone.returncode == 1
    assert "than two (not reached), which this run does not change" in alone.stderr
    mesh.sshlab.servers["two"].stop()
    done = mesh.run("apply", str(mesh.path), *QUICK)
    assert done.returncode == 1
    assert "one would have another pre-shared key than two (not reached), which this run does not change" in done.stderr
    assert psks(mesh) == before


def test_who_is_off_holds_up_no_new_mesh_secret(mesh: Mesh, applied: str) -> None:
    mesh.sshlab.servers["two"].stop()
    nodes = mesh.apply(*QUICK, code=1)
    assert nodes["one"]["status"] == "changed"
    assert nodes["two"]["status"] == "unreachable"
