"""NAT-PMP, the NAT Port Mapping Protocol (RFC 6886): the external address, and mappings of UDP ports.

PCP is its successor on the same port; each server refuses the other's version in a way that names its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from meshctl.core.wire.address import unpack_ip
from meshctl.core.wire.error import WireError
from meshctl.core.wire.pcp import Epoch, Retry, VersionRefused

VERSION = 0
# What a server may have us believe at most, as PCP has it.
MAX_LIFETIME_S = 24 * 3600

_MAP_UDP = 1
_RESPONSE_BIT = 0x80
_REQUEST = Struct("!BBHHHI")
_HEAD = Struct("!BBHI")
_MAPPING = Struct("!HHI")
_MAX_BYTES = 1100


class Result(IntEnum):
    """Result codes (section 3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


MEANINGS: dict[int, tuple[str, Retry]] = {
    Result.UNSUPPORTED_VERSION: ("the router speaks another version", Retry.NOT_HERE),
    Result.NOT_AUTHORIZED: ("the router is set not to allow it", Retry.NOT_HERE),
    Result.NETWORK_FAILURE: ("the router has no address outside yet", Retry.LATER),
    Result.OUT_OF_RESOURCES: ("the router's table is full", Retry.LATER),
    Result.UNSUPPORTED_OPCODE: ("the router does not map UDP", Retry.NOT_HERE),
}


@dataclass(frozen=True)
class ExternalAddress:
    """The router's IPv4 address outside; also what it announces by multicast when that changes (section 3.2.1)."""

    address: str
    epoch_s: int


@dataclass(frozen=True)
class Mapping:
    """A mapping that the router made; after a deletion `external_port` and `lifetime_s` are 0."""

    internal_port: int
    external_port: int
    lifetime_s: int
    epoch_s: int


@dataclass(frozen=True)
class Refusal:
    """The router said no. `mapping` says to which of the two requests."""

    result: int
    epoch_s: int
    mapping: bool

    @property
    def retry(self) -> Retry:
        """An unknown refusal may pass."""
        return MEANINGS.get(self.result, ("", Retry.LATER))[1]

    @property
    def meaning(self) -> str:
        """The refusal in words for a person."""
        return MEANINGS.get(self.result, (f"the router refused with code {self.result}", Retry.LATER))[0]


def encode_external_address() -> bytes:
    """The question for the router's address outside (section 3.2)."""
    return bytes([VERSION, 0])


def encode_map(internal_port: int, suggested_port: int, lifetime_s: int) -> bytes:
    """A request to map a UDP port; a lifetime of 0 deletes (sections 3.3 and 3.4). Raises WireError."""
    if not (0 < internal_port <= 0xFFFF and 0 <= suggested_port <= 0xFFFF and 0 <= lifetime_s <= 0xFFFFFFFF):
        raise WireError("port or lifetime is out of range")
    if lifetime_s == 0:
        suggested_port = 0
    return _REQUEST.pack(VERSION, _MAP_UDP, 0, internal_port, suggested_port, lifetime_s)


def decode(raw: bytes) -> ExternalAddress | Mapping | Refusal | VersionRefused:
    """A datagram from the server's port, or a multicast announcement. Raises WireError.

    Section 3.5 leaves open how long a refusal is, and routers differ: the first eight bytes are what counts.
    """
    if not _HEAD.size <= len(raw) <= _MAX_BYTES:
        raise WireError("not the size of a NAT-PMP response")
    version, opcode, result, epoch_s = _HEAD.unpack_from(raw)
    if not opcode & _RESPONSE_BIT:
        raise WireError("not a response")
    if version != VERSION:
        return VersionRefused(version)
    operation = opcode & ~_RESPONSE_BIT
    if result == Result.UNSUPPORTED_VERSION:
        return VersionRefused(VERSION)
    if operation not in (0, _MAP_UDP):
        raise WireError("the response is to an opcode that we never send")
    if result != Result.SUCCESS:
        return Refusal(result, epoch_s, operation == _MAP_UDP)
    if operation == 0:
        return ExternalAddress(unpack_ip(_body(raw, 4)), epoch_s)
    internal_port, external_port, lifetime_s = _MAPPING.unpack(_body(raw, _MAPPING.size))
    return Mapping(internal_port, external_port, min(lifetime_s, MAX_LIFETIME_S), epoch_s)


def _body(raw: bytes, size: int) -> bytes:
    body = raw[_HEAD.size : _HEAD.size + size]
    if len(body) != size:
        raise WireError("the response is too short")
    return body


def lost_state(previous: Epoch, current: Epoch) -> bool:
    """Whether the router restarted between two responses and has forgotten its mappings (section 3.6).

    Its clock may run an eighth slow and be two seconds behind that, not more.
    """
    expected_s = previous.server_s + (current.client_s - previous.client_s) * 7 / 8
    return current.server_s < expected_s - 2
