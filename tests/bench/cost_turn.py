"""A TURN client (RFC 8656) without a password: an allocation with one channel, in whose name somebody else sends."""

from __future__ import annotations

import secrets
import socket
import time

from meshctl.core.wire.stun_attributes import MAGIC_COOKIE

_ALLOCATE, _CHANNEL_BIND = 0x003, 0x009
_SUCCESS = 0x100
_REQUESTED_TRANSPORT, _CHANNEL_NUMBER, _XOR_PEER_ADDRESS = 0x0019, 0x000C, 0x0012
_CHANNEL = 0x4000
_UDP, _IPV4 = 17, 1
_ANSWER_S = 0.5
_START_S = 10.0  # so long the server may take before it answers


def channel(server: tuple[str, int], own_port: int, peer: tuple[str, int], size: int) -> bytes:
    """The header of ChannelData with `size` bytes for the peer, once the server takes it from this port of ours.
    IPv4 alone. Raises SystemExit when the server refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", own_port))
        sock.connect(server)
        sock.settimeout(_ANSWER_S)
        _ask(sock, _ALLOCATE, _attribute(_REQUESTED_TRANSPORT, bytes([_UDP, 0, 0, 0])))
        number = _CHANNEL.to_bytes(2, "big")
        named = _attribute(_CHANNEL_NUMBER, number + bytes(2)) + _attribute(_XOR_PEER_ADDRESS, masked(peer))
        _ask(sock, _CHANNEL_BIND, named)
    return number + size.to_bytes(2, "big")


def _ask(sock: socket.socket, method: int, attributes: bytes) -> None:
    transaction = secrets.token_bytes(12)
    request = method.to_bytes(2, "big") + len(attributes).to_bytes(2, "big") + MAGIC_COOKIE + transaction + attributes
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        try:
            sock.send(request)
            answer = sock.recv(1500)
        except ConnectionRefusedError:  # it does not listen yet
            time.sleep(_ANSWER_S)
        except TimeoutError:
            pass
        else:
            if answer[:2] == (method | _SUCCESS).to_bytes(2, "big") and answer[8:20] == transaction:
                return
            raise SystemExit(f"bench: the TURN server refuses method {method}: {answer.hex()}")
    raise SystemExit("bench: the TURN server does not answer")


def _attribute(kind: int, value: bytes) -> bytes:
    """Of a value whose length is a multiple of four."""
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def masked(address: tuple[str, int]) -> bytes:
    """As XOR-MAPPED-ADDRESS has it (RFC 8489 section 14.2)."""
    ip, port = socket.inet_aton(address[0]), address[1].to_bytes(2, "big")
    mask = MAGIC_COOKIE[:2] + MAGIC_COOKIE
    return bytes([0, _IPV4]) + bytes(a ^ b for a, b in zip(port + ip, mask, strict=True))
