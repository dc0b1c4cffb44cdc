"""What the agent does with the kernel's own WireGuard, by generic netlink, and with a wall clock that may be set, which
this machine's may not."""

from __future__ import annotations

import base64
import json

import pytest
from kernel_guest import Guest

from meshctl.render import zipapp

pytestmark = pytest.mark.lab

SETUP = """\
modprobe wireguard
ip link add wgk type wireguard
wg set wgk listen-port 51999 fwmark 0xca6c private-key /dev/stdin <<EOF
$(wg genkey)
EOF
for peer in ann bob; do wg genkey | wg pubkey >/root/$peer; done
wg set wgk peer $(cat /root/ann) allowed-ips 10.42.0.2/32 persistent-keepalive 25
wg genkey | wg pubkey >/root/zoe
"""
PROGRAM = """\
import json, sys
sys.path.insert(0, "/root/agent.pyz")
from pathlib import Path
from meshctl.agent.node.wireguard import WireGuard
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig, InterfaceConfig, PeerConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import PollWg, SetEndpoint, SetKeepalive
from meshctl.model.keys import PublicKey

keys = {name: PublicKey(Path("/root", name).read_text().strip()) for name in ("ann", "bob", "zoe")}
peers = tuple(PeerConfig(n, k, (f"10.42.0.{i}",), bytes(32)) for i, (n, k) in enumerate(keys.items(), 2))
own = PublicKey("A" * 43 + "=")
network = InterfaceConfig("corp", "wgk", own, ("10.42.0.1",), 51999, ("10.42.0.0/16",), peers=peers)
wireguard = WireGuard(AgentDocument(AgentConfig("me", (network,))))
shown = []
for endpoint in (Address("192.0.2.7", 4500), Address("2001:db8::7", 4501)):
    for key in keys.values():
        wireguard.do(SetEndpoint(key, endpoint))
    wireguard.do(SetKeepalive(keys["ann"], endpoint.port))
    wireguard.do(PollWg())
    ((event,),) = [wireguard.poll(0.0)]
    names = {key: name for name, key in keys.items()}
    shown.append([[names[p.public_key], str(p.endpoint), p.keepalive_s, p.rx_bytes] for p in event.peers])
print(json.dumps([shown, wireguard.marks]))
"""
MANY = """\
import base64, json, random, subprocess, sys
sys.path.insert(0, "/root/agent.pyz")
from meshctl.agent.node.wgread import read_device

dice, conf = random.Random(1), ["[Interface]", "ListenPort = 51999", "FwMark = 0xca6c"]
for number in range(300):
    ips = [f"10.{number // 200}.{number % 200}.{each}/32" for each in range(1 + 200 * (number == 150))]
    key = base64.b64encode(dice.randbytes(32)).decode()
    conf += ["[Peer]", f"PublicKey = {key}", f"AllowedIPs = {', '.join(ips)}", f"PersistentKeepalive = {number + 1}"]
    conf += [f"Endpoint = 192.0.2.{number % 250 + 1}:{number + 1}"] if number % 3 else []
subprocess.run(["wg", "setconf", "wgk", "/dev/stdin"], input="\\n".join(conf), text=True, check=True)
device = read_device("wgk", {})
found = sorted([str(p.public_key), str(p.endpoint), p.keepalive_s] for p in device.peers.values())
dump = subprocess.check_output(["wg", "show", "wgk", "dump"], text=True)
shown = [line.split("\\t") for line in dump.splitlines()[1:]]
assert found == sorted([p[0], p[2].replace("(none)", "None"), int(p[7])] for p in shown)
print(json.dumps([len(found), device.listen_port, device.fwmark, device.userspace, read_device("wg-none", {})]))
"""
PREFIXES = """\
import sys
sys.path.insert(0, "/root/agent.pyz")
from pathlib import Path
from meshctl.agent.node.wgset import take_allowed_ips
from meshctl.model.keys import PublicKey

for name in sys.argv[1:]:
    take_allowed_ips("wgk", PublicKey(Path("/root", name).read_text().strip()), ("10.42.0.2/32", "fd42::/64"))
"""
SPLICE_SETUP = """\
modprobe wireguard
for host in hard soft; do ip netns add $host; wg genkey >/root/$host; done
ip link add outer netns hard type veth peer name outer netns soft
n=1
for host in hard soft; do
  ip -n $host addr add 192.0.2.$n/24 dev outer
  ip -n $host link set outer up
  ip -n $host link add wgs type wireguard
  ip -n $host addr add 10.43.0.$n/24 dev wgs
  ip netns exec $host wg set wgs listen-port 51820 private-key /root/$host
  ip -n $host link set wgs up
  n=2
done
ip netns exec hard wg set wgs peer $(wg pubkey </root/soft) allowed-ips 10.43.0.2/32 endpoint 192.0.2.2:51820
ip netns exec soft wg set wgs peer $(wg pubkey </root/hard) allowed-ips 10.43.0.1/32 endpoint 192.0.2.1:20000
"""
SPLICE = """\
import sys
sys.path.insert(0, "/root/agent.pyz")
from meshctl.agent.node.splices import Splices
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig, InterfaceConfig, PeerConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import InstallSplice
from meshctl.model.keys import PublicKey

own, soft = PublicKey("A" * 43 + "="), PublicKey("B" * 42 + "A=")
peer = PeerConfig("soft", soft, ("10.43.0.2",), bytes(32))
network = InterfaceConfig("corp", "wgs", own, ("10.43.0.1",), 51820, ("10.43.0.0/16",), peers=(peer,))
splices = Splices(AgentDocument(AgentConfig("hard", (network,))), 0.0)
splices.do(InstallSplice(soft, Address("192.0.2.2", 51820), 20000))
splices.close()
"""
CLOCK = """\
import select, sys, time
sys.path.insert(0, "/root/agent.pyz")
from meshctl.agent.node.watch import ClockWatch
watch = ClockWatch()
((sock, read),) = watch.sockets()
for step in (3600, -7200):
    assert not select.select([sock], [], [], 0.2)[0]
    time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
    assert select.select([sock], [], [], 10)[0]
    print(*[type(event).__name__ for event in read(0.0)], watch.poll(0.0))
"""


