"""A rule's bandwidth limit, measured with TCP streams side by side: two with a limit, one each way, and one without."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from asking import read
from packets import run
from test_policy_packets import LAYOUT, table

from meshctl.lab.netns import within
from meshctl.policy import compile_mesh

pytestmark = pytest.mark.lab
LIMIT_BPS = 16_000_000
UP, DOWN, FREE = 5001, 5002, 5003  # the port that a rule is about; DOWN: the server sends
RULES: list[dict[str, Any]] = [
    {"name": "up", "from": "n5", "to": "n4", "allow": [f"tcp/{UP}"], "limits": {"bandwidth": "16mbit"}},
    {"name": "down", "from": "n5", "to": "n4", "allow": [f"tcp/{DOWN}"], "limits": {"bandwidth": "16mbit"}},
    {"name": "free", "from": "n5", "to": "n4", "allow": [f"tcp/{FREE}"]},
]
# nft lets through at once what a second's worth is; then the rate is what counts.
BURST_S, MEASURED_S = 1.5, 2.0
# TCP sends less than it may when packets are dropped (0.88 to 0.96 was measured), and less still on a busy machine.
# What it left it may send after that, so that a measurement can hold a second's worth more.
LEAST, MOST = 0.3, 1.1 + 1 / MEASURED_S


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Namespaces of n4, with its table, and of n5, with a cable between them that is called wg0."""
    names = {node: f"bandwidth-{node}-{uuid.uuid4().hex[:6]}" for node in ("n4", "n5")}
    for name in names.values():
        run("ip", "netns", "add", name)
    try:
        one, other = names.values()
        run("ip", "link", "add", "wg0", "netns", one, "type", "veth", "peer", "name", "wg0", "netns", other)
        for node, name in names.items():
            four, six = LAYOUT["nodes"][node]["address"]["corp"]
            run("ip", "-n", name, "addr", "add", f"{four}/16", "dev", "wg0")
            run("ip", "-n", name, "addr", "add", f"{six}/64", "dev", "wg0", "nodad")
            # A tunnel knows no neighbours, and the table lets no discovery in: both ends have one MAC address.
            run("ip", "-n", name, "link", "set", "wg0", "address", "02:00:00:00:00:01", "arp", "off", "up")
        text = table(compile_mesh(read({**LAYOUT, "policies": RULES})), "n4")
        run("ip", "netns", "exec", names["n4"], "nft", "-f", "-", text=text)
        yield names
    finally:
        for name in names.values():
            run("ip", "netns", "del", name)


@dataclass
class Stream:
    """A TCP connection from n5 to n4 that is kept full; `received` counts bytes at its other end."""

    hosts: dict[str, str]
    address: str
    port: int
    received: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        server, client = (self._socket(node, family) for node in ("n4", "n5"))
        server.bind((self.address, self.port))
        server.listen()
        client.settimeout(5)
        client.connect((self.address, self.port))
        client.settimeout(None)
        accepted = server.accept()[0]
        self._open += [server, client, accepted]
        ends = (accepted, client) if self.port == DOWN else (client, accepted)
        for job, end in zip((self._send, self._receive), ends, strict=True):
            threading.Thread(target=job, args=(end,), daemon=True).start()

    def close(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _socket(self, node: str, family: int) -> socket.socket:
        return within(Path("/run/netns") / self.hosts[node], lambda: socket.socket(family, socket.SOCK_STREAM))

    def _send(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                end.send(bytes(65536))

    def _receive(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := end.recv(1 << 20):
                self.received += len(data)


@pytest.mark.parametrize("family", [0, 1], ids=["v4", "v6"])
def test_a_bandwidth_limit_holds_in_both_directions_and_for_its_own_rule_alone(
    hosts: dict[str, str], family: int
) -> None:
    address = LAYOUT["nodes"]["n4"]["address"]["corp"][family]
    streams = {port: Stream(hosts, address, port) for port in (UP, DOWN, FREE)}
    try:
        time.sleep(BURST_S)  # a measurement takes time; there is no event to wait for
        before, started = {port: s.received for port, s in streams.items()}, time.monotonic()
        time.sleep(MEASURED_S)
        elapsed = time.monotonic() - started
        rates = {port: (s.received - before[port]) * 8 / elapsed for port, s in streams.items()}
    finally:
        for stream in streams.values():
            stream.close()
    for port in (UP, DOWN):
        assert LEAST * LIMIT_BPS <= rates[port] <= MOST * LIMIT_BPS, rates
    assert rates[FREE] >= 10 * LIMIT_BPS, rates
