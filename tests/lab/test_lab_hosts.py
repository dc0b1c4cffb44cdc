"""Hosts, cables and routers of a lab do what real ones do."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import udp

from meshctl import lab
from meshctl.data_files import read_data
from meshctl.lab import build
from meshctl.lab.names import netns_path
from meshctl.lab.netns import within

pytestmark = pytest.mark.lab

DELAY_MS = 20.0  # of the node `slow`, each way
JITTER_MS = 40.0  # of the node `shaky`, each way
LOSS_PERCENT = 10.0  # of the node `lossy`, each way


def sh(name: str, node: str, script: str) -> str:
    done = lab.exec_(name, node, ["sh", "-c", script])
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.decode()


def meshctl(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "meshctl", *words], check=False, input=stdin, capture_output=True, timeout=120
    )


def pings(name: str, node: str, to: str, count: int, *words: str) -> tuple[int, float]:
    """(replies, shortest round trip in ms: what the cable adds, whatever else the machine is doing)."""
    command = ["ping", "-n", "-q", "-c", str(count), "-i", "0.005", "-W", "1", *words, to]
    out = lab.exec_(name, node, command).stdout.decode()
    received = re.search(r"(\d+) received", out)
    shortest = re.search(r"= ([\d.]+)/", out)
    assert received, out
    return int(received[1]), float(shortest[1]) if shortest else 0.0


def test_exec_passes_bytes_and_the_exit_status_through(place: str) -> None:
    blob = bytes(range(256)) * 4096
    done = meshctl("lab", "exec", "--name", place, "home", "--", "sh", "-c", "cat; echo oops >&2; exit 42", stdin=blob)
    assert (done.returncode, done.stdout, done.stderr) == (42, blob, b"oops\n")


def test_exec_runs_on_routers_and_lan_devices_too(place: str) -> None:
    assert b"wan" in meshctl("lab", "exec", "--name", place, "home-router", "--", "ip", "-br", "link").stdout
    assert b"192.168.10.10/24" in meshctl("lab", "exec", "--name", place, "home-lan", "--", "ip", "-br", "addr").stdout


def test_exec_on_an_unknown_node_names_those_there_are(place: str) -> None:
    done = meshctl("lab", "exec", "--name", place, "nobody", "--", "true")
    assert done.returncode == 1
    assert b"home" in done.stderr


def test_a_host_is_debian_with_systemd_and_sshd_and_nothing_failed(place: str) -> None:
    assert sh(place, "fra1", "cat /proc/1/comm; systemctl is-system-running; . /etc/os-release; echo $ID") == (
        "systemd\nrunning\ndebian\n"
    )
    assert sh(place, "fra1", "ss -Htln sport = 22").count("LISTEN") == 2
    assert sh(place, "fra1", "hostname") == "fra1\n"


def test_a_service_of_one_host_is_not_a_service_of_another(place: str) -> None:
    sh(place, "kid1", "systemd-run --quiet --unit=nap sleep 600")
    assert lab.exec_(place, "kid2", ["systemctl", "is-active", "nap"]).stdout == b"inactive\n"
    sh(place, "kid1", "systemctl stop nap")


def test_hosts_can_run_wireguard_and_forward(place: str) -> None:
    conf = "umask 077; printf '[Interface]\\nPrivateKey = %s\\n' $(wg genkey) > /etc/wireguard/wgx.conf"
    sh(place, "nyc1", f"{conf}; sysctl -qw net.ipv4.ip_forward=1; wg-quick up wgx 2>/dev/null; wg show wgx public-key")
    assert "wgx" in sh(place, "nyc1", "wg show interfaces")
    sh(place, "nyc1", "wg-quick down wgx 2>/dev/null; rm /etc/wireguard/wgx.conf")


def test_endpoint_names_resolve_to_their_hosts_inside(place: str) -> None:
    address = lab.status(place)["hosts"]["nyc1"]["address"]
    assert sh(place, "home", "getent hosts nyc1.example.net").split()[0] == address
    assert pings(place, "home", "nyc1.example.net", 1)[0] == 1


def test_hosts_behind_nat_are_not_reachable_by_their_lan_address(place: str) -> None:
    build.set_nat(place, "home", "easy")
    address = lab.status(place)["hosts"]["home"]["address"]
    assert pings(place, "fra1", address, 2)[0] == 0


def test_nothing_in_the_lab_reaches_the_machine(place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attempt = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
        assert lab.exec_(place, "fra1", attempt).returncode != 0
    links = lab.exec_(place, "internet", ["ip", "-o", "link"]).stdout.decode()
    here = {Path(p).name for p in Path("/sys/class/net").iterdir()}
    assert {re.split(r"[:@]", line)[1].strip() for line in links.splitlines()} & here <= {"lo"}


def test_a_delay_of_20_ms_each_way_makes_a_round_trip_of_40(place: str) -> None:
    replies, shortest = pings(place, "slow", "203.0.113.10", 50)
    assert replies == 50
    assert 2 * DELAY_MS <= shortest < 2 * DELAY_MS + 5


def test_a_shaky_cable_keeps_packets_for_different_times(place: str) -> None:
    out = sh(place, "shaky", "ping -n -c 50 -i 0.02 203.0.113.10")
    times = sorted(float(ms) for ms in re.findall(r"time=([\d.]+) ms", out))
    assert len(times) == 50
    # Of two draws from 0 to 40 ms: one in two sums is above 40, and one in 32 below 10.
    assert times[0] < JITTER_MS < times[-1], times
    assert times[-1] - times[0] > JITTER_MS / 2


def test_a_lossy_cable_loses_its_share_each_way(place: str) -> None:
    count = 500
    replies, _ = pings(place, "lossy", "203.0.113.10", count)
    expected = (1 - LOSS_PERCENT / 100) ** 2
    # Four standard deviations of a binomial: a right wire fails this once in 16,000 runs.
    deviation = (expected * (1 - expected) / count) ** 0.5
    assert abs(replies / count - expected) < 4 * deviation


@pytest.mark.parametrize("node", ["kid1", "fra1", "slow"])
def test_an_unplugged_cable_is_seen_by_the_host_and_works_again_when_plugged(place: str, node: str) -> None:
    assert pings(place, node, "198.51.100.7", 1)[0] == 1
    carrier = "cat /sys/class/net/eth0/carrier"
    build.set_link(place, node, up=False)
    try:
        assert lab.status(place)["hosts"][node]["link"] == "down"
        assert sh(place, node, carrier) == "0\n"
        assert pings(place, node, "198.51.100.7", 1)[0] == 0
    finally:
        build.set_link(place, node, up=True)
    # The host may still be asking for its next hop since it was unplugged, once a second (RFC 4861's retransmission).
    assert pings(place, node, "198.51.100.7", 2, "-W", "4")[0] == 2
    assert sh(place, node, carrier) == "1\n"


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_reboot_keeps_the_disk_and_loses_the_kernels_state(place: str, power_cut: bool) -> None:
    note = "left when the power was cut" if power_cut else "left at an orderly reboot"
    sh(place, "home", f"echo '{note}' > /root/note && sync")
    sh(place, "home", "ip tuntap add dev tun7 mode tun && nft add table inet own")
    sh(place, "home", "sysctl -qw net.ipv4.ip_forward=1")
    build.reboot(place, "home", power_cut=power_cut)
    assert sh(place, "home", "cat /root/note") == f"{note}\n"
    assert sh(place, "home", "systemctl is-system-running") == "running\n"
    assert sh(place, "home", "nft list tables; cat /proc/sys/net/ipv4/ip_forward") == "0\n"
    assert "tun7" not in sh(place, "home", "ip -br link")
    assert pings(place, "home", "203.0.113.10", 1)[0] == 1
    assert pings(place, "home", "192.168.10.10", 1)[0] == 1


def test_a_host_with_a_delayed_cable_reboots_too(place: str) -> None:
    build.reboot(place, "slow")
    replies, shortest = pings(place, "slow", "203.0.113.10", 5)
    assert replies == 5
    assert shortest >= 2 * DELAY_MS


def test_devices_on_the_lans_behind_a_gateway_answer_it(place: str) -> None:
    for address in ("192.168.10.10", "fd00:10::10", "10.99.0.1"):
        assert pings(place, "home", address, 1)[0] == 1
    # Their way to elsewhere is the gateway, which forwards once it is told to.
    sh(place, "home", "sysctl -qw net.ipv4.ip_forward=1")
    target = lab.status(place)["hosts"]["home"]["address"]
    assert pings(place, "home-lan", target, 1)[0] == 1
    assert pings(place, "home-lan3", target, 1)[0] == 1
    sh(place, "home", "sysctl -qw net.ipv4.ip_forward=0")


def test_ipv6_is_native_and_home_routers_let_in_only_what_was_asked_for(place: str) -> None:
    outside = within(netns_path(place, "fra1"), lambda: _global_v6("eth0"))
    inside = within(netns_path(place, "box"), lambda: _global_v6("eth0"))
    assert pings(place, "box", outside, 1, "-6")[0] == 1
    family = socket.AF_INET6
    with udp.bind(place, "box", 0, family) as client, udp.bind(place, "fra1", 0, family) as server:
        to_client, to_server = (inside, client.getsockname()[1]), (outside, server.getsockname()[1])
        assert udp.arrives(server, to_client, client) is None
        assert udp.arrives(client, to_server, server) == to_client, "no translation"
        assert udp.arrives(server, to_client, client) == to_server


def _global_v6(device: str) -> str:
    rows = (line.split() for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines())
    raw = next(r[0] for r in rows if r[5] == device and r[3] == "00")
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))


@pytest.mark.parametrize(
    "command", ["upnpc -i -e test -a $(hostname -I | cut -d' ' -f1) 7000 7000 UDP", "natpmpc -a 7000 7000 udp 60"]
)
def test_a_router_with_upnp_opens_a_port_when_asked(place: str, command: str) -> None:
    build.set_nat(place, "box", "easy")
    wan = lab.status(place)["routers"]["box-router"]["address"]
    with udp.bind(place, "box", 7000) as client, udp.bind(place, "fra1") as outside:
        assert udp.arrives(outside, (wan, 7000), client) is None
        assert "7000" in sh(place, "box", command)
        assert udp.arrives(outside, (wan, 7000), client) is not None
        assert udp.arrives(outside, (client_ip(place, "box"), 7000), client) is None, "nobody routes a private address"


def client_ip(place: str, node: str) -> str:
    return sh(place, node, "hostname -I").split()[0]


def test_a_public_host_has_no_router_to_change(place: str) -> None:
    done = meshctl("lab", "nat", "--name", place, "fra1", "symmetric")
    assert done.returncode == 1
    assert b"fra1 has no router in the lab" in done.stderr


def test_an_unknown_nat_kind_is_refused_with_those_there_are(place: str) -> None:
    done = meshctl("lab", "nat", "--name", place, "home", "cone")
    assert done.returncode == 1
    assert b"symmetric-sequential" in done.stderr


def test_without_root_the_lab_says_that_it_needs_it(place: str) -> None:
    # The interpreter itself may stand where only root can read, so the rights are given up after the imports.
    script = (
        "import os, sys; from meshctl.cli import lab, run; from meshctl.lab import enter; os.setuid(65534);"
        f" sys.exit(run(['lab', 'exec', '--name', '{place}', 'home', '--', 'true']))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 1
    assert b"needs root; run it with sudo" in done.stderr


def test_status_as_json_has_the_published_shape(place: str) -> None:
    done = meshctl("lab", "status", "--name", place, "-o", "json")
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads(read_data("schemas", "lab.schema.json")))
    (shown,) = document["labs"]
    assert shown["hosts"]["kid1"] == {
        "running": True, "address": shown["hosts"]["kid1"]["address"], "router": "flat", "nat": "easy", "link": "up",
        "client": False,
    }
    assert shown["lans"].keys() == {"home-lan", "home-lan2", "home-lan3"}
    assert b"kid1" in meshctl("lab", "status").stdout
