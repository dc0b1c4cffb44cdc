"""`meshctl plan` and `apply` as a person runs them, against hosts behind real sshd processes."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from sshlab import free_port
from sshmesh import ROOT, Mesh

from meshctl.cli import run as meshctl
from meshctl.deploy.sshtransport import SshTransport
from meshctl.deploy.transport import Completed


def statuses(nodes: dict[str, Any]) -> dict[str, str]:
    return {name: node["status"] for name, node in nodes.items()}


def test_the_first_apply_changes_and_the_second_does_not(mesh: Mesh) -> None:
    assert statuses(mesh.apply()) == {"one": "changed", "two": "changed"}
    assert mesh.hosts["one"].sh("cat /etc/app/motd; stat -c %a /etc/app/motd; nft list tables") == (
        "hello640\ntable inet meshctl\n"
    )
    before = mesh.hosts["one"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*")
    assert statuses(mesh.apply()) == {"one": "unchanged", "two": "unchanged"}
    assert mesh.hosts["one"].sh("stat -c %Y%i /etc/app/motd /var/lib/meshctl/*") == before
    assert "No changes." in mesh.run("apply", str(mesh.path)).stdout


def test_plan_shows_before_and_after_and_changes_nothing(mesh: Mesh) -> None:
    mesh.apply()
    mesh.motd = "good bye"
    mesh.write()
    done = mesh.run("plan", str(mesh.path), "--diff", "--limit", "one", "--detailed-exitcode")
    assert done.returncode == 2, done.stderr
    assert "~ update file /etc/app/motd" in done.stdout
    assert "-hello" in done.stdout
    assert "+good bye" in done.stdout
    assert "Plan: 0 to add, 1 to change, 0 to destroy." in done.stdout
    assert "two" not in done.stdout
    assert mesh.hosts["one"].sh("cat /etc/app/motd") == "hello"
    assert mesh.run("apply", str(mesh.path), "--check").returncode == 0
    assert mesh.hosts["one"].sh("cat /etc/app/motd") == "hello"


def test_plan_without_changes_exits_zero_with_detailed_exitcode(mesh: Mesh) -> None:
    mesh.apply()
    done = mesh.run("plan", str(mesh.path), "--detailed-exitcode")
    assert (done.returncode, done.stdout.strip()) == (0, "No changes. Every host is as the inventory says.")


def test_a_fresh_plan_file_is_applied_and_a_stale_one_is_refused_with_the_differences(mesh: Mesh) -> None:
    file = mesh.folder / "plan.json"
    file.write_text(mesh.run("plan", str(mesh.path), "-o", "json").stdout)
    assert mesh.run("apply", str(file), "-i", str(mesh.path)).returncode == 0
    mesh.motd = "next"
    mesh.write()
    file.write_text(mesh.run("plan", str(mesh.path), "-o", "json").stdout)
    mesh.hosts["two"].sh("printf next > /etc/app/motd")
    done = mesh.run("apply", str(file), "-i", str(mesh.path))
    assert done.returncode == 1
    assert "no longer to do: two update file /etc/app/motd" in done.stderr
    assert mesh.hosts["one"].sh("cat /etc/app/motd") == "hello", "nothing was touched"


def test_drift_is_repaired(mesh: Mesh) -> None:
    mesh.apply()
    mesh.hosts["one"].sh("echo drift > /etc/app/motd; nft flush table inet meshctl")
    nodes = mesh.apply()
    assert statuses(nodes) == {"one": "changed", "two": "unchanged"}
    assert {(c["kind"], c["name"]) for c in nodes["one"]["changes"]} == {
        ("file", "/etc/app/motd"), ("table", "inet meshctl"),
    }  # fmt: skip


def test_hosts_that_cannot_be_reached_are_named_and_the_others_go_on(mesh: Mesh) -> None:
    mesh.sshlab.start("stranger", trusted=False)
    mesh.nodes["stranger"] = {"ssh": {"port": mesh.sshlab.servers["stranger"].port}, "endpoint": "192.0.2.7:1"}
    mesh.nodes["closed"] = {"ssh": {"port": free_port()}, "endpoint": "192.0.2.8:1"}
    mesh.nodes["nowhere"] = {"ssh": {"host": "no-such-host.invalid"}, "endpoint": "192.0.2.9:1"}
    mesh.write()
    nodes = mesh.apply(code=1)
    assert statuses(nodes) == {
        "closed": "unreachable", "nowhere": "unreachable", "stranger": "unreachable",
        "one": "changed", "two": "changed",
    }  # fmt: skip
    assert {n: nodes[n]["error"]["kind"] for n in ("closed", "nowhere", "stranger")} == {
        "closed": "refused", "nowhere": "unreachable", "stranger": "host-key",
    }  # fmt: skip
    assert all(nodes[n]["error"]["hint"] for n in ("closed", "nowhere", "stranger"))
    done = mesh.run("plan", str(mesh.path), "-o", "json")
    assert done.returncode == 1
    assert {u["node"] for u in json.loads(done.stdout)["unreachable"]} == {"closed", "nowhere", "stranger"}


def test_a_full_disk_touches_nothing(mesh: Mesh) -> None:
    mesh.apply()
    mesh.motd = "next"
    mesh.write()
    mesh.hosts["one"].sh("head -c 20M /dev/zero > /var/lib/fill", check=False)
    nodes = mesh.apply(code=1)
    assert nodes["one"]["error"]["kind"] == "disk-full"
    assert statuses(nodes) == {"one": "failed", "two": "changed"}
    assert mesh.hosts["one"].sh("cat /etc/app/motd; find /etc/app -name '.meshctl*'") == "hello"
    mesh.hosts["one"].sh("rm /var/lib/fill")
    assert statuses(mesh.apply()) == {"one": "changed", "two": "unchanged"}


def test_a_host_without_python_says_what_to_install(mesh: Mesh) -> None:
    mesh.hosts["one"].sh("mount --bind /dev/null $(readlink -f /usr/bin/python3)")
    nodes = mesh.apply(code=1)
    assert statuses(nodes) == {"one": "failed", "two": "changed"}
    assert nodes["one"]["error"]["kind"] == "python"
    assert nodes["one"]["error"]["hint"] == "needs python3: apt-get install -y python3"


def test_no_other_wave_begins_once_more_hosts_have_failed_than_may(mesh: Mesh) -> None:
    mesh.apply("--forks", "1", "--serial", "100%")
    mesh.motd = "next"
    mesh.write()
    mesh.hosts["one"].sh("mount --bind /dev/null $(readlink -f /usr/bin/python3)")
    nodes = mesh.apply("--serial", "1", code=1)
    assert statuses(nodes) == {"one": "failed", "two": "skipped"}
    assert nodes["two"]["error"]["message"] == "not begun: 1 of 2 hosts failed (one), and --max-fail allows 0"
    assert mesh.hosts["two"].sh("cat /etc/app/motd") == "hello"
    assert statuses(mesh.apply("--serial", "1", "--max-fail", "50%", code=1)) == {"one": "failed", "two": "changed"}


def test_ctrl_c_ends_what_runs_starts_nothing_new_and_says_so(mesh: Mesh) -> None:
    mesh.apply()
    mesh.motd = "next"
    mesh.write()
    words = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), "--forks", "1"]
    process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "Applying" in line:
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    said = seen + out + err
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "not applied" in said
    assert mesh.hosts["two"].sh("cat /etc/app/motd") == "hello"


def test_a_host_that_lost_its_key_is_refused_until_the_new_one_is_accepted(mesh: Mesh) -> None:
    mesh.apply()
    mesh.hosts["one"].sh("rm /etc/wireguard/wg0.key; wg genkey > /etc/wireguard/wg0.key")
    error = mesh.apply(code=1)["one"]["error"]
    assert error["kind"] == "key-mismatch"
    done = mesh.run("lock", "-i", str(mesh.path), "--rekey", "one")
    assert done.returncode == 0, done.stderr
    assert statuses(mesh.apply()) == {"one": "changed", "two": "changed"}
    assert mesh.hosts["one"].sh("wg pubkey < /etc/wireguard/wg0.key") in mesh.hosts["two"].sh("wg show wg0 peers")


def test_a_stale_lock_is_refused_by_locked_before_anybody_is_contacted(mesh: Mesh) -> None:
    done = mesh.run("apply", str(mesh.path), "--locked")
    assert done.returncode == 1
    assert "the lock is stale" in done.stderr
    assert not any("Connection from" in line for server in mesh.sshlab.servers.values() for line in server.log)
    mesh.apply()
    assert mesh.run("apply", str(mesh.path), "--locked").returncode == 0


def test_removing_most_nodes_needs_allow_destructive(mesh: Mesh) -> None:
    mesh.apply()
    del mesh.nodes["two"]
    mesh.write()
    done = mesh.run("apply", str(mesh.path))
    assert done.returncode == 1
    assert "1 of 2 nodes are removed" in done.stderr
    assert "one loses its only peer" in done.stderr
    assert mesh.hosts["one"].sh("wg show wg0 peers").strip()
    assert mesh.run("apply", str(mesh.path), "--allow-destructive").returncode == 0
    assert not mesh.hosts["one"].sh("wg show wg0 peers").strip()


def test_the_private_key_is_in_nothing_that_the_controller_sent_received_printed_or_wrote(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    wire: list[bytes] = []
    real = SshTransport.run

    def recorded(self: SshTransport, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        done = real(self, command, stdin, timeout_s)
        wire.extend((command.encode(), stdin, done.stdout, done.stderr))
        return done

    monkeypatch.setattr(SshTransport, "run", recorded)
    caplog.set_level("DEBUG")
    assert meshctl(["apply", str(mesh.path), "--diff"]) == 0
    # An interface of the old kind, whose configuration holds the key: it is adopted, its key is still not read.
    key = mesh.hosts["one"].sh("cat /etc/wireguard/wg0.key").strip()
    mesh.hosts["one"].sh(
        f"printf '[Interface]\nPrivateKey = {key}\n' > /etc/wireguard/wg0.conf; rm /etc/wireguard/wg0.key"
    )
    assert meshctl(["plan", str(mesh.path), "--diff"]) == 0
    assert meshctl(["apply", str(mesh.path), "--diff", "-o", "json"]) == 0
    assert mesh.hosts["one"].sh("cat /etc/wireguard/wg0.key").strip() == key
    said = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in mesh.folder.rglob("*") if path.is_file())
    everything = b"".join(wire) + written + (said.out + said.err + caplog.text).encode()
    assert len(wire) > 20
    assert key.encode() not in everything
    assert base64.b64decode(key) not in everything


def test_naming_a_node_that_is_not_there_is_wrong_usage(mesh: Mesh) -> None:
    done = mesh.run("plan", str(mesh.path), "--limit", "onee")
    assert done.returncode == 64
    assert "did you mean one?" in done.stderr
