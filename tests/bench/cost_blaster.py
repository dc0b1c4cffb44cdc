"""`cost_blaster.py TO PORT FROM_PORT SECONDS CORE HEAD BYTES`: UDP packets as fast as that core sends them.

Each has HEAD (hexadecimal, may be empty) and so many further bytes. They go 64 at a time by sendmmsg, for which Python
has no function. Writes how many seconds it took.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

from meshctl.agent.node.libc import Header, Iovec, Message

BATCH = 64
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """See the module."""
    to, port, from_port, seconds, core, head, size = sys.argv[1:]
    os.sched_setaffinity(0, [int(core)])
    payload = bytes.fromhex(head) + bytes(int(size))
    room = ctypes.create_string_buffer(payload, len(payload))
    part = Iovec(ctypes.addressof(room), len(payload))
    messages = (Message * BATCH)(*(Message(Header(parts=ctypes.pointer(part), part_count=1)) for _ in range(BATCH)))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", int(from_port)))
    sock.connect((to, int(port)))
    began = time.monotonic()
    while time.monotonic() < began + float(seconds):
        _libc.sendmmsg(sock.fileno(), messages, BATCH, 0)  # what an ICMP error stops, goes with the next call
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
