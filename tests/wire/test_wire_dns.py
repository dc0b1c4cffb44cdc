"""DNS: what is asked, and which answers are taken for one."""

from __future__ import annotations

import struct

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.wire import dns
from meshctl.core.wire.error import WireError

NUMBER, NAME = 0x1234, "home.example.net"


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def record(owner: bytes, kind: int, data: bytes, ttl_s: int = 300) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, ttl_s, len(data)) + data


def answer(
    *records: bytes, kind: int = dns.A, number: int = NUMBER, asked: str = NAME, flags: int = 0x8180
) -> bytes:
    head = struct.pack("!HHHHHH", number, flags, 1, len(records), 0, 0)
    return head + name(asked) + struct.pack("!HH", kind, 1) + b"".join(records)


TO_NAME = b"\xc0\x0c"  # a pointer to the question's name
GOOD = answer(record(TO_NAME, dns.A, bytes([192, 0, 2, 1])), record(name(NAME), dns.A, bytes([192, 0, 2, 2])))


def decode(raw: bytes, kind: int = dns.A) -> dns.Answer:
    return dns.decode_answer(raw, NUMBER, NAME, kind)


def test_the_question_is_the_name_its_kind_and_how_much_may_come() -> None:
    raw = dns.encode_question(NUMBER, f"{NAME}.", dns.AAAA)
    assert raw == (
        bytes.fromhex("1234 0100 0001 0000 0000 0001") + name(NAME) + bytes.fromhex("001c 0001")
        + bytes.fromhex("00 0029 04d0 00000000 0000")
    )


@pytest.mark.parametrize("bad", ["", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5), "ä.example"])
def test_what_is_no_name_is_not_asked_for(bad: str) -> None:
    with pytest.raises(WireError):
        dns.encode_question(NUMBER, bad, dns.A)


def test_addresses_are_those_of_the_name_and_of_what_it_is_an_alias_of() -> None:
    assert decode(GOOD).addresses == ("192.0.2.1", "192.0.2.2")
    chain = answer(
        record(TO_NAME, dns.CNAME, name("cdn.example.org")),
        record(name("cdn.example.org"), dns.CNAME, name("HOST.example.org")),
        record(name("host.example.org"), dns.A, bytes([192, 0, 2, 3])),
        record(name("elsewhere.example"), dns.A, bytes([192, 0, 2, 4])),
    )
    assert decode(chain).addresses == ("192.0.2.3",)
    six = answer(record(TO_NAME, dns.AAAA, bytes.fromhex("20010db8") + bytes(11) + b"\x01"), kind=dns.AAAA)
    assert decode(six, dns.AAAA).addresses == ("2001:db8::1",)


@pytest.mark.parametrize(
    ("alias_s", "first_s", "second_s", "other_s", "ttl_s"),
    [(300, 90, 60, 5, 60), (20, 90, 60, 5, 20), (300, 2**31, 60, 5, 0), (300, 2**31 - 1, 2**31 - 1, 0, 300)],
)
def test_an_answer_counts_as_long_as_its_shortest_record(
    alias_s: int, first_s: int, second_s: int, other_s: int, ttl_s: int
) -> None:
    cdn = name("cdn.example.org")
    raw = answer(
        record(TO_NAME, dns.CNAME, cdn, alias_s),
        record(cdn, dns.A, bytes([192, 0, 2, 1]), first_s), record(cdn, dns.A, bytes([192, 0, 2, 2]), second_s),
        record(name("elsewhere.example"), dns.A, bytes([192, 0, 2, 4]), other_s),
    )  # fmt: skip
    assert decode(raw).ttl_s == ttl_s


def test_services_come_with_the_first_to_be_asked_in_front() -> None:
    def service(priority: int, port: int) -> bytes:
        return record(TO_NAME, dns.SRV, struct.pack("!HHH", priority, 5, port) + name("wg.example.net"))

    assert decode(answer(service(20, 2), service(10, 1), kind=dns.SRV), dns.SRV).services == (
        dns.Service(10, 5, 1, "wg.example.net"), dns.Service(20, 5, 2, "wg.example.net"),
    )  # fmt: skip


def test_a_failure_and_an_answer_that_is_too_long_are_told() -> None:
    assert decode(answer(flags=0x8183)) == dns.Answer(dns.NO_SUCH_NAME)
    assert decode(answer(flags=0x8380)) == dns.Answer(dns.NO_ERROR, truncated=True)


@pytest.mark.parametrize(
    "raw",
    [
        answer(number=NUMBER + 1), answer(flags=0x0100), answer(asked="other.example.net"), answer(kind=dns.AAAA),
        answer(record(TO_NAME, dns.A, bytes(3))), GOOD[:-1], b"",
        answer(record(b"\xc0\xff", dns.A, bytes(4))),
        answer(record(TO_NAME, dns.CNAME, b"\xc0\x32")), # to itself
        answer(record(b"\x3f" + b"a" * 63 + b"\xc0\x0c", dns.A, bytes(4)))[:-40],
        answer(record(name(".".join(["x" * 60] * 5)), dns.A, bytes(4))),
        answer(record(b"\x80abc\0", dns.A, bytes(4))),
    ],
)  # fmt: skip
def test_a_forged_or_broken_answer_is_none(raw: bytes) -> None:
    with pytest.raises(WireError):
        decode(raw)


@settings(max_examples=examples(50))
@given(st.binary(max_size=200))
def test_no_bytes_after_the_question_do_more_than_be_refused(noise: bytes) -> None:
    """The invariant: an answer, or WireError; and no address that is not in the bytes."""
    raw = answer()[:6] + struct.pack("!HHH", 3, 0, 0) + answer()[12:] + noise
    try:
        found = decode(raw)
    except WireError:
        return
    for address in found.addresses:
        assert bytes(map(int, address.split("."))) in noise


@settings(max_examples=examples(50))
@given(st.data())
def test_a_damaged_answer_does_no_more_than_be_refused(data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except WireError:
        return
