"""PCP, the Port Control Protocol (RFC 6887): MAP for IPv4 mappings and IPv6 pinholes, and ANNOUNCE.

A pinhole is a MAP request whose client address is the node's own IPv6 address (section 11): the firewall opens, nothing
is translated. Of the options none is used: PREFER_FAILURE because any external port will do, THIRD_PARTY because a node
maps for itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from struct import Struct

from meshctl.core.wire.address import TransportAddress, pack_ip, pack_mapped, unpack_ip
from meshctl.core.wire.error import WireError

VERSION = 2
SERVER_PORT = 5351
# Where servers announce by multicast that they restarted: 224.0.0.1 and ff02::1 (section 14.1).
ANNOUNCE_PORT = 5350
NONCE_BYTES = 12
# Bounds on the lifetimes that a server may have us believe: a mapping's (section 15), and an error's (section 7.4 has
# 30 seconds and 30 minutes). miniupnpd says 0 of errors, which would have us ask without end.
MAX_MAPPING_S = 24 * 3600
MIN_ERROR_S = 30
MAX_ERROR_S = 30 * 60

UDP = 17
_MAX_BYTES = 1100
_RESPONSE_BIT = 0x80
_REQUEST = Struct("!BBHI16s")
_RESPONSE = Struct("!BBxBII12x")
_MAP = Struct("!12sB3xHH16s")
_OPTION = Struct("!BxH")


class Opcode(IntEnum):
    """Section 19.2."""

    ANNOUNCE = 0
    MAP = 1


class Result(IntEnum):
    """Result codes (section 7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


class Retry(Enum):
    """Whether the same request is worth sending again."""

    LATER = "later"  # the server's state may change: after the lifetime that it gave
    NOT_HERE = "not-here"  # this server will not do it: use another protocol
    NEW_ADDRESS = "new-address"  # there is a NAT before the server, or our address changed: find it out first


# What each refusal means to a person, and to us.
MEANINGS: dict[int, tuple[str, Retry]] = {
    Result.UNSUPP_VERSION: ("the router speaks another version", Retry.NOT_HERE),
    Result.NOT_AUTHORIZED: ("the router is set not to allow it", Retry.NOT_HERE),
    Result.MALFORMED_REQUEST: ("the router could not read the request", Retry.NOT_HERE),
    Result.UNSUPP_OPCODE: ("the router does not do mappings by PCP", Retry.NOT_HERE),
    Result.UNSUPP_OPTION: ("the router wants an option that it does not know", Retry.NOT_HERE),
    Result.MALFORMED_OPTION: ("the router could not read an option", Retry.NOT_HERE),
    Result.NETWORK_FAILURE: ("the router has no address outside yet", Retry.LATER),
    Result.NO_RESOURCES: ("the router's table is full", Retry.LATER),
    Result.UNSUPP_PROTOCOL: ("the router does not map UDP", Retry.NOT_HERE),
    Result.USER_EX_QUOTA: ("this host has as many mappings as the router allows", Retry.LATER),
    Result.CANNOT_PROVIDE_EXTERNAL: ("the router has no such address or port to give", Retry.LATER),
    Result.ADDRESS_MISMATCH: ("the router sees another source address: there is a NAT between", Retry.NEW_ADDRESS),
    Result.EXCESSIVE_REMOTE_PEERS: ("the router could not create the filters", Retry.NOT_HERE),
}


@dataclass(frozen=True)
class MapRequest:
    """A MAP request for UDP. `client` is the address that the node sends it from; `suggested` the external address and
    port to ask for, None for any (of a pinhole: its own). A `lifetime_s` of 0 deletes (section 15.1)."""

    client: str
    nonce: bytes
    internal_port: int
    lifetime_s: int
    suggested: TransportAddress | None = None


@dataclass(frozen=True)
class Mapping:
    """What a response to MAP says of the mapping."""

    nonce: bytes
    protocol: int
    internal_port: int
    external: TransportAddress


@dataclass(frozen=True)
class Response:
    """A response, or an announcement. `lifetime_s` is the mapping's, or of an error how long it will last; bounded.

    `result` may be a number that section 7.4 does not have. `mapping` is None in announcements, and in errors without.
    """

    opcode: Opcode
    result: int
    lifetime_s: int
    epoch_s: int
    mapping: Mapping | None = None

    @property
    def retry(self) -> Retry | None:
        """None of a success; an unknown refusal may pass."""
        if self.result == Result.SUCCESS:
            return None
        return MEANINGS.get(self.result, ("", Retry.LATER))[1]

    @property
    def meaning(self) -> str:
        """The refusal in words for a person."""
        return MEANINGS.get(self.result, (f"the router refused with code {self.result}", Retry.LATER))[0]

    def answers(self, request: MapRequest) -> bool:
        """Whether this is the answer to the request, by its nonce (section 11.4).

        Servers refuse some requests without reading them, and answer with a bare header: only a refusal may do so.
        """
        if self.opcode != Opcode.MAP:
            return False
        if self.mapping is None:
            return self.result != Result.SUCCESS
        ours = (request.nonce, UDP, request.internal_port)
        return (self.mapping.nonce, self.mapping.protocol, self.mapping.internal_port) == ours


@dataclass(frozen=True)
class VersionRefused:
    """The server does not speak our version; `speaks` is its own, 0 for NAT-PMP (section 9 and appendix A)."""

    speaks: int


@dataclass(frozen=True)
class Epoch:
    """A server's clock beside ours when it was read, in seconds each (section 8.5)."""

    server_s: int
    client_s: float


def encode_map(request: MapRequest) -> bytes:
    """A MAP request. Raises WireError."""
    client = pack_mapped(request.client)
    if len(request.nonce) != NONCE_BYTES:
        raise WireError("a nonce has 12 bytes")
    if not (0 < request.internal_port <= 0xFFFF and 0 <= request.lifetime_s <= 0xFFFFFFFF):
        raise WireError("port or lifetime is out of range")
    pinhole = len(pack_ip(request.client)) == 16
    nothing = TransportAddress("::" if pinhole else "0.0.0.0", 0)  # noqa: S104 - nothing binds here
    anything = TransportAddress(request.client, request.internal_port) if pinhole else nothing
    host, port = (request.suggested or anything) if request.lifetime_s else nothing
    if not 0 <= port <= 0xFFFF:
        raise WireError("port or lifetime is out of range")
    head = _REQUEST.pack(VERSION, Opcode.MAP, 0, request.lifetime_s, client)
    return head + _MAP.pack(request.nonce, UDP, request.internal_port, port, pack_mapped(host))


def decode(raw: bytes) -> Response | VersionRefused:
    """A datagram from the server's port, or a multicast announcement. Raises WireError."""
    if len(raw) >= 4 and raw[0] != VERSION and raw[1] & _RESPONSE_BIT:
        # NAT-PMP has the result in bytes 2 and 3, PCP in byte 3.
        if raw[3] == Result.UNSUPP_VERSION:
            return VersionRefused(raw[0])
        raise WireError("the response is of another version")
    if not _RESPONSE.size <= len(raw) <= _MAX_BYTES or len(raw) % 4:
        raise WireError("not the size of a PCP response")
    version, opcode, result, lifetime_s, epoch_s = _RESPONSE.unpack_from(raw)
    if version != VERSION or not opcode & _RESPONSE_BIT:
        raise WireError("not a PCP response")
    if result == Result.UNSUPP_VERSION:
        return VersionRefused(version)
    lifetime_s = min(max(lifetime_s, MIN_ERROR_S), MAX_ERROR_S) if result else min(lifetime_s, MAX_MAPPING_S)
    if opcode & ~_RESPONSE_BIT == Opcode.ANNOUNCE:
        return Response(Opcode.ANNOUNCE, result, lifetime_s, epoch_s)
    if opcode & ~_RESPONSE_BIT != Opcode.MAP:
        raise WireError("the response is to an opcode that we never send")
    if len(raw) < _RESPONSE.size + _MAP.size:
        if result == Result.SUCCESS:
            raise WireError("a mapping is missing from the response")
        return Response(Opcode.MAP, result, lifetime_s, epoch_s)
    nonce, protocol, internal_port, external_port, external = _MAP.unpack_from(raw, _RESPONSE.size)
    _check_options(raw, _RESPONSE.size + _MAP.size)
    host = unpack_ip(external)
    if ":" in host and not external_port:
        # miniupnpd says 0 of a pinhole for which no port was suggested; there is no other than the internal one.
        external_port = internal_port
    mapping = Mapping(nonce, protocol, internal_port, TransportAddress(host, external_port))
    return Response(Opcode.MAP, result, lifetime_s, epoch_s, mapping)


def _check_options(raw: bytes, at: int) -> None:
    """Options are none of ours and may be ignored, but must not reach beyond the message (section 7.3)."""
    while at < len(raw):
        _code, size = _OPTION.unpack_from(raw, at)
        at += _OPTION.size + size + (-size & 3)
    if at != len(raw):
        raise WireError("an option reaches beyond the response")


def lost_state(previous: Epoch, current: Epoch) -> bool:
    """Whether the server restarted between two responses and has forgotten its mappings (section 8.5).

    The clocks may differ by two seconds and a sixteenth; the server's may go back by one second, not more.
    """
    if current.server_s < previous.server_s - 1:
        return True
    server = current.server_s - previous.server_s
    client = current.client_s - previous.client_s
    return client + 2 < server - server / 16 or server + 2 < client - client / 16