@pytest.fixture(scope="module", name="guest_with_agent")
def _guest_with_agent(guest: Guest) -> Guest:
    guest.sh("base64 -d >/root/agent.pyz", stdin=base64.b64encode(zipapp.build().content).decode())
    return guest


def test_the_kernels_wireguard_runs_over_a_splice_from_the_first_packet_of_either_side(
    guest_with_agent: Guest,
) -> None:
    guest = guest_with_agent
    try:
        guest.sh(SPLICE_SETUP)
        guest.sh("ip netns exec hard python3 -", stdin=SPLICE)
        guest.sh("ip netns exec hard ping -q -i 0.05 -c 10 -W 5 10.43.0.2")
        assert guest.sh("ip netns exec soft wg show wgs endpoints").split()[1] == "192.0.2.1:20000"
        assert guest.sh("ip netns exec hard wg show wgs endpoints").split()[1] == "192.0.2.2:51820"
    finally:
        guest.sh("ip netns del hard; ip netns del soft")


def test_a_wall_clock_that_is_set_forward_or_back_is_noticed(guest_with_agent: Guest) -> None:
    assert guest_with_agent.sh("python3 -", stdin=CLOCK) == "ClockStepped []\n" * 2


def test_endpoint_and_keepalive_are_set_for_peers_that_are_there_and_no_peer_is_made(guest_with_agent: Guest) -> None:
    guest = guest_with_agent
    guest.sh(SETUP)
    try:
        shown, marks = json.loads(guest.sh("python3 -", stdin=PROGRAM))
        assert shown == [[["ann", "192.0.2.7:4500", 4500, 0]], [["ann", "[2001:db8::7]:4501", 4501, 0]]]
        assert marks == {"51999": 0xCA6C}
        assert guest.sh("wg show wgk allowed-ips").split()[1:] == ["10.42.0.2/32"]
    finally:
        guest.sh("ip link del wgk")


def test_prefixes_go_from_one_peer_to_another_in_one_step_and_no_peer_is_made(guest_with_agent: Guest) -> None:
    guest = guest_with_agent
    guest.sh(SETUP)
    try:
        ann, bob = (guest.sh(f"cat /root/{name}").strip() for name in ("ann", "bob"))
        guest.sh(f"wg set wgk peer {bob}")
        guest.sh("python3 - bob zoe", stdin=PREFIXES)
        shown = dict(line.split("\t") for line in guest.sh("wg show wgk allowed-ips").splitlines())
        assert {key: set(ips.split()) for key, ips in shown.items()} == {
            ann: {"(none)"}, bob: {"10.42.0.2/32", "fd42::/64"}
        }  # fmt: skip
    finally:
        guest.sh("ip link del wgk")


def test_three_hundred_peers_are_read_as_wg_shows_them_one_with_more_allowed_ips_than_fit_a_message(
    guest_with_agent: Guest,
) -> None:
    guest = guest_with_agent
    guest.sh("modprobe wireguard && ip link add wgk type wireguard")
    try:
        assert json.loads(guest.sh("python3 -", stdin=MANY)) == [300, 51999, 0xCA6C, False, None]
    finally:
        guest.sh("ip link del wgk")
