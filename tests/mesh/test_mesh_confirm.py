"""An apply that cannot lock anybody out: what is not confirmed is undone, by the node alone.

`home1` is reached by the mesh alone, through a jump host. Hunted: a node that stays behind a closed door, one that is
half old and half new, and one that goes back though all was well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from meshlab import MeshLab, await_decided, await_held, changes_of, held, read_until
from meshstate import BOOTED, state

pytestmark = pytest.mark.lab

WINDOW = ("--confirm-timeout", "30")
# As networks on the way do it, before the kernel puts fragments together (NF_IP_PRI_CONNTRACK_DEFRAG is -400).
NO_FRAGMENTS = """nft -f - <<'EOF'
table ip way { chain in { type filter hook prerouting priority -450; ip frag-off & 0x3fff != 0 drop; }; }
EOF"""


def role(mesh: MeshLab, on: str = "home1", **files: str) -> None:
    """A role `app` of the user's, on that node."""
    for name, text in files.items():
        folder, _, file = name.partition("__")
        path = mesh.path.parent / "roles" / "app" / folder / file.replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mesh.edit(lambda d: d["nodes"][on].update(roles=[*d["nodes"][on].get("roles", []), "app"]))


def table(mesh: MeshLab, on: str, hook: str, rules: str) -> None:
    """A role with a firewall of one chain, which accepts what the rules say nothing of."""
    chain = f"type filter hook {hook} priority 0; policy accept; {rules};"
    role(mesh, on, tasks__main_yml="- nftables: {table: app, src: app.j2}\n",
         templates__app_j2=f"table inet app {{ chain app {{ {chain} }}; }}\n")  # fmt: skip


def a_firewall_without_ssh(mesh: MeshLab) -> None:
    table(mesh, "home1", "input", "tcp dport 22 drop")


def allowed_ips_that_swallow_the_way_in(mesh: MeshLab) -> None:
    nyc1, web1 = (mesh.sh(node, "wg show wg0 public-key").strip() for node in ("nyc1", "web1"))
    allowed = mesh.sh("home1", f"wg show wg0 allowed-ips | grep {nyc1} | cut -f 2").replace(" ", ",").strip()
    steal = f"/usr/bin/wg set wg0 peer {web1} allowed-ips {allowed}"
    unit = f"[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart={steal}\\n"
    role(mesh, tasks__main_yml=(
        f'- copy: {{dest: /etc/systemd/system/app.service, mode: "0644", content: "{unit}"}}\n'
        "- service: {name: app, state: started, enabled: true}\n"
    ))  # fmt: skip


def no_sshd(mesh: MeshLab) -> None:
    role(mesh, tasks__main_yml=(
        '- copy: {dest: /etc/ssh/sshd_config.d/00-app.conf, content: "Port 2222\\n", mode: "0644"}\n'
        "  notify: restart sshd\n"
    ), handlers__main_yml="- {name: restart sshd, service: {name: ssh, state: restarted}}\n")  # fmt: skip


def an_mtu_that_the_way_cannot_carry(mesh: MeshLab) -> None:
    mesh.edit(lambda d: d["nodes"]["nyc1"].update(mtu=9000))
    mesh.apply()  # packets to home1 are as small as that one says
    mesh.edit(lambda d: d["nodes"]["home1"].update(mtu=9000))


def forget_undone(mesh: MeshLab, node: str) -> None:
    """A host tells of the last apply that was undone until one is kept: what an earlier test left would do for all."""
    mesh.sh(node, "rm -f /var/lib/meshctl/undone.json")


def undone(mesh: MeshLab, node: str) -> list[str]:
    """What `plan` tells of that, after the node's name and the apply's."""
    rows = (line.partition(f" {node}: the apply ") for line in mesh.on_lab("plan").err.splitlines())
    return [words.partition(" ")[2] for _, found, words in rows if found]


@pytest.fixture
def no_fragments(small: MeshLab) -> Iterator[None]:
    """home1 is where such packets do not come through."""
    small.sh("home1", NO_FRAGMENTS)
    yield
    small.sh("home1", "nft delete table ip way")


