"""Invariants: no datagram makes the STUN parser raise anything but WireError; a message is decoded as it was encoded;
nothing that is not signed with the key is authentic; and aioice's codec, which is not ours, reads the same."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aioice import stun as aioice
from effort import examples
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from wire_strategies import damaged, messages

from meshctl.core.wire import stun
from meshctl.core.wire.error import WireError
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY

HEADER = bytes.fromhex("00010000 2112a442") + bytes(12)
KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
# Our fields by aioice's names; it does not know the others.
NAMES = {
    "username": "USERNAME", "realm": "REALM", "nonce": "NONCE", "error": "ERROR-CODE",
    "xor_mapped_address": "XOR-MAPPED-ADDRESS", "mapped_address": "MAPPED-ADDRESS", "change_request": "CHANGE-REQUEST",
    "response_origin": "RESPONSE-ORIGIN", "other_address": "OTHER-ADDRESS", "priority": "PRIORITY",
    "use_candidate": "USE-CANDIDATE", "ice_controlled": "ICE-CONTROLLED", "ice_controlling": "ICE-CONTROLLING",
    "software": "SOFTWARE",
}


def in_aioices_words(message: stun.Message) -> dict[str, Any]:
    """The attributes as aioice's `Message.attributes` holds them."""
    values = {name: getattr(message, field) for field, name in NAMES.items()}
    values = {name: value for name, value in values.items() if value is not None and value is not False}
    if message.error is not None:
        values["ERROR-CODE"] = (message.error.code, message.error.reason)
    if message.nonce is not None:
        values["NONCE"] = message.nonce.encode()
    if message.use_candidate:
        values["USE-CANDIDATE"] = None
    if message.change_request is not None:
        values["CHANGE-REQUEST"] = message.change_request.ip << 2 | message.change_request.port << 1
    return values


def signed_and_not(message: stun.Message) -> st.SearchStrategy[bytes]:
    return st.sampled_from([
        stun.encode(message, key, fingerprint=fingerprint) for key in (None, KEY) for fingerprint in (False, True)
    ])


def with_true_length(raw: bytes) -> bytes:
    """The damaged message with the header's length mended, so that the damage reaches the attributes."""
    return raw[:2] + (len(raw) - 20).to_bytes(2, "big") + raw[4:] if len(raw) >= 20 else raw


raw_messages = messages.flatmap(signed_and_not)
damaged_messages = damaged(raw_messages) | damaged(raw_messages).map(with_true_length)


@settings(max_examples=examples(35))
@given(messages)
def test_a_message_is_decoded_as_it_was_encoded(message: stun.Message) -> None:
    received = stun.decode(stun.encode(message, KEY))
    assert received.message == message
    assert received.is_authentic(KEY)
    assert received.unknown == ()


@settings(max_examples=examples(35))
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda noise: with_true_length(HEADER + noise)))
@example(b"")
def test_noise_raises_nothing_but_wire_errors(raw: bytes) -> None:
    with suppress(WireError):
        stun.decode(raw).is_authentic(KEY)


@settings(max_examples=examples(35))
@given(damaged_messages)
def test_damage_raises_nothing_but_wire_errors_and_what_is_accepted_can_be_said_again(raw: bytes) -> None:
    try:
        received = stun.decode(raw)
    except WireError:
        return
    again = stun.decode(stun.encode(received.message))
    assert again.message == received.message


@settings(max_examples=examples(35))
@given(messages, st.binary(max_size=40), st.data())
def test_only_the_key_makes_a_message_authentic(message: stun.Message, other: bytes, data: st.DataObject) -> None:
    assume(other.rstrip(b"\0") != KEY)
    raw = stun.encode(message, KEY, fingerprint=False)
    assert not stun.decode(raw).is_authentic(other)
    forged = with_true_length(data.draw(damaged(st.just(raw))))
    try:
        received = stun.decode(forged)
    except WireError:
        return
    assert not received.is_authentic(KEY) or received.message == message


@settings(max_examples=examples(35))
@given(messages)
def test_aioice_reads_what_we_write(message: stun.Message) -> None:
    message = message._replace(method=stun.BINDING)
    theirs = aioice.parse_message(stun.encode(message, KEY))
    attributes = {k: v for k, v in theirs.attributes.items() if k not in ("MESSAGE-INTEGRITY", "FINGERPRINT")}
    assert attributes == in_aioices_words(message)
    assert theirs.transaction_id == message.transaction
    assert int(theirs.message_class) == message.message_class
    assert theirs.check_message_integrity(KEY)
    assert not theirs.check_message_integrity(KEY[1:])


@settings(max_examples=examples(35))
@given(messages)
def test_we_read_what_aioice_writes(message: stun.Message) -> None:
    message = message._replace(method=stun.BINDING, unknown_attributes=None, alternate_server=None, response_port=None)
    theirs = aioice.Message(
        aioice.Method.BINDING, aioice.Class(int(message.message_class)), message.transaction, in_aioices_words(message),
    )
    theirs.add_message_integrity(KEY)
    received = stun.decode(bytes(theirs))
    assert received.message == message
    assert received.is_authentic(KEY)
    assert received.fingerprinted


@settings(max_examples=examples(35))
@given(damaged_messages)
def test_a_damaged_message_that_both_accept_says_the_same_to_both(raw: bytes) -> None:
    try:
        theirs = aioice.parse_message(raw)
        ours = stun.decode(raw)
    except Exception:
        return
    said = in_aioices_words(ours.message)
    for name, value in theirs.attributes.items():
        # Of attributes that repeat aioice takes the last, RFC 8489 section 14 and we the first; it keeps reserved bits.
        once = raw.count(aioice.ATTRIBUTES_BY_NAME[name][0].to_bytes(2, "big")) == 1
        if once and name in said and name not in ("ERROR-CODE", "CHANGE-REQUEST"):
            assert said[name] == value
    if set(ours.integrity) == {MESSAGE_INTEGRITY}:
        assert theirs.check_message_integrity(KEY) == ours.is_authentic(KEY)
