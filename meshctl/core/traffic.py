"""Traffic as intervals of integers, so that first-match rules over protocols and ports are arithmetic on a line.

The line holds TCP's ports, then UDP's, then SCTP's, then one point for ICMP (v4 and v6) and one for every other
protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.model.policy import Traffic

PORTS = 1 << 16
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
ICMP = PORTS * len(PORT_PROTOCOLS)
OTHER = ICMP + 1
ANY: Traffic = ((0, OTHER),)
# Words beside `proto/ports` that traffic may be named by.
WORDS = {"any": ANY, "icmp": ((ICMP, ICMP),)}


def parse_ports(item: str) -> tuple[int, int]:
    """`tcp/22` or `udp/1000-2000` as an interval. Raises ValueError with the reason."""
    protocol, _, ports = item.partition("/")
    low_text, _, high_text = ports.partition("-")
    low, high = int(low_text), int(high_text or low_text)
    if not (0 < low < PORTS and 0 < high < PORTS):
        raise ValueError(f"ports are numbers from 1 to {PORTS - 1}")
    if low > high:
        raise ValueError(f"the range is empty; write {protocol}/{high}-{low}")
    base = PORT_PROTOCOLS.index(protocol) * PORTS
    return base + low, base + high


def union(intervals: Iterable[tuple[int, int]]) -> Traffic:
    """Any intervals as disjoint ascending ones; neighbours are joined."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = merged[-1][0], high
        else:
            merged.append((low, high))
    return tuple(merged)


def subtract(traffic: Traffic, covered: Traffic) -> Traffic:
    """What of `traffic` is not in `covered`."""
    rest: list[tuple[int, int]] = []
    for low, high in traffic:
        for covered_low, covered_high in covered:
            if covered_high < low:
                continue
            if covered_low > high:
                break
            if covered_low > low:
                rest.append((low, covered_low - 1))
            low = covered_high + 1
            if low > high:
                break
        if low <= high:
            rest.append((low, high))
    return tuple(rest)


def by_protocol(traffic: Traffic) -> list[tuple[str, int, int]]:
    """(protocol, first port, last port), cut at the protocols' borders; `icmp` and `other` with ports 0."""
    pieces = []
    for low, high in traffic:
        for index, protocol in enumerate(PORT_PROTOCOLS):
            base = index * PORTS
            first, last = max(low, base), min(high, base + PORTS - 1)
            if first <= last:
                pieces.append((protocol, first - base, last - base))
        if low <= ICMP <= high:
            pieces.append(("icmp", 0, 0))
        if low <= OTHER <= high:
            pieces.append(("other", 0, 0))
    return pieces


def words(traffic: Traffic) -> tuple[str, ...]:
    """As an operator writes it: `any`, or `tcp/22`, `udp/1000-2000`, `tcp` (all of it), `icmp`, `other`."""
    if traffic == ANY:
        return ("any",)
    return tuple(_word(*piece) for piece in by_protocol(traffic))


def _word(protocol: str, first: int, last: int) -> str:
    if protocol not in PORT_PROTOCOLS or (first <= 1 and last == PORTS - 1):
        return protocol
    # Nobody can type port 0; it is there as the edge of all lower ports.
    first = min(max(first, 1), last)
    return f"{protocol}/{first}" if first == last else f"{protocol}/{first}-{last}"
