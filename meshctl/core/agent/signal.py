"""Signalling messages: small datagrams inside the mesh, handed on hop by hop, authentic from end to end.

    "mc"  version 1  type 1  ttl 1  flags 1  source 8  destination 8  my session 8  your session 8  sequence 8
    fields (`fields`)
    HMAC-SHA256(pair's key, all but ttl and this)[:16]

Source and destination are ids of nodes (`config.node_id`). A forwarder reads the header alone and lowers the ttl, which
is why that is not under the tag.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from typing import NamedTuple

from meshctl.core.agent import fields
from meshctl.core.agent.bodies import TYPE_OF, Body, MessageType, SignalError

# With 20 to 40 bytes of IP and 8 of UDP it fits the smallest MTU that may carry IPv6 (1,280, RFC 8200 section 5).
MAX_BYTES = 1200
MAGIC = b"mc"
VERSION = 1
TTL = 3  # sender → anchor → anchor → receiver
TAG_BYTES = 16
SESSION_BYTES = 8  # of ids too
NO_SESSION = bytes(SESSION_BYTES)

_HEADER = struct.Struct(f"!2sBBBB{SESSION_BYTES}s{SESSION_BYTES}s{SESSION_BYTES}s{SESSION_BYTES}sQ")
_TTL_AT = 4
_TYPES = frozenset(MessageType)


class Header(NamedTuple):
    """Who to whom, in which sessions. `my_session` is the sender's, `your_session` what it takes for the receiver's."""

    kind: MessageType
    source: bytes
    destination: bytes
    my_session: bytes
    your_session: bytes
    sequence: int
    ttl: int = TTL


@dataclass(frozen=True)
class Message:
    """A whole message that was found authentic."""

    header: Header
    body: Body


def encode(header: Header, body: Body, key: bytes) -> bytes:
    """The message under the pair's key. Raises SignalError when it does not fit, or the body is of another type."""
    if TYPE_OF[type(body)] is not header.kind:
        raise SignalError(f"{header.kind.name} with another type's body")
    h = header
    if {len(h.source), len(h.destination), len(h.my_session), len(h.your_session)} != {SESSION_BYTES}:
        raise SignalError("an id or session of another length")
    try:
        head = _HEADER.pack(
            MAGIC, VERSION, h.kind, h.ttl, 0, h.source, h.destination, h.my_session, h.your_session, h.sequence
        )
    except struct.error:
        raise SignalError("a number does not fit the header") from None
    data = head + fields.write(body)
    if len(data) + TAG_BYTES > MAX_BYTES:
        raise SignalError(f"{h.kind.name} of {len(data) + TAG_BYTES} bytes, {MAX_BYTES} is the most")
    return data + tag(data, key)


def peek(data: bytes) -> Header:
    """The header of a message of ours, authentic or not. Raises SignalError."""
    if not _HEADER.size + TAG_BYTES <= len(data) <= MAX_BYTES:
        raise SignalError(f"{len(data)} bytes are no message")
    magic, version, kind, ttl, flags, source, destination, mine, yours, sequence = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or flags or kind not in _TYPES:
        raise SignalError("not a message of this version")
    return Header(MessageType(kind), source, destination, mine, yours, sequence, ttl)


def tag(data: bytes, key: bytes) -> bytes:
    """The tag that belongs to these bytes (header and fields)."""
    return hmac.digest(key, data[:_TTL_AT] + data[_TTL_AT + 1 :], "sha256")[:TAG_BYTES]


def authentic(data: bytes, key: bytes) -> bool:
    """Whether the tag is that of the pair's key; compared in constant time."""
    return hmac.compare_digest(tag(data[:-TAG_BYTES], key), data[-TAG_BYTES:])


def decode(data: bytes, key: bytes) -> Message:
    """The message. Raises SignalError for what is none, is not authentic, or does not read; fields are read last."""
    header = peek(data)
    if not authentic(data, key):
        raise SignalError("not authentic")
    return Message(header, fields.read(header.kind, data[_HEADER.size : -TAG_BYTES]))


def with_ttl(data: bytes, ttl: int) -> bytes:
    """The same message with another ttl, for a forwarder."""
    return data[:_TTL_AT] + bytes((ttl,)) + data[_TTL_AT + 1 :]
