"""Forwarding a relay's packets by this process, where the kernel cannot: ends of two families, or no nftables.

One thread serves all pairs. Each end has a socket that is connected to it: so the kernel sees to it that nobody else's
packets get in. Packets are moved 64 at a time (recvmmsg, sendmmsg), and Python touches none of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from math import inf

from meshctl.agent.node import bpf
from meshctl.agent.node.libc import Header, Iovec, Message
from meshctl.agent.node.sockopt import SO_RCVBUFFORCE, SO_SNDBUFFORCE
from meshctl.core.agent.address import Address
from meshctl.core.wire.stun_attributes import MAGIC_COOKIE

# Each has two descriptors, of the 4,096 that the unit may have.
MAX_PAIRS = 1000
_BATCH = 64
# Longer ones are cut off, so that WireGuard drops them: more than any interface has but loopback.
_ROOM = 9216
_BUFFER_BYTES = 4 << 20  # what comes in 20 ms at a gigabit and a half
_MSG_DONTWAIT = 0x40
_libc = ctypes.CDLL(None, use_errno=True)

# Of linux/bpf_common.h; for a UDP socket, packets begin with the UDP header.
_LD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTHING = [(_RETURN, 0, 0, 0)]
_NO_STUN = [
    (_LD_WORD, 0, 0, bpf.UDP_COOKIE_AT),
    (_JUMP_EQUAL, 0, 1, int.from_bytes(MAGIC_COOKIE, "big")),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
]


class _Batch:
    """Room for some packets, seen by recvmmsg as empty and by sendmmsg as full as they came."""

    def __init__(self) -> None:
        self._room = ctypes.create_string_buffer(_BATCH * _ROOM)
        base = ctypes.addressof(self._room)
        self._in, self._out = (
            (Iovec * _BATCH)(*(Iovec(base + i * _ROOM, _ROOM) for i in range(_BATCH))) for _ in range(2)
        )
        self._came, self._going = (
            (Message * _BATCH)(*(Message(Header(parts=ctypes.pointer(part), part_count=1)) for part in parts))
            for parts in (self._in, self._out)
        )
        # The two fields of each that matter, without an object for each look at them.
        self._sizes = memoryview(self._came).cast("B").cast("I")
        self._size_at = Message.size.offset // 4
        self._size_step = ctypes.sizeof(Message) // 4
        self._lengths = memoryview(self._out).cast("B").cast("P")

    def receive(self, sock: socket.socket) -> list[int]:
        """The sizes of what was there to be read, at most _BATCH."""
        count = _libc.recvmmsg(sock.fileno(), self._came, _BATCH, _MSG_DONTWAIT, None)
        if count <= 0:
            return []  # nothing there, or an ICMP error that somebody's packet met with
        return self._sizes[self._size_at : self._size_at + count * self._size_step : self._size_step].tolist()

    def send(self, sock: socket.socket, sizes: list[int]) -> None:
        """As many of the first packets, of these sizes. What cannot be sent is lost, as on any other link."""
        for i, size in enumerate(sizes):
            self._lengths[2 * i + 1] = size
        sent = errors = 0
        while sent < len(sizes) and errors < 2:
            at = ctypes.byref(self._going, sent * ctypes.sizeof(Message))
            count = _libc.sendmmsg(sock.fileno(), at, len(sizes) - sent, _MSG_DONTWAIT)
            if count <= 0:  # an ICMP error of before is told once; a full buffer stays full
                errors += 1 if ctypes.get_errno() == errno.ECONNREFUSED else 2
            sent += max(0, count)


class _Flow:
    """One direction: what comes from `end` at `sock` leaves by `out`. Tokens are bytes that may still pass."""

    def __init__(self, port: int, end: Address, sock: socket.socket, out: socket.socket, tokens: float) -> None:
        self.port, self.end, self.sock, self.out = port, end, sock, out
        self.tokens, self.filled_at = tokens, time.monotonic()
        self.packets = self.bytes = 0


class Forwarder:
    """All pairs that are forwarded so; `rate_bytes_s` (0: none) holds for each direction of each, over a second."""

    def __init__(self, rate_bytes_s: int) -> None:
        self._rate = rate_bytes_s or inf
        self._flows: dict[int, _Flow] = {}  # by descriptor
        self._gone: deque[_Flow] = deque()  # that the thread is to close
        self._epoll = select.epoll()
        self._wake_in, self._wake_out = socket.socketpair()
        self._epoll.register(self._wake_in, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._ending = False

    def add(self, port: int, a: Address, b: Address) -> None:
        """Forward between the two from now on. Raises OSError, RuntimeError for more than MAX_PAIRS."""
        if self._of(port):
            return
        if len(self._flows) >= 2 * MAX_PAIRS:
            raise RuntimeError(f"the agent itself forwards {MAX_PAIRS} relays already")
        shared = a.family == b.family
        one = _connected(port, a, shared)
        try:
            other = _connected(port, b, shared)
        except OSError:
            one.close()
            raise
        for flow in (_Flow(port, a, one, other, self._rate), _Flow(port, b, other, one, self._rate)):
            self._flows[flow.sock.fileno()] = flow
            self._epoll.register(flow.sock, select.EPOLLIN)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="relays", daemon=True)
            self._thread.start()

    def set_rate(self, rate_bytes_s: int) -> None:
        """Another one, from the next packet on."""
        self._rate = rate_bytes_s or inf
        for flow in self._flows.values():
            flow.tokens = min(self._rate, flow.tokens)

    def forwards(self, port: int) -> bool:
        """Whether it does so for the pair of this port."""
        return bool(self._of(port))

    def remove(self, port: int) -> bool:
        """No more. Whether it was forwarded."""
        found = self._of(port)
        for flow in found:
            self._epoll.unregister(flow.sock)
            del self._flows[flow.sock.fileno()]
            self._gone.append(flow)
        if found:
            self._wake_out.send(b"\0")
        return bool(found)

    def counters(self) -> Iterator[tuple[int, Address, int, int]]:
        """Port, end, and the packets and bytes that were forwarded from there."""
        for flow in sorted(self._flows.values(), key=lambda f: (f.port, f.end)):
            yield flow.port, flow.end, flow.packets, flow.bytes

    def close(self) -> None:
        """Nothing is forwarded any more."""
        for port in {flow.port for flow in self._flows.values()}:
            self.remove(port)
        self._ending = True
        self._wake_out.send(b"\0")
        if self._thread is not None:
            self._thread.join()
        for closing in (self._epoll, self._wake_in, self._wake_out):
            closing.close()

    # Inside

    def _of(self, port: int) -> list[_Flow]:
        return [flow for flow in self._flows.values() if flow.port == port]

    def _run(self) -> None:
        """The thread. Sockets are closed here alone, between two looks at them."""
        batch = _Batch()
        while not (self._ending and not self._gone):
            for descriptor, _ in self._epoll.poll():
                flow = self._flows.get(descriptor)
                if flow is not None:
                    self._forward(flow, batch)
                elif descriptor == self._wake_in.fileno():
                    self._wake_in.recv(64)
            while self._gone:
                self._gone.popleft().sock.close()

    def _forward(self, flow: _Flow, batch: _Batch) -> None:
        sizes = batch.receive(flow.sock)
        now = time.monotonic()
        if now > flow.filled_at:
            flow.tokens = min(self._rate, flow.tokens + (now - flow.filled_at) * self._rate)
        flow.filled_at = now
        while sum(sizes) > flow.tokens:
            sizes.pop()
        flow.tokens -= sum(sizes)
        flow.packets += len(sizes)
        flow.bytes += sum(sizes)
        batch.send(flow.out, sizes)


def _connected(port: int, end: Address, shared: bool) -> socket.socket:
    """A socket of the port for this end alone, at the address that the host's routes prefer towards it. Raises OSError.
    `shared`: the other end's is of the same family."""
    family = socket.AF_INET6 if end.family == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # Deaf until it is connected: what came from others before would be forwarded.
        bpf.attach(sock, _NOTHING)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        sock.bind(("", port))
        sock.connect(end)
        bpf.attach(sock, _NO_STUN)
    except OSError:
        sock.close()
        raise
    return sock
