"""Agents that apply deploys: the paths that they find, and that apply and they leave each other's work alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from meshlab import MeshLab, changes_of

pytestmark = pytest.mark.lab

UNIT = "meshctl-agent"
RELAY_PORTS = range(40000, 50000)
# "Within seconds": DESIGN's figure is three from the first packet on; this machine runs five hosts at once.
FOUND_S = 20.0
STEP_S = 0.1
PINGS = 50
PING = f"ping -n -q -c {PINGS} -i 0.02"
# What the node has of the role once it is gone: nothing but these, which hold no access to anything.
LEFT = (
    "ls -A /etc/meshctl /usr/local/bin; ls /etc/systemd/system /opt/meshctl/meshctl-agent.pyz;"
    " find /var/lib/meshctl/agent -type f; nft list tables"
)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for the condition, and fail when it does not come true in FOUND_S."""
    end = time.monotonic() + FOUND_S
    while not condition():
        assert time.monotonic() < end, f"not within {FOUND_S:.0f} s: {what}"
        time.sleep(STEP_S)


def key(mesh: MeshLab, node: str) -> str:
    return mesh.sh(node, "wg show wg0 public-key").strip()


def endpoint(mesh: MeshLab, node: str, peer: str) -> str:
    """Where `node` sends what is for `peer`; "" before it knows."""
    rows = dict(row.split("\t") for row in mesh.sh(node, "wg show wg0 endpoints").splitlines())
    return rows.get(key(mesh, peer), "").replace("(none)", "")


def is_direct(mesh: MeshLab, one: str, other: str) -> bool:
    """Whether each sends to where the anchor hears the other from: the outside of its NAT."""
    pairs = ((one, other), (other, one))
    return all(endpoint(mesh, a, b) == endpoint(mesh, "hub", b) for a, b in pairs)


def is_relayed(mesh: MeshLab, one: str, other: str) -> bool:
    found = (endpoint(mesh, a, b) for a, b in ((one, other), (other, one)))
    return all(e.startswith("203.0.113.10:") and int(e.rpartition(":")[2]) in RELAY_PORTS for e in found)


def are_all_found(mesh: MeshLab, nodes: tuple[str, ...]) -> bool:
    """Whether each of the nodes knows where to send what is for any other."""
    return all("(none)" not in mesh.sh(node, "wg show wg0 endpoints") for node in nodes)


def carried_by_the_anchor(mesh: MeshLab, source: str, target: str) -> tuple[int, int]:
    """Packets that the anchor receives, and bytes that its WireGuard does, while `source` pings `target` PINGS times
    without a loss."""
    count = "awk '{ sum += $1 } END { print sum }' /sys/class/net/[!lw]*/statistics/rx_packets"
    read = f"{count}; wg show wg0 transfer | awk '{{ sum += $2 }} END {{ print sum }}'"
    before = mesh.sh("hub", read).split()
    said = mesh.sh(source, f"{PING} {mesh.address(target)}")
    assert " 0% packet loss" in said, said
    packets, received = (int(b) - int(a) for a, b in zip(before, mesh.sh("hub", read).split(), strict=True))
    return packets, received


def process(mesh: MeshLab, node: str, unit: str = UNIT) -> str:
    """What changes whenever the unit is started."""
    return mesh.sh(node, f"systemctl show -p InvocationID --value {unit}").strip()


def test_two_hosts_behind_nats_talk_directly_soon_after_the_first_apply(applied_agents: MeshLab) -> None:
    agents = applied_agents
    until(lambda: is_direct(agents, "alice", "bob"), "alice and bob are direct")
    packets, _ = carried_by_the_anchor(agents, "alice", "bob")
    assert packets < PINGS, "the anchor does not see them"


def test_two_behind_symmetric_nats_are_relayed_by_the_anchors_kernel_unread(applied_agents: MeshLab) -> None:
    agents = applied_agents
    until(lambda: is_relayed(agents, "sym1", "sym2"), "sym1 and sym2 are relayed")
    packets, decrypted = carried_by_the_anchor(agents, "sym1", "sym2")
    assert packets >= 2 * PINGS, "both directions go by the anchor"
    assert decrypted < PINGS * 84, "and none of it by its WireGuard"
    assert agents.sh("hub", "cat /proc/sys/net/ipv4/ip_local_reserved_ports").strip() == "40000-49999"
    assert "table inet meshctl_relays\n" in agents.sh("hub", "nft list tables"), "it is the kernel that forwards"


