"""Undoing an apply while something is wrong with the host, too. Hunted: a door that stays closed because one program
failed, what is deleted because it could not be listed, and a host that waits for ever for who hangs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agent_node import Node, script, write

from meshctl.agent import process
from meshctl.model.places import PENDING_PATH, REVERT_LINK, UNDONE_PATH
from meshctl.model.steps import Step, Transaction

NEVER_S, SOON_S = 600.0, 1.0
LOCK = "/run/meshctl/apply.lock"
NETWORK = """
set -e
ip link add d0 type veth peer name e0; ip link set e0 up; ip addr add 192.0.2.2/24 dev d0; ip link set d0 up mtu 1400
ip route add 10.98.0.0/16 nexthop via 192.0.2.7 dev d0 nexthop via 192.0.2.8 dev d0
nft 'add table inet meshctl; add chain inet meshctl in'
echo old >/mnt/a
"""
CHANGES = """
set -e
ip link set d0 mtu 600; ip route del 10.98.0.0/16; ip route add 10.97.0.0/16 via 192.0.2.7
nft 'add chain inet meshctl other'
"""
STATE = """
cat /mnt/a; ip -o link show d0 | grep -o 'mtu [0-9]*'; ip -o route; ip rule; nft -s list ruleset
"""
SYSCTLS = """
cd /proc/sys/net; find . -path '*/neigh/*' ! -path '*/default/*' -prune -o -type f -perm -600 ! -name tcp_fastopen_key \
    -exec grep -H . {} + 2>/dev/null | sed 's,^[.]/,,' | sort
