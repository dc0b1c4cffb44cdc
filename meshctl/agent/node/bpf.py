"""The classic BPF program of a raw UDP socket: STUN that comes to the given ports, and nothing else.

The kernel asks it about every UDP packet of the host, WireGuard's own among them, so it looks at the magic cookie
first: that turns all but STUN away with three instructions.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

from meshctl.core.wire.stun_attributes import COOKIE_AT, MAGIC_COOKIE

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; not among the names of `socket`
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, linux/bpf_common.h
_EVERYTHING = 0xFFFFFFFF
# In a UDP packet, whose header has 8 bytes: STUN's cookie, and the destination port.
UDP_COOKIE_AT, _PORT_AT = 8 + COOKIE_AT, 2

# Opcodes of linux/bpf_common.h. `X` is where the UDP header begins.
_LDX_IHL = 0xB1  # X = 4 * (P[k] & 0xf), the length of an IPv4 header
_LDX_CONSTANT = 0x01
_LD_WORD_AT_X, _LD_HALF_AT_X = 0x40, 0x48
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_NOT_LESS = 0x15, 0x25, 0x35
_RETURN = 0x06

Instruction = tuple[int, int, int, int]  # opcode, jump if true, jump if false, k: struct sock_filter
_SOCK_FILTER = struct.Struct("HBBI")


def ranges(ports: Iterable[int]) -> list[tuple[int, int]]:
    """The ports as few ranges, first and last included, in order."""
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1] = found[-1][0], port
        else:
            found.append((port, port))
    return found


def program(family: int, wanted: Iterable[tuple[int, int]]) -> list[Instruction]:
    """For packets as a raw socket of that family (4 or 6) shows them: with the IP header for IPv4, without for IPv6.

    Raises ValueError when there are too many ranges. What is shorter than a cookie's end is no packet of ours: a load
    beyond the end gives 0, that is, drops.
    """
    cookie = int.from_bytes(MAGIC_COOKIE, "big")
    code: list[Instruction] = [
        (_LDX_IHL, 0, 0, 0) if family == 4 else (_LDX_CONSTANT, 0, 0, 0),
        (_LD_WORD_AT_X, 0, 0, UDP_COOKIE_AT),
        (_JUMP_EQUAL, 1, 0, cookie),
        (_RETURN, 0, 0, 0),
        (_LD_HALF_AT_X, 0, 0, _PORT_AT),
    ]
    for first, last in wanted:
        if first == last:
            code += [(_JUMP_EQUAL, 0, 1, first), (_RETURN, 0, 0, _EVERYTHING)]
        else:
            code += [(_JUMP_NOT_LESS, 0, 2, first), (_JUMP_GREATER, 1, 0, last), (_RETURN, 0, 0, _EVERYTHING)]
    code.append((_RETURN, 0, 0, 0))
    if len(code) > MAX_INSTRUCTIONS:
        raise ValueError("too many ranges of ports for one filter")
    return code


def attach(sock: socket.socket, code: list[Instruction]) -> None:
    """Make this the socket's filter, in place of the one before: at no moment is there none. Raises OSError."""
    packed = ctypes.create_string_buffer(b"".join(_SOCK_FILTER.pack(*instruction) for instruction in code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(code), ctypes.addressof(packed)))
