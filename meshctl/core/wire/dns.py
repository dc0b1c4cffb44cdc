"""Questions to a DNS resolver and its answers (RFC 1035): addresses (A, AAAA) and services (SRV, RFC 2782).

Answers may be forged. One counts when it has the question's number and repeats the question; of the rest only records
for the name that was asked, or for one that it is an alias of, are taken.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from meshctl.core.wire.error import WireError

A, CNAME, AAAA, SRV = 1, 5, 28, 33
PORT = 53
# What fits every path unfragmented (DNS flag day 2020); by TCP an answer has this at most.
MAX_UDP, MAX_TCP = 1232, 16 * 1024
NO_ERROR, NO_SUCH_NAME = 0, 3
_INTERNET = 1
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SERVICE = struct.Struct("!HHH")
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x0200, 0x0100
# EDNS (RFC 6891): an empty OPT record that says how much may come by UDP.
_OPT = b"\0" + struct.pack("!HHIH", 41, MAX_UDP, 0, 0)
_MAX_LABEL, _MAX_NAME = 63, 253
_MAX_RECORDS = 256
_TTL_SIGN = 1 << 31  # a TTL with this bit is none (RFC 2181 section 8)
_MAX_ALIASES = 8
# Pointers of a compressed name; each goes back.
_MAX_JUMPS = 32


class Service(NamedTuple):
    """Where a service is: the lowest priority first, and of these by weight."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True)
class Answer:
    """`code` is the resolver's; `truncated`: ask again by TCP. Addresses are canonical texts; `ttl_s` is how long they
    or the services count (0 when there are none)."""

    code: int
    truncated: bool = False
    addresses: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    ttl_s: int = 0


def encode_question(number: int, name: str, kind: int) -> bytes:
    """Asks for records of that kind. Raises WireError for what is no name."""
    header = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 1)
    return header + _encode_name(name) + _QUESTION.pack(kind, _INTERNET) + _OPT


def decode_answer(raw: bytes, number: int, name: str, kind: int) -> Answer:
    """The answer to that question. Raises WireError when it is none, or cannot be read."""
    try:
        return _decode(raw, number, name.rstrip(".").lower(), kind)
    except (struct.error, IndexError):
        raise WireError("the answer is cut short") from None


def _decode(raw: bytes, number: int, name: str, kind: int) -> Answer:
    got, flags, questions, answers, _, _ = _HEADER.unpack_from(raw)
    if got != number or not flags & _RESPONSE or questions != 1 or answers > _MAX_RECORDS:
        raise WireError("not an answer to this question")
    asked, at = _decode_name(raw, _HEADER.size)
    if asked != name or _QUESTION.unpack_from(raw, at) != (kind, _INTERNET):
        raise WireError("an answer to another question")
    code = flags & 0xF
    if flags & _TRUNCATED or code != NO_ERROR:
        return Answer(code, bool(flags & _TRUNCATED))
    records = _records(raw, at + _QUESTION.size, answers)
    aliases = {r.owner: _Alias(_decode_name(raw, r.at)[0], r.ttl_s) for r in records if r.kind == CNAME}
    chain = _chain(name, aliases)
    names = {name, *(alias.target for alias in chain)}
    ours = [r for r in records if r.kind == kind and r.owner in names]
    if not ours:
        return Answer(code)
    ttl_s = min([*(alias.ttl_s for alias in chain), *(r.ttl_s for r in ours)])
    if kind == SRV:
        return Answer(code, services=tuple(sorted(_service(raw, r.at) for r in ours)), ttl_s=ttl_s)
    return Answer(code, addresses=tuple(sorted({_address(raw[r.at : r.end], kind) for r in ours})), ttl_s=ttl_s)


class _Record(NamedTuple):
    """One of an answer. Its data are at `at` to `end` of the whole, to which names in them may point."""

    owner: str
    kind: int
    ttl_s: int
    at: int
    end: int


def _records(raw: bytes, at: int, count: int) -> list[_Record]:
    """So many that begin there; those of the Internet alone."""
    records = []
    for _ in range(count):
        owner, at = _decode_name(raw, at)
        kind, group, ttl_s, size = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        if at + size > len(raw):
            raise WireError("the answer is cut short")
        if group == _INTERNET:
            records.append(_Record(owner, kind, ttl_s if ttl_s < _TTL_SIGN else 0, at, at + size))
        at += size
    return records


class _Alias(NamedTuple):
    """What a name is another name for, and how long."""

    target: str
    ttl_s: int


def _chain(name: str, aliases: Mapping[str, _Alias]) -> list[_Alias]:
    """The aliases that lead from that name on, one after the other."""
    chain: list[_Alias] = []
    while name in aliases and len(chain) < _MAX_ALIASES:
        chain.append(aliases[name])
        name = chain[-1].target
    return chain


def _address(data: bytes, kind: int) -> str:
    if len(data) != (4 if kind == A else 16):
        raise WireError("an address of another length")
    return str(ipaddress.IPv4Address(data) if kind == A else ipaddress.IPv6Address(data))


def _service(raw: bytes, at: int) -> Service:
    priority, weight, port = _SERVICE.unpack_from(raw, at)
    return Service(priority, weight, port, _decode_name(raw, at + _SERVICE.size)[0])


def _encode_name(name: str) -> bytes:
    name = name.rstrip(".")
    labels = name.split(".")
    if not name.isascii() or len(name) > _MAX_NAME or not all(0 < len(label) <= _MAX_LABEL for label in labels):
        raise WireError(f"{name!r} cannot be a name in the DNS")
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"


def _decode_name(raw: bytes, at: int) -> tuple[str, int]:
    """The name that begins there, in small letters, and where what follows it begins."""
    labels: list[str] = []
    end, jumps, size = -1, 0, 0
    while raw[at]:
        length = raw[at]
        if length >= 0xC0:
            end = at + 2 if end < 0 else end
            target = (length & 0x3F) << 8 | raw[at + 1]
            jumps += 1
            if target >= at or jumps > _MAX_JUMPS:
                raise WireError("a name that leads in circles")
            at = target
            continue
        size += length + 1
        if length > _MAX_LABEL or size > _MAX_NAME + 1 or at + 1 + length > len(raw):
            raise WireError("a name that is too long")
        labels.append(raw[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    return ".".join(labels), at + 1 if end < 0 else end