"""
# Stands before the real program; while /run/broken is there, what is like the pattern gets another answer.
WRAPPER = """#!/bin/sh
case "$*" in {pattern}) if [ -e /run/broken ]; then {answer}; fi ;; esac
exec {real} "$@"
"""
STOPS = Step("run", argv=("sh", "-c", "touch /run/reached; kill -STOP $PPID"))


def broken(node: Node, program: str, pattern: str, answer: str = "echo 'it is busy' >&2; exit 1") -> None:
    """The program does not do what is like the pattern, once /run/broken is there."""
    real = node.sh(f"PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v {program}").strip()
    text = WRAPPER.format(pattern=pattern, answer=answer, real=real)
    node.sh(f"mountpoint -q /usr/local/sbin || mount -t tmpfs tmpfs /usr/local/sbin; cat >/usr/local/sbin/{program} "
            f"<<'E'\n{text}\nE\nchmod +x /usr/local/sbin/{program}")  # fmt: skip


@pytest.fixture
def state(node: Node) -> str:
    """Before anything was applied."""
    node.sh(NETWORK)
    return node.sh(STATE)


@pytest.mark.parametrize(
    ("program", "pattern"),
    [("ip", "'-o -4 route'*|'-4 route'*"), ("ip", "'-6 rule'*"), ("nft", "'list tables'"), ("nft", "*'inet meshctl'")],
)
def test_what_cannot_be_listed_is_not_changed_either(node: Node, state: str, program: str, pattern: str) -> None:
    broken(node, program, pattern)
    node.sh("touch /run/broken")
    result = node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S)
    node.sh("rm /run/broken")
    assert result.failure is not None
    assert (result.phase, result.undone) == ("snapshot", None)
    assert "it is busy" in result.failure.message
    assert node.sh(STATE) == state


@pytest.mark.parametrize(
    ("program", "pattern", "said"),
    [("ip", "*'-6 rule'*", "RTNETLINK answers: Operation not supported"),
     ("ip", "*'-6 route'*", "Address family not supported by protocol"),
     ("nft", "*", "netlink: Error: cache initialization failed: Protocol not supported")],
)  # fmt: skip
def test_a_kernel_without_ipv6_or_nftables_has_none_of_it(node: Node, program: str, pattern: str, said: str) -> None:
    broken(node, program, pattern, f"echo '{said}' >&2; exit 2")
    node.sh("touch /run/broken")
    assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S).ok
    assert node.decide("undo").undone == ()
    assert node.sh("ls /mnt") == ""


@pytest.mark.parametrize(
    ("pattern", "program", "answer"),
    [("'list tables'", "nft", "echo 'it is busy' >&2; exit 1"), ("'-j '*", "ip", "echo nonsense; exit 0"),
     ("'-j '*", "ip", "echo '[{}]'; exit 0")],
)
def test_one_failing_program_keeps_nothing_else_from_going_back(
    node: Node, state: str, program: str, pattern: str, answer: str
) -> None:
    broken(node, program, pattern, answer)
    assert node.apply(write("/mnt/a", "new"), script(CHANGES), confirm_s=NEVER_S).ok
    node.sh("touch /run/broken")
    left = node.decide("undo").undone
    assert left, "it is said"
    assert "old\n" in node.sh(STATE)
    assert set(node.sh("ip -o route").splitlines()) <= set(state.splitlines())
    assert "10.98.0.0/16" in node.sh("ip -o route")
    told = json.loads(node.sh(f"cat {UNDONE_PATH}"))
    assert told["left"] == list(left)
    assert node.sh(f"ls {PENDING_PATH} 2>/dev/null || true") == "", "it has tried, and says so"


def test_what_fails_for_a_moment_is_tried_again(node: Node, state: str) -> None:
    broken(node, "nft", "'list tables'", "rm /run/broken; echo 'it is busy' >&2; exit 1")
    broken(node, "ip", "'-o -4 route'*", "[ -e /run/again ] || { touch /run/again; exit 1; }")
    assert node.apply(write("/mnt/a", "new"), script(CHANGES), confirm_s=NEVER_S).ok
    node.sh("touch /run/broken")
    assert node.decide("undo").undone == ()
    assert node.sh(STATE) == state


def test_what_a_killed_reverter_has_left_is_no_hindrance(node: Node, state: str) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S).ok
    node.sh("for n in 0 1 2 3; do echo half >/mnt/.meshctl-restore-$n-a; done")
    assert node.decide("undo").undone == ()
    assert node.sh(STATE) == state


def test_what_cannot_be_confirmed_is_not_said_to_be(node: Node, state: str) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=2 * SOON_S).ok
    node.sh("mount --bind /var/lib/meshctl /var/lib/meshctl; mount -o remount,bind,ro /var/lib/meshctl")
    result = node.decide("confirm")
    node.sh("umount /var/lib/meshctl")
    assert result.failure is not None
    assert PENDING_PATH in result.failure.message
    node.await_decided()
    assert node.sh(STATE) == state
    assert '"confirmed"' not in node.sh("cat /var/lib/meshctl/journal/t1.jsonl")


def test_a_command_does_not_outlive_its_killed_applier(node: Node, state: str) -> None:
    """Nor what it has started itself."""
    change = "while :; do echo late >/mnt/a; sleep 0.05; done"
    step = script(f"({change}) & echo $! $$ >/run/pids.new; mv /run/pids.new /run/pids; {change}")
    applier = node.start(Transaction("t1", "n", (write("/mnt/a", "new"), step), "", NEVER_S))
    pids = node.sh("timeout 20 sh -c 'while [ ! -e /run/pids ]; do sleep 0.02; done'; cat /run/pids").split()
    applier.send_signal(signal.SIGKILL)
    applier.communicate()
    node.await_decided()
    alive = [pid for pid in pids if Path("/proc", pid).exists()]
    for pid in map(int, alive):
        subprocess.run(["kill", "-9", str(pid)], check=False)
    assert alive == []
    assert node.sh(STATE) == state


def test_a_package_manager_is_waited_for_when_its_applier_was_killed(node: Node) -> None:
    text = "touch /run/reached; while [ ! -e /run/go ]; do sleep 0.05; done; sleep 1; echo whole >/run/database"
    node.sh(f"mkdir /run/bin; printf '#!/bin/sh\n{text}\n' >/run/bin/dpkg; chmod +x /run/bin/dpkg")
    applier = node.start(Transaction("t1", "n", (write("/mnt/a", "new"), Step("run", argv=("/run/bin/dpkg",)))))
    node.sh("timeout 20 sh -c 'while [ ! -e /run/reached ]; do sleep 0.02; done'")
    applier.send_signal(signal.SIGKILL)
    applier.communicate()
    node.sh("touch /run/go")
    assert node.apply(Step("run", argv=("cp", "/run/database", "/mnt/b")), id_="t2").ok


def test_what_a_step_has_started_to_stay_lives_on_when_the_applier_is_killed_later(node: Node) -> None:
    starts = script("wireguard-go wg7 >/dev/null 2>&1")
    waits = script("touch /run/reached; sleep 60")
    applier = node.start(Transaction("t1", "n", (starts, waits), "", 0.0))
    node.sh("timeout 20 sh -c 'while [ ! -e /run/reached ]; do sleep 0.02; done'")
    applier.send_signal(signal.SIGKILL)
    applier.communicate()
    assert node.apply(write("/mnt/a", "new"), id_="t2").ok
    assert node.sh("wg show interfaces") == "wg7\n"


def test_a_stopped_applier_is_killed_when_its_time_is_over_and_what_it_did_is_undone(node: Node, state: str) -> None:
    applier = node.start(Transaction("t1", "n", (write("/mnt/a", "new"), STOPS), "", SOON_S))
    node.sh("timeout 20 sh -c 'while [ ! -e /run/reached ]; do sleep 0.02; done'")
    node.sh(f"""sed -i 's/"patience_s": [0-9.]*/"patience_s": 1.0/' {PENDING_PATH}""")
    undoing = subprocess.Popen([*node.enter, "/usr/bin/python3", "-I", "-S", REVERT_LINK, "revert"])
    try:
        undoing.wait(timeout=20)
    finally:
        undoing.kill()
        applier.kill()
        applier.communicate()
    assert applier.returncode == -signal.SIGKILL
    assert node.sh(STATE) == state
    assert json.loads(node.sh(f"cat {UNDONE_PATH}"))["why"] == "the applier died"


def test_who_holds_the_lock_and_is_not_named_in_it_is_not_killed(node: Node) -> None:
    node.sh("mkdir /run/meshctl")
    bystander = subprocess.Popen([*node.enter, "sleep", "60"])
    holder = subprocess.Popen([*node.enter, "flock", LOCK, "sh", "-c", "touch /run/held; cat"], stdin=subprocess.PIPE)
    node.sh("timeout 20 sh -c 'while [ ! -e /run/held ]; do sleep 0.02; done'")
    node.sh(f"echo pid {bystander.pid} since yesterday >{LOCK}")
    program = f"""import sys; sys.path.insert(0, {str(node.agent)!r})
