"""What systemd has to do with undoing an apply. Hunted: a unit that still starts though its apply was undone, and a
reverter that dies and leaves a host half old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import unified_diff

import pytest
from meshlab import WAITS, MeshLab, await_decided
from meshstate import BOOTED, state

from meshctl.model.places import PENDING_PATH

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


UNITS = """for unit in ssh app-on app-old app-none systemd-sysctl; do
    echo $unit $(systemctl is-active $unit) $(systemctl is-enabled $unit); done"""
# What an ordinary role can do to units and sysctls that it does not name.
CLOSES = "[Unit]\\nConflicts=ssh.service\\n[Service]\\nType=oneshot\\nRemainAfterExit=yes\\n" \
         "ExecStart=/bin/systemctl mask ssh.service app-none.service\\n" \
         "ExecStart=/bin/systemctl enable app-old.service\\nExecStart=/bin/systemctl disable app-on.service\\n" \
         "ExecStart=/bin/systemctl mask --runtime --now app-on.service\\n" \
         "[Install]\\nWantedBy=multi-user.target\\n"  # fmt: skip
HARD = "net.ipv6.conf.all.disable_ipv6=1\\nnet.ipv4.conf.all.rp_filter=1\\nnet.ipv4.icmp_echo_ignore_all=1\\n"
BAD_ROLE = f"""
- copy: {{dest: /etc/sysctl.d/90-hard.conf, mode: "0644", content: "{HARD}"}}
  notify: sysctls
- copy: {{dest: /etc/systemd/system/bad.service, mode: "0644", content: "{CLOSES}"}}
- service: {{name: bad, state: started, enabled: true}}
"""
HANDLERS = "- {name: sysctls, service: {name: systemd-sysctl, state: restarted}}\n"
SETTINGS = f"""{UNITS}
cd /proc/sys/net; grep . ipv4/conf/*/rp_filter ipv6/conf/*/disable_ipv6 ipv4/icmp_echo_ignore_all"""


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


@pytest.fixture
def closed(small: MeshLab) -> Iterator[MeshLab]:
    """web1 is to get a role that stops and masks the way in, and closes what is left of the network."""
    for name in ("on", "old"):
        text = UNIT.format(name=name).replace("\\n", "\n")
        small.sh("web1", f"cat >/etc/systemd/system/app-{name}.service <<'E'\n{text}\nE\nsystemctl daemon-reload")
    small.sh("web1", "systemctl disable --now app-old; systemctl enable --now app-on; rm -f /var/o*-started")
    tasks(small, BAD_ROLE)
    handlers = small.path.parent / "roles" / "app" / "handlers" / "main.yml"
    handlers.parent.mkdir(exist_ok=True)
    handlers.write_text(HANDLERS)
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"], mtu=1390))
    yield small
    small.sh("web1", "systemctl disable --now app-on; rm -f /etc/systemd/system/app-on.service /var/o*-started")


def test_units_and_sysctls_that_a_role_does_not_name_go_back(closed: MeshLab) -> None:
    before = state(closed, "web1") + state(closed, "web1", SETTINGS)
    closed.apply("--limit", "web1", "--confirm-timeout", "30", code=1)
    await_decided(closed, "web1")
    closed.sh("web1", "timeout 20 sh -c 'while ip -o addr | grep -q tentative; do sleep 0.1; done'")  # IPv6 is on again
    after = state(closed, "web1") + state(closed, "web1", SETTINGS)
    assert "\n".join(unified_diff(before, after, n=0, lineterm="")) == ""
    assert json.loads(closed.sh("web1", "cat /var/lib/meshctl/undone.json"))["left"] == []


def test_a_boot_starts_the_units_that_an_undone_apply_has_kept_from_starting(closed: MeshLab) -> None:
    before = state(closed, "web1", BOOTED), state(closed, "web1", UNITS)
    with closed.start("--limit", "web1", "--confirm-timeout", "600"):
        closed.sh("web1", f"""timeout 60 sh -c 'until grep -q "until.: [0-9]" {PENDING_PATH}; do sleep 0.1; done'""")
    assert closed.run("lab", "reboot", "--name", closed.name, "--power-cut", "web1").code == 0
    await_decided(closed, "web1")
    closed.sh("web1", "timeout 30 systemctl is-system-running --wait || true")
    assert (state(closed, "web1", BOOTED), state(closed, "web1", UNITS)) == before
    assert json.loads(closed.sh("web1", "cat /var/lib/meshctl/undone.json"))["left"] == []


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


def test_a_reverter_that_dies_at_boot_is_begun_anew_and_puts_back_what_the_boot_has_made(small: MeshLab) -> None:
    """systemd goes on with the boot, by the files of the undone apply."""
    tasks(small, ROLE)
    small.edit(lambda d: d["nodes"]["web1"].update(roles=["app"], mtu=1311))
    text = UNIT.format(name="old").replace("\\n", "\n")
    small.sh("web1", f"cat >/etc/systemd/system/app-old.service <<'E'\n{text}\nE\nsystemctl daemon-reload")
    before = state(small, "web1", BOOTED)
    assert small.apply(*MANUAL, "600")["web1"]["status"] == "changed"
    dies = "/etc/systemd/system/meshctl-revert.service.d"
    once = "test -e /run/once || { touch /run/once; kill -9 $$$$; }"
    small.sh("web1", f"mkdir {dies}; cat >{dies}/dies.conf <<'E'\n[Service]\nExecStartPre=/bin/sh -c '{once}'\nE")
    assert small.run("lab", "reboot", "--name", small.name, "--power-cut", "web1").code == 0
    await_decided(small, "web1")
    small.sh("web1", f"timeout 30 systemctl is-system-running --wait || true; rm -r {dies}; systemctl daemon-reload")
    assert "1311" not in small.sh("web1", "cat /sys/class/net/wg*/mtu")
    assert "\n".join(unified_diff(before, state(small, "web1", BOOTED), n=0, lineterm="")) == ""
    assert small.sh("web1", "systemctl is-active app-new app-old || true").split() == ["inactive"] * 2
    assert json.loads(small.sh("web1", "cat /var/lib/meshctl/undone.json"))["left"] == []
    small.sh("web1", "rm -f /var/new-started /var/old-started")


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
