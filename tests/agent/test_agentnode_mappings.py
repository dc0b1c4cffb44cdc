"""Port mappings through real sockets at a real miniupnpd: each way, and the whole of the core's PortMapper."""

from __future__ import annotations

import os
import random
import select
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from agentnode_hosts import Space, cable, document, received

from meshctl import lab
from meshctl.agent.node.mappings import Mappings
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.events import Action, Event, HttpReply, MappingDatagram, SendMapping
from meshctl.core.agent.portmap import PortMapper
from meshctl.core.agent.portmap_pcp import NATPMP, PortControl
from meshctl.core.agent.portmap_state import dump as dump_ports
from meshctl.core.agent.portmap_state import load as load_ports
from meshctl.core.agent.portmap_upnp import Upnp
from meshctl.core.agent.portmap_values import Held
from meshctl.core.agent.state import Kept, dump, load
from meshctl.core.wire import ssdp
from meshctl.lab import nat, upnp
from meshctl.lab.blueprint import LAN_BRIDGE, WAN, Router
from meshctl.lab.names import netns, state_dir

ROOT = Path(__file__).parents[2]
PORT = 51820
ROUTER, OURS, OUTSIDE = "192.168.7.1", "192.168.7.2", "11.0.0.1"
PATIENCE_S = 8.0
DICE = random.SystemRandom()


class Home:
    """A host behind a router with miniupnpd, and a server outside. `mappings` are the host's."""

    def __init__(self, ends: ExitStack, name: str, wan: str = OUTSIDE) -> None:
        self.lab = f"pytest{os.getpid()}-{name}"
        state_dir(self.lab).mkdir(parents=True)
        ends.callback(lab.down, self.lab)
        inner = ExitStack()  # the lab removes what has its name
        self.router = Space(inner, netns(self.lab, "home"))
        self.host, self.outside = Space(ends), Space(ends)
        cable(self.router, self.host, (f"{ROUTER}/24", f"{OURS}/24"), names=(LAN_BRIDGE, "eth0"))
        cable(self.router, self.outside, (f"{wan}/24", "11.0.0.2/24"), names=(WAN, "eth0"))
        self.host.run("ip", "route", "add", "default", "via", ROUTER)
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        box = Router("home", "easy", wan, (f"{ROUTER}/24",), upnp=True)
        nat.apply(self.lab, box, "easy")
        upnp.start(self.lab, box)
        self.mappings = self.start()
        ends.callback(self.mappings.close)

    def start(self) -> Mappings:
        """The handler, as at the agent's start."""
        return self.host.inside(lambda: Mappings(document("one")))

    def is_mapped(self, port: int = PORT) -> bool:
        """Whether a packet from outside to the port reaches the host."""
        sender = self.outside.udp()
        with self.host.udp(PORT) as waiting:
            waiting.settimeout(0.1)
            sender.sendto(b"hello", (OUTSIDE, port))
            try:
                return waiting.recv(16) == b"hello"
            except TimeoutError:
                return False

    def is_free(self) -> bool:
        """Whether that ends: the router has the request by now, and nobody is told when it has done it."""
        ends_at = time.monotonic() + PATIENCE_S
        while self.is_mapped() and time.monotonic() < ends_at:
            pass
        return not self.is_mapped()

    def run(
        self, mappings: Mappings, actions: Callable[[], Iterator[Action]], hear: Callable[[Event, float], None],
        poll: Callable[[float], None], until: Callable[[], bool], due: Callable[[], float | None],
    ) -> bool:  # fmt: skip
        """The agent's loop, as far as it concerns mappings. Whether it came to what was waited for."""
        ends_at = time.monotonic() + PATIENCE_S
        while not until() and time.monotonic() < ends_at:
            for action in actions():
                self.host.inside(lambda action=action: mappings.do(action))
            with selectors.DefaultSelector() as selector:
                for sock, read in mappings.sockets():
                    selector.register(sock, selectors.EVENT_READ, read)
                wait = max(0.0, min(due() or ends_at, ends_at) - time.monotonic())
                for key, _ in [] if until() else selector.select(wait):
                    for event in key.data(time.monotonic()):
                        hear(event, time.monotonic())
            poll(time.monotonic())
        return until()


class Agent:
    """The core's PortMapper with the handler: what the agent is to its router."""

    def __init__(self, home: Home, state: bytes = b"") -> None:
        self.home, self.mapper = home, PortMapper(DICE, state)
        self.mappings = home.start()
        self.mapper.set_network([LocalAddress(OURS, 24, "eth0")], [ROUTER], [PORT], time.monotonic())

    def run(self, until: Callable[[], bool]) -> bool:
        m = self.mapper
        m.poll(time.monotonic())
        return self.home.run(self.mappings, m.actions, self._hear, m.poll, until, m.due)

    def _hear(self, event: Event, now: float) -> None:
        if isinstance(event, MappingDatagram):
            self.mapper.receive(event, now)
        elif isinstance(event, HttpReply):
            self.mapper.reply(event, now)