from meshctl.agent import lock
lock.wait(0.5, lambda: 0)"""
    waiting = subprocess.Popen([*node.enter, "/usr/bin/python3", "-I", "-S", "-c", program])
    time.sleep(2.0)  # nothing comes, which has no event
    alive = [one.poll() is None for one in (bystander, holder, waiting)]
    holder.communicate()
    waiting.wait(timeout=20)
    bystander.kill()
    bystander.wait()
    assert alive == [True, True, True]


def test_a_child_that_has_left_and_holds_the_pipe_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = process.run(["sh", "-c", f"setsid sleep 50 & echo $! >{tmp_path}/pid; sleep 50"], timeout_s=0.5)
    took_s = time.monotonic() - began
    subprocess.run(["pkill", "-9", "-P", (tmp_path / "pid").read_text().strip()], check=False)
    subprocess.run(["kill", "-9", (tmp_path / "pid").read_text().strip()], check=False)
    assert ran.status == process.TIMED_OUT
    assert took_s < 15


def test_sysctls_of_the_network_that_no_step_names_go_back_before_addresses(node: Node) -> None:
    """As `all/disable_ipv6` does to each interface, and takes its addresses; `ip_forward` does to others, too."""
    node.sh("""set -e; ip link add d0 type veth peer name e0; ip link add d1 type veth peer name e1; cd /proc/sys/net
        echo 1 >ipv6/conf/e1/disable_ipv6; ip link set d0 up; ip link set e0 up; ip addr add fd42::1/64 dev d0 nodad
        echo 0 >ipv4/conf/e0/send_redirects; echo 2 >ipv4/conf/d0/rp_filter""")
    before = node.sh(SYSCTLS)
    assert "ipv6/conf/e1/disable_ipv6:1" in before
    changes = script("""set -e; cd /proc/sys/net; echo 1 >ipv6/conf/all/disable_ipv6; echo 1 >ipv4/conf/all/rp_filter
        echo 1 >ipv4/icmp_echo_ignore_all; echo 1 >ipv4/ip_forward; echo 1 >ipv4/ip_nonlocal_bind
        echo 5 >ipv6/conf/e0/hop_limit; echo '1 2' >ipv4/ping_group_range; ip link del d1""")
    assert node.apply(write("/mnt/a", "new"), changes, confirm_s=NEVER_S).ok
    assert node.sh(SYSCTLS) != before
    assert [line for line in node.decide("undo").undone or () if not line.startswith("links ")] == []
    after = node.sh(SYSCTLS).replace("ipv6/conf/e0/hop_limit:5", "ipv6/conf/e0/hop_limit:64")
    gone = re.compile("ip[46v]*/conf/[de]1/")
    assert after.splitlines() == [line for line in before.splitlines() if not gone.match(line)]
    assert "fd42::1/64" in node.sh("ip -o -6 addr show dev d0")


def test_a_rollback_takes_back_what_the_apply_did_to_sysctls_and_nothing_else(node: Node) -> None:
    assert node.apply(write("/mnt/a", "1"), id_="t1").ok
    assert node.apply(script("echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all"), id_="t2").ok
    node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")
    assert node.apply(Step("restore", argv=("t2",), target="t1"), id_="t3").ok
    assert node.sh("cd /proc/sys/net/ipv4; cat icmp_echo_ignore_all ip_forward") == "0\n1\n"


def test_a_snapshot_of_a_version_that_saved_no_sysctls_and_no_other_units_is_read(node: Node, state: str) -> None:
    assert node.apply(write("/mnt/a", "new"), script(CHANGES), confirm_s=NEVER_S).ok
    node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")
    program = """import json, pathlib
