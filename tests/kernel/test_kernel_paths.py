"""Whole agents on the kernel's own WireGuard: paths through easy NATs, a splice, a relay, and from one to the other.

The tests build on each other, in the order of the file: an emulated machine takes its time to start an agent.
"""

from __future__ import annotations

import re

import pytest
from kernel_guest import Guest
from kernel_stage import NAME, KernelStage

from meshctl.lab.names import netns

pytestmark = pytest.mark.lab

# Two anchors: one alone does not show that a NAT gives another destination another port.
INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  far:  {roles: [anchor], endpoint: "198.51.100.20:51820"}
  ann:  {lab: {nat: easy}}
  bob:  {lab: {nat: easy}}
  hard: {lab: {nat: symmetric}}
  firm: {lab: {nat: symmetric}}
policies:
  - {name: easy, from: [ann], to: [bob], allow: [any]}
  - {name: spliced, from: [hard], to: [ann], allow: [any]}
  - {name: relayed, from: [hard], to: [firm], allow: [any]}
"""
ANCHORS = {"203.0.113.10": "mid", "198.51.100.20": "far"}
RELAY_PORTS = range(40000, 50000)
NOWHERE = ("", 0)
# Emulated, on a machine that does other things as well.
FOUND_S = 180.0
PINGS, PING_BYTES = 20, 84


@pytest.fixture(scope="module", name="stage")
def _stage(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> KernelStage:
    stage = KernelStage(guest, INVENTORY, tmp_path_factory.mktemp("stage"))
    for anchor in ANCHORS.values():
        stage.sh(anchor, "sysctl -qw net.ipv4.ip_forward=1")  # what the role `forwarding` does
    stage.start("mid", "far", "hard", "ann")
    return stage


def is_direct(stage: KernelStage, one: str, other: str) -> bool:
    """Whether each sends to the outside of the other's router."""
    return all(stage.endpoint(a, b).startswith(f"{outside(stage, b)}:") for a, b in ((one, other), (other, one)))


def outside(stage: KernelStage, node: str) -> str:
    return stage.outside(f"{node}-router")


def relay(stage: KernelStage, one: str, other: str) -> tuple[str, int]:
    """The anchor and port by which both send to each other; NOWHERE where they do not."""
    there, back = stage.endpoint(one, other), stage.endpoint(other, one)
    ip, _, port = there.rpartition(":")
    return (ANCHORS[ip], int(port)) if there == back and ip in ANCHORS and int(port) in RELAY_PORTS else NOWHERE


def decrypted(stage: KernelStage, anchor: str) -> int:
    """Bytes that the anchor's WireGuard has received."""
    shown = stage.sh(anchor, f"wg show {stage.interface(anchor)} transfer")
    return sum(int(row.split()[1]) for row in shown.splitlines())


def ping(stage: KernelStage, *pairs: tuple[str, str]) -> None:
    """As many as PINGS between all of them at once, and none is lost; fails otherwise."""
    words = f"ping -n -q -i 0.1 -W 5 -c {PINGS}"
    script = [f"ip netns exec {netns(NAME, one)} {words} {stage.mesh_ip(other)} &" for one, other in pairs]
    said = stage.guest.sh("\n".join([*script, "wait"]))
    assert said.count(" 0% packet loss") == len(pairs), f"{said}\n{stage.logs()}"


def test_it_is_the_kernels_wireguard(stage: KernelStage) -> None:
    assert "wireguard" in stage.guest.sh("lsmod")
    assert stage.guest.sh("pgrep wireguard-go", check=False) == ""


def test_a_hard_nat_is_spliced_to_an_easy_one(stage: KernelStage) -> None:
    # First, and while there are few agents: ports are open for ten seconds, in which a slow machine may not hit one.
    stage.until(lambda: is_direct(stage, "hard", "ann"), FOUND_S)
    ping(stage, ("hard", "ann"))
    assert "table inet meshctl_splices" in stage.sh("hard", "nft list tables")
    assert "table inet meshctl_splices" not in stage.sh("ann", "nft list tables")


def test_two_behind_easy_nats_are_direct(stage: KernelStage) -> None:
    stage.start("bob", "firm")
    stage.until(lambda: is_direct(stage, "ann", "bob"), FOUND_S)
    ping(stage, ("ann", "bob"))


def test_two_behind_symmetric_nats_are_relayed_by_an_anchors_kernel_unread(stage: KernelStage) -> None:
    seen: list[tuple[str, int]] = [NOWHERE]

    def rests() -> bool:  # at the nearer anchor, which both may move to in the first moments
        seen.append(relay(stage, "hard", "firm"))
        return NOWHERE != seen[-1] == seen[-2]

    stage.until(rests, FOUND_S)
    anchor, port = seen[-1]
    before = decrypted(stage, anchor)
    ping(stage, ("hard", "firm"))
    assert decrypted(stage, anchor) - before < PINGS * PING_BYTES
    entry = stage.sh(anchor, f"conntrack -L -p udp --orig-port-dst {port} 2>/dev/null")
    assert f"src={outside(stage, 'hard')} " in entry
    assert f"src={outside(stage, 'firm')} " in entry


def test_a_wall_clock_that_is_set_back_an_hour_moves_no_path(stage: KernelStage) -> None:
    direct = (("ann", "bob"), ("hard", "ann"))
    before = [stage.endpoint(*pair) for pair in direct]
    stage.guest.sh("date -s '1 hour ago'")
    ping(stage, *direct, ("hard", "firm"))
    assert [stage.endpoint(*pair) for pair in direct] == before
    assert relay(stage, "hard", "firm") != NOWHERE, "or by the other anchor's, which may have become the nearer one"
    stage.guest.sh("date -s '1 hour'")


def test_a_direct_path_that_is_cut_is_left_for_the_relay_and_taken_again(stage: KernelStage) -> None:
    ips = ", ".join(outside(stage, node) for node in ("ann", "bob"))
    rules = f"""\
table inet cut {{
  chain forward {{
    type filter hook forward priority 0
    ip saddr {{ {ips} }} ip daddr {{ {ips} }} drop
  }}
}}
"""
    stage.sh("ann", f"ping -n -q -i 0.2 {stage.mesh_ip('bob')} >/dev/null 2>&1 </dev/null &")  # traffic
    stage.sh("internet", f"nft -f - <<'END'\n{rules}END")
    stage.until(lambda: relay(stage, "ann", "bob") != NOWHERE, FOUND_S)
    ping(stage, ("ann", "bob"))
    stage.sh("internet", "nft delete table inet cut")
    stage.until(lambda: is_direct(stage, "ann", "bob"), FOUND_S)
    ping(stage, ("ann", "bob"))
    assert "Traceback" not in stage.logs()
    assert not re.search("^error", stage.logs(), re.MULTILINE)