@pytest.fixture(scope="module")
def whole_home() -> Iterator[Home]:
    with ExitStack() as ends:
        yield Home(ends, "maps")


@pytest.fixture
def home(whole_home: Home) -> Home:
    """With no mapping."""
    nat.apply(whole_home.lab, Router("home", "easy", OUTSIDE, (f"{ROUTER}/24",), upnp=True), "easy")
    return whole_home


def clean_up(home: Home, folder: Path) -> tuple[int, str]:
    """The exit status of `meshctl-agent cleanup`, and what it says."""
    files = [f"--{name}={folder / name}" for name in ("state", "document", "socket")]
    argv = ["ip", "netns", "exec", home.host.name, sys.executable, "-m", "meshctl.agent.main", "cleanup", *files]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, text=True, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def cleaned_up(home: Home, ports: bytes, folder: Path) -> tuple[int, str]:
    """The same where this was mapped; it leaves no state."""
    (folder / "state").write_bytes(dump(Kept(ports=ports)))
    ended = clean_up(home, folder)
    assert not (folder / "state").exists()
    return ended


def test_a_mapping_is_made_taken_over_after_a_crash_and_deleted_in_the_end(home: Home, tmp_path: Path) -> None:
    first = Agent(home)
    assert first.run(lambda: bool(first.mapper.mapped()))
    assert first.mapper.mapped()[0].external == Address(OUTSIDE, PORT)
    assert first.mapper.mapped()[0].held.protocol == "pcp"
    assert home.is_mapped()
    first.mappings.close()  # a crash: nothing is given back
    second = Agent(home, first.mapper.state())
    assert second.run(lambda: bool(second.mapper.mapped()))
    # With another nonce the router says no.
    assert second.mapper.mapped()[0].held.nonce == first.mapper.mapped()[0].held.nonce
    second.mappings.close()
    assert home.is_mapped(), "it is left to the next agent"
    assert cleaned_up(home, second.mapper.state(), tmp_path) == (0, "")
    assert home.is_free()


def mapped(home: Home, way: str) -> Held:
    """A mapping that was made in this way, and works."""
    number = iter(range(100))
    internal = Address(OURS, PORT)
    if way == "upnp":
        method: Upnp | PortControl = Upnp(ROUTER, internal, DICE, lambda: next(number))
    else:
        before = Held(ROUTER, internal, Address(OUTSIDE, PORT), NATPMP) if way == "nat-pmp" else None
        method = PortControl(ROUTER, internal, DICE, before)
    mappings = home.start()

    def hear(event: Event, now: float) -> None:
        if isinstance(event, HttpReply) and isinstance(method, Upnp):
            method.reply(event, now)
        elif isinstance(event, MappingDatagram) and isinstance(method, Upnp):
            method.receive(event.data, event.gateway.ip, now)
        elif isinstance(event, MappingDatagram) and isinstance(method, PortControl):
            method.receive(event.data, now)

    method.start(time.monotonic())
    method.poll(time.monotonic())
    home.run(mappings, method.actions, hear, method.poll, lambda: method.mapped is not None, method.due)
    assert method.mapped is not None, method.why
    assert (method.mapped.external, method.mapped.held.protocol) == (Address(OUTSIDE, PORT), way)
    assert home.is_mapped()
    mappings.close()
    return method.mapped.held


@pytest.mark.parametrize("way", ["nat-pmp", "upnp"])
def test_the_other_ways_work_too_and_their_mappings_end_when_it_is_cleaned_up(
    home: Home, way: str, tmp_path: Path
) -> None:
    assert cleaned_up(home, dump_ports([mapped(home, way)]), tmp_path) == (0, "")
    assert not home.is_mapped()


@pytest.mark.parametrize("way", ["pcp", "nat-pmp"])
def test_a_router_that_loses_two_requests_of_three_is_asked_until_it_has_said_that_the_mapping_is_gone(
    home: Home, way: str, tmp_path: Path
) -> None:
    held = mapped(home, way)
    drop = "type filter hook input priority 0; udp dport 5351 numgen inc mod 3 < 2 drop"
    rules = f"table inet lossy {{\nchain arriving {{\n{drop}\n}}\n}}\n"
    home.router.run("nft", "-f", "-", text=rules)
    try:
        assert cleaned_up(home, dump_ports([held]), tmp_path) == (0, "")
    finally:
        home.router.run("nft", "delete", "table", "inet", "lossy")
    assert not home.is_mapped()


