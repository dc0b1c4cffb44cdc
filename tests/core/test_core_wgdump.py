"""Invariants: what `wg` prints is read as it is; anything else is a ValueError that repeats nothing of the line, which
may hold a key."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.wgdump import HIDDEN, NONE, OFF, parse_dump
from meshctl.model.facts import InterfaceFacts, PeerFacts
from meshctl.model.keys import PublicKey, Secret

HOST, PEER = "NgCVg3RfPCyHL8a6tm0yRzOgsmVae+Ej0Z2OsNMDFG4=", "5ZaJnxFLUWJAIyXfsx/ap5L6vtcYYoM2zHo1ok846qk="
PSK = "4Fm7/lXdUY6mOAd6B2VSILmCnOrvRm6rsuKbTFLW/ps="
# Of `wg show all dump`, without the private key, as the facts script sends it.
RECORDED = (
    f"wg0\t{HOST}\t51901\t0xca6c",
    f"wg0\t{PEER}\t{PSK}\t[2001:db8::2]:51820\t0.0.0.0/0,::/0\t1732186000\t18446744073709551615\t92\t25",
    "wg1\t(none)\t0\toff",
)
PEER_FIELD_NAMES = ("key", "psk", "endpoint", "allowed ips", "handshake", "received", "sent", "keepalive")

keys = st.binary(min_size=32, max_size=32).map(lambda raw: PublicKey(base64.b64encode(raw).decode()))
counters = st.integers(0, 2**64 - 1)
peers = st.builds(
    PeerFacts, keys, st.none() | st.just(Secret(PSK)), st.none() | st.sampled_from(["192.0.2.1:1", "[fe80::1%eth0]:2"]),
    st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8"]), max_size=2).map(tuple),
    counters, counters, counters, st.integers(0, 65535),
)  # fmt: skip
interfaces = st.builds(
    InterfaceFacts,
    name=st.sampled_from(["wg0", "wg-corp"]), public_key=st.none() | keys, listen_port=st.integers(0, 65535),
    fwmark=st.integers(0, 2**32 - 1),
    peers=st.lists(peers, max_size=3).map(lambda several: {peer.public_key: peer for peer in several}),
)  # fmt: skip


def printed(interface: InterfaceFacts) -> list[str]:
    """As show.c of wireguard-tools prints it."""
    mark = hex(interface.fwmark) if interface.fwmark else OFF
    lines = [(interface.name, str(interface.public_key or NONE), str(interface.listen_port), mark)]
    for peer in interface.peers.values():
        lines.append((
            interface.name, str(peer.public_key), peer.psk.reveal() if peer.psk else NONE, peer.endpoint or NONE,
            ",".join(peer.allowed_ips) or NONE, str(peer.latest_handshake), str(peer.rx_bytes), str(peer.tx_bytes),
            str(peer.keepalive_s or OFF),
        ))  # fmt: skip
    return ["\t".join(fields) for fields in lines]


@settings(max_examples=examples(100))
@given(interfaces)
def test_what_wg_prints_is_read_as_it_is(interface: InterfaceFacts) -> None:
    assert parse_dump(printed(interface)) == {interface.name: interface}


@settings(max_examples=examples(300))
@given(st.integers(0, 300), st.integers(0, 40), st.text(max_size=8))
def test_a_damaged_dump_is_read_or_refused_by_the_number_of_its_line(start: int, length: int, insert: str) -> None:
    text = "\n".join(RECORDED)
    damaged = text[:start] + insert + text[start + length :]
    with suppress(ValueError):
        parse_dump(damaged.split("\n"))


@pytest.mark.parametrize("number", ["1_0", "+5", "-7", "٣", " 1", "1 ", "", "0x10", "9" * 21, PSK])
@pytest.mark.parametrize("field", ["handshake", "received", "sent", "keepalive"])
def test_a_number_is_digits_and_nothing_else(field: str, number: str) -> None:
    fields = RECORDED[1].split("\t")
    fields[1 + PEER_FIELD_NAMES.index(field)] = number
    with pytest.raises(ValueError, match=r"^line 2 of the WireGuard dump is malformed$") as caught:
        parse_dump([RECORDED[0], "\t".join(fields)])
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mark", ["51820", "0xCA6C", "0x", "0x1_0", "none", "0x123456789"])
def test_a_firewall_mark_is_hexadecimal_as_wg_prints_it(mark: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_dump([f"wg0\t{HOST}\t51901\t{mark}"])


def test_a_secret_that_is_hidden_is_none() -> None:
    (interface,) = parse_dump([RECORDED[0], RECORDED[1].replace(PSK, HIDDEN)]).values()
    assert interface.peers[PublicKey(PEER)].psk is None
