"""Bodies of signalling messages as bytes: fields of type (1 byte), length (2 bytes) and value, in network order.

A body has the fields that its type lists, in any order. A field of an unknown type below 0x80 makes the message
unreadable, one from 0x80 on is passed over (as STUN has it, RFC 8489 section 14): a later version can add either.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum

from meshctl.core.agent import bodies
from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Body, MessageType, SignalError
from meshctl.core.agent.config import ID_BYTES
from meshctl.core.wire.address import MAPPED_PREFIX, pack_ip, unpack_ip


class Field(IntEnum):
    """Types of fields. An address is a port (2 bytes) and 4 or 16 bytes of IP."""

    ANSWERS = 0x01  # the sequence number of the HELLO that is answered, 8 bytes
    GENERATION = 0x02  # 4 bytes
    CANDIDATE = 0x03  # kind 1, foundation 4, priority 4, address
    NAT = 0x04  # family 1, mapping 1, filtering 1, port step 1
    OBSERVED = 0x05  # node 8, age in seconds 2, address
    PEER = 0x06  # the node at the other end of a relay, 8 bytes
    RELAY = 0x07  # address
    TOKEN = 0x08  # 16 bytes
    LIFETIME = 0x09  # seconds, 4 bytes
    REFUSED = 0x0A  # reason 1, seconds until it is worth asking again 2
    SPLICE = 0x0B  # attempt 4, how many ports 2
    DISTANCE = 0x80  # anchor 8, round trip in milliseconds 2, used 1
    WISH = 0x81  # 1
    RESTART = 0x82  # 4
    BLOCKED = 0x83  # 4
    USERSPACE = 0x84  # 1, which is 1


OPTIONAL_FROM = 0x80
_FIELDS = frozenset(Field)
_HEAD = struct.Struct("!BH")
_CANDIDATE = struct.Struct("!B4sI")
_NAT = struct.Struct("!BBBB")
_OBSERVED = struct.Struct(f"!{ID_BYTES}sH")
_REFUSED = struct.Struct("!BH")
_SPLICE = struct.Struct("!IH")
_DISTANCE = struct.Struct(f"!{ID_BYTES}sHB")
_ADDRESS_BYTES = (6, 18)
_TRUE = b"\1"
_KIND_NAMES = {number: name for name, number in bodies.KIND_NUMBERS.items()}


def write(body: Body) -> bytes:
    """The body's fields. Raises SignalError for what no field can hold."""
    try:
        return b"".join(_HEAD.pack(field, len(value)) + value for field, value in _values(body))
    except (struct.error, KeyError, ValueError):
        raise SignalError(f"{type(body).__name__} does not fit its fields") from None


def read(kind: MessageType, data: bytes) -> Body:
    """The body of a message of that type. Raises SignalError."""
    fields = _Reader(data)
    body = _READERS[kind](fields)
    fields.finish()
    return body


def _pack(address: Address) -> bytes:
    return struct.pack("!H", address.port) + pack_ip(address.ip)


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise SignalError(f"{len(value)} bytes where {size} belong")
    return value


def _values(body: Body) -> Iterator[tuple[Field, bytes]]:
    if isinstance(body, bodies.HelloAck):
        yield Field.ANSWERS, struct.pack("!Q", body.answers)
    elif isinstance(body, (bodies.Offer, bodies.Ack)):
        yield Field.GENERATION, struct.pack("!I", body.generation)
        if isinstance(body, bodies.Offer):
            yield from _offer(body)
    elif isinstance(body, bodies.Observed):
        for seen in body.observations:
            head = _OBSERVED.pack(_exactly(seen.node, ID_BYTES), seen.age_s)
            yield Field.OBSERVED, head + _pack(seen.address)
    elif isinstance(body, bodies.Splice):
        yield Field.SPLICE, _SPLICE.pack(body.attempt, body.ports)
    elif not isinstance(body, bodies.Hello):
        yield from _relaying(body)


