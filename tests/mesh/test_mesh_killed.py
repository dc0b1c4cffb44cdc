"""Somebody dies in the middle of an apply: the controller, the applier, or the operator's patience."""

from __future__ import annotations

import json
import re
import signal

import pytest
from meshlab import LOCK, MeshLab, await_decided, await_end, await_held, changes_of, held, read_until

from meshctl.cli.origin import author

pytestmark = pytest.mark.lab

# A service that reads its file when it starts.
ROLE = {
    "tasks": """
- copy: {dest: /etc/app.conf, content: "{{ vars.setting }}", mode: "0644"}
  notify: restart app
- copy:
    dest: /etc/systemd/system/app.service
    mode: "0644"
    content: "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/cp /etc/app.conf /run/app\\n"
- service: {name: app, state: started}
""",
    "handlers": "- {name: restart app, service: {name: app, state: restarted}}\n",
}
WINDOW = ("--confirm-timeout", "30")
NODES = ("fra1", "nyc1", "web1", "home1")
MTU = "cat /sys/class/net/wg0/mtu"
LATEST_JOURNAL = "tail -n 1 $(ls /var/lib/meshctl/journal/*.jsonl | tail -n 1)"


def kill_applier(mesh: MeshLab, node: str) -> None:
    """The applier alone: the command that it waits for is ended by who undoes this."""
    mesh.sh(node, f"kill -9 $(sed -n 's/pid \\([0-9]*\\) .*/\\1/p' {LOCK})")


def nothing_half_done(mesh: MeshLab, node: str) -> None:
    """What another apply finds to do is done, and no temporary file is left."""
    mesh.apply()
    assert mesh.plan()["changes"] == []
    assert mesh.sh(node, MTU).strip() == "1390"
    assert mesh.sh(node, "find /etc /var/lib/meshctl /opt/meshctl -name '.meshctl-*'") == ""
    assert mesh.reaches(node, mesh.address("nyc1"))


def test_a_killed_controller_leaves_a_node_that_finishes_by_itself_and_goes_back(small: MeshLab) -> None:
    with held(small, "web1"), small.start(*WINDOW) as controller:
        await_held(small, "web1")
        controller.kill()
        controller.communicate()
        assert small.sh("web1", MTU).strip() != "1390"
    await_end(small, "web1")
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1380))
    error = small.apply("--limit", "web1", code=1)["web1"]["error"]
    small.edit(lambda d: d["nodes"]["web1"].pop("mtu"))
    assert error["kind"] == "locked"
    assert f"an apply of {author()}, begun 20" in error["message"]
    assert json.loads(small.sh("web1", LATEST_JOURNAL))["ok"] is True
    assert small.sh("web1", MTU).strip() == "1390"
    await_decided(small, *NODES)
    assert small.sh("web1", MTU).strip() != "1390"
    nothing_half_done(small, "web1")


def test_a_killed_applier_is_said_to_be_and_what_it_did_is_undone(small: MeshLab) -> None:
    with held(small, "web1"), small.start("-o", "json", "--max-fail", "1") as controller:
        await_held(small, "web1")
        kill_applier(small, "web1")
        out, err = controller.communicate(timeout=60)
    assert controller.returncode == 1, err
    nodes = json.loads(out)["nodes"]
    assert nodes["web1"]["status"] == "failed"
    error = nodes["web1"]["error"]
    assert error["kind"] == "interrupted"
    assert "the applier was killed" in error["message"]
    assert "run apply again" in error["hint"]
    assert small.sh("web1", "ls /var/lib/meshctl/pending.json || true") == ""
    assert {node["status"] for name, node in nodes.items() if name != "web1"} == {"changed"}
    assert "1390" not in small.sh("web1", "cat /sys/class/net/wg0/mtu /etc/wireguard/wg0.conf")
    nothing_half_done(small, "web1")


