"""PCP and NAT-PMP: what is asked for, what gateways answer, when they forgot, and what a stranger may send."""

from __future__ import annotations

from contextlib import suppress

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_fixtures import FIXTURES, from_hex
from wire_strategies import damaged, hosts

from meshctl.core.wire import natpmp, pcp
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError

NONCE = bytes(range(12))
REQUEST = pcp.MapRequest("192.168.1.5", NONCE, 51820, 7200, TransportAddress("203.0.113.7", 51820))
PORTS = st.integers(1, 65535)
RECORDED = sorted(path.name for path in (FIXTURES / "gateway").glob("*.hex"))


def gateway(name: str) -> bytes:
    return from_hex(f"gateway/{name}.hex")


def test_a_map_request_has_the_bytes_of_rfc_6887() -> None:
    assert pcp.encode_map(REQUEST) == bytes.fromhex(
        "0201 0000 00001c20 00000000000000000000ffffc0a80105"
        "000102030405060708090a0b 11 000000 ca6c ca6c 00000000000000000000ffffcb007107"
    )


def test_a_map_request_without_a_wish_asks_for_any_address_of_its_family() -> None:
    four = pcp.encode_map(pcp.MapRequest("192.168.1.5", NONCE, 51820, 7200))
    assert four[42:] == bytes.fromhex("0000 00000000000000000000ffff00000000")
    six = pcp.encode_map(pcp.MapRequest("2001:db8::5", NONCE, 51820, 7200))
    assert six[8:24] == bytes.fromhex("20010db8000000000000000000000005")
    assert six[42:] == bytes.fromhex("ca6c 20010db8000000000000000000000005")


def test_a_deletion_has_no_lifetime_and_suggests_nothing() -> None:
    raw = pcp.encode_map(pcp.MapRequest("192.168.1.5", NONCE, 51820, 0, TransportAddress("203.0.113.7", 51820)))
    assert raw[4:8] == bytes(4)
    assert raw[42:] == bytes.fromhex("0000 00000000000000000000ffff00000000")


@pytest.mark.parametrize(
    ("client", "nonce", "port", "lifetime", "suggested"),
    [
        ("192.168.1.5", b"short", 1, 1, None), ("router", NONCE, 1, 1, None), ("192.168.1.5", NONCE, 0, 1, None),
        ("192.168.1.5", NONCE, 65536, 1, None), ("192.168.1.5", NONCE, 1, -1, None),
        ("192.168.1.5", NONCE, 1, 2**32, None),
        ("192.168.1.5", NONCE, 1, 1, TransportAddress("203.0.113.7", 65536)),
    ],
)
def test_a_map_request_out_of_range_is_refused(
    client: str, nonce: bytes, port: int, lifetime: int, suggested: TransportAddress | None
) -> None:
    with pytest.raises(WireError):
        pcp.encode_map(pcp.MapRequest(client, nonce, port, lifetime, suggested))


def test_a_request_at_the_edge_of_the_range_is_sent() -> None:
    edge = pcp.MapRequest("192.168.1.5", NONCE, 65535, 2**32 - 1, TransportAddress("203.0.113.7", 65535))
    assert pcp.encode_map(edge)[4:8] == b"\xff\xff\xff\xff"
    assert natpmp.encode_map(65535, 65535, 2**32 - 1) == bytes.fromhex("0001 0000 ffff ffff ffffffff")
    assert natpmp.encode_map(1, 0, 1) == bytes.fromhex("0001 0000 0001 0000 00000001")


def test_a_response_of_any_size_that_the_rfc_allows_is_read() -> None:
    longest = gateway("miniupnpd-pcp-map") + bytes(1100 - 60)
    assert pcp.decode(longest) == pcp.decode(gateway("miniupnpd-pcp-map"))
    assert pcp.decode(bytes.fromhex("0081 0001")) == pcp.VersionRefused(0)
    assert natpmp.decode(bytes.fromhex("0081 0004 00000007")) == natpmp.Refusal(4, 7, True)
    assert natpmp.decode(bytes.fromhex("0080 0000 00000007 cb007107") + bytes(1088)) == natpmp.ExternalAddress(
        "203.0.113.7", 7,
    )
    with pytest.raises(WireError):
        natpmp.decode(bytes.fromhex("0080 0000 00000007 cb007107") + bytes(1089))


