"""The order of an apply; `home1` is reached by the mesh alone, through nyc1. Hunted: a host that is changed together
with its jump host, one that is touched after the run should have ended, a path that is gone before its successor is."""

from __future__ import annotations

import os
import pty
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen

import pytest
from meshlab import MeshLab, await_end, await_held, changes_of, held, read_until

from meshctl.cli.origin import author

pytestmark = pytest.mark.lab

MTU = "cat /sys/class/net/wg0/mtu"
LAN = "192.168.77.0/24"
ASKED_S = 120.0


def status(nodes: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: node["status"] for name, node in nodes.items()}


def waves_of(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("Wave ")]


def rules(*pairs: tuple[str, str]) -> list[dict[str, object]]:
    """Policies by which these may open anything to each other."""
    return [
        {"name": f"{source}-to-{to}".replace("/", "-"), "from": [source], "to": [to], "allow": ["any"]}
        for pair in pairs for source, to in (pair, pair[::-1]) if "/" not in source
    ]  # fmt: skip


@contextmanager
def asked(mesh: MeshLab, *words: str) -> Iterator[tuple[Popen[str], int]]:
    """`meshctl apply --pause` at a terminal of its own, and the end of it that answers."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), "--lab", mesh.name, "--pause", *words]
    env = {**os.environ, "CI": "true"}
    with Popen(argv, text=True, stdin=slave, stdout=PIPE, stderr=PIPE, env=env) as process:
        unasked = threading.Timer(ASKED_S, process.kill)  # a question that the test does not expect ends it
        unasked.start()
        try:
            yield process, master
        finally:
            unasked.cancel()
            process.kill()
            os.close(master)
            os.close(slave)


def test_a_canary_that_fails_leaves_all_others_untouched(small: MeshLab) -> None:
    before = {node: small.sh(node, MTU) for node in ("fra1", "nyc1", "home1")}
    tasks = small.path.parent / "roles" / "app" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True, exist_ok=True)
    unit = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"
    tasks.write_text(f'- copy: {{dest: /etc/systemd/system/app.service, content: "{unit}", mode: "0644"}}\n'
                     "- service: {name: app, state: started}\n")  # fmt: skip
    small.edit(lambda d: d["defaults"].update(mtu=1390))
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"]))
    small.edit(lambda d: d.update(groups={"canaries": {"nodes": ["web1"]}}))
    nodes = small.apply("--canary", "canaries", "--forks", "1", code=1)
    assert status(nodes) == {"web1": "failed", "fra1": "skipped", "home1": "skipped", "nyc1": "skipped"}
    assert nodes["fra1"]["error"]["kind"] == "skipped"
    assert nodes["fra1"]["error"]["message"] == "not begun: 1 of 4 hosts failed (web1), and --max-fail allows 0"
    assert {node: small.sh(node, MTU) for node in before} == before


def test_what_stays_carries_all_the_time_and_what_is_new_before_anything_goes(small: MeshLab) -> None:
    kept = (("web1", "nyc1"), ("nyc1", "home1"))
    small.edit(lambda d: d["networks"]["corp"].pop("policy"))
    small.edit(lambda d: d.update(policies=rules(*kept, ("fra1", LAN))))
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["gateway"], routes=[LAN]))
    small.apply("--confirm", "off")
    assert LAN in small.sh("fra1", "ip route")
    assert f"{small.address('home1')}/32" not in small.sh("web1", "wg show wg0 allowed-ips")
    small.edit(lambda d: d.update(policies=rules(*kept, ("web1", "home1"))))
    small.edit(lambda d: d["nodes"]["web1"].update(roles=[], routes=[]))
    with small.lossless(*kept), asked(small, "--serial", "1") as (apply, terminal):
        said = read_until(apply.stderr, "Go on with wave 2 of 2 (what is new)?")
        assert waves_of(said) == ["Wave 1 of 2 (what is new): home1"]
        os.write(terminal, b"y\n")
        read_until(apply.stderr, "Go on with wave 1 of ")
        assert small.reaches("web1", small.address("home1"))
        assert small.reaches("home1", small.address("web1"))
        assert LAN in small.sh("fra1", "ip route")
        for _ in range(2):
            os.write(terminal, b"yes\n")
        out, err = apply.communicate(timeout=60)
        assert apply.returncode == 0, out + err
    assert LAN not in small.sh("fra1", "ip route; wg show wg0 allowed-ips")
    assert small.plan()["changes"] == []


def test_a_jump_host_comes_after_the_host_behind_it_and_stays_as_it_was_when_the_operator_does_not_go_on(
    small: MeshLab,
) -> None:
    small.edit(lambda d: d["defaults"].update(mtu=1390))
    with asked(small) as (apply, terminal):
        said = read_until(apply.stderr, "Go on with wave 2 of 2?")
        assert waves_of(said) == ["Wave 1 of 2: fra1, home1, web1"]
        os.write(terminal, b"no\n")
        out, _ = apply.communicate(timeout=60)
        assert apply.returncode == 1
    assert "nyc1: skipped: not begun: the operator did not go on after a pause" in out
    assert {node: small.sh(node, MTU).strip() for node in ("home1", "nyc1")} == {"home1": "1390", "nyc1": "1420"}
    nobody = small.run("apply", str(small.path), "--pause")
    assert (nobody.code, "asks at a terminal" in nobody.err) == (64, True)


def test_after_one_ctrl_c_the_hosts_that_are_ready_are_kept_waiting_for_the_slow_one_and_confirmed(
    small: MeshLab,
) -> None:
    until = "sed -n 's/.*\"until\": \\([0-9.]*\\).*/\\1/p' /var/lib/meshctl/pending.json"
    with held(small, "fra1"), small.start("--confirm-timeout", "30", "--limit", "!nyc1") as controller:
        await_held(small, "fra1")
        await_end(small, "web1")
        controller.send_signal(signal.SIGINT)
        read_until(controller.stderr, "Interrupted: waiting for fra1")
        over_s = float(small.sh("web1", until)) + 31  # held anew when its first window is over
        look = f"[ $({until} | cut -d . -f 1) -gt {over_s:.0f} ] && exit"
        small.sh("web1", f"for _ in $(seq 60); do {look}; sleep 1; done; exit 1")
        small.sh("fra1", "rm /run/hold")
        out, err = controller.communicate(timeout=60)
    assert controller.returncode == 0, out + err
    assert small.sh("web1", MTU).strip() == "1390"


def test_what_a_killed_controller_left_is_taken_up_where_it_is_as_wanted_and_else_undone(small: MeshLab) -> None:
    with held(small, "fra1"), small.start() as controller:
        await_held(small, "fra1")
        for node in ("web1", "home1"):
            await_end(small, node)
        controller.kill()
        controller.communicate()
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1380))
    stranger = small.run("apply", str(small.path), "--lab", small.name, "--resume", "--limit", "home1,web1",
                         env={"LOGNAME": "eve"})  # fmt: skip
    assert f"web1: leaves alone an apply of {author()}, begun 20" in stranger.err
    assert "web1: locked" in stranger.out
    done = small.on_lab("apply", "--resume", "-o", "json")
    assert done.code == 0, done.out + done.err
    assert f"home1: goes on with an apply of {author()}, begun 20" in done.err
    nodes = done.json()["nodes"]
    assert status(nodes) == {"fra1": "confirmed", "home1": "confirmed", "web1": "changed", "nyc1": "changed"}
    assert ("mtu", "update", "wg0") in changes_of(nodes)["web1"]
    small.sh("web1", "test ! -e /var/lib/meshctl/pending.json")
    assert small.plan()["changes"] == []
