"""Reading one interface of WireGuard's, the kernel's or a userspace one: its port and mark, and each peer's counters.

A peer of which a reading says, byte for byte, what the reading before said is not parsed again: most are idle.
"""

from __future__ import annotations

import base64
import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from meshctl.agent.node.netlink import attributes
from meshctl.agent.node.wglink import (
    DEVICE_FWMARK,
    DEVICE_LISTEN_PORT,
    DEVICE_PEERS,
    GET_DEVICE,
    PEER_ENDPOINT,
    PEER_HANDSHAKE,
    PEER_KEEPALIVE,
    PEER_PUBLIC_KEY,
    PEER_RX_BYTES,
    PEER_TX_BYTES,
    command,
    converse,
    is_userspace,
)
from meshctl.core.agent.address import Address
from meshctl.model.keys import PublicKey

# A socket that nobody listens at any more counts as no interface, too.
_NOT_THERE = (errno.ENODEV, errno.ENOENT, errno.ECONNREFUSED)
_PEER = "public_key="


class Line(NamedTuple):
    """One peer's. `handshake` is in seconds of the wall clock, 0 for none."""

    public_key: PublicKey
    endpoint: Address | None
    handshake: int
    rx_bytes: int
    tx_bytes: int
    keepalive_s: int


class Device(NamedTuple):
    """One interface. The keys of `peers` are what WireGuard has said of each, which holds secrets."""

    listen_port: int
    fwmark: int
    peers: dict[bytes | str, Line]
    userspace: bool


def read_device(interface: str, known: Mapping[bytes | str, Line]) -> Device | None:
    """What there is now; None without such an interface. `known`: peers of the reading before. Raises OSError, and
    ValueError, which does not repeat it, for what has another form."""
    try:
        return _userspace(interface, known) if is_userspace(interface) else _kernel(interface, known)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    except (ValueError, KeyError, struct.error):
        raise ValueError("WireGuard says something of another form") from None


# A userspace WireGuard: lines of names and values, each peer from its public key on


def _userspace(interface: str, known: Mapping[bytes | str, Line]) -> Device:
    head, *peers = converse(interface, "get=1").split(_PEER)
    fields = dict(line.split("=", 1) for line in head.splitlines())
    return Device(
        int(fields.get("listen_port", 0)), int(fields.get("fwmark", 0)),
        {peer: known.get(peer) or _from_text(peer) for peer in peers}, userspace=True,
    )  # fmt: skip


def _from_text(text: str) -> Line:
    key, *lines = text.splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    endpoint = fields.get("endpoint")
    return Line(
        _public_key(bytes.fromhex(key)),
        None if endpoint is None or "%" in endpoint else Address.parse(endpoint),  # one with a scope counts as none
        int(fields.get("last_handshake_time_sec", 0)),
        int(fields["rx_bytes"]),
        int(fields["tx_bytes"]),
        int(fields.get("persistent_keepalive_interval", 0)),
    )


# The kernel's: nested attributes, in as many messages as it takes


def _kernel(interface: str, known: Mapping[bytes | str, Line]) -> Device:
    port = mark = 0
    peers: dict[bytes | str, Line] = {}
    for answer in command(GET_DEVICE, interface, dump=True):
        for kind, value in attributes(answer):
            if kind == DEVICE_LISTEN_PORT:
                (port,) = struct.unpack("=H", value)
            elif kind == DEVICE_FWMARK:
                (mark,) = struct.unpack("=I", value)
            elif kind == DEVICE_PEERS:
                peers.update(_peers(value, known))
    return Device(port, mark, peers, userspace=False)


def _peers(value: bytes, known: Mapping[bytes | str, Line]) -> Iterator[tuple[bytes, Line]]:
    for _, peer in attributes(value):
        line = known.get(peer)
        if line is None:
            fields = dict(attributes(peer))
            if PEER_RX_BYTES not in fields:  # the rest of its allowed IPs: the peer was in the message before
                continue
            line = _from_attributes(fields)
        yield peer, line


def _from_attributes(fields: Mapping[int, bytes]) -> Line:
    return Line(
        _public_key(fields[PEER_PUBLIC_KEY]),
        _address(fields[PEER_ENDPOINT]) if PEER_ENDPOINT in fields else None,
        struct.unpack("=qq", fields[PEER_HANDSHAKE])[0],
        struct.unpack("=Q", fields[PEER_RX_BYTES])[0],
        struct.unpack("=Q", fields[PEER_TX_BYTES])[0],
        struct.unpack("=H", fields[PEER_KEEPALIVE])[0],
    )


def _address(sockaddr: bytes) -> Address | None:
    """Of a struct sockaddr_in or sockaddr_in6. A scope means nothing to the core."""
    (family,) = struct.unpack_from("=H", sockaddr)
    if family == socket.AF_INET:
        port, raw = struct.unpack_from("!H4s", sockaddr, 2)
        return Address(socket.inet_ntop(socket.AF_INET, raw), port)
    port, _, raw, scope = struct.unpack_from("!HI16s4s", sockaddr, 2)
    return None if any(scope) else Address(socket.inet_ntop(socket.AF_INET6, raw), port)


def _public_key(raw: bytes) -> PublicKey:
    return PublicKey(base64.b64encode(raw).decode())