def test_a_mapping_is_read_from_the_answer() -> None:
    recorded = pcp.decode(gateway("recorded-pcp-map"))
    assert isinstance(recorded, pcp.Response)
    assert recorded.mapping == pcp.Mapping(NONCE, 17, 51820, TransportAddress("11.0.0.1", 51820))
    response = pcp.decode(gateway("miniupnpd-pcp-map"))
    mapping = pcp.Mapping(NONCE, 17, 51820, TransportAddress("203.0.113.7", 51820))
    assert response == pcp.Response(pcp.Opcode.MAP, 0, 7200, 3600, mapping)
    assert isinstance(response, pcp.Response)
    assert response.retry is None


def test_a_pinhole_is_read_from_the_answer() -> None:
    response = pcp.decode(gateway("miniupnpd-pcp-pinhole"))
    assert isinstance(response, pcp.Response)
    assert response.mapping is not None
    assert response.mapping.external == TransportAddress("2001:db8::5", 51820)


def test_a_pinhole_without_a_port_is_for_the_internal_one() -> None:
    response = pcp.decode(gateway("recorded-pcp-pinhole"))
    assert isinstance(response, pcp.Response)
    assert response.mapping is not None
    assert response.mapping.external == TransportAddress("2001:db8:77::5", 51820)


def test_a_deletion_is_confirmed() -> None:
    response = pcp.decode(gateway("recorded-pcp-del"))
    assert isinstance(response, pcp.Response)
    assert (response.result, response.lifetime_s, response.answers(REQUEST)) == (0, 0, True)


@pytest.mark.parametrize(
    ("changed", "answers"),
    [({}, True), ({"nonce": bytes(12)}, False), ({"internal_port": 51821}, False), ({"lifetime_s": 0}, True)],
)
def test_only_the_answer_with_our_nonce_and_port_is_ours(changed: dict[str, object], answers: bool) -> None:
    request = pcp.MapRequest(**{**vars(REQUEST), **changed})
    response = pcp.decode(gateway("miniupnpd-pcp-map"))
    assert isinstance(response, pcp.Response)
    assert response.answers(request) is answers


@pytest.mark.parametrize(
    ("name", "result", "retry", "lifetime_s"),
    [
        ("miniupnpd-pcp-not-authorized", pcp.Result.NOT_AUTHORIZED, pcp.Retry.NOT_HERE, 1800),
        ("pcp-unsupp-opcode-bare", pcp.Result.UNSUPP_OPCODE, pcp.Retry.NOT_HERE, pcp.MAX_ERROR_S),
        ("recorded-pcp-mismatch", pcp.Result.ADDRESS_MISMATCH, pcp.Retry.NEW_ADDRESS, pcp.MIN_ERROR_S),
        ("pcp-address-mismatch", pcp.Result.ADDRESS_MISMATCH, pcp.Retry.NEW_ADDRESS, pcp.MAX_ERROR_S),
    ],
)
def test_a_refusal_says_why_and_whether_to_come_back(
    name: str, result: pcp.Result, retry: pcp.Retry, lifetime_s: int
) -> None:
    response = pcp.decode(gateway(name))
    assert isinstance(response, pcp.Response)
    assert (response.result, response.retry, response.lifetime_s) == (result, retry, lifetime_s)
    assert "router" in response.meaning


def test_a_bare_refusal_answers_any_request_and_an_announcement_none() -> None:
    bare, announced = pcp.decode(gateway("pcp-unsupp-opcode-bare")), pcp.decode(gateway("pcp-announce"))
    assert isinstance(bare, pcp.Response)
    assert bare.answers(REQUEST)
    assert isinstance(announced, pcp.Response)
    assert (announced.opcode, announced.epoch_s) == (pcp.Opcode.ANNOUNCE, 0)
    assert not announced.answers(REQUEST)