def test_apply_leaves_alone_what_agents_have_moved(applied_agents: MeshLab) -> None:
    agents = applied_agents
    nodes = ("hub", "alice", "bob", "sym1", "sym2")
    until(lambda: is_direct(agents, "alice", "bob") and is_relayed(agents, "sym1", "sym2"), "paths are found")
    until(lambda: are_all_found(agents, nodes), "those that nobody asked for are found too")
    state = "wg show wg0 endpoints | sort; wg show wg0 persistent-keepalive | sort; nft list tables"
    before = {node: (agents.sh(node, state), process(agents, node)) for node in nodes}
    with agents.lossless(("alice", "bob"), ("sym1", "sym2"), ("hub", "sym1")):
        assert {node["status"] for node in agents.apply().values()} == {"unchanged"}
        assert {node["status"] for node in agents.apply().values()} == {"unchanged"}
    assert {node: (agents.sh(node, state), process(agents, node)) for node in nodes} == before


def test_a_new_document_is_taken_in_place_and_no_tunnel_notices(agents: MeshLab) -> None:
    until(lambda: is_direct(agents, "alice", "bob"), "alice and bob are direct")
    before, found = process(agents, "alice"), endpoint(agents, "alice", "bob")
    log = f"journalctl -o cat -u {UNIT} | grep -c '^reloaded ' || true"
    reloads = int(agents.sh("alice", log))
    agents.edit(lambda d: d["nodes"]["alice"].update(keepalive=20))
    with agents.lossless(("alice", "bob"), ("sym1", "sym2")):
        changed = changes_of(agents.apply())
    assert ("file", "update", "/etc/meshctl/agent.json") in changed["alice"]
    assert not {change for change in changed["alice"] if change[0] in ("unit", "handler")}
    until(lambda: int(agents.sh("alice", log)) == reloads + 1, "the agent has read its document again")
    assert process(agents, "alice") == before
    assert endpoint(agents, "alice", "bob") == found


def test_an_edited_document_and_a_stopped_agent_are_seen_and_put_right(agents: MeshLab) -> None:
    before = process(agents, "alice")
    agents.sh("alice", "echo '{}' >/etc/meshctl/agent.json")
    agents.sh("bob", f"systemctl disable --now {UNIT} 2>&1")
    plan = agents.plan("--diff")
    assert [(c["node"], c["kind"], c["name"]) for c in plan["changes"]] == [
        ("alice", "file", "/etc/meshctl/agent.json"), ("bob", "unit", UNIT)
    ]  # fmt: skip
    assert plan.get("diffs", []) == [], "a document with keys in it is not shown"
    agents.apply()
    assert process(agents, "alice") == before, "it went on with the document that it had"
    assert agents.sh("alice", "stat -c '%a %U' /etc/meshctl/agent.json").strip() == "600 root"
    assert agents.sh("bob", f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}").split() == ["active", "enabled"]
    assert agents.plan()["changes"] == []


def test_another_version_restarts_the_agent_and_nothing_else(agents: MeshLab) -> None:
    until(lambda: is_direct(agents, "alice", "bob"), "alice and bob are direct")
    older = "/opt/meshctl/meshctl-agent-0123456789abcdef.pyz"
    link = "/opt/meshctl/meshctl-agent.pyz"
    agents.sh("alice", f"mv $(readlink {link}) {older}; ln -sfn {older} {link}")
    others = ("wg-quick@wg0", "meshctl-firewall")
    before = {unit: process(agents, "alice", unit) for unit in (UNIT, *others)}
    with agents.lossless(("alice", "bob")):
        changed = changes_of(agents.apply())
    assert changed == {"alice": [("file", "update", link), ("handler", "run", f"restart {UNIT}")]}
    after = {unit: process(agents, "alice", unit) for unit in (UNIT, *others)}
    assert [unit for unit in after if after[unit] != before[unit]] == [UNIT]
    until(lambda: is_direct(agents, "alice", "bob"), "and they are direct still")