def _offer(body: bodies.Offer) -> Iterator[tuple[Field, bytes]]:
    for c in body.candidates:
        foundation = _exactly(bytes.fromhex(c.foundation), 4)
        yield Field.CANDIDATE, _CANDIDATE.pack(bodies.KIND_NUMBERS[c.kind], foundation, c.priority) + _pack(c.address)
    for n in body.nat:
        yield Field.NAT, _NAT.pack(n.family, n.mapping, n.filtering, n.port_step)
    for d in _one_used(body.relays):
        yield Field.DISTANCE, _DISTANCE.pack(_exactly(d.anchor, ID_BYTES), d.rtt_ms, d.used)
    if body.wish:
        yield Field.WISH, bytes((bodies.Wish(body.wish),))
    if body.restart:
        yield Field.RESTART, body.restart.to_bytes(4, "big")
    if body.blocked:
        yield Field.BLOCKED, body.blocked.to_bytes(4, "big")
    if body.userspace:
        yield Field.USERSPACE, _TRUE


def _one_used(relays: tuple[bodies.AnchorDistance, ...]) -> tuple[bodies.AnchorDistance, ...]:
    if len(relays) > bodies.MAX_DISTANCES or len({d.anchor for d in relays}) < len(relays):
        raise SignalError("too many anchors, or one is there twice")
    if sum(d.used for d in relays) > 1:
        raise SignalError("two anchors are said to be used")
    return relays


def _relaying(
    body: bodies.RelayAsk | bodies.RelayGrant | bodies.RelayRefuse | bodies.RelayRefresh | bodies.RelayRelease,
) -> Iterator[tuple[Field, bytes]]:
    yield Field.PEER, _exactly(body.peer, ID_BYTES)
    if isinstance(body, bodies.RelayRefuse):
        yield Field.REFUSED, _REFUSED.pack(body.reason, body.retry_s)
    elif not isinstance(body, bodies.RelayAsk):
        yield Field.TOKEN, _exactly(body.token, bodies.TOKEN_BYTES)
        if isinstance(body, bodies.RelayGrant):
            yield from ((Field.RELAY, _pack(address)) for address in body.relay)
            yield Field.LIFETIME, struct.pack("!I", body.lifetime_s)


class _Reader:
    """The fields of a body by type; each is taken once, and none may be left but an optional one."""

    def __init__(self, data: bytes) -> None:
        self._values: dict[int, list[bytes]] = {}
        at = 0
        while at < len(data):
            if at + _HEAD.size > len(data):
                raise SignalError("a field's head is cut short")
            kind, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            if at > len(data):
                raise SignalError("a field is cut short")
            if kind in _FIELDS:
                self._values.setdefault(kind, []).append(data[at - length : at])
            elif kind < OPTIONAL_FROM:
                raise SignalError(f"field type {kind:#04x} is not known")

    def many(self, field: Field, sizes: tuple[int, ...]) -> list[bytes]:
        values = self._values.pop(field, [])
        if any(len(value) not in sizes for value in values):
            raise SignalError(f"{field.name} has a length of its own")
        return values

    def one(self, field: Field, size: int) -> bytes:
        values = self.many(field, (size,))
        if len(values) != 1:
            raise SignalError(f"{field.name} is there {len(values)} times")
        return values[0]

    def number(self, field: Field, size: int) -> int:
        return int.from_bytes(self.one(field, size), "big")

    def finish(self) -> None:
        left = [field for field in self._values if field < OPTIONAL_FROM]
        if left:
            raise SignalError(f"{Field(min(left)).name} does not belong there")


def _address(data: bytes) -> Address:
    packed = data[2:]
    if packed.startswith(MAPPED_PREFIX):  # one address, one spelling: it is not taken for another candidate
        raise SignalError("an IPv4 address is written as IPv6")
    return Address(unpack_ip(packed), int.from_bytes(data[:2], "big"))


def _read_offer(fields: _Reader) -> bodies.Offer:
    candidates = []
    for value in fields.many(Field.CANDIDATE, tuple(_CANDIDATE.size + n for n in _ADDRESS_BYTES)):
        kind, foundation, priority = _CANDIDATE.unpack_from(value)
        if kind not in _KIND_NAMES or not 1 <= priority <= bodies.MAX_PRIORITY:
            raise SignalError("a candidate has a kind or priority that does not exist")
        address = _address(value[_CANDIDATE.size :])
        candidates.append(bodies.Offered(_KIND_NAMES[kind], address, foundation.hex(), priority))
    nat = tuple(bodies.NatSummary(*_NAT.unpack(value)) for value in fields.many(Field.NAT, (_NAT.size,)))
    if any(n.family not in (4, 6) for n in nat) or len({n.family for n in nat}) < len(nat):
        raise SignalError("a NAT's family does not exist or is there twice")
    return bodies.Offer(
        fields.number(Field.GENERATION, 4), tuple(candidates), nat, _read_distances(fields), _read_wish(fields),
        _read_count(fields, Field.RESTART), _read_count(fields, Field.BLOCKED), _read_flag(fields, Field.USERSPACE),
    )  # fmt: skip


