"""STUN messages (RFC 8489) with the attributes of ICE (RFC 8445) and of NAT behaviour discovery (RFC 5780).

`decode` checks structure and FINGERPRINT; who sent the message is a second question, put to `Received.is_authentic`,
because only USERNAME says whose key to take. By section 14.5 what follows MESSAGE-INTEGRITY is not part of the message.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, NamedTuple
from zlib import crc32

from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError
from meshctl.core.wire.stun_attributes import (
    ATTRIBUTES,
    COMPREHENSION_OPTIONAL,
    FINGERPRINT,
    MAGIC_COOKIE,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    ChangeRequest,
    StunError,
)

BINDING = 0x001
HEADER_BYTES = 20
TRANSACTION_BYTES = 12
TRANSACTION = slice(HEADER_BYTES - TRANSACTION_BYTES, HEADER_BYTES)  # of a message's bytes
# Nothing that is said here comes near an Ethernet frame; the limit bounds what a stranger can make us parse.
MAX_BYTES = 1500
# Longer lists of unknown attributes are cut: they exist to provoke long answers.
MAX_UNKNOWN = 16

_HEADER = Struct("!HH4s12s")
_ATTRIBUTE = Struct("!HH")
_FINGERPRINT_XOR = 0x5354554E
_DIGESTS = {MESSAGE_INTEGRITY: ("sha1", 20), MESSAGE_INTEGRITY_SHA256: ("sha256", 32)}
_READERS = {number: (name, read) for name, (number, _write, read) in ATTRIBUTES.items()}
_WRITERS = tuple((name, number, write) for name, (number, write, _read) in ATTRIBUTES.items())


class Class(IntEnum):
    """Message classes, as they stand among the bits of the message type (RFC 8489 section 5)."""

    REQUEST = 0x000
    INDICATION = 0x010
    SUCCESS = 0x100
    ERROR = 0x110


# Fields of `Message` before the attributes.
_HEAD_FIELDS = 3
_CLASSES = {int(member): member for member in Class}


class Message(NamedTuple):
    """What a STUN message says. `transaction` has 12 bytes; an attribute that is not there is None (a flag: False).

    A named tuple, because one is made for every probe: a frozen dataclass of as many fields takes five times as long.
    The attributes stand in the order of `ATTRIBUTES`.
    """

    message_class: Class
    transaction: bytes
    method: int = BINDING
    username: str | None = None
    realm: str | None = None
    nonce: str | None = None
    error: StunError | None = None
    unknown_attributes: tuple[int, ...] | None = None
    xor_mapped_address: TransportAddress | None = None
    mapped_address: TransportAddress | None = None
    change_request: ChangeRequest | None = None
    response_port: int | None = None
    response_origin: TransportAddress | None = None
    other_address: TransportAddress | None = None
    alternate_server: TransportAddress | None = None
    priority: int | None = None
    use_candidate: bool = False
    ice_controlled: int | None = None
    ice_controlling: int | None = None
    software: str | None = None

    @property
    def reflexive_address(self) -> TransportAddress | None:
        """Where the server saw the request come from; XOR-MAPPED-ADDRESS first, for some NATs rewrite the other."""
        return self.xor_mapped_address or self.mapped_address


class Received(NamedTuple):
    """A message that was parsed. `unknown` are the attributes that the receiver would have had to understand.

    `integrity` maps the kind of each integrity attribute to its offset in `raw`.
    """

    message: Message
    unknown: tuple[int, ...]
    fingerprinted: bool
    raw: bytes
    integrity: dict[int, int]

    def is_authentic(self, key: bytes) -> bool:
        """Whether the message has an integrity attribute and each that it has was made with `key`. Constant time."""
        good = bool(self.integrity)
        for kind, at in self.integrity.items():
            size = _DIGESTS[kind][1]
            good &= hmac.compare_digest(_digest(kind, key, self.raw, at), self.raw[at + 4 : at + 4 + size])
        return good


def encode(
    message: Message, key: bytes | None = None, *,
    integrity: tuple[int, ...] = (MESSAGE_INTEGRITY,), fingerprint: bool = True,
) -> bytes:
    """The message as bytes; with `key`, signed by each kind in `integrity`. Raises WireError for what has no encoding.

    The key of short-term credentials is the password's UTF-8 (RFC 8489 section 9.1.1).
    """
    if len(message.transaction) != TRANSACTION_BYTES:
        raise WireError("a transaction id has 12 bytes")
    parts = [b""]
    for (name, number, write), value in zip(_WRITERS, message[_HEAD_FIELDS:]):
        if value is not None and value is not False:
            try:
                packed = write(value, message.transaction)
            except (StructError, OverflowError):
                raise WireError(f"{name} is out of range") from None
            parts.append(_ATTRIBUTE.pack(number, len(packed)) + packed + bytes(-len(packed) & 3))
    parts[0] = _header(message, sum(map(len, parts)))
    raw = b"".join(parts)
    for kind in sorted(integrity) if key is not None else ():
        size = _DIGESTS[kind][1]
        digest = _digest(kind, key or b"", raw, len(raw))
        raw = _with_length(raw, len(raw) + 4 + size) + _ATTRIBUTE.pack(kind, size) + digest
    if fingerprint:
        raw = _with_length(raw, len(raw) + 8)
        raw += _ATTRIBUTE.pack(FINGERPRINT, 4) + (crc32(raw) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
    if len(raw) > MAX_BYTES:
        raise WireError("the message is too long")
    return raw


def decode(raw: bytes) -> Received:
    """Parse one datagram. Raises WireError, also for a wrong FINGERPRINT; attributes that repeat count once."""
    message_class, method, transaction = _parse_header(raw)
    values: dict[str, Any] = {}
    integrity: dict[int, int] = {}
    unknown: list[int] = []
    at, end, fingerprinted = HEADER_BYTES, len(raw), False
    while at < end:
        kind, size = _ATTRIBUTE.unpack_from(raw, at)
        start = at + 4
        if start + size > end:
            raise WireError("an attribute reaches beyond the message")
        reader = _READERS.get(kind)
        if reader is not None:
            if not integrity and reader[0] not in values:
                values[reader[0]] = reader[1](raw[start : start + size], transaction)
        elif kind == FINGERPRINT:
            _check_fingerprint(raw, at, size)
            fingerprinted = True
        elif kind in _DIGESTS:
            if kind not in integrity and MESSAGE_INTEGRITY_SHA256 not in integrity:
                if size != _DIGESTS[kind][1]:
                    raise WireError("an integrity attribute has a wrong length")
                integrity[kind] = at
        elif kind < COMPREHENSION_OPTIONAL and not integrity and kind not in unknown and len(unknown) < MAX_UNKNOWN:
            unknown.append(kind)
        at = start + size + (-size & 3)
    message = Message(message_class, transaction, method, **values)
    return Received(message, tuple(unknown), fingerprinted, raw, integrity)


def success_response(request: Message, source: TransportAddress) -> Message:
    """The answer to a Binding request that came from `source` (RFC 8489 section 6.3.1.1)."""
    return Message(Class.SUCCESS, request.transaction, request.method, xor_mapped_address=source)


def _parse_header(raw: bytes) -> tuple[Class, int, bytes]:
    """Class, method and transaction id (RFC 8489 section 5)."""
    if not HEADER_BYTES <= len(raw) <= MAX_BYTES:
        raise WireError(f"a STUN message has {HEADER_BYTES} to {MAX_BYTES} bytes")
    bits, length, cookie, transaction = _HEADER.unpack_from(raw)
    if bits >= 0x4000 or cookie != MAGIC_COOKIE:
        raise WireError("not a STUN message")
    if length % 4 or length != len(raw) - HEADER_BYTES:
        raise WireError("the length in the header is not the message's")
    return _CLASSES[bits & 0x110], bits & 0x00F | (bits & 0x0E0) >> 1 | (bits & 0x3E00) >> 2, transaction


def _header(message: Message, length: int) -> bytes:
    method = message.method
    if not 0 <= method <= 0xFFF:
        raise WireError("a method has 12 bits")
    bits = method & 0x00F | (method & 0x070) << 1 | (method & 0xF80) << 2 | message.message_class
    if length > MAX_BYTES:
        raise WireError("the message is too long")
    return _HEADER.pack(bits, length, MAGIC_COOKIE, message.transaction)


def _with_length(raw: bytes, total: int) -> bytes:
    """The message with the length that it has once it is `total` bytes long, the header included."""
    return raw[:2] + (total - HEADER_BYTES).to_bytes(2, "big") + raw[4:]


def _digest(kind: int, key: bytes, raw: bytes, at: int) -> bytes:
    """What the integrity attribute at the offset must be: it covers all before it, with itself in the length."""
    algorithm, size = _DIGESTS[kind]
    keyed = _keyed(key, algorithm).copy()
    keyed.update(raw[:2] + (at + 4 + size - HEADER_BYTES).to_bytes(2, "big") + raw[4:at])
    return keyed.digest()


# Taking the key in costs more than the message; one entry for each key in use, two of them a peer.
@lru_cache(maxsize=4096)
def _keyed(key: bytes, algorithm: str) -> hmac.HMAC:
    return hmac.new(key, digestmod=algorithm)


def _check_fingerprint(raw: bytes, at: int, size: int) -> None:
    if size != 4 or at + 8 != len(raw):
        raise WireError("FINGERPRINT is not the last attribute")
    if crc32(raw[:at]) ^ _FINGERPRINT_XOR != int.from_bytes(raw[at + 4 :], "big"):
        raise WireError("FINGERPRINT is wrong")