for name, key, value in (("manifest.json", "others", None), ("network.json", "sysctls", {})):
    path = pathlib.Path("/var/lib/meshctl/snapshots/t1", name)
    said = json.loads(path.read_text())
    del said[key]
    path.write_text(json.dumps(said if value is None else {**said, key: value}))"""
    node.sh(f"python3 -c '{program}'")
    assert node.decide("undo").undone == ()
    assert node.sh(STATE) == state
    assert node.sh("cat /proc/sys/net/ipv4/ip_forward") == "1\n"


def test_an_endpoint_that_moves_meanwhile_is_nothing_that_is_left(node: Node) -> None:
    node.sh("""set -e; wireguard-go wg0 >/dev/null 2>&1; wg genkey | wg set wg0 private-key /dev/stdin
        for n in ann bob; do wg genkey | wg pubkey >/run/$n; done; ip link set wg0 up
        wg set wg0 peer $(cat /run/ann) allowed-ips 10.42.0.2/32 endpoint 192.0.2.7:1 peer $(cat /run/bob)""")
    moves = "wg set wg0 peer $(cat /run/ann) allowed-ips 10.42.0.0/16 endpoint 192.0.2.9:1"
    assert node.apply(script(f"{moves} peer $(cat /run/bob) endpoint 192.0.2.8:1"), confirm_s=NEVER_S).ok
    agent = subprocess.Popen([*node.enter, "sh", "-c", """n=1; while [ ! -e /run/stop ]; do n=$((n % 60000 + 1))
        wg set wg0 peer $(cat /run/ann) endpoint 192.0.2.55:$n persistent-keepalive $n; done"""])
    left = node.decide("undo").undone
    node.sh("touch /run/stop")
    agent.wait(timeout=20)
    assert left == ()
    assert node.sh("wg show wg0 allowed-ips | grep -F -f /run/ann | cut -f 2") == "10.42.0.2/32\n"


def test_an_endpoint_goes_back_where_nobody_moves_it(node: Node) -> None:
    node.sh("""set -e; wireguard-go wg0 >/dev/null 2>&1; wg genkey | wg set wg0 private-key /dev/stdin
        wg genkey | wg pubkey >/run/ann; wg set wg0 peer $(cat /run/ann) endpoint 192.0.2.7:1""")
    assert node.apply(script("wg set wg0 peer $(cat /run/ann) endpoint 192.0.2.9:1"), confirm_s=NEVER_S).ok
    assert node.decide("undo").undone == ()
    assert "192.0.2.7:1" in node.sh("wg show wg0 endpoints")


def test_what_a_routing_daemon_does_meanwhile_is_its_own(node: Node, state: str) -> None:
    node.sh("ip route add 10.80.0.0/16 via 192.0.2.7 proto bird; ip route add 10.81.0.0/16 via 192.0.2.7 proto zebra")
    assert node.apply(script(CHANGES), confirm_s=NEVER_S).ok
    node.sh("ip route del 10.80.0.0/16; ip route add 10.82.0.0/16 via 192.0.2.7 proto bird")
    assert node.decide("undo").undone == ()
    assert node.sh("ip -o route | grep proto | grep -v kernel").split("\n")[:-1] == [
        "10.81.0.0/16 via 192.0.2.7 dev d0 proto zebra ", "10.82.0.0/16 via 192.0.2.7 dev d0 proto bird ",
    ]  # fmt: skip


def test_what_brings_the_host_back_runs_by_the_applier_s_own_python(node: Node, state: str) -> None:
    node.command[-5] = sys.executable
    node.sh("mount --bind /dev/null $(readlink -f /usr/bin/python3)")
    assert node.apply(write("/mnt/a", "new"), confirm_s=SOON_S).ok
    node.await_decided()
    assert node.sh(STATE) == state


def test_what_could_not_bring_the_host_back_is_found_out_before_anything_is_touched(node: Node, state: str) -> None:
    node.command[-5:] = ["sh", "-c", f"cd {node.agent.parent}; exec /usr/bin/python3 -I -S {node.agent.name} apply"]
    result = node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S)
    assert result.failure is not None
    assert (result.phase, result.undone) == ("arm", None)
    assert "the dead-man's switch cannot run" in result.failure.message
    assert node.sh(STATE) == state


def test_who_was_killed_before_the_first_step_holds_up_no_other_apply(node: Node, state: str) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S).ok
    node.sh(f"cp {PENDING_PATH} /run/kept")
    assert node.decide("undo").ok
    node.sh(f"""sed 's/"until": [0-9.]*/"until": null/' /run/kept >{PENDING_PATH}
        cd /var/lib/meshctl/journal; sed -i '/"phase":"converge"/,$d' t1.jsonl""")
    assert node.apply(write("/mnt/a", "newer"), id_="t2").ok
    assert node.sh("cat /mnt/a") == "newer"


def test_what_was_undone_is_told_until_an_apply_ends_well(node: Node, state: str) -> None:
    assert node.apply(write("/mnt/a", "new"), confirm_s=NEVER_S).ok
    assert node.decide("undo").ok
    assert not node.apply(Step("run", argv=("false",)), id_="t2").ok
    assert node.sh(f"ls {UNDONE_PATH}")
    assert node.apply(write("/mnt/a", "new"), id_="t3").ok
    assert node.sh(f"ls {UNDONE_PATH} 2>/dev/null || true") == ""


def test_a_disk_that_fills_up_between_two_steps_is_said_to_be_full(node: Node, state: str) -> None:
    fill = script("head -c 9M /dev/zero >/var/lib/meshctl/fill 2>/dev/null; true")
    many = [Step("run", argv=("true",))] * 60  # what is written of them does not fit into the last page
    result = node.apply(write("/mnt/a", "new"), fill, *many, confirm_s=NEVER_S)
    assert result.failure is not None
    assert (result.phase, result.failure.kind, result.undone) == ("converge", "disk-full", ())
    assert node.sh(STATE) == state


def test_the_folders_that_were_made_on_the_way_go_with_what_is_in_them(node: Node) -> None:
    made = write("/mnt/made/deep/file", "x"), Step("link", path="/mnt/other/deep/link", target="/")
    theirs = script("touch /mnt/other/theirs")
    assert node.apply(*made, theirs, confirm_s=NEVER_S).ok
    assert node.decide("undo").undone == ()
    assert node.sh("cd /mnt; find . -mindepth 1 | sort") == "./other\n./other/theirs\n"