def _read_distances(fields: _Reader) -> tuple[bodies.AnchorDistance, ...]:
    found = [_DISTANCE.unpack(value) for value in fields.many(Field.DISTANCE, (_DISTANCE.size,))]
    if any(used > 1 for _, _, used in found):
        raise SignalError("an anchor is used or not")
    return _one_used(tuple(bodies.AnchorDistance(anchor, rtt_ms, bool(used)) for anchor, rtt_ms, used in found))


def _read_wish(fields: _Reader) -> bodies.Wish:
    values = fields.many(Field.WISH, (1,))
    if len(values) > 1 or any(value[0] not in frozenset(bodies.Wish) for value in values):
        raise SignalError("a wish does not exist or is there twice")
    return bodies.Wish(values[0][0]) if values else bodies.Wish.NONE


def _read_count(fields: _Reader, field: Field) -> int:
    values = fields.many(field, (4,))
    if len(values) > 1:
        raise SignalError(f"{field.name} is there twice")
    return int.from_bytes(values[0], "big") if values else 0


def _read_flag(fields: _Reader, field: Field) -> bool:
    values = fields.many(field, (len(_TRUE),))
    if values not in ([], [_TRUE]):
        raise SignalError(f"{field.name} is there or not")
    return bool(values)


def _read_observed(fields: _Reader) -> bodies.Observed:
    seen = []
    for value in fields.many(Field.OBSERVED, tuple(_OBSERVED.size + n for n in _ADDRESS_BYTES)):
        node, age_s = _OBSERVED.unpack_from(value)
        seen.append(bodies.Observation(node, _address(value[_OBSERVED.size :]), age_s))
    return bodies.Observed(tuple(seen))


def _read_grant(fields: _Reader) -> bodies.RelayGrant:
    relay = tuple(_address(value) for value in fields.many(Field.RELAY, _ADDRESS_BYTES))
    if not relay or len({a.family for a in relay}) < len(relay):
        raise SignalError("a relay has one address of a family")
    return bodies.RelayGrant(_peer(fields), relay, _token(fields), fields.number(Field.LIFETIME, 4))


def _read_refuse(fields: _Reader) -> bodies.RelayRefuse:
    reason, retry_s = _REFUSED.unpack(fields.one(Field.REFUSED, _REFUSED.size))
    if reason not in frozenset(bodies.RefuseReason):
        raise SignalError("a refusal's reason does not exist")
    return bodies.RelayRefuse(_peer(fields), bodies.RefuseReason(reason), retry_s)


def _peer(fields: _Reader) -> bytes:
    return fields.one(Field.PEER, ID_BYTES)


def _token(fields: _Reader) -> bytes:
    return fields.one(Field.TOKEN, bodies.TOKEN_BYTES)


_READERS: dict[MessageType, Callable[[_Reader], Body]] = {
    MessageType.HELLO: lambda _: bodies.Hello(),
    MessageType.HELLO_ACK: lambda fields: bodies.HelloAck(fields.number(Field.ANSWERS, 8)),
    MessageType.OFFER: _read_offer,
    MessageType.ACK: lambda fields: bodies.Ack(fields.number(Field.GENERATION, 4)),
    MessageType.OBSERVED: _read_observed,
    MessageType.RELAY_ASK: lambda fields: bodies.RelayAsk(_peer(fields)),
    MessageType.RELAY_GRANT: _read_grant,
    MessageType.RELAY_REFUSE: _read_refuse,
    MessageType.RELAY_REFRESH: lambda fields: bodies.RelayRefresh(_peer(fields), _token(fields)),
    MessageType.RELAY_RELEASE: lambda fields: bodies.RelayRelease(_peer(fields), _token(fields)),
    MessageType.SPLICE: lambda fields: bodies.Splice(*_SPLICE.unpack(fields.one(Field.SPLICE, _SPLICE.size))),
}
