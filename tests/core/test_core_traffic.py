"""Traffic in the words of an operator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.traffic import ANY, OTHER, PORT_PROTOCOLS, PORTS, by_protocol, parse_ports, subtract, union, words

ENDS = st.tuples(st.integers(0, OTHER), st.integers(0, OTHER)).map(lambda ends: (min(ends), max(ends)))


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("tcp/22", ("tcp/1-21", "tcp/23-65535", "udp", "sctp", "icmp", "other")),
        ("udp/2", ("tcp", "udp/1", "udp/3-65535", "sctp", "icmp", "other")),
        ("tcp/1", ("tcp/0", "tcp/2-65535", "udp", "sctp", "icmp", "other")),
    ],
)
def test_what_is_left_of_everything_is_named_from_port_1(taken: str, left: tuple[str, ...]) -> None:
    assert words(subtract(ANY, (parse_ports(taken),))) == left


@given(st.lists(ENDS, min_size=1, max_size=6).map(union))
def test_a_range_of_ports_is_named_so_that_it_can_be_typed(traffic: tuple[tuple[int, int], ...]) -> None:
    """And means what was meant, but for port 0, which no application has."""
    typed = [parse_ports(word) for word in words(traffic) if "/" in word and not word.endswith("/0")]
    zeros = tuple((base, base) for base in range(0, PORTS * len(PORT_PROTOCOLS), PORTS))
    ranges = [
        (PORT_PROTOCOLS.index(protocol) * PORTS + low, PORT_PROTOCOLS.index(protocol) * PORTS + high)
        for protocol, low, high in by_protocol(traffic)
        if protocol in PORT_PROTOCOLS and (low > 1 or high < PORTS - 1)
    ]
    assert union(typed) == subtract(union(ranges), zeros)