def test_every_result_code_has_a_meaning_and_an_unknown_one_may_pass() -> None:
    assert set(pcp.MEANINGS) == set(pcp.Result) - {pcp.Result.SUCCESS}
    assert set(natpmp.MEANINGS) == set(natpmp.Result) - {natpmp.Result.SUCCESS}
    unknown = pcp.Response(pcp.Opcode.MAP, 99, 30, 0)
    assert (unknown.retry, unknown.meaning) == (pcp.Retry.LATER, "the router refused with code 99")
    assert natpmp.Refusal(99, 0, True).retry == pcp.Retry.LATER
    assert "99" in natpmp.Refusal(99, 0, True).meaning


def test_a_lifetime_beyond_a_day_is_not_believed() -> None:
    raw = gateway("miniupnpd-pcp-map")
    response = pcp.decode(raw[:4] + b"\xff\xff\xff\xff" + raw[8:])
    assert isinstance(response, pcp.Response)
    assert response.lifetime_s == 24 * 3600


@pytest.mark.parametrize(
    ("raw", "speaks"),
    [
        (gateway("apple-airport-refuses-pcp"), 0), (gateway("recorded-pcp-version3"), 2),
        (bytes.fromhex("0281 0001 00000000 00000000 000000000000000000000000"), 2),
        (bytes.fromhex("0181 0001 00000000 00000000 000000000000000000000000"), 1),
    ],
)
def test_a_server_that_does_not_speak_pcp_2_says_what_it_speaks(raw: bytes, speaks: int) -> None:
    assert pcp.decode(raw) == pcp.VersionRefused(speaks)


@pytest.mark.parametrize(
    ("raw", "speaks"),
    [
        (bytes.fromhex("0280 0001 00000000 00000000 000000000000000000000000"), 2),
        (bytes.fromhex("0080 0001 00000000"), 0),
    ],
)
def test_a_server_that_does_not_speak_nat_pmp_says_what_it_speaks(raw: bytes, speaks: int) -> None:
    assert natpmp.decode(raw) == pcp.VersionRefused(speaks)


@pytest.mark.parametrize(
    "raw",
    [
        b"", bytes(24), bytes.fromhex("0001 0001"), bytes.fromhex("0001 0001 00000000"),
        bytes.fromhex("0201") + bytes(22), bytes.fromhex("0281 0000") + bytes(20),
        bytes.fromhex("0282 0000") + bytes(56), bytes.fromhex("0281 0000") + bytes(57),
        bytes.fromhex("0281 0000") + bytes(1100), bytes.fromhex("0281 0000") + bytes(56) + bytes.fromhex("01000004"),
        bytes.fromhex("0080 0000 00000000 01020304"),
    ],
    ids=lambda raw: f"{len(raw)} bytes {raw[:4].hex()}",
)
def test_what_is_no_pcp_response_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        pcp.decode(raw)


def test_options_behind_a_mapping_are_passed_over() -> None:
    option = bytes.fromhex("80 00 0005 0102030405 000000")
    assert pcp.decode(gateway("miniupnpd-pcp-map") + option) == pcp.decode(gateway("miniupnpd-pcp-map"))


@pytest.mark.parametrize(
    ("server_s", "client_s", "lost"),
    [
        (1100, 100.0, False), (1099, 100.0, False), (1000, 0.0, False), (999, 0.0, False), (998, 0.0, True),
        (0, 100.0, True), (1092, 100.0, False), (1091, 100.0, True), (1108, 100.0, False), (1109, 100.0, True),
        (2498, 1600.0, False), (2497, 1600.0, True), (2708, 1600.0, False), (2709, 1600.0, True),
    ],
)
def test_a_clock_that_jumps_tells_that_a_pcp_server_forgot(server_s: int, client_s: float, lost: bool) -> None:
    assert pcp.lost_state(pcp.Epoch(1000, 0.0), pcp.Epoch(server_s, client_s)) is lost
    assert pcp.lost_state(pcp.Epoch(1000, 5000.0), pcp.Epoch(server_s, 5000.0 + client_s)) is lost