@pytest.mark.parametrize("way", ["pcp", "upnp"])
def test_a_mapping_at_a_router_that_is_away_is_told_and_can_be_given_back_later(
    home: Home, way: str, tmp_path: Path
) -> None:
    held = replace(mapped(home, way), permanent=way == "upnp")
    (tmp_path / "state").write_bytes(dump(Kept(ports=dump_ports([held]))))
    home.router.run("ip", "link", "set", LAN_BRIDGE, "down")
    try:
        status, said = clean_up(home, tmp_path)
    finally:
        home.router.run("ip", "link", "set", LAN_BRIDGE, "up")
    ends = "for two hours at most" if way == "pcp" else "until somebody deletes that there, or it restarts"
    assert f"the router {ROUTER} has not said that it is done ({way}): " in said
    assert f": it may forward port {PORT} to {OURS} {ends}\n" in said
    assert (status, load_ports(load((tmp_path / "state").read_bytes()).ports)) == (1, (held,))
    assert clean_up(home, tmp_path) == (0, "")
    assert not (tmp_path / "state").exists()
    assert not home.is_mapped()


def test_a_router_that_is_behind_another_nat_itself_is_of_no_use() -> None:
    with ExitStack() as ends:
        home = Home(ends, "inner", wan="10.64.0.1")
        agent = Agent(home)
        assert agent.run(lambda: bool(agent.mapper.mapped() or agent.mapper.why()[0][2]))
        assert agent.mapper.mapped() == ()
        agent.mappings.close()


@pytest.mark.parametrize("family", [4, 6])
def test_routers_are_heard_when_they_answer_and_when_they_speak_unasked(family: int) -> None:
    """A NOTIFY, and PCP's announcement, by multicast on the link of an address from which a router was asked."""
    own, router = {4: (OURS, ROUTER), 6: ("fd07::2", "fe80::1")}[family]
    groups = {4: ((ssdp.GROUP, ssdp.PORT), ("224.0.0.1", 5350)), 6: ((ssdp.GROUP_6, ssdp.PORT), ("ff02::1", 5350))}
    notify = b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n"
    with ExitStack() as ends:
        host, box, other = Space(ends), Space(ends), Space(ends)
        # Another router, which has the same address on its own link, as many do.
        cable(host, other, ("fd08::2/64", "fd08::1/64"), ("fe80::2/64", "fe80::1/64"))
        cable(host, box, (f"{OURS}/24", f"{ROUTER}/24"), ("fd07::2/64", "fd07::1/64"), ("fe80::2/64", "fe80::1/64"))
        device = f"to-{host.name[5:]}"

        def listening() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.bind((router, 5351) if family == 4 else (router, 5351, 0, socket.if_nametoindex(device)))
            sock.settimeout(PATIENCE_S)
            return sock

        port = ends.enter_context(box.inside(listening))
        mappings = host.inside(lambda: Mappings(document("one")))
        ends.callback(mappings.close)
        host.inside(lambda: mappings.do(SendMapping(Address(router, 5351), b"question", own)))
        question, asking = port.recvfrom(100)
        assert (question, asking[0]) == (b"question", own)
        port.sendto(b"answer", asking)
        (group, announcements) = groups[family]
        for data in (b"M-SEARCH * HTTP/1.1\r\n\r\n", b"NOTIFY" + bytes(4000), notify):
            port.sendto(data, group)
        port.sendto(b"announcement", announcements)
        heard: list[MappingDatagram] = []
        while len(heard) < 3:
            ready = dict(mappings.sockets())
            found, _, _ = select.select(ready, [], [], PATIENCE_S)
            assert found, heard
            heard += [event for sock in found for event in ready[sock](0.0)]
        assert {event.gateway for event in heard} == {Address(router, 5351)}
        assert {event.data for event in heard} == {b"answer", notify, b"announcement"}


def test_a_router_is_asked_again_when_its_link_has_come_back_as_another_one() -> None:
    with ExitStack() as ends:
        host, box = Space(ends), Space(ends)
        mappings = host.inside(lambda: Mappings(document("one")))
        ends.callback(mappings.close)
        for _ in range(2):
            cable(host, box, (f"{OURS}/24", f"{ROUTER}/24"))
            router = box.udp(5351, ROUTER)
            question = SendMapping(Address(ROUTER, 5351), b"question", OURS)
            with suppress(OSError):  # the first one after the change is lost, and the core asks again
                host.inside(lambda question=question: mappings.do(question))
            host.inside(lambda question=question: mappings.do(question))
            assert received(router) is not None
            router.close()
            host.run("ip", "link", "del", f"to-{box.name[5:]}")
