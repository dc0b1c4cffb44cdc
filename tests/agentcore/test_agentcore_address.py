"""Addresses: one text each, and what is nobody's endpoint."""

from __future__ import annotations

import ipaddress

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address, LocalAddress, canonical, is_private, refusal, shared_prefix, ways_out

MESH = ("10.42.0.0/16", "fd42:42::/48")
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@settings(max_examples=examples(40))
@given(ips, st.integers(0, 0xFFFF))
def test_an_address_reads_back_from_its_own_text(ip: str, port: int) -> None:
    address = Address.of(ip, port)
    assert Address.parse(str(address)) == address
    assert canonical(address.ip) == address.ip


@settings(max_examples=examples(40))
@given(st.ip_addresses(v=4))
def test_an_ipv4_mapped_address_is_the_ipv4_address_in_each_of_its_spellings(ip: ipaddress.IPv4Address) -> None:
    high, low = int(ip) >> 16, int(ip) & 0xFFFF
    assert canonical(f"::ffff:{ip}") == canonical(f"::FFFF:{high:x}:{low:x}") == str(ip)


@pytest.mark.parametrize(
    "text",
    ["", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1:1²", "2001:db8::1:51820",
     "[192.0.2.1]:1", "[2001:db8::1]", "[fe80::1%eth0]:1", "host:51820", "192.0.2.01:1x", "[]:1", ":1"],
)  # fmt: skip
def test_what_is_no_address_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|does not appear|has a scope"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("ip", "word"),
    [
        ("10.42.3.4", "mesh range"), ("fd42:42:0:1::9", "mesh range"),
        ("::ffff:10.42.3.4", "mesh range"), ("::ffff:a2a:304", "mesh range"),
        ("127.0.0.1", "loopback"), ("::ffff:127.0.0.1", "loopback"), ("::1", "loopback"),
        ("0.1.2.3", "unspecified"), ("::", "unspecified"), ("169.254.1.1", "link-local"), ("fe80::1", "link-local"),
        ("224.0.0.251", "multicast"), ("ff02::1", "multicast"), ("255.255.255.255", "reserved"),
        ("fe80::1%eth0", "not an address"), ("nonsense", "not an address"),
        ("10.43.0.1", ""), ("192.168.0.1", ""), ("100.64.0.1", ""), ("fd42:43::1", ""), ("203.0.113.1", ""),
        ("2001:db8::1", ""), ("198.18.0.1", ""),
    ],
)  # fmt: skip
def test_nobodys_endpoint_is_refused_with_the_reason(ip: str, word: str) -> None:
    assert refusal(ip, 51820, MESH) == word


def test_port_0_is_nobodys_endpoint() -> None:
    assert refusal("203.0.113.1", 0, MESH) == "port 0"


@settings(max_examples=examples(40))
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**80 - 1), st.booleans())
def test_no_address_inside_a_mesh_range_is_an_endpoint(low: int, low6: int, mapped: bool) -> None:
    four = f"10.42.{low >> 8}.{low & 0xFF}"
    six = str(ipaddress.ip_network("fd42:42::/48")[low6])
    assert refusal(f"::ffff:{four}" if mapped else four, 1, MESH) == refusal(six, 1, MESH) == "mesh range"


def test_private_is_what_means_another_host_elsewhere() -> None:
    inside = ("10.0.0.1", "100.127.255.255", "172.31.0.1", "192.0.0.4", "192.168.9.9", "fdff::1")
    outside = ("11.0.0.1", "100.128.0.0", "172.32.0.1", "192.0.1.1", "192.169.0.1", "2001:db8::1")
    assert [ip for ip in (*inside, *outside) if is_private(ip)] == list(inside)


def test_a_shared_prefix_is_one_that_has_room_for_two() -> None:
    local = [
        LocalAddress("192.168.1.10", 24, "eth0"),
        LocalAddress("203.0.113.5", 32, "eth1"),
        LocalAddress("2001:db8::1", 64, "eth0"),
    ]
    assert shared_prefix("192.168.1.99", local)
    assert shared_prefix("2001:db8::2", local)
    assert not shared_prefix("192.168.1.10", local)
    assert not shared_prefix("192.168.2.1", local)
    assert not shared_prefix("203.0.113.5", local)


def test_the_ways_out_are_where_gateways_stand() -> None:
    wan, lan = LocalAddress("192.168.1.5", 24, "wan0"), LocalAddress("10.0.1.1", 24, "lan0")
    six, inside = LocalAddress("2001:db8:1::5", 64, "wan0"), LocalAddress("2001:db8:2::1", 64, "lan0")
    here = (wan, lan, six, inside)
    assert ways_out(here, ()) == set()
    assert ways_out(here, ("192.168.1.1",)) == {wan.ip}
    assert ways_out(here, ("fe80::1%wan0",)) == {six.ip}
    assert ways_out(here, ("2001:db8:2::ff", "10.0.1.254", "198.51.100.1")) == {inside.ip, lan.ip}