@contextmanager
def impatient(mesh: MeshLab, *nodes: str) -> Iterator[None]:
    """Where the unit lets systemd watch the agent, it does so by seconds, for as long as the block takes."""
    folder = f"/run/systemd/system/{UNIT}.service.d"
    again = f"systemctl daemon-reload; systemctl restart {UNIT}"
    for node in nodes:
        span = f"sed -n 's/^WatchdogSec=60s$/WatchdogSec=3s/p' /etc/systemd/system/{UNIT}.service"
        mesh.sh(node, f"mkdir {folder}; (echo '[Service]'; {span}) >{folder}/span.conf; {again}")
    try:
        yield
    finally:
        for node in nodes:
            mesh.sh(node, f"rm -r {folder}; {again}")


def test_an_agent_that_hangs_is_started_anew_and_no_tunnel_notices(agents: MeshLab) -> None:
    until(lambda: is_direct(agents, "alice", "bob"), "alice and bob are direct")
    with impatient(agents, "alice", "bob"), agents.lossless(("alice", "bob")):
        before = {node: process(agents, node) for node in ("alice", "bob")}
        agents.sh("alice", f"kill -STOP $(systemctl show -p MainPID --value {UNIT})")
        until(lambda: process(agents, "alice") not in ("", before["alice"]), "the agent is started anew")
        assert process(agents, "bob") == before["bob"], "one that lives is left alone"
        until(lambda: agents.sh("alice", f"systemctl is-active {UNIT}", check=False) == "active\n", "it runs")
        until(lambda: is_direct(agents, "alice", "bob"), "alice and bob are direct")
    said = agents.sh("alice", f"journalctl -o cat -u {UNIT}")
    assert "Watchdog timeout" in said
    assert "signal SIGKILL" in said, "a core would hold keys"


def test_a_zipapp_that_is_gone_is_brought_back(agents: MeshLab) -> None:
    agents.sh("bob", "rm /opt/meshctl/meshctl-agent-*.pyz")
    assert ("file", "update", "/opt/meshctl/meshctl-agent.pyz") in changes_of(agents.apply())["bob"]
    assert agents.sh("bob", "meshctl-agent nonsense 2>&1 || true").startswith("usage: meshctl-agent ")
    assert agents.sh("bob", f"systemctl is-active {UNIT}").strip() == "active"


def test_an_apply_fails_whose_agent_does_not_start_and_says_why(agents: MeshLab) -> None:
    template = agents.path.parent / "templates" / "agent.json.j2"
    template.parent.mkdir()
    template.write_text('{"version": 1}\n')
    agents.sh("bob", f"systemctl stop {UNIT}")
    try:
        error = agents.apply("--limit", "bob", code=1)["bob"]["error"]
    finally:
        template.unlink()
        template.parent.rmdir()
    assert error["kind"] == "command"
    assert "document" in error["message"]
    assert "`node` is missing" in error["message"], error


def test_a_node_that_shall_have_no_agent_keeps_nothing_of_it(agents: MeshLab) -> None:
    until(lambda: is_relayed(agents, "sym1", "sym2"), "sym1 and sym2 are relayed")
    agents.sh("sym2", "nft add table inet meshctl_splices")
    agents.edit(lambda d: d["nodes"]["sym2"].update(agent=False))
    agents.apply()
    left = agents.sh("sym2", LEFT, check=False)
    assert "agent" not in left
    assert [line for line in left.splitlines() if line.startswith("table ")] == ["table inet meshctl"]
    assert agents.reaches("sym1", agents.address("sym2")), "the anchor's routing carries them now"
    assert agents.plan()["changes"] == []


def test_the_unit_has_no_more_rights_than_it_needs(applied_agents: MeshLab) -> None:
    agents = applied_agents
    # At a host with Debian 12: `--threshold` came with systemd 250.
    agents.sh("bob", f"systemd-analyze security --no-pager --threshold=25 {UNIT}.service")
    status = agents.sh("alice", f"cat /proc/$(systemctl show -p MainPID --value {UNIT})/status")
    assert "CapBnd:\t0000000000003000\n" in status, "CAP_NET_ADMIN and CAP_NET_RAW"
    limits = agents.sh("alice", f"cat /proc/$(systemctl show -p MainPID --value {UNIT})/limits")
    assert any(line.startswith("Max open files") and int(line.split()[4]) >= 1024 for line in limits.splitlines())