def test_a_handler_that_the_killed_applier_did_not_come_to_is_run_by_the_next_apply(small: MeshLab) -> None:
    for name, text in ROLE.items():
        path = small.path.parent / "roles" / "app" / name / "main.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"], vars={"setting": "old"}))
    small.apply()
    assert small.sh("web1", "cat /run/app") == "old"
    small.edit(lambda d: d["nodes"]["web1"].update(vars={"setting": "new"}))
    with held(small, "web1"), small.start() as controller:
        await_held(small, "web1")
        kill_applier(small, "web1")
        controller.communicate(timeout=60)
        assert small.sh("web1", "cat /etc/app.conf; cat /run/app") == "oldold"
    changed = changes_of(small.apply())["web1"]
    assert ("handler", "run", "restart app") in changed
    assert small.sh("web1", "cat /run/app") == "new"
    nothing_half_done(small, "web1")


def test_one_ctrl_c_waits_for_all_that_run(small: MeshLab) -> None:
    with held(small, "web1"), small.start("--limit", "!nyc1") as controller:
        await_held(small, "web1")
        controller.send_signal(signal.SIGINT)
        read_until(controller.stderr, "Interrupted: waiting for")
        small.sh("web1", "rm /run/hold")
        out, err = controller.communicate(timeout=60)
    assert controller.returncode == 0, out + err
    nothing_half_done(small, "web1")


def test_a_second_ctrl_c_leaves_the_node_to_itself_and_says_so(small: MeshLab) -> None:
    with held(small, "web1"), small.start(*WINDOW) as controller:
        await_held(small, "web1")
        controller.send_signal(signal.SIGINT)
        assert "web1" in read_until(controller.stderr, "Interrupted: waiting for")
        controller.send_signal(signal.SIGINT)
        out, err = controller.communicate(timeout=20)
        assert controller.returncode == 1
        assert "web1: interrupted: interrupted: was being applied, the node finishes or undoes it by itself" in out
        assert "Traceback" not in out + err
    await_end(small, "web1")
    await_decided(small, *NODES)
    nothing_half_done(small, "web1")


def test_a_second_apply_meanwhile_is_told_who_is_at_work(small: MeshLab) -> None:
    with held(small, "web1"), small.start() as controller:
        await_held(small, "web1")
        nodes = small.apply("--limit", "web1", code=1)
        assert nodes["web1"]["error"]["kind"] == "locked"
        words = rf"another apply is running \(pid \d+ since 20.*, for {author()}\)"
        assert re.search(words, nodes["web1"]["error"]["message"])
        small.sh("web1", "rm /run/hold")
        controller.communicate(timeout=60)
    nothing_half_done(small, "web1")


def test_a_busy_package_manager_is_told_before_anything_is_touched(small: MeshLab) -> None:
    hold = 'import fcntl,time; f=open("/var/lib/dpkg/lock-frontend","w"); fcntl.lockf(f, 2)'
    small.sh("web1", f"systemd-run -q --unit=busy python3 -c '{hold}; open(\"/run/busy\",\"w\"); time.sleep(600)'")
    small.sh("web1", "timeout 20 sh -c 'while [ ! -e /run/busy ]; do sleep 0.05; done'")
    before = small.sh("web1", f"cat /etc/wireguard/wg0.conf; {MTU}")
    small.edit(lambda d: d["defaults"].update(mtu=1390))
    packages = {"wireguard_packages": ["wireguard-tools", "tcpdump"]}
    small.edit(lambda d: d["nodes"]["web1"].update(vars=packages))
    try:
        nodes = small.apply("--max-fail", "1", code=1)
    finally:
        small.sh("web1", "systemctl stop busy; rm -f /run/busy")
    assert nodes["web1"]["status"] == "failed"
    assert nodes["web1"]["error"]["kind"] == "package-lock"
    assert {node["status"] for name, node in nodes.items() if name != "web1"} == {"changed"}
    assert small.sh("web1", f"cat /etc/wireguard/wg0.conf; {MTU}") == before
    small.edit(lambda d: d["nodes"]["web1"].pop("vars"))
    assert set(changes_of(small.apply())) == {"web1"}
