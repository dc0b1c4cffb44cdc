"""STUN attributes: their numbers, and each one's value as bytes and back.

RFC 8489 section 14 (STUN), RFC 8445 section 16.1 (ICE), RFC 5780 section 7 (NAT behaviour discovery).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from meshctl.core.wire.address import TransportAddress, pack_ip, unpack_ip
from meshctl.core.wire.error import WireError

MAGIC_COOKIE = b"\x21\x12\xa4\x42"
COOKIE_AT = 4  # bytes into the message (RFC 8489 section 5)
# What port and address are masked with, before the transaction id: the cookie's upper half, then all of it.
_MASK = MAGIC_COOKIE[:2] + MAGIC_COOKIE

MESSAGE_INTEGRITY = 0x0008
MESSAGE_INTEGRITY_SHA256 = 0x001C
FINGERPRINT = 0x8028
# Attributes from here on may be ignored by who does not know them (RFC 8489 section 14).
COMPREHENSION_OPTIONAL = 0x8000

# Bytes that a receiver must be able to take (RFC 8489 sections 14.3, 14.8 to 14.10 and 14.14).
MAX_USERNAME = 508
MAX_TEXT = 763

_IPV4, _IPV6 = 1, 2
_CHANGE_IP, _CHANGE_PORT = 4, 2
_ADDRESS = Struct("!xBH")
_ERROR = Struct("!HBB")
_PORT = Struct("!H2x")
_U32 = Struct("!I")
_U64 = Struct("!Q")


@dataclass(frozen=True)
class StunError:
    """ERROR-CODE: 300–699 and a phrase for people."""

    code: int
    reason: str = ""


@dataclass(frozen=True)
class ChangeRequest:
    """CHANGE-REQUEST: from which other address of its own a server is asked to answer (RFC 5780 section 7.2)."""

    ip: bool = False
    port: bool = False


def pack_address(value: TransportAddress, _transaction: bytes) -> bytes:
    """MAPPED-ADDRESS and those of its form (RFC 8489 section 14.1)."""
    packed = pack_ip(value[0])
    return _ADDRESS.pack(_IPV4 if len(packed) == 4 else _IPV6, value[1]) + packed


def unpack_address(value: bytes, _transaction: bytes) -> TransportAddress:
    """The reverse of `pack_address`. Raises WireError."""
    size = len(value)
    if size == 8 and value[1] == _IPV4:
        return TransportAddress(".".join(map(str, value[4:])), value[2] << 8 | value[3])
    if size == 20 and value[1] == _IPV6:
        return TransportAddress(unpack_ip(value[4:]), value[2] << 8 | value[3])
    raise WireError("an address attribute whose family and length do not agree")


def _mask(value: bytes, transaction: bytes) -> bytes:
    """Port and address of an address attribute, exclusive-or with cookie and transaction (RFC 8489 section 14.2)."""
    size = len(value)
    pad = _MASK + transaction
    number = int.from_bytes(value[2:], "big") ^ int.from_bytes(pad[: size - 2], "big")
    return value[:2] + number.to_bytes(size - 2, "big")


def pack_xor_address(value: TransportAddress, transaction: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS (RFC 8489 section 14.2)."""
    return _mask(pack_address(value, transaction), transaction)


def unpack_xor_address(value: bytes, transaction: bytes) -> TransportAddress:
    """The reverse of `pack_xor_address`. Raises WireError."""
    if len(value) not in (8, 20):
        raise WireError("an address attribute whose family and length do not agree")
    return unpack_address(_mask(value, transaction), transaction)


def pack_text(value: str, _transaction: bytes) -> bytes:
    """REALM, NONCE, SOFTWARE: UTF-8. Raises WireError when too long."""
    try:
        packed = value.encode("utf-8")
    except UnicodeEncodeError:
        raise WireError("a text attribute cannot be UTF-8") from None
    if len(packed) > MAX_TEXT:
        raise WireError("a text attribute is too long")
    return packed


def unpack_text(value: bytes, _transaction: bytes) -> str:
    """The reverse of `pack_text`. Raises WireError."""
    if len(value) > MAX_TEXT:
        raise WireError("a text attribute is too long")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("a text attribute is not UTF-8") from None


def pack_username(value: str, transaction: bytes) -> bytes:
    """USERNAME (RFC 8489 section 14.3). Raises WireError when too long."""
    packed = pack_text(value, transaction)
    if len(packed) > MAX_USERNAME:
        raise WireError("USERNAME is too long")
    return packed


def unpack_username(value: bytes, transaction: bytes) -> str:
    """The reverse of `pack_username`. Raises WireError."""
    if len(value) > MAX_USERNAME:
        raise WireError("USERNAME is too long")
    return unpack_text(value, transaction)


