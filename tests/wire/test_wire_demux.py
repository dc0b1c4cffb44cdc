"""STUN and WireGuard share a port: every datagram goes to the one that it belongs to."""

from __future__ import annotations

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.wire import stun
from meshctl.core.wire.demux import Protocol, classify

COOKIE = bytes.fromhex("2112a442")
WIREGUARD = {
    "initiation": (1, 148), "response": (2, 92), "cookie reply": (3, 64), "keepalive": (4, 32),
    "data up to an MTU of 1420": (4, 1452),
}


@pytest.mark.parametrize("name", WIREGUARD)
@pytest.mark.parametrize("index", [b"\0\0\0\0", COOKIE], ids=["any index", "the cookie as index"])
def test_a_packet_of_wireguard_is_never_taken_for_stun(name: str, index: bytes) -> None:
    kind, size = WIREGUARD[name]
    packet = bytes([kind, 0, 0, 0]) + index + bytes(size - 8)
    assert classify(packet) == Protocol.WIREGUARD


@settings(max_examples=examples(50))
@given(st.sampled_from(stun.Class), st.integers(0, 0xFFF), st.binary(min_size=12, max_size=12), st.integers(0, 508))
def test_what_we_send_as_stun_is_recognised(kind: stun.Class, method: int, transaction: bytes, size: int) -> None:
    raw = stun.encode(stun.Message(kind, transaction, method, username="x" * size))
    assert classify(raw) == Protocol.STUN


@settings(max_examples=examples(50))
@given(st.binary(max_size=200))
def test_noise_is_classified_without_an_error(noise: bytes) -> None:
    assert classify(noise) in Protocol


@pytest.mark.parametrize(
    "packet",
    [
        b"", b"\x40\1\0\0" + COOKIE + bytes(12), bytes(19),
        b"\1\0\0\0" + bytes(30), b"\4\0\0\0" + bytes(27), b"\5\0\0\0" + bytes(28),
    ],
)
def test_neither_is_recognised_as_neither(packet: bytes) -> None:
    assert classify(packet) == Protocol.OTHER
