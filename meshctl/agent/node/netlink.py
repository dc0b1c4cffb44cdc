"""How messages to and from the kernel are framed (linux/netlink.h), whichever family they are of.

Numbers are in the host's order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

# NLM_F_*
REQUEST, ACK, DUMP, CREATE = 0x1, 0x4, 0x300, 0x400
_INTERRUPTED = 0x10
# Types that every family has: NLMSG_ERROR (an acknowledgement, too) and NLMSG_DONE.
ERROR, DONE = 2, 3

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ERRNO = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF  # the upper two bits of an attribute's type are flags


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    """One request."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message. What is cut off or lies about its length ends it."""
    return ((kind, body) for kind, _, _, _, body in _messages(data))


def answers(data: bytes, sequences: range) -> Iterator[tuple[int, int, bytes]]:
    """Sequence, type and body of each message that answers one of these requests."""
    return ((number, kind, body) for kind, _, number, _, body in _messages(data) if number in sequences)


def ports(data: bytes) -> set[int]:
    """Whose requests these messages are about: by its socket's port."""
    return {port for _, _, _, port, _ in _messages(data)}


def interrupted(data: bytes) -> bool:
    """Whether a part of a dump says that something has changed since the dump began (NLM_F_DUMP_INTR)."""
    return any(flags & _INTERRUPTED for _, flags, _, _, _ in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, sequence, port, data[at + _HEADER.size : at + length]
        at += -(-length // 4) * 4


def failure(body: bytes) -> OSError:
    """What an ERROR message says; with errno 0 it is an acknowledgement."""
    code = -_ERRNO.unpack_from(body)[0]
    return OSError(code, os.strerror(code))


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *inside: bytes) -> bytes:
    """One attribute that is made of others."""
    return attribute(kind | _NESTED, b"".join(inside))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
