"""Addresses: one text for each, and what a router's outside address says of the router."""

from __future__ import annotations

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import hosts

from meshctl.core.wire.address import canonical_ip, pack_ip, pack_mapped, unpack_ip
from meshctl.core.wire.error import WireError
from meshctl.core.wire.specialranges import Reach, reach


@settings(max_examples=examples(50))
@given(hosts)
def test_an_address_survives_the_way_there_and_back(host: str) -> None:
    assert unpack_ip(pack_ip(host)) == host
    assert unpack_ip(pack_mapped(host)) == host


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("2001:DB8:0::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::1.2.3.4", "::102:304"), ("1.2.3.4",) * 2],
)
def test_an_address_has_one_text(text: str, canonical: str) -> None:
    assert canonical_ip(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "router", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "fe80::1%eth0", ":", "1.2.3.4:5"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        canonical_ip(text)


@settings(max_examples=examples(50))
@given(st.binary(max_size=20).filter(lambda raw: len(raw) not in (4, 16)))
def test_bytes_of_another_length_are_no_address(raw: bytes) -> None:
    with pytest.raises(WireError):
        unpack_ip(raw)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("203.0.113.7", Reach.GLOBAL), ("8.8.8.8", Reach.GLOBAL), ("100.63.255.255", Reach.GLOBAL),
        ("172.32.0.1", Reach.GLOBAL), ("2001:db8::1", Reach.GLOBAL),
        ("100.64.0.1", Reach.INNER), ("100.127.255.254", Reach.INNER), ("10.9.8.7", Reach.INNER),
        ("172.31.255.1", Reach.INNER), ("192.168.0.10", Reach.INNER), ("169.254.1.1", Reach.INNER),
        ("192.0.0.2", Reach.INNER), ("fd42::1", Reach.INNER), ("fe80::1", Reach.INNER),
        ("0.0.0.0", Reach.NONE),  # noqa: S104 - what routers say that have no address
        ("127.0.0.1", Reach.NONE), ("224.0.0.1", Reach.NONE), ("255.255.255.255", Reach.NONE),
        ("::", Reach.NONE), ("::1", Reach.NONE), ("ff02::1", Reach.NONE),
    ],
)
def test_a_routers_address_tells_whether_there_is_another_nat(host: str, expected: Reach) -> None:
    assert reach(host) == expected
