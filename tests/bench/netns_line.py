"""Two network namespaces with a third one between them that forwards, on cables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from measure import run


class End(NamedTuple):
    """One of the two: its name, and the cable to it as `device` in the middle, with both addresses, of a /24."""

    name: str
    device: str
    gate: str
    own: str


@contextmanager
def line(one: End, middle: str, other: End) -> Iterator[None]:
    """one - middle - other, while the block runs. Each end's own device is called eth0."""
    with ExitStack() as ends:
        for name in (one.name, middle, other.name):
            run(["ip", "netns", "add", name])
            ends.callback(run, ["ip", "netns", "del", name])
        for end, device, gate, own in (one, other):
            run(["ip", "-n", middle, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", end])
            for where, link, address in ((middle, device, gate), (end, "eth0", own)):
                run(["ip", "-n", where, "addr", "add", f"{address}/24", "dev", link])
                run(["ip", "-n", where, "link", "set", link, "up"])
            run(["ip", "-n", end, "route", "add", "default", "via", gate])
        run(["ip", "netns", "exec", middle, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        yield