def pack_error(value: StunError, transaction: bytes) -> bytes:
    """ERROR-CODE (RFC 8489 section 14.8). Raises WireError for a code that it cannot hold."""
    if not 300 <= value.code <= 699:
        raise WireError("an error code is 300 to 699")
    return _ERROR.pack(0, *divmod(value.code, 100)) + pack_text(value.reason, transaction)


def unpack_error(value: bytes, transaction: bytes) -> StunError:
    """The reverse of `pack_error`. Raises WireError."""
    if len(value) < 4:
        raise WireError("ERROR-CODE is too short")
    hundreds, rest = value[2] & 0x07, value[3]
    if not 3 <= hundreds <= 6 or rest > 99:
        raise WireError("an error code is 300 to 699")
    return StunError(hundreds * 100 + rest, unpack_text(value[4:], transaction))


def pack_numbers(value: tuple[int, ...], _transaction: bytes) -> bytes:
    """UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13)."""
    return b"".join(number.to_bytes(2, "big") for number in value)


def unpack_numbers(value: bytes, _transaction: bytes) -> tuple[int, ...]:
    """The reverse of `pack_numbers`. Raises WireError."""
    if len(value) % 2:
        raise WireError("UNKNOWN-ATTRIBUTES has an odd length")
    return tuple(value[at] << 8 | value[at + 1] for at in range(0, len(value), 2))


def pack_u32(value: int, _transaction: bytes) -> bytes:
    """PRIORITY (RFC 8445 section 16.1)."""
    return _U32.pack(value)


def unpack_u32(value: bytes, _transaction: bytes) -> int:
    """The reverse of `pack_u32`. Raises WireError."""
    if len(value) != 4:
        raise WireError("a 32-bit attribute has another length")
    return int.from_bytes(value, "big")


def pack_u64(value: int, _transaction: bytes) -> bytes:
    """ICE-CONTROLLED and ICE-CONTROLLING: the tie-breaker (RFC 8445 section 16.1)."""
    return _U64.pack(value)


def unpack_u64(value: bytes, _transaction: bytes) -> int:
    """The reverse of `pack_u64`. Raises WireError."""
    if len(value) != 8:
        raise WireError("a 64-bit attribute has another length")
    return int.from_bytes(value, "big")


def pack_flag(_value: bool, _transaction: bytes) -> bytes:
    """USE-CANDIDATE: there or not (RFC 8445 section 16.1)."""
    return b""


def unpack_flag(value: bytes, _transaction: bytes) -> bool:
    """The reverse of `pack_flag`. Raises WireError."""
    if value:
        raise WireError("a flag attribute has a value")
    return True


def pack_change(value: ChangeRequest, _transaction: bytes) -> bytes:
    """CHANGE-REQUEST (RFC 5780 section 7.2)."""
    return _U32.pack(_CHANGE_IP * value.ip | _CHANGE_PORT * value.port)


def unpack_change(value: bytes, transaction: bytes) -> ChangeRequest:
    """The reverse of `pack_change`. Raises WireError."""
    bits = unpack_u32(value, transaction)
    return ChangeRequest(bool(bits & _CHANGE_IP), bool(bits & _CHANGE_PORT))


def pack_port(value: int, _transaction: bytes) -> bytes:
    """RESPONSE-PORT (RFC 5780 section 7.5): the port, and two bytes of nothing."""
    return _PORT.pack(value)


def unpack_port(value: bytes, _transaction: bytes) -> int:
    """The reverse of `pack_port`. Raises WireError."""
    if len(value) != _PORT.size:
        raise WireError("RESPONSE-PORT has another length")
    return value[0] << 8 | value[1]


# Field of `stun.Message` -> number, writer, reader; in the order in which they are sent.
ATTRIBUTES: dict[str, tuple[int, Callable[[Any, bytes], bytes], Callable[[bytes, bytes], Any]]] = {
    "username": (0x0006, pack_username, unpack_username),
    "realm": (0x0014, pack_text, unpack_text),
    "nonce": (0x0015, pack_text, unpack_text),
    "error": (0x0009, pack_error, unpack_error),
    "unknown_attributes": (0x000A, pack_numbers, unpack_numbers),
    "xor_mapped_address": (0x0020, pack_xor_address, unpack_xor_address),
    "mapped_address": (0x0001, pack_address, unpack_address),
    "change_request": (0x0003, pack_change, unpack_change),
    "response_port": (0x0027, pack_port, unpack_port),
    "response_origin": (0x802B, pack_address, unpack_address),
    "other_address": (0x802C, pack_address, unpack_address),
    "alternate_server": (0x8023, pack_address, unpack_address),
    "priority": (0x0024, pack_u32, unpack_u32),
    "use_candidate": (0x0025, pack_flag, unpack_flag),
    "ice_controlled": (0x8029, pack_u64, unpack_u64),
    "ice_controlling": (0x802A, pack_u64, unpack_u64),
    "software": (0x8022, pack_text, unpack_text),
}