@pytest.mark.parametrize(
    "mistake",
    [a_firewall_without_ssh, allowed_ips_that_swallow_the_way_in, no_sshd, an_mtu_that_the_way_cannot_carry],
)
def test_who_closes_the_way_in_finds_it_open_again(
    small: MeshLab, no_fragments: None, mistake: Callable[[MeshLab], None]
) -> None:
    before = state(small, "home1")
    mistake(small)
    forget_undone(small, "home1")
    nodes = small.apply(*WINDOW, code=1)
    assert nodes["home1"]["status"] == "failed"
    assert nodes["home1"]["error"]["kind"] in ("unconfirmed", "not-converged")
    assert nodes["home1"]["changes"] == []
    await_decided(small, "home1")
    assert state(small, "home1") == before
    small.reset()
    (told,) = undone(small, "home1")
    assert told.startswith("was undone: ")
    assert "home1" not in small.on_lab("plan").out


def test_a_jump_host_that_closes_the_way_to_those_behind_it_goes_back(small: MeshLab, no_fragments: None) -> None:
    before = state(small, "nyc1")
    for node in ("home1", "nyc1"):
        small.edit(lambda d, node=node: d["nodes"][node].update(mtu=9000))
    nodes = small.apply(code=1)
    assert nodes["home1"]["status"] == "changed", "it comes first, and packets are as small as nyc1 says"
    assert nodes["nyc1"]["error"]["kind"] == "broken"
    assert "home1, which is reached through it, is not any more: " in nodes["nyc1"]["error"]["message"]
    assert state(small, "nyc1") == before
    small.reset()
    assert set(changes_of(small.apply())) == {"home1"}


def test_an_endpoint_where_nobody_is_is_undone_at_once(small: MeshLab) -> None:
    before = {node: state(small, node) for node in ("web1", "home1", "fra1")}
    small.edit(lambda d: d["nodes"]["nyc1"].update(endpoint="198.51.100.99:51820"))
    nodes = small.apply(code=1)
    for node, was in before.items():
        assert nodes[node]["error"]["kind"] == "broken"
        assert "nyc1" in nodes[node]["error"]["message"]
        assert "it was undone" in nodes[node]["error"]["message"]
        assert state(small, node) == was
    small.reset()
    assert small.plan()["changes"] == []


NYC1 = "198.51.100.10"


def test_what_the_other_end_alone_notices_is_undone_too_and_is_not_held_against_that_one(small: MeshLab) -> None:
    for node in ("nyc1", "web1", "home1"):  # where WireGuard sends to is part of its state
        assert small.reaches(node, small.address("fra1"))
    before = state(small, "fra1")
    small.edit(lambda d: d["nodes"]["nyc1"].update(mtu=1400))
    table(small, "fra1", "output", f"ip daddr {NYC1} udp dport 51820 drop")
    nodes = small.apply("--serial", "1", "--max-fail", "1", code=1)
    assert nodes["fra1"]["error"]["kind"] == "broken"
    assert "nothing comes to nyc1 (wg0) any more; it was undone" in nodes["fra1"]["error"]["message"]
    assert nodes["nyc1"]["status"] == "changed", "a wave later, when fra1 was heard again"
    assert state(small, "fra1") == before


def test_a_jump_host_that_shuts_out_new_connections_alone_goes_back(small: MeshLab) -> None:
    before = state(small, "nyc1")
    small.edit(lambda d: d["nodes"]["home1"].update(mtu=1400))
    table(small, "nyc1", "input", "ct state established,related accept; tcp dport 22 drop")
    nodes = small.apply(*WINDOW, code=1)
    assert nodes["home1"]["status"] == "changed", "in a wave before, through nyc1"
    assert nodes["nyc1"]["error"]["kind"] in ("unconfirmed", "broken")
    await_decided(small, "nyc1")
    assert state(small, "nyc1") == before


@pytest.mark.parametrize(("node", "hook", "rules", "found"), [
    ("nyc1", "output", "oifname wg0 tcp dport 22 drop", "home1, which is reached through it, is not any more"),
    ("web1", "input", f"ip saddr {NYC1} udp sport 51820 drop", "nothing comes from nyc1 (wg0) any more"),
])  # fmt: skip
def test_with_limit_a_host_goes_back_that_cuts_off_one_outside_the_run(
    small: MeshLab, node: str, hook: str, rules: str, found: str
) -> None:
    before = state(small, node)
    assert small.reaches("web1", small.address("nyc1"))
    table(small, node, hook, rules)
    nodes = small.apply("--limit", node, code=1)
    assert set(nodes) == {node}
    assert nodes[node]["error"]["kind"] == "broken"
    assert found in nodes[node]["error"]["message"]
    assert state(small, node) == before


