"""Going back to what a host had: links, addresses, routes, rules, WireGuard, nftables, sysctls and files."""

from __future__ import annotations

import pytest
from agent_node import Node

pytestmark = pytest.mark.lab

BEFORE = """
set -e
ip link add d0 type veth peer name e0; ip link set e0 up; ip addr add 192.0.2.2/24 dev d0; ip link set d0 up mtu 1400
wireguard-go wg0 >/dev/null 2>&1
wg genkey >/run/key; wg genkey | wg pubkey >/run/ann; wg genkey | wg pubkey >/run/bob; wg genpsk >/run/psk
wg set wg0 private-key /run/key listen-port 51820 fwmark 0xca6c
wg set wg0 peer $(cat /run/ann) allowed-ips 10.42.0.2/32,10.43.0.0/24 endpoint 192.0.2.7:51820 preshared-key /run/psk
wg set wg0 peer $(cat /run/bob) allowed-ips 10.42.0.3/32 persistent-keepalive 25
ip addr add 10.42.0.1/24 dev wg0; ip addr add fd42::1/64 dev wg0; ip link set wg0 up mtu 1420
ip route add 10.43.0.0/24 dev wg0; ip route add default via 192.0.2.1 dev d0 metric 50
ip -6 route add fd43::/64 dev wg0; ip route add blackhole 10.99.0.0/16
ip route add 10.98.0.0/16 nexthop via 192.0.2.7 dev d0 nexthop via 192.0.2.8 dev d0 weight 3
ip -6 route add fd98::/64 nexthop via fd42::7 dev wg0 nexthop via fd42::8 dev wg0
ip rule add pref 100 not fwmark 0xca6c lookup 51820; ip route add default dev wg0 table 51820
ip -6 rule add pref 100 from fd42::/64 lookup 51820
nft 'add table inet meshctl; add chain inet meshctl in { type filter hook input priority 0; policy drop; }
  add rule inet meshctl in tcp dport 22 counter accept'
nft 'add table ip other; add set ip other s { type ipv4_addr; elements = { 192.0.2.9 } }'
nft 'add table inet meshctl_relays'
"""
# Each is what one bad line of an inventory can do, and worse; in an order in which each can still be done after the
# others: without its interface or address, a route or peer cannot be changed.
CHANGES = {
    "routes and rules": """ip route del default; ip route add default dev wg0; ip route add 192.0.2.128/25 dev wg0
        ip rule del pref 100; ip -6 rule add pref 90 lookup 7; ip route del blackhole 10.99.0.0/16
        ip route del 10.98.0.0/16; ip -6 route del fd98::/64; ip route add 10.97.0.0/16 nexthop via 192.0.2.7 dev d0
        ip route add 10.96.0.0/16 nexthop via 192.0.2.7 dev d0 nexthop via 192.0.2.9 dev d0""",
    "addresses": "ip addr del 192.0.2.2/24 dev d0; ip addr add 192.0.2.3/25 dev d0; ip addr del fd42::1/64 dev wg0",
    "another interface": """wireguard-go wg1 >/dev/null 2>&1; ip addr add 10.44.0.1/24 dev wg1
        ip link set wg1 up; ip route add 10.45.0.0/24 dev wg1""",
    "a rule less": "nft flush chain inet meshctl in",
    "a firewall": """nft flush ruleset; nft 'add table inet f
        add chain inet f in { type filter hook input priority 0; policy drop; }
        add table inet meshctl_relays'""",
    "a peer less, one more and one of other words": """
        wg set wg0 peer $(cat /run/bob) remove; wg set wg0 peer $(wg genkey | wg pubkey) allowed-ips 10.42.0.9/32
        wg set wg0 peer $(cat /run/ann) allowed-ips 0.0.0.0/0 persistent-keepalive 5 endpoint 192.0.2.8:1""",
    "another key and port": "wg genkey | wg set wg0 private-key /dev/stdin listen-port 51999 fwmark 0",
    "an MTU, and a link that is down": "ip link set wg0 mtu 1280 down; ip link set d0 mtu 600",
    "no interface": "ip link delete wg0",
}
CASES = {
    **CHANGES,
    "all of it, but the interface stays": "\n".join([*CHANGES.values()][:-1]),
    "all of it": "\n".join(CHANGES.values()),
}
PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from meshctl.agent.netstate import NetState, capture
from meshctl.agent.netrestore import commands, differences
from meshctl.agent import process

kept = Path("/run/kept.json")
if sys.argv[2] == "save":
    kept.write_text(capture().to_json())
    sys.exit()
wanted = NetState.from_json(kept.read_text())
print(len(differences(wanted, capture())))
for _ in range(3):
    for argv, stdin in commands(wanted, capture()):
        process.run(argv, None if stdin is None else stdin.encode())
print(*differences(wanted, capture()), sep="\\n")
"""


def state(node: Node, what: str) -> list[str]:
    node.sh(f"cat >/run/state.py <<'E'\n{PROGRAM}\nE")
    return node.sh(f"/usr/bin/python3 -I -S /run/state.py {node.agent} {what}").split("\n")


@pytest.mark.parametrize("change", CASES)
def test_whatever_was_done_to_a_network_can_be_undone(node: Node, change: str) -> None:
    node.sh(BEFORE)
    state(node, "save")
    node.sh(f"set -e\n{CASES[change]}")
    differing, *left = state(node, "restore")
    assert int(differing) > 0, "the change was none"
    assert left == ["", ""]
