"""STUN against the vectors of RFC 5769, the RFCs' rules, and each way in which a message can be wrong."""

from __future__ import annotations

import hashlib
from zlib import crc32

import pytest
from wire_fixtures import from_hex

from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError
from meshctl.core.wire.stun_attributes import (
    ATTRIBUTES,
    FINGERPRINT,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    ChangeRequest,
    StunError,
)

RFC_KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
RFC_TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
TRANSACTION = bytes(range(12))
KEY = b"a secret of two"
CHECK = stun.Message(
    stun.Class.REQUEST, TRANSACTION, username="left:right", priority=0x6E0001FF, ice_controlling=2**64 - 1,
    use_candidate=True,
)
VECTORS = {
    "rfc5769-2.1-request.hex": stun.Message(
        stun.Class.REQUEST, RFC_TRANSACTION, software="STUN test client", priority=0x6E0001FF,
        ice_controlled=0x932FF9B151263B36, username="evtj:h6vY",
    ),
    "rfc5769-2.2-ipv4-response.hex": stun.Message(
        stun.Class.SUCCESS, RFC_TRANSACTION, software="test vector",
        xor_mapped_address=TransportAddress("192.0.2.1", 32853),
    ),
    "rfc5769-2.3-ipv6-response.hex": stun.Message(
        stun.Class.SUCCESS, RFC_TRANSACTION, software="test vector",
        xor_mapped_address=TransportAddress("2001:db8:1234:5678:11:2233:4455:6677", 32853),
    ),
}


def attribute(kind: int, value: bytes, padding: bytes = b"\0") -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + padding * (-len(value) % 4)


def message(*attributes: bytes, bits: int = 1, cookie: str = "2112a442") -> bytes:
    body = b"".join(attributes)
    return bits.to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes.fromhex(cookie) + TRANSACTION + body


def appended(raw: bytes, *attributes: bytes) -> bytes:
    """A message with more behind it, the length in its header mended: what a forger without the key can do."""
    body = raw[20:] + b"".join(attributes)
    return raw[:2] + len(body).to_bytes(2, "big") + raw[4:20] + body


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_of_rfc_5769_says_what_the_rfc_says_it_does(name: str) -> None:
    received = stun.decode(from_hex(f"stun/{name}"))
    assert received.message == VECTORS[name]
    assert received.fingerprinted
    assert received.is_authentic(RFC_KEY)
    assert not received.is_authentic(RFC_KEY + b"x")
    assert received.unknown == ()


def test_the_vector_with_long_term_credentials_says_what_the_rfc_says_it_does() -> None:
    received = stun.decode(from_hex("stun/rfc5769-2.4-long-term-request.hex"))
    assert received.message.username == "マトリックス"
    assert received.message.nonce == "f//499k954d6OL34oL9FSTvy64sA"
    assert received.message.realm == "example.org"
    assert not received.fingerprinted
    key = hashlib.md5(f"{received.message.username}:example.org:TheMatrIX".encode(), usedforsecurity=False).digest()
    assert received.is_authentic(key)


@pytest.mark.parametrize("name", VECTORS)
def test_every_flipped_bit_of_a_vector_is_noticed(name: str) -> None:
    raw = from_hex(f"stun/{name}")
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        try:
            received = stun.decode(bytes(forged))
        except WireError:
            continue
        assert not received.fingerprinted, f"bit {bit}"


def test_integrity_notices_what_a_forger_changes_even_when_the_fingerprint_is_made_anew() -> None:
    raw = stun.encode(CHECK, KEY, fingerprint=False)
    for at in range(20, len(raw) - 24):
        forged = bytearray(raw)
        forged[at] ^= 1
        try:
            received = stun.decode(bytes(forged))
        except WireError:
            continue
        assert not received.is_authentic(KEY)


FULL = stun.Message(
    stun.Class.ERROR, TRANSACTION, method=0xABC, username="ü", realm="example.org", nonce="n",
    error=StunError(487, "Conflict"), unknown_attributes=(1, 0x7FFF),
    xor_mapped_address=TransportAddress("2001:db8::1", 65535), mapped_address=TransportAddress("192.0.2.1", 0),
    change_request=ChangeRequest(ip=True), response_port=0xCA6C, priority=0, use_candidate=True,
    response_origin=TransportAddress("198.51.100.2", 3478), other_address=TransportAddress("198.51.100.3", 3479),
    alternate_server=TransportAddress("2001:db8::2", 1), ice_controlled=0, ice_controlling=7, software="",
)