@pytest.mark.parametrize(
    ("server_s", "client_s", "lost"),
    [
        (1100, 100.0, False), (1086, 100.0, False), (1085, 100.0, True), (3, 100.0, True), (1005, 8.0, False),
        (1004, 8.0, True), (9000, 8.0, False),
    ],
)
def test_a_clock_that_went_back_tells_that_a_nat_pmp_router_forgot(server_s: int, client_s: float, lost: bool) -> None:
    assert natpmp.lost_state(pcp.Epoch(1000, 0.0), pcp.Epoch(server_s, client_s)) is lost
    assert natpmp.lost_state(pcp.Epoch(1000, 5000.0), pcp.Epoch(server_s, 5000.0 + client_s)) is lost


def test_nat_pmp_requests_have_the_bytes_of_rfc_6886() -> None:
    assert natpmp.encode_external_address().hex() == "0000"
    assert natpmp.encode_map(51820, 51821, 7200) == bytes.fromhex("0001 0000 ca6c ca6d 00001c20")
    assert natpmp.encode_map(51820, 51821, 0) == bytes.fromhex("0001 0000 ca6c 0000 00000000")


@pytest.mark.parametrize("wrong", [(0, 1, 1), (65536, 1, 1), (1, -1, 1), (1, 65536, 1), (1, 1, -1), (1, 1, 2**32)])
def test_a_nat_pmp_request_out_of_range_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(WireError):
        natpmp.encode_map(*wrong)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("recorded-natpmp-ext", natpmp.ExternalAddress("11.0.0.1", 27473)),
        ("recorded-natpmp-map", natpmp.Mapping(51820, 51820, 600, 27473)),
        ("recorded-natpmp-low", natpmp.Mapping(51820, 1024, 600, 27473)),
        ("recorded-natpmp-del", natpmp.Mapping(51820, 0, 0, 27474)),
        ("apple-airport-external-address", natpmp.ExternalAddress("203.0.113.7", 107187)),
        ("apple-airport-mapping", natpmp.Mapping(51820, 51821, 7200, 107189)),
        ("natpmp-refused-short", natpmp.Refusal(natpmp.Result.NOT_AUTHORIZED, 3600, True)),
        ("natpmp-no-address", natpmp.Refusal(natpmp.Result.NETWORK_FAILURE, 5, False)),
    ],
)
def test_what_nat_pmp_routers_answer_is_read(name: str, answer: object) -> None:
    assert natpmp.decode(gateway(name)) == answer


def test_refusals_of_nat_pmp_say_whether_to_come_back() -> None:
    assert natpmp.Refusal(natpmp.Result.NOT_AUTHORIZED, 0, True).retry == pcp.Retry.NOT_HERE
    assert natpmp.Refusal(natpmp.Result.NETWORK_FAILURE, 0, True).retry == pcp.Retry.LATER
    assert "allow" in natpmp.Refusal(natpmp.Result.NOT_AUTHORIZED, 0, True).meaning


@pytest.mark.parametrize(
    "text",
    ["", "0000", "0001 0000 00000000 00000000", "0082 0000 00000000", "0080 0000 00000000 0102", "0081 0000 00000000"],
)
def test_what_is_no_nat_pmp_response_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        natpmp.decode(bytes.fromhex(text))


@settings(max_examples=examples(30))
@given(hosts, st.binary(min_size=12, max_size=12), PORTS, st.integers(1, 2**32 - 1), PORTS)
def test_a_server_that_grants_what_was_asked_is_understood(
    client: str, nonce: bytes, port: int, lifetime_s: int, outside: int
) -> None:
    request = pcp.MapRequest(client, nonce, port, lifetime_s, TransportAddress(client, outside))
    raw = pcp.encode_map(request)
    response = pcp.decode(raw[:1] + b"\x81" + raw[2:8] + bytes(16) + raw[24:])
    assert isinstance(response, pcp.Response)
    assert response.answers(request)
    assert response.mapping is not None
    assert response.mapping.external == TransportAddress(client, outside)


@settings(max_examples=examples(30))
@given(damaged(st.sampled_from([from_hex(f"gateway/{name}") for name in RECORDED])) | st.binary(max_size=100))
def test_noise_raises_nothing_but_wire_errors_in_either_protocol(raw: bytes) -> None:
    for decode in (pcp.decode, natpmp.decode):
        with suppress(WireError):
            decode(raw)
