"""What outlives the agent. Hunted: a file that keeps the agent from starting, or makes it do what nobody decided."""

from __future__ import annotations

import json

import pytest
from agentcore_values import key
from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.relayserver import PORTS
from meshctl.core.agent.state import MAX_BYTES, Kept, KeptEnd, KeptPath, KeptRelay, dump, load

HERE, THERE, V6 = Address("192.0.2.1", 51820), Address("198.51.100.2", 1024), Address("2001:db8::1", 7)
RELAY = KeptRelay("corp", 40001, KeptEnd(key("a"), bytes(range(16)), THERE), KeptEnd(key("b"), b"t" * 16, V6))
KEPT = Kept(b"[]", (KeptPath(key("a"), Pair(HERE, THERE), spliced=True),), (RELAY,))


def test_what_is_written_is_read_again() -> None:
    assert load(dump(KEPT)) == KEPT
    assert load(dump(Kept())) == Kept()


def test_an_anchor_with_a_relay_at_each_of_its_ports_knows_them_again() -> None:
    far = Address("2001:db8:1111:2222:3333:4444:5555:6666", 65535)
    ends = KeptEnd(key("a"), bytes(16), far), KeptEnd(key("b"), bytes(16), far)
    kept = Kept(b"", (), tuple(KeptRelay("a-network-of-15c", port, *ends) for port in PORTS))
    assert load(dump(kept)) == kept


def test_the_same_is_the_same_bytes_whatever_its_order() -> None:
    other = KeptPath(key("b"), Pair(HERE, HERE), spliced=False)
    assert dump(Kept(b"", (KEPT.paths[0], other))) == dump(Kept(b"", (other, KEPT.paths[0])))


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_noise_is_nothing(noise: bytes) -> None:
    assert load(noise) == Kept()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda v: st.lists(v, max_size=6)))
def test_rows_of_anything_are_left_out(row: object) -> None:
    document = {"version": 1, "ports": row, "paths": [row], "relays": [row]}
    kept = load(json.dumps(document).encode())
    assert (kept.paths, kept.relays) == ((), ())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"paths": {}}, {"paths": [["x", *HERE, *THERE, True]]},
        {"paths": [[key("a").text, *HERE, *V6, True]]}, {"paths": [[key("a").text, "192.0.2.1", 70000, *THERE, True]]},
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_left_out(change: dict[str, object]) -> None:
    document = {**json.loads(dump(KEPT)), **change}
    assert load(json.dumps(document).encode()).paths == ()


@pytest.mark.parametrize("port", [51820.0, 40000.5, True, 0, -1, 0x10000, "51820", None])
def test_what_is_no_port_makes_no_address_of_a_path_nor_of_an_end_of_a_relay(port: object) -> None:
    document = json.loads(dump(KEPT))
    document["paths"] = [[key("a").text, HERE.ip, port, *THERE, True], [key("a").text, *HERE, THERE.ip, port, True]]
    here, there = [key("a").text, "00" * 16, *HERE], [key("b").text, "00" * 16, *THERE]
    document["relays"] = [["corp", 40001, [*here[:3], port], there], ["corp", 40001, here, [*there[:3], port]]]
    kept = load(json.dumps(document).encode())
    assert (kept.paths, kept.relays) == ((), ())


@pytest.mark.parametrize(
    "relay",
    [
        ["corp", "40001", [key("a").text, "00" * 16, *HERE], [key("b").text, "00" * 16, *THERE]],
        ["corp", 40001, [key("a").text, "00" * 15, *HERE], [key("b").text, "00" * 16, *THERE]],
        ["corp", 40001, [key("a").text, "00" * 16, *HERE]],
    ],
)
def test_a_relay_that_cannot_be_is_left_out(relay: list[object]) -> None:
    document = {**json.loads(dump(KEPT)), "relays": [relay]}
    assert load(json.dumps(document).encode()).relays == ()


def test_a_file_without_end_is_not_read() -> None:
    assert load(dump(KEPT) + b" " * MAX_BYTES) == Kept()
