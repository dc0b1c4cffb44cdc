"""`cost_blaster.py TO PORT FROM_PORT SECONDS HEAD BYTES`: UDP packets as fast as one core sends them.

Each has HEAD (hexadecimal, may be empty) and so many further bytes. They go 64 at a time by sendmmsg, for which Python
has no function. Writes how many seconds it took.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

BATCH = 64
_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("parts", ctypes.POINTER(_Iovec)),
        ("part_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint32))


def message_bytes() -> int:
    """From one message to the next."""
    return ctypes.sizeof(_Message)


def main() -> None:
    """See the module."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    to, port, from_port, seconds, head, size = sys.argv[1:]
    payload = bytes.fromhex(head) + bytes(int(size))
    room = ctypes.create_string_buffer(payload, len(payload))
    part = _Iovec(ctypes.addressof(room), len(payload))
    messages = (_Message * BATCH)(*(_Message(_Header(parts=ctypes.pointer(part), part_count=1)) for _ in range(BATCH)))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", int(from_port)))
    sock.connect((to, int(port)))
    began = time.monotonic()
    while time.monotonic() < began + float(seconds):
        _libc.sendmmsg(sock.fileno(), messages, BATCH, 0)  # what an ICMP error stops, goes with the next call
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