def test_a_host_whose_connection_broke_is_asked_what_it_hears_over_the_new_one(small: MeshLab) -> None:
    assert small.reaches("web1", small.address("nyc1"))
    with held(small, "fra1"), small.start("--limit", "web1,fra1", "-o", "json") as controller:
        read_until(controller.stderr, "web1: changed")
        await_held(small, "fra1")
        small.sh("web1", f"nft -f - <<'EOF'\ntable ip way {{ chain in {{ type filter hook input priority 0; "
                 f"ip saddr {NYC1} udp sport 51820 drop; }}; }}\nEOF")  # fmt: skip
        small.sh("web1", "pkill -KILL -f '^sshd: root'")
        small.sh("fra1", "rm /run/hold")
        out, err = controller.communicate(timeout=100)
    small.sh("web1", "nft delete table ip way || true")  # undoing has put back what was there
    nodes = json.loads(out)["nodes"]
    assert nodes["web1"]["error"]["kind"] == "broken", err
    assert "nothing comes from nyc1 (wg0) any more; it was undone" in nodes["web1"]["error"]["message"]
    assert nodes["fra1"]["status"] == "changed"


def test_a_step_that_fails_leaves_nothing_behind(small: MeshLab) -> None:
    before = state(small, "web1")
    unit = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"
    for name, text in {
        "tasks": f'- copy: {{dest: /etc/systemd/system/app.service, content: "{unit}", mode: "0644"}}\n'
                 "- sysctl: {name: net.ipv4.conf.all.log_martians, value: '1'}\n"
                 "- service: {name: app, state: started}\n",
    }.items():  # fmt: skip
        path = small.path.parent / "roles" / "app" / name / "main.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"], mtu=1390))
    nodes = small.apply(code=1)
    assert nodes["web1"]["changes"] == []
    assert "what was done is undone" in nodes["web1"]["error"]["message"]
    assert state(small, "web1") == before
    assert small.sh("web1", "cat /proc/sys/net/ipv4/conf/all/log_martians").strip() == "0"


def test_a_power_cut_before_it_is_confirmed_brings_the_host_up_as_it_was(small: MeshLab) -> None:
    before = state(small, "web1", BOOTED)
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390, listen_port={"corp": 51999}))
    assert small.apply("--confirm", "manual", "--confirm-timeout", "600")["web1"]["status"] == "changed"
    assert state(small, "web1", BOOTED) != before
    assert small.run("lab", "reboot", "--name", small.name, "--power-cut", "web1").code == 0
    await_decided(small, "web1")
    small.sh("web1", "timeout 30 systemctl is-system-running --wait || true")
    assert state(small, "web1", BOOTED) == before
    assert "the host was started anew" in json.loads(small.sh("web1", "cat /var/lib/meshctl/undone.json"))["why"]


def test_what_is_confirmed_by_hand_stays(small: MeshLab) -> None:
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390))
    small.apply("--confirm", "manual", "--confirm-timeout", "600")
    again = small.apply("--limit", "web1")
    assert again["web1"]["status"] == "unchanged"
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1380))
    error = small.apply("--limit", "web1", code=1)["web1"]["error"]
    assert error["kind"] == "locked"
    assert "waits to be confirmed" in error["message"]
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390))
    nodes: dict[str, Any] = small.on_lab("confirm", "-o", "json").json()["nodes"]
    assert {name: node["status"] for name, node in nodes.items() if node["status"] != "unchanged"} == {
        "web1": "confirmed"
    }
    assert small.sh("web1", "ls /var/lib/meshctl/pending.json 2>/dev/null || true") == ""
    assert small.sh("web1", "systemctl is-active meshctl-revert-soon.timer || true") == "inactive\n"
    assert small.plan()["changes"] == []


def test_what_nobody_confirms_by_hand_is_undone_when_its_time_is_over(small: MeshLab) -> None:
    before = state(small, "web1")
    small.edit(lambda d: d["nodes"]["web1"].update(mtu=1390))
    forget_undone(small, "web1")
    small.apply("--confirm", "manual", *WINDOW)
    await_decided(small, "web1")
    assert state(small, "web1") == before
    confirmed = small.on_lab("confirm", "-o", "json")
    assert confirmed.code == 1
    late: dict[str, Any] = confirmed.json()["nodes"]
    assert [name for name, node in late.items() if node["status"] != "unchanged"] == ["web1"]
    assert late["web1"]["error"]["kind"] == "undone"
    assert "was undone: nobody confirmed it within 30 s" in late["web1"]["error"]["message"]
    assert undone(small, "web1") == ["was undone: nobody confirmed it within 30 s"]
