"""The signalling message on the wire. Hunted: bytes that are taken for a message which nobody with the key has written,
bytes that raise anything but SignalError, and messages that do not survive the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from agentcore_values import key, shared
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_strategies import addresses, messages

from meshctl.core.agent import bodies, fields, signal
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import TYPE_OF, Body, MessageType, SignalError
from meshctl.core.agent.config import node_id
from meshctl.core.agent.signal import Header, Message

WIRE = Path(__file__).parent / "wire"
KEY = shared("fra1", "web1")
HEADER = Header(
    MessageType.HELLO, node_id(key("web1")), node_id(key("fra1")), bytes(range(8)), bytes(range(8, 16)), 4711
)
V4, V6 = Address("203.0.113.9", 51820), Address("2001:db8::9", 51820)
BODIES: dict[str, Body] = {
    "hello": bodies.Hello(),
    "hello-ack": bodies.HelloAck(42),
    "offer": bodies.Offer(
        7,
        (
            bodies.Offered("host", Address("192.168.1.5", 51820), "0a0b0c0d", 2130706431),
            bodies.Offered("srflx", V4, "11223344", 1694498815),
            bodies.Offered("host", V6, "deadbeef", 2130706175),
        ),
        (bodies.NatSummary(4, 4, 0, 1), bodies.NatSummary(6, 1, 1)),
    ),
    "offer-relays": bodies.Offer(
        8,
        relays=(
            bodies.AnchorDistance(node_id(key("fra1")), 20, used=True),
            bodies.AnchorDistance(node_id(key("nyc1")), 92),
        ),
        wish=bodies.Wish.PREFER_RELAY,
    ),
    "offer-again": bodies.Offer(10, restart=2, blocked=3, userspace=True),
    "offer-told": bodies.Offer(9, (bodies.Offered("told", V4, "99887766", 1677721599),)),
    "ack": bodies.Ack(7),
    "observed": bodies.Observed(
        (bodies.Observation(node_id(key("web1")), V4, 0), bodies.Observation(node_id(key("phone")), V6, 119))
    ),
    "relay-ask": bodies.RelayAsk(node_id(key("pg1"))),
    "relay-grant": bodies.RelayGrant(node_id(key("pg1")), (V4, V6), bytes(range(16)), 600),
    "relay-refuse": bodies.RelayRefuse(node_id(key("pg1")), bodies.RefuseReason.FULL, 30),
    "relay-refresh": bodies.RelayRefresh(node_id(key("pg1")), bytes(range(16))),
    "relay-release": bodies.RelayRelease(node_id(key("pg1")), bytes(range(16))),
    "splice": bodies.Splice(3, 256),
}


def sealed(body: Body) -> bytes:
    return signal.encode(HEADER._replace(kind=TYPE_OF[type(body)]), body, KEY)


def raw(kind: int, content: bytes) -> bytes:
    """A message of that type byte with these bytes for fields, under the right key."""
    data = bytearray(sealed(bodies.Hello())[: -signal.TAG_BYTES])
    data[3] = kind
    whole = bytes(data) + content
    return whole + signal.tag(whole, KEY)


def test_every_type_of_message_has_its_bytes_on_file() -> None:
    assert {TYPE_OF[type(body)] for body in BODIES.values()} == set(MessageType)
    assert {path.stem for path in WIRE.glob("*.hex")} == set(BODIES)


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_message_is_the_bytes_on_file_and_reads_back(name: str) -> None:
    on_file = bytes.fromhex((WIRE / f"{name}.hex").read_text(encoding="ascii"))
    assert sealed(BODIES[name]) == on_file
    assert signal.decode(on_file, KEY) == Message(HEADER._replace(kind=TYPE_OF[type(BODIES[name])]), BODIES[name])


@settings(max_examples=examples(30))
@given(messages)
def test_a_message_survives_the_wire(message: tuple[Header, Body]) -> None:
    header, body = message
    data = signal.encode(header, body, KEY)
    assert len(data) <= signal.MAX_BYTES
    assert signal.peek(data) == header
    assert signal.decode(data, KEY) == Message(header, body)


@settings(max_examples=examples(30))
@given(messages, st.data())
def test_no_byte_but_the_ttl_can_be_changed_without_the_key(message: tuple[Header, Body], data: st.DataObject) -> None:
    good = signal.encode(*message, KEY)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    if at == 4:
        assert signal.decode(bytes(changed), KEY).body == message[1]
    else:
        with pytest.raises(SignalError):
            signal.decode(bytes(changed), KEY)


@settings(max_examples=examples(30))
@given(messages, st.integers(0, 255))
def test_a_forwarder_lowers_the_ttl_and_changes_nothing_else(message: tuple[Header, Body], ttl: int) -> None:
    header, body = message
    data = signal.with_ttl(signal.encode(header, body, KEY), ttl)
    assert signal.decode(data, KEY) == Message(header._replace(ttl=ttl), body)


def test_another_pairs_key_opens_nothing() -> None:
    with pytest.raises(SignalError, match="not authentic"):
        signal.decode(sealed(bodies.Hello()), shared("fra1", "pg1"))


@settings(max_examples=examples(30))
@given(st.one_of(st.binary(max_size=1300), st.binary(max_size=1300).map(lambda tail: b"mc\x01" + tail)))
def test_bytes_from_anywhere_raise_one_error_and_are_no_message(data: bytes) -> None:
    with pytest.raises(SignalError):
        signal.decode(data, KEY)


@settings(max_examples=examples(30))
@given(st.sampled_from(MessageType), st.one_of(st.binary(max_size=200), st.lists(
    st.tuples(st.one_of(st.sampled_from(fields.Field), st.integers(0, 255)), st.binary(max_size=40))
).map(lambda parts: b"".join(bytes((kind,)) + len(v).to_bytes(2, "big") + v for kind, v in parts))))  # fmt: skip
def test_fields_from_a_hostile_peer_with_the_key_read_or_raise_one_error(kind: MessageType, content: bytes) -> None:
    try:
        message = signal.decode(raw(kind, content), KEY)
    except SignalError:
        return
    assert signal.decode(signal.encode(message.header, message.body, KEY), KEY) == message


@settings(max_examples=examples(30))
@given(messages, st.data())
def test_a_changed_body_under_the_right_key_reads_or_raises_one_error(
    message: tuple[Header, Body], data: st.DataObject
) -> None:
    content = bytearray(fields.write(message[1]))
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = signal.decode(raw(message[0].kind, bytes(content[: data.draw(st.integers(0, len(content)))])), KEY)
    except SignalError:
        return
    assert read.header.kind is message[0].kind


def test_a_message_that_is_too_large_is_not_written_and_not_read() -> None:
    many = tuple(bodies.Observation(bytes(8), V6, 0) for _ in range(40))
    with pytest.raises(SignalError, match="1200 is the most"):
        sealed(bodies.Observed(many))
    with pytest.raises(SignalError, match="are no message"):
        signal.peek(raw(MessageType.HELLO, bytes(signal.MAX_BYTES)))
    full = raw(MessageType.HELLO, b"\x80" + (1200 - 65).to_bytes(2, "big") + bytes(1200 - 65))
    assert len(full) == signal.MAX_BYTES
    assert signal.decode(full, KEY).body == bodies.Hello()


def test_the_largest_offer_fits_with_all_that_an_offer_can_say() -> None:
    candidate = bodies.Offered("relay", V6, "00000000", bodies.MAX_PRIORITY)
    nat = (bodies.NatSummary(4, 4, 3, 255), bodies.NatSummary(6, 4, 3, 255))
    far = tuple(bodies.AnchorDistance(bytes((n,) * 8), bodies.MAX_RTT_MS) for n in range(bodies.MAX_DISTANCES))
    again = (2**32 - 1, 2**32 - 1, True)
    largest = bodies.Offer(2**32 - 1, (candidate,) * bodies.MAX_OFFERED, nat, far, bodies.Wish.RELAY, *again)
    assert len(sealed(largest)) <= signal.MAX_BYTES


def test_what_an_offer_may_leave_out_is_passed_over_by_who_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = BODIES["offer-relays"]
    known = frozenset(field for field in fields.Field if field < fields.OPTIONAL_FROM)
    monkeypatch.setattr(fields, "_FIELDS", known)
    assert fields.read(MessageType.OFFER, fields.write(offer)) == bodies.Offer(8)


def test_fields_of_later_versions_are_passed_over_or_refused_by_their_number() -> None:
    assert signal.decode(raw(MessageType.HELLO, b"\x80\x00\x01x"), KEY).body == bodies.Hello()
    with pytest.raises(SignalError, match="0x7f is not known"):
        signal.decode(raw(MessageType.HELLO, b"\x7f\x00\x01x"), KEY)


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (12, "", "not a message of this version"),
        (MessageType.ACK, "", "GENERATION is there 0 times"),
        (MessageType.ACK, "020004000000010200040000000f", "GENERATION is there 2 times"),
        (MessageType.ACK, "0200050000000001", "GENERATION has a length"),
        (MessageType.ACK, "02000400000001060008" + "00" * 8, "PEER does not belong there"),
        (MessageType.ACK, "0200", "head is cut short"),
        (MessageType.ACK, "02000400", "field is cut short"),
        (MessageType.OFFER, "0200040000000103000f00aabbccdd00000001ca6ccb007109", "kind or priority"),
        (MessageType.OFFER, "0200040000000103000f01aabbccdd00000000ca6ccb007109", "kind or priority"),
        (MessageType.OFFER, "0200040000000103000f01aabbccdd80000000ca6ccb007109", "kind or priority"),
        (MessageType.OFFER, "0200040000000104000405000000", "NAT's family"),
        (MessageType.OFFER, "020004000000010400040400000004000404000000", "NAT's family"),
        (MessageType.OFFER, "02000400000001" + "80000b" + "00" * 8 + "000502", "used or not"),
        (MessageType.OFFER, "02000400000001" + ("80000b" + "00" * 8 + "000500") * 2, "one is there twice"),
        (MessageType.OFFER, "02000400000001" + "".join(f"80000b{n:016x}000501" for n in range(2)), "said to be used"),
        (MessageType.OFFER, "02000400000001" + "".join(f"80000b{n:016x}000500" for n in range(9)), "too many anchors"),
        (MessageType.OFFER, "0200040000000181000104", "wish does not exist"),
        (MessageType.OFFER, "0200040000000181000101" + "81000101", "wish .* twice"),
        (MessageType.OFFER, "0200040000000184000100", "USERSPACE is there or not"),
        (MessageType.OFFER, "02000400000001" + "84000101" * 2, "USERSPACE is there or not"),
        (MessageType.OFFER, "02000400000001" + "840000", "USERSPACE has a length"),
        (MessageType.SPLICE, "", "SPLICE is there 0 times"),
        (MessageType.SPLICE, "0b000500000001ff", "SPLICE has a length"),
        (MessageType.OBSERVED, "05001c" + "00" * 8 + "0000ca6c" + "00" * 10 + "ffffcb007109", "written as IPv6"),
        (MessageType.RELAY_GRANT, "060008" + "00" * 8 + "080010" + "00" * 16 + "09000400000001", "one address of a"),
        (MessageType.RELAY_REFUSE, "060008" + "00" * 8 + "0a0003ff0000", "reason does not exist"),
    ],
)
def test_a_body_that_does_not_read_says_why(kind: int, content: str, why: str) -> None:
    with pytest.raises(SignalError, match=why):
        signal.decode(raw(kind, bytes.fromhex(content)), KEY)


@pytest.mark.parametrize(
    "body",
    [
        bodies.RelayAsk(b"short"),
        bodies.RelayRefresh(bytes(8), b"short"),
        bodies.Ack(2**32),
        bodies.Observed((bodies.Observation(bytes(8), V4, 65536),)),
        bodies.Offer(1, (bodies.Offered("bogus", V4, "00000000", 1),)),
        bodies.Offer(1, (bodies.Offered("host", V4, "0000", 1),)),
        bodies.Offer(1, (bodies.Offered("host", Address("nonsense", 1), "00000000", 1),)),
        bodies.Offer(1, relays=(bodies.AnchorDistance(bytes(8), 65536),)),
        bodies.Offer(1, relays=(bodies.AnchorDistance(bytes(8), 1),) * 2),
        bodies.Splice(1, 65536),
    ],
    ids=lambda body: type(body).__name__,
)
def test_what_no_field_can_hold_is_not_written(body: Body) -> None:
    with pytest.raises(SignalError, match="does not fit its fields"):
        sealed(body)


@pytest.mark.parametrize(("at", "value"), [(0, 0), (2, 2), (3, 0), (5, 1)], ids=["magic", "version", "type", "flags"])
def test_a_header_of_another_version_is_not_read(at: int, value: int) -> None:
    data = bytearray(sealed(bodies.Hello())[: -signal.TAG_BYTES])
    data[at] = value
    with pytest.raises(SignalError, match="not a message of this version"):
        signal.decode(bytes(data) + signal.tag(bytes(data), KEY), KEY)


def test_a_header_that_does_not_fit_is_not_written() -> None:
    for header in (HEADER._replace(source=b"short"), HEADER._replace(sequence=2**64), HEADER._replace(ttl=256)):
        with pytest.raises(SignalError, match=r"length|fit the header"):
            signal.encode(header, bodies.Hello(), KEY)
    with pytest.raises(SignalError, match="another type"):
        signal.encode(HEADER, bodies.Ack(1), KEY)


@settings(max_examples=examples(30))
@given(addresses)
def test_an_address_has_one_spelling_on_the_wire(address: Address) -> None:
    body = bodies.RelayGrant(bytes(8), (address,), bytes(16), 1)
    assert fields.read(MessageType.RELAY_GRANT, fields.write(body)) == body
