"""What the loaded table does beside deciding: reloads keep connections, rules count, limits act, drops are logged."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from asking import read
from kernel_log import kernel_log
from packets import Host
from policy_strategies import LANS, inventory, node
from test_policy_packets import LAYOUT, host_of, table

from meshctl.policy import compile_mesh

pytestmark = pytest.mark.lab
ENDS = [tuple(LAYOUT["nodes"][name]["address"]["corp"][family] for name in ("n5", "n4")) for family in (0, 1)]
RULE: dict[str, Any] = {"name": "ping", "from": "n5", "to": "n4", "allow": ["icmp"]}
PER_SECOND = 2
LOGGED_AT_ONCE = 20  # the burst in templates/firewall.nft.j2


@pytest.fixture
def n4() -> Iterator[Host]:
    made = host_of("n4")
    yield made
    made.close()


@pytest.fixture(params=ENDS, ids=["v4", "v6"])
def ends(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The addresses of n5 and n4."""
    found: tuple[str, str] = request.param
    return found


def rendered(*rules: dict[str, Any], host: str = "n4", **variables: Any) -> str:
    nodes = {**LAYOUT["nodes"], host: {**LAYOUT["nodes"][host], "vars": variables}}
    return table(compile_mesh(read({**LAYOUT, "nodes": nodes, "policies": list(rules)})), host)


def counted(host: Host, name: str) -> int:
    found = re.search(r"packets (\d+)", host.run("nft", "list", "counter", "inet", "meshctl", name))
    assert found is not None
    return int(found[1])


def test_a_rule_counts_the_connections_that_it_decides(n4: Host, ends: tuple[str, str]) -> None:
    n4.load(rendered(RULE))
    for _ in range(3):
        assert n4.passes("wg0", *ends, "icmp", 0) == "wg0"
        assert n4.passes("wg0", *ends, "icmp", 0, n4.serial) == "wg0", "and it goes on"
    assert counted(n4, "rule_ping") == 3


def test_a_deny_rule_counts_what_it_refuses(n4: Host, ends: tuple[str, str]) -> None:
    n4.load(rendered({"name": "all", "from": "n5", "to": "n4", "allow": ["any"]}, {
        "name": "no-ssh", "from": "n5", "to": "n4", "deny": ["tcp/22"],
    }))  # fmt: skip
    assert [n4.passes("wg0", *ends, "tcp", port) for port in (22, 23, 22)] == ["", "wg0", ""]
    assert (counted(n4, "rule_no-ssh"), counted(n4, "rule_all")) == (2, 1)


def test_new_connections_beyond_a_rules_limit_are_dropped_whatever_their_family(n4: Host) -> None:
    other = {"name": "web", "from": "n5", "to": "n4", "allow": ["tcp/80"]}
    n4.load(rendered({**RULE, "limits": {"connections_per_second": PER_SECOND}}, other))
    started = time.monotonic()
    assert n4.passes("wg0", *ENDS[0], "icmp", 0) == "wg0"
    first = n4.serial
    opened = 1 + [n4.passes("wg0", *ENDS[i % 2], "icmp", 0) for i in range(60)].count("wg0")
    elapsed = time.monotonic() - started
    assert PER_SECOND <= opened <= PER_SECOND + PER_SECOND * elapsed
    assert n4.passes("wg0", *ENDS[0], "icmp", 0, first) == "wg0", "what is established goes on"
    assert {n4.passes("wg0", *pair, "tcp", 80) for pair in ENDS * 10} == {"wg0"}, "and another rule has no limit"


def test_a_connection_survives_the_reload_that_takes_its_rule_away(n4: Host, ends: tuple[str, str]) -> None:
    n4.load(rendered(RULE))
    assert n4.passes("wg0", *ends, "icmp", 0) == "wg0"
    serial = n4.serial
    n4.load(rendered({**RULE, "allow": ["tcp/22"]}))
    assert n4.passes("wg0", *ends, "icmp", 0) == ""
    assert n4.passes("wg0", *ends, "icmp", 0, serial) == "wg0"


def test_a_limited_connection_keeps_its_own_limit_when_another_rule_gets_one(n4: Host, ends: tuple[str, str]) -> None:
    def limited(name: str, port: int) -> dict[str, Any]:
        return {"name": name, "from": "n5", "to": "n4", "allow": [f"udp/{port}"], "limits": {"bandwidth": "1mbit"}}

    n4.load(rendered(limited("b", 1001)))
    assert n4.passes("wg0", *ends, "udp", 1001) == "wg0"
    n4.load(rendered(limited("a", 1000), limited("b", 1001), limited("c", 1002)))
    found = re.search(r"mark=(\d+)", n4.run("conntrack", "-L", "-p", "udp", "-f", f"ipv{6 if ':' in ends[0] else 4}"))
    assert found is not None
    meters = n4.run("nft", "list", "chain", "inet", "meshctl", "input")
    assert f"0x{int(found[1]):08x} : jump limit_rule_b" in meters


