"""Which protocol a datagram on WireGuard's port belongs to, from its first bytes.

WireGuard's messages begin with a type of 1 to 4 and three zero bytes. STUN's begin with two zero bits, have their own
length at offset 2 and the magic cookie at 4 (RFC 8489 section 5), where WireGuard has an index that may be anything:
the length, 0 in every WireGuard message, keeps the two apart.
"""

from __future__ import annotations

from enum import Enum

from meshctl.core.wire.stun import HEADER_BYTES
from meshctl.core.wire.stun_attributes import COOKIE_AT, MAGIC_COOKIE

# Bytes of handshake initiation, handshake response and cookie reply; the padding of a data packet ends at the tunnel's
# MTU, so that its length may be anything from a keepalive's up.
WIREGUARD_BYTES = {1: 148, 2: 92, 3: 64}
KEEPALIVE_BYTES = 32  # a data packet without content: all others are longer
_DATA = 4


class Protocol(Enum):
    """Whose datagram it is."""

    STUN = "stun"
    WIREGUARD = "wireguard"
    OTHER = "other"


def classify(datagram: bytes) -> Protocol:
    """Of a whole datagram; says nothing about whether the rest of it is well-formed."""
    size = len(datagram)
    if size < HEADER_BYTES:
        return Protocol.OTHER
    length = int.from_bytes(datagram[2:4], "big")
    if datagram.startswith(MAGIC_COOKIE, COOKIE_AT) and datagram[0] < 0x40 and length == size - HEADER_BYTES:
        return Protocol.STUN
    kind = datagram[0]
    whole = size >= KEEPALIVE_BYTES if kind == _DATA else size == WIREGUARD_BYTES.get(kind)
    if whole and datagram[1:4] == bytes(3):
        return Protocol.WIREGUARD
    return Protocol.OTHER
