"""The lab's own cable with delay and loss, for kernels without netem: TAP devices in two namespaces and one process
that moves frames between them through a heap of due times.

TAPs, not packet sockets on veth, because a frame that leaves by a TAP has its checksums filled in. The process is told
over a Unix socket which cables there are: one JSON document `{"cables": [...]}` a connection, answered by `ok` when
they are in place.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshctl.lab.netns import within

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNGETIFF = 0x800454D2
TUNSETCARRIER = 0x400454E2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65_536
# How many frames are read from one device before the others get their turn.
BURST = 64


@dataclass(frozen=True)
class End:
    """A TAP device in a namespace."""

    path: str
    device: str


@dataclass(frozen=True)
class Cable:
    """Two ends; `delay_s` and `loss` (0 to 1) hold each way, and a frame takes up to `jitter_s` longer. Not `up` is
    unplugged: neither side has a carrier."""

    a: End
    b: End
    delay_s: float
    jitter_s: float
    loss: float
    up: bool = True


@dataclass
class Wire:
    """Open devices and the frames that are under way."""

    chance: random.Random
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    descriptors: dict[End, int] = field(default_factory=dict)
    routes: dict[int, tuple[int, Cable]] = field(default_factory=dict)  # from descriptor -> (to descriptor, cable)
    frames: list[tuple[float, int, int, bytes]] = field(default_factory=list)  # due, order, to descriptor, frame
    order: int = 0

    def plug(self, cables: list[Cable]) -> None:
        """Make these the cables; devices that stay are not touched, those that were made anew are opened anew."""
        ends = {end for cable in cables for end in (cable.a, cable.b)}
        for end in [e for e, descriptor in self.descriptors.items() if e not in ends or not has_device(descriptor)]:
            descriptor = self.descriptors.pop(end)
            self._unwatch(descriptor)
            self.frames = [f for f in self.frames if f[2] != descriptor]
            os.close(descriptor)
        heapq.heapify(self.frames)
        for end in sorted(ends - set(self.descriptors), key=lambda e: (e.path, e.device)):
            self.descriptors[end] = open_tap(end)
            self.selector.register(self.descriptors[end], selectors.EVENT_READ, "tap")
        self.routes = {}
        for cable in cables:
            a, b = self.descriptors[cable.a], self.descriptors[cable.b]
            self.routes |= {a: (b, cable), b: (a, cable)}
            for descriptor in (a, b):
                fcntl.ioctl(descriptor, TUNSETCARRIER, struct.pack("i", cable.up))

    def read(self, descriptor: int, now: float) -> None:
        """Take what the device has and give each frame its due time."""
        to, cable = self.routes[descriptor]
        for _ in range(BURST):
            try:
                frame = os.read(descriptor, FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # The namespace went away; the next list of cables will say so.
                self._unwatch(descriptor)
                return
            if cable.up and self.chance.random() >= cable.loss:
                self.order += 1
                late_s = cable.delay_s + cable.jitter_s * self.chance.random()
                heapq.heappush(self.frames, (now + late_s, self.order, to, frame))

    def deliver(self, now: float) -> float | None:
        """Write the frames that are due. Returns the seconds until the next one, None when there is none."""
        while self.frames and self.frames[0][0] <= now:
            _, _, to, frame = heapq.heappop(self.frames)
            try:
                os.write(to, frame)
            except OSError:
                # As on a real cable: a device that is down, gone or full loses the frame.
                continue
        return self.frames[0][0] - now if self.frames else None

    def _unwatch(self, descriptor: int) -> None:
        if descriptor in self.selector.get_map():
            self.selector.unregister(descriptor)


def open_tap(end: End) -> int:
    """A non-blocking descriptor of the (persistent) TAP device."""
    def attach() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", end.device.encode(), IFF_TAP | IFF_NO_PI))
        return descriptor

    return within(Path(end.path), attach)


def has_device(descriptor: int) -> bool:
    """Whether the device behind the descriptor still exists."""
    try:
        fcntl.ioctl(descriptor, TUNGETIFF, bytes(40))
    except OSError:
        return False
    return True


def parse(document: dict[str, Any]) -> list[Cable]:
    """The cables of one request."""
    return [
        Cable(
            End(*raw["a"]), End(*raw["b"]),
            float(raw["delay_s"]), float(raw["jitter_s"]), float(raw["loss"]), bool(raw["up"]),
        )
        for raw in document["cables"]
    ]


def _serve(wire: Wire, listener: socket.socket) -> None:
    """Answer one request."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        try:
            wire.plug(parse(json.loads(stream.readline())))
            answer = "ok"
        except (OSError, ValueError, KeyError, TypeError) as error:
            answer = f"{type(error).__name__}: {error}"
        stream.write(f"{answer}\n".encode())


def main(listener: socket.socket) -> None:
    """Move frames until killed."""
    wire = Wire(random.Random())  # noqa: S311  # loses frames, guards nothing
    wire.selector.register(listener, selectors.EVENT_READ, "control")
    wait: float | None = None
    while True:
        for key, _ in wire.selector.select(wait):
            if key.data == "control":
                _serve(wire, listener)
            elif key.fd in wire.routes:
                wire.read(key.fd, time.monotonic())
        wait = wire.deliver(time.monotonic())


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
