"""An anchor whose kernel, or agent, relays between two hosts, as tests have it do."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from agentnode_hosts import Space, cable

from meshctl.agent.node.relays import RelayCount, Relays
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, InstallRelay, RemoveRelay
from meshctl.model.places import RELAYS_TABLE

PORT = 40123
RELAY = {4: "203.0.113.9", 6: "2001:db8:9::9"}
ENDS = {"a": {4: "198.51.100.1", 6: "2001:db8:1::1"}, "b": {4: "198.51.100.129", 6: "2001:db8:2::1"}}
HOPS = {"a": {4: "198.51.100.2", 6: "2001:db8:1::2"}, "b": {4: "198.51.100.130", 6: "2001:db8:2::2"}}


class Anchor:
    """An anchor with an address of its own in each family, between the hosts of two ends and a stranger's."""

    def __init__(self, ends: ExitStack) -> None:
        self.space = Space(ends)
        self.hosts = {name: Space(ends) for name in ENDS}
        for family in (4, 6):
            self.space.run("ip", "addr", "add", f"{RELAY[family]}/{32 if family == 4 else 128}", "dev", "lo")
        for name, host in self.hosts.items():
            pairs = [(f"{HOPS[name][f]}/{bits}", f"{ENDS[name][f]}/{bits}") for f, bits in ((4, 25), (6, 64))]
            cable(self.space, host, *pairs)
            for family in (4, 6):
                host.run("ip", f"-{family}", "route", "add", "default", "via", HOPS[name][family])
                there = [f"{ENDS[name][family]}/{32 if family == 4 else 128}", "dev", f"to-{host.name[5:]}"]
                self.space.run("ip", f"-{family}", "route", "add", *there, "src", RELAY[family])
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.space.run("sysctl", "-qw", f"net.{name}=1")
        self.relays: Relays | None = None
        self.now = 0.0
        self.start()
        ends.callback(self.stop)

    def start(self, **options: int) -> None:
        """The agent starts (again)."""
        self.stop()
        self.now = 0.0
        self.relays = self.space.inside(lambda: Relays(self.now, **options))

    def stop(self) -> None:
        """The agent ends, if it runs."""
        if self.relays is not None:
            self.relays.close()
        self.relays = None

    def do(self, *actions: Action) -> None:
        """In the anchor's namespace."""
        for action in actions:
            self.space.inside(lambda action=action: self.relays.do(action))

    def end(self, name: str, family: int = 4, port: int = 0) -> socket.socket:
        """A socket of one of the hosts."""
        return self.hosts[name].udp(port, ENDS[name][family], family)

    def pass_time(self, seconds: float) -> None:
        """The agent hears how late it is, as soon as the core has said what it wants, and so much later."""
        for now in (self.now, self.now + seconds):
            self.space.inside(lambda now=now: self.relays.poll(now))
        self.now += seconds

    def counted(self) -> list[RelayCount]:
        """All that is counted."""
        return self.space.inside(lambda: list(self.relays.counters()))

    def limit(self, rate_bytes_s: int) -> None:
        """The document says another rate."""
        document = AgentDocument(AgentConfig("hub", ()), relay_limit=rate_bytes_s)
        self.space.inside(lambda: self.relays.configure(document, 0.0))

    def rules(self) -> str:
        """The agent's table."""
        return self.space.run("nft", "list", "table", "inet", RELAYS_TABLE)


def place(sock: socket.socket) -> Address:
    return Address.of(*sock.getsockname()[:2])


def to(sock: socket.socket, port: int = PORT) -> tuple[str, int]:
    return RELAY[6 if sock.family == socket.AF_INET6 else 4], port


def install(a: socket.socket, b: socket.socket, port: int = PORT) -> InstallRelay:
    return InstallRelay(port, place(a), place(b))


def remove(a: socket.socket, b: socket.socket, port: int = PORT) -> RemoveRelay:
    return RemoveRelay(port, place(a), place(b))
