"""Hosts of a few namespaces each, joined by cables, for what the node's agent does to its kernel and hears from it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from agentnode_space import key

from meshctl.agent.process import ENVIRONMENT
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig, InterfaceConfig, PeerConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.lab.netns import within

T = TypeVar("T")
# All of this machine's namespaces answer in microseconds; what is not there by then was dropped.
ARRIVAL_S = 0.3
COOKIE = bytes.fromhex("2112a442")
WIREGUARD_PORT = 51820
# For `nft`.
REFUSES = "echo 'Error: Could not process rule' >&2; exit 1"


class Space:
    """One host: a namespace with its loopback up."""

    def __init__(self, ends: ExitStack, name: str = "") -> None:
        self.name = name or f"node-{secrets.token_hex(4)}"
        run("ip", "netns", "add", self.name)
        ends.callback(self._close)
        self.path = Path("/run/netns") / self.name
        self.run("ip", "link", "set", "lo", "up")
        # The kernel's own IPv6 addresses are to be usable without a wait; for others `nodad` sees to it.
        self.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        self._ends = ends

    def _close(self) -> None:
        for pid in run("ip", "netns", "pids", self.name).split():
            os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", self.name)

    def inside(self, function: Callable[[], T]) -> T:
        """What the function gives when it is called here."""
        return within(self.path, function)

    def run(self, *command: str, text: str = "") -> str:
        """A command's output here."""
        return self.inside(lambda: run(*command, text=text))

    def udp(self, port: int = 0, ip: str = "", family: int = 4) -> socket.socket:
        """A UDP socket here."""

        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(ARRIVAL_S)
            self._ends.enter_context(sock)
            sock.bind((ip, port))
            return sock

        return self.inside(make)


def cable(one: Space, other: Space, *addresses: tuple[str, str], names: tuple[str, str] | None = None) -> None:
    """A link between two hosts, and on it pairs of addresses with a prefix length each. The devices are `to-…` with
    the end of the other's name."""
    a, b = names or tuple(f"to-{space.name[5:]}" for space in (other, one))
    run("ip", "link", "add", a, "netns", one.name, "type", "veth", "peer", "name", b, "netns", other.name)
    for space, device, ips in ((one, a, [p[0] for p in addresses]), (other, b, [p[1] for p in addresses])):
        space.run("ip", "link", "set", device, "up")
        for ip in ips:
            space.run("ip", "addr", "add", ip, "dev", device, *(["nodad"] if ":" in ip else []))


def run(*command: str, text: str = "") -> str:
    """A command's output. Raises AssertionError with what it said when it fails."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def document(*peers: str) -> AgentDocument:
    """A node with one interface and these peers."""
    found = tuple(PeerConfig(p, key(p), (f"10.0.0.{n}",), bytes(32)) for n, p in enumerate(peers, 2))
    interface = InterfaceConfig("corp", "wg0", key("self"), ("10.0.0.1",), WIREGUARD_PORT, ("10.0.0.0/8",), peers=found)
    return AgentDocument(AgentConfig("self", (interface,)))


def stun(payload: bytes = b"") -> bytes:
    """A datagram that looks like STUN."""
    return b"\x00\x01" + len(payload).to_bytes(2, "big") + COOKIE + bytes(12) + payload


def data(number: int = 0, size: int = 32) -> bytes:
    """A datagram that looks like WireGuard's data."""
    return b"\x04\0\0\0" + number.to_bytes(4, "big") + bytes(size - 8)


def received(sock: socket.socket) -> tuple[bytes, Address] | None:
    """The next datagram and who sent it; None when none comes."""
    try:
        got, source = sock.recvfrom(2048)
    except TimeoutError:
        return None
    return got, Address.of(source[0], source[1])


@contextmanager
def nft(folder: Path, script: str) -> Iterator[list[str]]:
    """Another nft in the real one's place; a line for each time that it has run."""
    folder.mkdir(exist_ok=True)
    (folder / "nft").write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{script}\n")
    (folder / "nft").chmod(0o755)
    ran: list[str] = []
    with patch.dict(ENVIRONMENT, PATH=f"{folder}:/usr/bin:/bin"):
        yield ran
    ran += (folder / "runs").read_text().splitlines() if (folder / "runs").exists() else []