def test_every_attribute_survives_the_way_there_and_back() -> None:
    assert None not in FULL
    received = stun.decode(stun.encode(FULL, KEY))
    assert received.message == FULL
    assert received.is_authentic(KEY)


@pytest.mark.parametrize("value", [b"", b"\xca\x6c", b"\xca\x6c\x00", bytes(8)])
def test_a_response_port_of_another_length_is_none(value: bytes) -> None:
    with pytest.raises(WireError):
        ATTRIBUTES["response_port"][2](value, TRANSACTION)


def test_the_attributes_of_a_message_stand_in_the_order_in_which_they_are_written() -> None:
    assert stun.Message._fields == ("message_class", "transaction", "method", *ATTRIBUTES)


@pytest.mark.parametrize("message_class", stun.Class)
@pytest.mark.parametrize("method", [0, 1, 0x0F, 0x10, 0x7F, 0x80, 0xFFF])
def test_class_and_method_share_the_type_without_touching_each_other(message_class: stun.Class, method: int) -> None:
    received = stun.decode(stun.encode(stun.Message(message_class, TRANSACTION, method)))
    assert (received.message.message_class, received.message.method) == (message_class, method)


@pytest.mark.parametrize(
    ("name", "bits"), [("REQUEST", "0001"), ("INDICATION", "0011"), ("SUCCESS", "0101"), ("ERROR", "0111")],
)
def test_a_binding_message_has_the_type_of_rfc_8489(name: str, bits: str) -> None:
    assert stun.encode(stun.Message(stun.Class[name], TRANSACTION))[:2].hex() == bits


@pytest.mark.parametrize(
    "integrity", [(MESSAGE_INTEGRITY,), (MESSAGE_INTEGRITY_SHA256,), (MESSAGE_INTEGRITY_SHA256, MESSAGE_INTEGRITY)],
)
def test_each_kind_of_integrity_proves_the_key_and_no_other(integrity: tuple[int, ...]) -> None:
    received = stun.decode(stun.encode(CHECK, KEY, integrity=integrity))
    assert set(received.integrity) == set(integrity)
    assert received.is_authentic(KEY)
    assert not received.is_authentic(b"")


def test_a_message_without_integrity_is_nobodys() -> None:
    assert not stun.decode(stun.encode(CHECK)).is_authentic(KEY)
    assert not stun.decode(stun.encode(CHECK)).is_authentic(b"")


def test_an_empty_key_still_signs() -> None:
    assert stun.decode(stun.encode(CHECK, b"")).integrity


def test_of_two_kinds_of_integrity_both_must_hold() -> None:
    signed = stun.encode(CHECK, KEY, fingerprint=False)
    received = stun.decode(appended(signed, attribute(MESSAGE_INTEGRITY_SHA256, bytes(32))))
    assert not received.is_authentic(KEY)


def test_what_is_put_behind_the_integrity_is_no_part_of_the_message() -> None:
    signed = stun.encode(CHECK._replace(use_candidate=False), KEY, fingerprint=False)
    smuggled = attribute(0x0025, b""), attribute(0x7ABC, b"required"), attribute(0x0020, b"broken")
    received = stun.decode(appended(signed, *smuggled))
    assert received.message == CHECK._replace(use_candidate=False)
    assert received.unknown == ()
    assert received.is_authentic(KEY)


def test_a_second_integrity_does_not_replace_the_first() -> None:
    signed = stun.encode(CHECK, KEY, integrity=(MESSAGE_INTEGRITY_SHA256,), fingerprint=False)
    forged = appended(signed, attribute(MESSAGE_INTEGRITY, bytes(20)), attribute(MESSAGE_INTEGRITY_SHA256, b""))
    received = stun.decode(forged)
    assert received.is_authentic(KEY)


def test_an_attribute_that_repeats_counts_once() -> None:
    received = stun.decode(message(attribute(0x0024, b"\0\0\0\1"), attribute(0x0024, b"\0\0\0\2")))
    assert received.message.priority == 1


def test_unknown_attributes_are_reported_when_they_must_be_understood() -> None:
    raw = message(attribute(0x7001, b"x"), attribute(0x8001, b"y"), attribute(0x7001, b""), attribute(0x001E, b""))
    request = stun.decode(raw)
    assert request.unknown == (0x7001, 0x001E)



