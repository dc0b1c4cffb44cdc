"""A network namespace for a test, in which it opens sockets; documents with one network."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig, InterfaceConfig, PeerConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.lab.netns import within
from meshctl.model.keys import PublicKey

T = TypeVar("T")


class Space:
    """A namespace with nothing but a loopback device that is up."""

    def __init__(self, name: str) -> None:
        self.name = name

    def inside(self, function: Callable[[], T]) -> T:
        """What the function returns there; its sockets stay there."""
        return within(Path("/run/netns") / self.name, function)

    def run(self, *words: str, text: str = "") -> str:
        """A command's output there."""
        argv = ["ip", "netns", "exec", self.name, *words]
        done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def space() -> Iterator[Space]:
    """A namespace that is gone afterwards."""
    name = f"agentnode-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Space(name)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def stop(process: int) -> None:
    """It does nothing any more, until somebody sends it SIGCONT. Its threads stop one after another: until the last
    has, one of them may answer."""
    os.kill(process, signal.SIGSTOP)
    until = time.monotonic() + 10
    while _states(process) != {"T"}:
        assert time.monotonic() < until, f"{process} does not stop"
        time.sleep(0.01)


def _states(process: int) -> set[str]:
    """Of its threads, by proc(5)'s letters."""
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{process}/task").glob("*/stat")}


def key(name: str) -> PublicKey:
    """A public key that belongs to that name."""
    return PublicKey(base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


def peer(name: str, number: int, **more: Any) -> PeerConfig:
    """A peer at 10.42.0.NUMBER and fd42::NUMBER."""
    addresses = (f"10.42.0.{number}", f"fd42::{number:x}")
    return PeerConfig(name, key(name), addresses, hashlib.sha256(name.encode()).digest(), **more)


def document(*peers: PeerConfig, interface: str = "wg0", **more: Any) -> AgentDocument:
    """Of a node at 10.42.0.1 and fd42::1 that listens on 51820."""
    values = {
        "mesh_addresses": ("10.42.0.1", "fd42::1"), "listen_port": 51820, "mesh_ranges": ("10.42.0.0/16", "fd42::/48"),
        **more,
    }  # fmt: skip
    network = InterfaceConfig("corp", interface, key("me"), peers=peers, **values)
    return AgentDocument(AgentConfig("me", (network,)))


def address(text: str) -> Address:
    """Of `192.0.2.1:51820` or `[2001:db8::1]:51820`."""
    return Address.parse(text)
