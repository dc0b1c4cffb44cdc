"""Two people who change the same hosts at the same time. Hunted: what one of them has applied and the other forgets,
and what stays while somebody is told that it does not."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hosts import Host as Space
from sshlab import SshLab
from sshmesh import ROOT, Mesh

from meshctl.deploy.applier import agent_command
from meshctl.deploy.check import Check
from meshctl.deploy.confirm import settle
from meshctl.deploy.host import Host
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError
from meshctl.model.facts import PendingApply
from meshctl.model.places import PENDING_PATH, REVERT_LINK, UNDONE_PATH
from meshctl.model.resources import NodeDoc

OF_BEFORE_A_BOOT = f"""sed -i 's/"boot": "[^"]*"/"boot": "before"/' {PENDING_PATH}"""
QUICK = ("--confirm", "off")
MANUAL = ("--confirm", "manual", "--confirm-timeout", "600")
# Of whoever applies: the run itself checks and confirms.
AUTOMATIC = f"""sed -i 's/"manual": true/"manual": false/; s/"who": "[^"]*"/"who": "ann@desk"/' {PENDING_PATH}"""


@contextmanager
def paused(mesh: Mesh, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`meshctl apply --pause`, which has asked before its second wave, and the end of the terminal that answers."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "meshctl", "apply", str(mesh.path), "--pause", "-o", "json", *words]
    with subprocess.Popen(
        argv, text=True, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "CI": "true"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "Go on with wave 2" in line:
                    break
            yield process, master
        finally:
            process.kill()
            os.close(master)
            os.close(slave)


class Inside:
    """A connection to a host that cannot break."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        words = [*self._space.namespaces, "sh", "-c", command]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout_s or 60.0)
        return Completed(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        pass


def applied(mesh: Mesh, motd: str, *words: str) -> None:
    mesh.motd = motd
    mesh.write()
    mesh.apply(*words)


def change_file(mesh: Mesh, node: str, path: str) -> None:
    """Somebody else's checkout has a task more."""
    tasks = mesh.folder / "roles" / "wireguard" / "tasks" / "main.yml"
    before = tasks.read_text()
    tasks.write_text(before + f"- copy: {{dest: {path}, content: b, mode: '0644'}}\n")
    mesh.apply(*QUICK, "--limit", node)
    tasks.write_text(before)


def test_a_wave_does_not_write_over_what_somebody_has_applied_since_the_reading(mesh: Mesh) -> None:
    mesh.apply(*QUICK)
    mesh.motd = "a"
    mesh.write()
    two = mesh.hosts["two"]
    with paused(mesh, "--serial", "1", *QUICK) as (apply, terminal):
        change_file(mesh, "two", "/etc/app/theirs")
        before = two.sh("cat /var/lib/meshctl/ledger.json")
        os.write(terminal, b"y\n")
        out, err = apply.communicate(timeout=60)
    nodes = json.loads(out)["nodes"]
    assert {name: node["status"] for name, node in nodes.items()} == {"one": "changed", "two": "failed"}, err
    assert nodes["two"]["error"]["kind"] == "moved"
    assert "apply again" in nodes["two"]["error"]["hint"]
    assert two.sh("cat /var/lib/meshctl/ledger.json") == before
    assert "/etc/app/theirs" in before
    assert mesh.apply(*QUICK)["two"]["status"] == "changed"
    assert two.sh("cat /etc/app/motd; ls /etc/app") == "amotd\ntoken\n", "what nobody wants any more is gone"


def test_a_connection_that_breaks_while_others_have_their_turn_is_opened_anew(mesh: Mesh, sshlab: SshLab) -> None:
    mesh.apply(*QUICK)
    mesh.motd = "a"
    mesh.write()
    with paused(mesh, "--serial", "1", *QUICK) as (apply, terminal):
        subprocess.run(["pkill", "-P", str(sshlab.servers["two"].process.pid)], check=True)
        os.write(terminal, b"y\n")
        out, err = apply.communicate(timeout=60)
    assert {name: node["status"] for name, node in json.loads(out)["nodes"].items()} == {
        "one": "changed", "two": "changed",
    }, err  # fmt: skip


def test_a_host_that_stays_away_since_its_connection_broke_is_one_that_nothing_was_sent_to(
    mesh: Mesh, sshlab: SshLab
) -> None:
    mesh.apply(*QUICK)
    mesh.motd = "a"
    mesh.write()
    server = sshlab.servers["two"].process
    try:
        with paused(mesh, "--serial", "1", "--confirm-timeout", "120") as (apply, terminal):
            server.send_signal(signal.SIGSTOP)  # it accepts, and says nothing
            subprocess.run(["pkill", "-P", str(server.pid)], check=True)
            os.write(terminal, b"y\n")
            out, err = apply.communicate(timeout=60)  # nobody waits for a window that is not open
    finally:
        server.send_signal(signal.SIGCONT)
    nodes = json.loads(out)["nodes"]
    assert {name: node["status"] for name, node in nodes.items()} == {"one": "changed", "two": "failed"}, err
    assert "no SSH session with" in nodes["two"]["error"]["message"]
    assert "may still be finishing" not in nodes["two"]["error"]["message"]
    assert mesh.hosts["two"].sh("cat /etc/app/motd") == "hello"


def test_a_host_whose_ssh_hangs_keeps_no_other_waiting(mesh: Mesh, sshlab: SshLab) -> None:
    for node in mesh.nodes.values():
        node["ssh"]["keepalive"] = 2
    mesh.apply(*QUICK)
    mesh.motd = "a"
    mesh.write()
    enter, hung = mesh.hosts["two"].enter, sshlab.folder / "hung"
    command = enter.read_text()
    hang = f'case $SSH_ORIGINAL_COMMAND in *" apply") echo $PPID >>{hung}; kill -STOP $PPID ;; esac'
    enter.write_text(command.replace("\n", f"\n{hang}\n", 1))
    try:
        nodes = mesh.apply("--confirm-timeout", "30", code=1)
    finally:
        sshlab.servers["two"].hung += map(int, hung.read_text().split())
    assert {name: node["status"] for name, node in nodes.items()} == {"one": "changed", "two": "failed"}
    assert "its SSH has not answered for 6 s" in nodes["two"]["error"]["message"]
    assert nodes["two"]["error"]["message"].endswith("; it was undone")
    assert {name: host.sh("cat /etc/app/motd") for name, host in mesh.hosts.items()} == {"one": "a", "two": "hello"}


def test_what_waits_since_before_a_boot_is_undone_by_the_next_apply_which_goes_on(mesh: Mesh) -> None:
    mesh.apply(*QUICK)
    applied(mesh, "nobody confirms this", *MANUAL)
    two = mesh.hosts["two"]
    two.sh(OF_BEFORE_A_BOOT)
    mesh.motd = "a"
    mesh.write()
    done = mesh.run("apply", str(mesh.path), "--limit", "two", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "could not be confirmed any more, and was undone just now" in done.stderr
    assert "was undone: the host was started anew before it was confirmed" in done.stderr
    assert two.sh("cat /etc/app/motd") == "a"
    assert mesh.apply("--limit", "two", *QUICK)["two"]["status"] == "unchanged"


@pytest.mark.parametrize(("what", "words"), [(OF_BEFORE_A_BOOT, ()), ("true", ("--resume",))])
def test_what_is_undone_first_is_not_part_of_a_plan_that_somebody_has_looked_at(
    mesh: Mesh, what: str, words: tuple[str, ...]
) -> None:
    mesh.apply(*QUICK)
    applied(mesh, "nobody confirms this", *MANUAL)
    two, plan = mesh.hosts["two"], mesh.folder / "plan.json"
    two.sh(what)
    tasks = mesh.folder / "roles" / "wireguard" / "tasks" / "main.yml"
    tasks.write_text(tasks.read_text() + "- copy: {dest: /etc/app/reviewed, content: b, mode: '0644'}\n")
    plan.write_text(mesh.run("plan", str(mesh.path), "--limit", "two", "-o", "json").stdout)
    assert [change["name"] for change in json.loads(plan.read_text())["changes"]] == ["/etc/app/reviewed"]
    done = mesh.run("apply", str(plan), "-i", str(mesh.path), "--limit", "two", *QUICK, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "now also to do: two update file /etc/app/motd" in done.stderr
    assert two.sh("cat /etc/app/motd; ls /etc/app") == "hellomotd\ntoken\n"


def test_what_is_destructive_once_an_apply_is_undone_is_refused(mesh: Mesh) -> None:
    mesh.apply(*QUICK)
    del mesh.nodes["one"]
    mesh.write()
    mesh.apply("--allow-destructive", *MANUAL)
    two = mesh.hosts["two"]
    assert not two.sh("wg show wg0 peers").strip()
    two.sh(OF_BEFORE_A_BOOT)
    applied_to = ("apply", str(mesh.path), *QUICK)
    mesh.motd = "a"
    mesh.write()
    done = mesh.run(*applied_to)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "two loses its only peer" in done.stderr
    assert two.sh("wg show wg0 peers").strip()
    assert mesh.run(*applied_to, "--allow-destructive").returncode == 0
    assert not two.sh("wg show wg0 peers").strip()


def test_an_abandoned_apply_is_undone_before_a_rollback_is_chosen(mesh: Mesh) -> None:
    mesh.apply(*QUICK)
    applied(mesh, "a", *QUICK)
    applied(mesh, "nobody confirms this", "--limit", "two", *MANUAL)
    mesh.hosts["two"].sh(OF_BEFORE_A_BOOT)
    nodes = mesh.answer("rollback", *QUICK)
    assert {name: node["status"] for name, node in nodes.items()} == {"one": "changed", "two": "changed"}
    assert {host.sh("cat /etc/app/motd") for host in mesh.hosts.values()} == {"hello"}


def test_a_node_without_a_key_is_not_moved_by_its_own_run(mesh: Mesh) -> None:
    assert {node["status"] for node in mesh.apply("--serial", "1", *QUICK).values()} == {"changed"}


def test_what_waits_for_a_person_anybody_may_confirm_and_sees_whose_it_is(mesh: Mesh) -> None:
    mesh.apply(*MANUAL)
    for host in mesh.hosts.values():
        host.sh(f"""sed -i 's/"who": "[^"]*"/"who": "ci@runner"/' {PENDING_PATH}""")
    done = mesh.run("confirm", "-i", str(mesh.path))
    assert done.returncode == 0, done.stderr
    assert "one: an apply of ci@runner, begun 20" in done.stderr


def test_what_a_run_still_checks_is_confirmed_by_nobody_else_unasked(mesh: Mesh) -> None:
    mesh.apply(*MANUAL)
    for host in mesh.hosts.values():
        host.sh(AUTOMATIC)
    done = mesh.run("confirm", "-i", str(mesh.path), "--limit", "one")
    assert done.returncode == 1
    assert "an apply of ann@desk, begun 20" in done.stdout
    assert "is still being checked by that run" in done.stdout
    assert mesh.hosts["one"].sh(f"ls {PENDING_PATH}")
    done = mesh.run("confirm", "-i", str(mesh.path), "--limit", "one", "--yes")
    assert done.returncode == 0, done.stderr
    assert mesh.hosts["one"].sh(f"ls {PENDING_PATH} 2>/dev/null || true") == ""


def test_who_comes_to_confirm_what_was_undone_is_told_so_and_why(mesh: Mesh) -> None:
    mesh.apply(*QUICK)
    applied(mesh, "somebody comes too late", *MANUAL)
    two = mesh.hosts["two"]
    two.sh(f"{OF_BEFORE_A_BOOT}; {agent_command(REVERT_LINK, 'revert')}")
    assert two.sh("cat /etc/app/motd") == "hello"
    done = mesh.run("confirm", "-i", str(mesh.path))
    assert done.returncode == 1, done.stdout
    assert [line.split() for line in done.stdout.splitlines()[:2]] == [["one", "confirmed"], ["two", "failed"]]
    assert "two: undone (confirm): the apply 20" in done.stdout
    assert "was undone: the host was started anew before it was confirmed; apply again" in done.stdout
    applied(mesh, "another", "--limit", "one", *MANUAL)
    done = mesh.run("confirm", "-i", str(mesh.path))
    assert done.returncode == 0, "that was another run, of which two knows nothing"
    assert [line.split()[:2] for line in done.stdout.splitlines()[:2]] == [["one", "confirmed"], ["two", "nothing"]]
    applied(mesh, "a", "--limit", "two", *QUICK)
    done = mesh.run("confirm", "-i", str(mesh.path))
    assert done.returncode == 0, "an apply since then has ended well"
    assert done.stdout.count("nothing to confirm") == 2


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "well"])
def test_a_run_whose_apply_somebody_has_confirmed_says_what_became_of_it(mesh: Mesh, broken: bool) -> None:
    mesh.apply("--limit", "one", *MANUAL)
    inside = Inside(mesh.hosts["one"])
    waits = json.loads(mesh.hosts["one"].sh(f"cat {PENDING_PATH}"))
    pending = PendingApply(waits["id"], waits["who"], waits["window_s"])
    host = Host("one", NodeDoc("one", ()), lambda: inside, inside, pending=pending)
    assert mesh.run("confirm", "-i", str(mesh.path), "--limit", "one").returncode == 0
    check = Check([host], {"one": host}, {}, {})
    if broken:
        check.note("one", "nothing comes from two (wg0) any more")
        with pytest.raises(RemoteError, match="somebody has confirmed it meanwhile, so it stays"):
            settle(host, lambda: inside, check)
    else:
        settle(host, lambda: inside, check)
    assert host.confirmed


class Ill(Inside):
    """A connection to a host whose program ends by a bug."""

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:  # noqa: ARG002
        return Completed(1, b"", b"AttributeError: 'int' object has no attribute 'get'\n")


@pytest.mark.parametrize(("ill", "said"), [
    (True, "whether the node undoes it is not known (the applier gave no answer: AttributeError"),
    (False, "nothing of that name is to be confirmed"),
])  # fmt: skip
def test_what_the_node_has_not_said_that_it_was_undone_is_not_said_to_be(mesh: Mesh, ill: bool, said: str) -> None:
    mesh.apply("--limit", "one", *MANUAL)
    inside = Ill(mesh.hosts["one"]) if ill else Inside(mesh.hosts["one"])
    host = Host("one", NodeDoc("one", ()), lambda: inside, inside, pending=PendingApply("another", "ann@desk", 600.0))
    host.error = RemoteError("the applier gave no answer", node="one", kind="protocol")
    with pytest.raises(RemoteError) as raised:
        settle(host, lambda: inside, Check([host], {"one": host}, {}, {}))
    assert f"; {said}" in raised.value.message
    assert "was undone" not in raised.value.message


@pytest.mark.parametrize("damage", ["head -c 300 /dev/urandom >", "truncate -s 0 "], ids=["noise", "empty"])
def test_a_damaged_file_of_what_waits_hinders_no_command_and_the_next_apply_undoes_it(mesh: Mesh, damage: str) -> None:
    mesh.apply(*QUICK)
    applied(mesh, "nobody can confirm this", "--limit", "two", *MANUAL)
    two = mesh.hosts["two"]
    two.sh(f"{damage}{PENDING_PATH}")
    planned = mesh.run("plan", str(mesh.path), "--limit", "two")
    assert planned.returncode == 0, planned.stderr
    assert f"two: an apply whose {PENDING_PATH} is damaged: the node undoes it" in planned.stdout + planned.stderr
    history = mesh.run("history", "two", "-i", str(mesh.path), "--short")
    assert [line.split()[-1] for line in history.stdout.splitlines()[1:]] == ["waiting", "applied"]
    confirmed = mesh.run("confirm", "-i", str(mesh.path), "--limit", "two")
    assert confirmed.returncode == 1
    assert "is damaged, cannot be confirmed any more" in confirmed.stdout
    mesh.motd = "a"
    mesh.write()
    done = mesh.run("apply", str(mesh.path), "--limit", "two", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "could not be confirmed any more, and was undone just now" in done.stderr
    assert two.sh("cat /etc/app/motd") == "a"
    again = mesh.run("history", "two", "-i", str(mesh.path), "--short")
    assert [line.split()[-1] for line in again.stdout.splitlines()[1:] if "undone" not in line] == ["applied"] * 2


@pytest.mark.parametrize("damage", [
    "head -c 300 /dev/urandom >", "truncate -s 0 ", "echo '[]' >", "printf '{\"id\": 1' >",
], ids=["noise", "empty", "another document", "cut short"])  # fmt: skip
def test_a_damaged_file_of_what_was_undone_hinders_no_command_and_is_told_of(mesh: Mesh, damage: str) -> None:
    mesh.apply(*QUICK)
    two = mesh.hosts["two"]
    two.sh(f"{damage}{UNDONE_PATH}")
    planned = mesh.run("plan", str(mesh.path), "--limit", "two")
    assert planned.returncode == 0, planned.stderr
    told = f"two: an apply was undone, and {UNDONE_PATH}, which says why, is damaged: `meshctl history` may know"
    assert told in planned.stdout + planned.stderr
    confirmed = mesh.run("confirm", "-i", str(mesh.path), "--limit", "two")
    assert confirmed.returncode == 0, confirmed.stdout
    assert "nothing to confirm" in confirmed.stdout
    mesh.motd = "a"
    mesh.write()
    done = mesh.run("apply", str(mesh.path), "--limit", "two", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    again = mesh.run("plan", str(mesh.path), "--limit", "two")
    assert UNDONE_PATH not in again.stdout + again.stderr