@pytest.mark.parametrize("family", [0, 1], ids=["v4", "v6"])
def test_an_anchor_carries_answers_and_what_is_established_though_the_rule_goes(family: int) -> None:
    one, other = (LAYOUT["nodes"][name]["address"]["corp"][family] for name in ("n4", "n6"))
    carrying = {"name": "carried", "from": "n4", "to": "n6", "allow": ["udp/443"]}
    hub = host_of("hub")
    try:
        hub.load(rendered(carrying, host="hub"))
        assert hub.passes("wg0", one, other, "udp", 443) == "wg0"
        opened = hub.serial
        assert hub.passes("wg0", other, one, "udp", opened, again=443) == "wg0", "the answer"
        hub.load(rendered({**carrying, "allow": ["udp/53"]}, host="hub"))
        assert hub.passes("wg0", other, one, "udp", opened, again=443) == "wg0"
        assert hub.passes("wg0", one, other, "udp", 443, again=opened) == "wg0"
        assert hub.passes("wg0", one, other, "udp", 443, again=opened + 1) == "", "a new one"
        assert hub.passes("wg0", other, one, "udp", opened + 2, again=443) == "", "nor an answer to nothing"
    finally:
        hub.close()


def test_drops_are_logged_when_asked_for_and_no_more_than_the_rate(n4: Host, ends: tuple[str, str]) -> None:
    about = f"SRC={ip_address(ends[0]).exploded} DST={ip_address(ends[1]).exploded}"
    with kernel_log() as log:
        n4.load(rendered(RULE))
        assert n4.passes("wg0", *ends, "tcp", 22) == ""
        assert [line for line in log.lines() if about in line] == []
        n4.load(rendered(RULE, firewall_log=True))
        assert n4.passes("wg0", *ends, "icmp", 0) == "wg0"
        assert {n4.passes("wg0", *ends, "tcp", 22) for _ in range(2 * LOGGED_AT_ONCE)} == {""}
        lines = [line for line in log.lines() if about in line]
    assert all(line.startswith("meshctl denied: IN=wg0 OUT= ") and " DPT=22 " in line for line in lines), lines
    assert LOGGED_AT_ONCE <= len(lines) <= LOGGED_AT_ONCE + 1


@pytest.mark.parametrize("family", [0, 1], ids=["v4", "v6"])
def test_a_gateway_s_own_address_in_its_lan_is_judged_as_the_lan(family: int) -> None:
    lan, own = [*LANS][family], ("192.168.10.1", "fd99::1")[family]
    source = LAYOUT["nodes"]["n4"]["address"]["corp"][family]
    rules = {"name": "node", "from": "n4", "to": "gate", "allow": ["udp/1"]}, {
        "name": "lan", "from": "n4", "to": lan, "allow": ["udp/2"],
    }  # fmt: skip
    gate = host_of("gate")
    try:
        gate.run("ip", "addr", "add", own, "dev", "lan0", *(["nodad"] if family else []))
        gate.load(rendered(*rules, host="gate"))
        assert [gate.passes("wg0", source, own, "udp", port) for port in (1, 2)] == ["", "wg0"]
        at_mesh = LAYOUT["nodes"]["gate"]["address"]["corp"][family]
        assert [gate.passes("wg0", source, at_mesh, "udp", port) for port in (1, 2)] == ["wg0", ""]
    finally:
        gate.close()


def test_interfaces_of_any_name_have_chains_of_their_own() -> None:
    """`1` is a name that nft takes, `wg+1` is one that it does not."""
    networks = ("corp", "lab")
    nodes = {
        "a": node(1, networks, endpoint=True, interface={"corp": "1", "lab": "wg+1"}),
        "b": node(2, networks, endpoint=True),
    }
    data = inventory(nodes, networks, policies=[{"name": "all", "from": "*", "to": "*", "allow": ["any"]}])
    text = table(compile_mesh(read(data)), "a")
    assert len(re.findall(r"^\tchain in\w+ \{", text, re.MULTILINE)) == 3  # one each, and the hook's
    assert len(set(re.findall(r"^\tchain (\S+) \{", text, re.MULTILINE))) == text.count("\tchain ")