def test_a_list_of_unknown_attributes_does_not_grow_with_the_message() -> None:
    raw = message(*(attribute(0x7000 + n, b"") for n in range(300)))
    assert len(stun.decode(raw).unknown) == stun.MAX_UNKNOWN


def test_a_response_answers_the_request_that_it_belongs_to() -> None:
    request = stun.decode(stun.encode(CHECK, KEY))
    source = TransportAddress("198.51.100.7", 51820)
    good = stun.success_response(request.message, source)
    assert (good.message_class, good.transaction, good.reflexive_address) == (stun.Class.SUCCESS, TRANSACTION, source)



def test_the_masked_address_is_believed_before_the_plain_one() -> None:
    plain, masked = TransportAddress("10.0.0.1", 1), TransportAddress("192.0.2.1", 2)
    both = stun.Message(stun.Class.SUCCESS, TRANSACTION, mapped_address=plain, xor_mapped_address=masked)
    assert both.reflexive_address == masked
    assert both._replace(xor_mapped_address=None).reflexive_address == plain


def test_an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() -> None:
    raw = message(attribute(0x0001, bytes.fromhex("00020050 00000000000000000000ffff c0000201")))
    assert stun.decode(raw).message.mapped_address == TransportAddress("192.0.2.1", 80)


BROKEN = {
    "empty": b"",
    "short header": message()[:19],
    "first bits set": message(bits=0x4001),
    "wrong cookie": message(cookie="2112a443"),
    "length too long": message()[:2] + b"\0\4" + message()[4:],
    "length not a multiple of four": message()[:2] + b"\0\1" + message()[4:] + b"x",
    "trailing bytes": message() + b"\0\0\0\0",
    "attribute beyond the end": message(b"\0\6\0\5abcd"),
    "too long": message(attribute(0x8001, bytes(1500))),
    "username not UTF-8": message(attribute(0x0006, b"\xff")),
    "username too long": message(attribute(0x0006, b"x" * 509)),
    "software too long": message(attribute(0x8022, b"x" * 764)),
    "address of no family": message(attribute(0x0001, b"\0\3\0\1abcd")),
    "IPv4 with 16 bytes": message(attribute(0x0001, b"\0\1\0\1" + bytes(16))),
    "IPv6 with 4 bytes": message(attribute(0x0020, b"\0\2\0\1abcd")),
    "address too short": message(attribute(0x0020, b"\0")),
    "error code too short": message(attribute(0x0009, b"\0\0\4")),
    "error class 2": message(attribute(0x0009, b"\0\0\2\0")),
    "error number 100": message(attribute(0x0009, b"\0\0\4\x64")),
    "odd list": message(attribute(0x000A, b"abc")),
    "short priority": message(attribute(0x0024, b"abc")),
    "short tie-breaker": message(attribute(0x8029, b"abcd")),
    "flag with a value": message(attribute(0x0025, b"yes")),
    "short change request": message(attribute(0x0003, b"")),
    "short integrity": message(attribute(MESSAGE_INTEGRITY, bytes(16))),
    "truncated SHA-256": message(attribute(MESSAGE_INTEGRITY_SHA256, bytes(16))),
    "short fingerprint": message(attribute(FINGERPRINT, b"abc")),
    "wrong fingerprint": message(attribute(FINGERPRINT, bytes(4))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_message_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        stun.decode(BROKEN[name])


def test_a_fingerprint_that_is_not_last_is_refused() -> None:
    head = appended(message(), attribute(FINGERPRINT, bytes(4)), attribute(0x8001, b""))
    right = (crc32(head[:20]) ^ 0x5354554E).to_bytes(4, "big")
    with pytest.raises(WireError, match="last"):
        stun.decode(head[:24] + right + head[28:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"transaction": b"short"}, {"method": 0x1000}, {"priority": 2**32}, {"priority": -1}, {"ice_controlled": 2**64},
        {"username": "x" * 509}, {"software": "x" * 764}, {"software": "\udc00"}, {"error": StunError(299)},
        {"error": StunError(700)}, {"unknown_attributes": (0x10000,)}, {"unknown_attributes": (1,) * 1000},
        {"xor_mapped_address": TransportAddress("host.example", 1)},
        {"mapped_address": TransportAddress("192.0.2.1", 65536)},
        {"mapped_address": TransportAddress("fe80::1%eth0", 1)},
        {"realm": "x" * 720, "nonce": "x" * 708}, {"realm": "x" * 763, "nonce": "x" * 763},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_what_has_no_encoding_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WireError):
        stun.encode(CHECK._replace(**wrong))
