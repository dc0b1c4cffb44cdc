"""What systemd has to do with undoing an apply. Hunted: a unit that still starts though its apply was undone, and a
reverter that dies and leaves a host half old."""

from __future__ import annotations

import json

import pytest
from meshlab import WAITS, MeshLab, await_decided
from meshstate import BOOTED, state

pytestmark = pytest.mark.lab

# A unit of an undone apply, and one that was there, but not enabled.
UNIT = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/touch /var/{name}-started\\n" \
       "[Install]\\nWantedBy=multi-user.target\\n"  # fmt: skip
ROLE = f"""
- copy: {{dest: /etc/systemd/system/app-new.service, mode: "0644", content: "{UNIT.format(name='new')}"}}
- service: {{name: app-new, state: started, enabled: true}}
- service: {{name: app-old, state: started, enabled: true}}
"""
NETWORKD = '- copy: {dest: /etc/systemd/network/70-app.network, mode: "0644", content: "[Match]\\nName=app0\\n"}\n'
MANUAL = ("--confirm", "manual", "--limit", "web1", "--confirm-timeout")
REVERTER = "meshctl-revert-soon.service"


def tasks(mesh: MeshLab, text: str) -> None:
    path = mesh.path.parent / "roles" / "app" / "tasks" / "main.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def prepared(small: MeshLab) -> MeshLab:
    """web1 has a unit that does not start, and is to get a role that has it started."""
    text = UNIT.format(name="old").replace("\\n", "\n")
    small.sh("web1", f"cat >/etc/systemd/system/app-old.service <<'E'\n{text}\nE\nsystemctl daemon-reload")
    tasks(small, ROLE)
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"], mtu=1390))
    return small


def test_a_killed_reverter_is_begun_anew_and_leaves_no_unit_enabled(prepared: MeshLab) -> None:
    before = state(prepared, "web1")
    tasks(prepared, ROLE + NETWORKD)
    prepared.sh("web1", "systemctl start systemd-networkd")
    assert prepared.apply(*MANUAL, "30")["web1"]["status"] == "changed"
    assert state(prepared, "web1") != before
    prepared.sh("web1", f"touch /run/hold; cat >/usr/local/bin/ip <<'E'\n{WAITS}\nE\nchmod +x /usr/local/bin/ip")
    prepared.sh("web1", "timeout 60 sh -c 'while [ ! -e /run/reached ]; do sleep 0.05; done'")
    prepared.sh("web1", f"systemctl kill --kill-who=main -s KILL {REVERTER}; rm /run/hold /usr/local/bin/ip")
    await_decided(prepared, "web1")
    prepared.sh("web1", "systemctl stop systemd-networkd systemd-networkd.socket; rm -f /run/reached")
    assert state(prepared, "web1") == before
    journal = "$(ls -t /var/lib/meshctl/journal/*.jsonl | head -n 1)"
    begun = prepared.sh("web1", f"""grep -c '"event":"revert"' {journal}""")
    assert int(begun) == 2
    told = prepared.sh("web1", "grep -h '\"argv\":\\[\"sh\",\"-s\"' /var/lib/meshctl/journal/*.jsonl").splitlines()
    assert {json.loads(line)["status"] for line in told} == {0}, "networkd was told"
    prepared.sh("web1", "rm -f /var/new-started /var/old-started")


def test_a_unit_of_an_undone_apply_ends_as_its_own_file_says(prepared: MeshLab) -> None:
    stops = UNIT.format(name="new").replace("[Install]", "ExecStop=/bin/rm /var/new-started\\n[Install]")
    fails = "- service: {name: app-none, state: started}\n"
    tasks(prepared, ROLE.replace(UNIT.format(name="new"), stops) + fails)
    error = prepared.apply("--limit", "web1", code=1)["web1"]["error"]
    assert "app-none" in error["message"]
    assert prepared.sh("web1", "ls /var | grep new-started || true") == ""
    assert json.loads(prepared.sh("web1", "cat /var/lib/meshctl/undone.json"))["left"] == []
    prepared.sh("web1", "rm -f /var/old-started")


def test_a_boot_starts_nothing_that_an_undone_apply_has_enabled(prepared: MeshLab) -> None:
    before = state(prepared, "web1", BOOTED)
    assert prepared.apply(*MANUAL, "600")["web1"]["status"] == "changed"
    prepared.sh("web1", "rm /var/new-started /var/old-started")
    assert prepared.run("lab", "reboot", "--name", prepared.name, "--power-cut", "web1").code == 0
    await_decided(prepared, "web1")
    prepared.sh("web1", "timeout 30 systemctl is-system-running --wait || true")
    assert prepared.sh("web1", "ls /var | grep started || true") == ""
    assert state(prepared, "web1", BOOTED) == before
    assert json.loads(prepared.sh("web1", "cat /var/lib/meshctl/undone.json"))["left"] == []


def test_a_boot_loads_no_firewall_of_an_undone_apply(small: MeshLab) -> None:
    before = state(small, "web1", BOOTED)
    small.edit(lambda d: d["defaults"].update(vars={"firewall_log": True}))
    assert small.apply(*MANUAL, "600")["web1"]["status"] == "changed"
    slow = "/etc/systemd/system/meshctl-revert.service.d"
    small.sh("web1", f"mkdir {slow}; printf '[Service]\\nExecStartPre=/bin/sleep 3\\n' >{slow}/slow.conf")
    assert small.run("lab", "reboot", "--name", small.name, "--power-cut", "web1").code == 0
    await_decided(small, "web1")
    small.sh("web1", f"timeout 30 systemctl is-system-running --wait || true; rm -r {slow}")
    assert state(small, "web1", BOOTED) == before


def test_a_host_on_debian_11_whose_agent_moves_peers_goes_back_whole(agents: MeshLab) -> None:
    mtu = agents.sh("alice", "cat /sys/class/net/wg0/mtu")
    agents.edit(lambda d: d["nodes"]["alice"].update(mtu=1300))
    limited = ("--confirm", "manual", "--limit", "alice", "--confirm-timeout", "30")
    assert agents.apply(*limited)["alice"]["status"] == "changed"
    assert agents.sh("alice", "cat /sys/class/net/wg0/mtu") == "1300\n"
    agents.sh("alice", "for key in $(wg show wg0 peers); do wg set wg0 peer $key endpoint 192.0.2.99:9; done")
    await_decided(agents, "alice")
    told = json.loads(agents.sh("alice", "cat /var/lib/meshctl/undone.json"))
    assert (told["why"], told["left"]) == ("nobody confirmed it within 30 s", [])
    assert agents.sh("alice", "cat /sys/class/net/wg0/mtu") == mtu
    assert "192.0.2.99" not in agents.sh("alice", "wg show wg0 endpoints")
    assert agents.reaches("alice", agents.address("hub"))
