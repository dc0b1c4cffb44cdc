"""Names, asked of a real resolver (dnsmasq) and of ones that lie, are slow, or cannot be reached but by the tunnel."""

from __future__ import annotations

import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from agentnode_hosts import Space, cable, document

from meshctl.agent.node import names
from meshctl.agent.node.names import Lookup, Names
from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.events import Resolve, Resolved
from meshctl.core.wire import dns

RESOLVER, OTHER, IN_MESH = "192.0.2.53", "192.0.2.54", "10.0.0.53"
RANGES = ("10.0.0.0/8",)
HOME_TTL_S, ALIAS_TTL_S, SERVICE_TTL_S = 70, 50, 60
MANY = tuple(f"198.51.100.{n}" for n in range(1, 101))
ZONE = [
    f"--host-record=home.example.net,203.0.113.7,2001:db8::7,{HOME_TTL_S}",
    f"--cname=alias.example.net,home.example.net,{ALIAS_TTL_S}", f"--local-ttl={SERVICE_TTL_S}",
    "--srv-host=_wg._udp.example.net,home.example.net,4444,10,1",
    "--srv-host=_wg._udp.example.net,alias.example.net,5555,20,1",
    *(f"--address=/many.example.net/{ip}" for ip in MANY), "--local=/example.net/",
]  # fmt: skip
OPT_BYTES = 11  # with which a question ends
HOME = (Address("203.0.113.7", 51820), Address("2001:db8::7", 51820))


class Site:
    """A host, a network with a resolver in it, and the files that the host has."""

    def __init__(self, ends: ExitStack, root: Path) -> None:
        self.host, self.net, self.root = Space(ends), Space(ends), root
        cable(self.host, self.net, ("192.0.2.1/24", f"{RESOLVER}/24"), ("10.0.0.1/8", f"{IN_MESH}/8"))
        self.net.run("ip", "addr", "add", f"{OTHER}/24", "dev", f"to-{self.host.name[5:]}")
        self.ends = ends
        (root / "etc").mkdir()
        self.resolv_conf(RESOLVER)

    def resolv_conf(self, *servers: str, file: str = "etc/resolv.conf") -> None:
        """The host's resolvers."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# by hand\nsearch example\n" + "".join(f"nameserver {s}\n" for s in servers))

    def dnsmasq(self, *ips: str) -> None:
        """A resolver at these addresses."""
        words = ["ip", "netns", "exec", self.net.name, "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts"]
        words += ["--conf-file=/dev/null", "--bind-interfaces", "--user=root", "--pid-file", "--log-facility=-", *ZONE]
        daemon = subprocess.Popen([*words, *(f"--listen-address={ip}" for ip in ips)], stderr=subprocess.PIPE)
        self.ends.callback(daemon.stderr.close)
        self.ends.callback(daemon.wait)
        self.ends.callback(daemon.kill)
        assert b"started" in daemon.stderr.readline()

    def server(self, ip: str, answer: Callable[[bytes], list[bytes]]) -> list[bytes]:
        """A resolver of the test's own. The questions that it got, as they come."""
        questions: list[bytes] = []
        sock = self.net.udp(53, ip)
        sock.settimeout(None)

        def run() -> None:
            with suppress(OSError):
                while True:
                    question, sender = sock.recvfrom(2048)
                    if sender is None:  # shut down
                        return
                    questions.append(question)
                    for raw in answer(question):
                        sock.sendto(raw, sender)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end() -> None:
            with suppress(OSError):  # it says that there is no connection, and wakes the reader
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()

        self.ends.callback(end)
        return questions

    def resolve(self, host: str, port: int = 51820, total_s: float = 3.0, mark: int = 0) -> tuple[Address, ...]:
        """What the name is here; () when nobody knows."""
        return self.resolved(host, port, total_s, mark).addresses

    def resolved(self, host: str, port: int = 51820, total_s: float = 3.0, mark: int = 0) -> Resolved:
        name = NamedEndpoint(host, port)
        try:
            return self.host.inside(lambda: Lookup(self.root, RANGES, mark, total_s).resolve(name))
        except OSError:
            return Resolved(name, ())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as ends:
        yield Site(ends, tmp_path)


def test_names_aliases_services_and_long_answers(site: Site) -> None:
    """The last one comes by TCP."""
    site.dnsmasq(RESOLVER)
    assert site.resolve("home.example.net") == HOME
    assert site.resolve("Alias.Example.NET.") == HOME
    assert site.resolve("_wg._udp.example.net", 0) == (
        Address("203.0.113.7", 4444), Address("2001:db8::7", 4444),
        Address("203.0.113.7", 5555), Address("2001:db8::7", 5555),
    )  # fmt: skip
    assert {a.ip for a in site.resolve("many.example.net")} == set(MANY)
    assert site.resolve("nobody.example.net") == ()
    assert site.resolve("_none._udp.example.net", 0) == ()


def test_an_answer_counts_as_long_as_the_shortest_record_that_it_is_made_of(site: Site) -> None:
    site.dnsmasq(RESOLVER)
    assert site.resolved("home.example.net").ttl_s == HOME_TTL_S
    assert site.resolved("alias.example.net").ttl_s == ALIAS_TTL_S
    assert site.resolved("_wg._udp.example.net", 0).ttl_s == min(ALIAS_TTL_S, SERVICE_TTL_S)
    (site.root / "etc/hosts").write_text("198.51.100.9 home.example.net\n")
    assert site.resolved("home.example.net").ttl_s is None
    assert site.resolved("_wg._udp.example.net", 0).ttl_s == min(ALIAS_TTL_S, SERVICE_TTL_S)


def test_the_hosts_file_comes_first(site: Site) -> None:
    (site.root / "etc/hosts").write_text("127.0.0.1 localhost\n198.51.100.9 home.example.net home # a twin\n")
    questions = site.server(RESOLVER, lambda _: [])
    assert site.resolve("home.example.net") == site.resolve("HOME") == (Address("198.51.100.9", 51820),)
    assert questions == []


def test_the_next_resolver_is_asked_when_one_does_not_answer_or_cannot(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "ANSWER_S", 0.2)
    site.dnsmasq(RESOLVER)
    site.resolv_conf("192.0.2.99", OTHER, RESOLVER)
    refused = site.server(OTHER, lambda q: [q[:2] + b"\x81\x82" + q[4:]])
    assert site.resolve("home.example.net") == HOME
    assert len(refused) >= 1


def knows_a(question: bytes, other: Callable[[bytes], list[bytes]]) -> list[bytes]:
    """What a resolver says that knows one IPv4 address, and of all else does `other`."""
    if int.from_bytes(question[-OPT_BYTES - 4 : -OPT_BYTES - 2], "big") != dns.A:
        return other(question)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.7")
    return [question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:-OPT_BYTES] + record]


@pytest.mark.parametrize(
    "other", [lambda _: [], *(lambda q, c=c: [q[:2] + bytes((0x81, 0x80 | c)) + q[4:]] for c in (2, 3, 4, 5))],
    ids=["silence", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"],
)  # fmt: skip
def test_a_name_of_which_nobody_says_aaaa_has_its_a(
    site: Site, monkeypatch: pytest.MonkeyPatch, other: Callable[[bytes], list[bytes]]
) -> None:
    """Resolvers and servers that know only A do all of these (RFC 4074)."""
    monkeypatch.setattr(names, "ANSWER_S", 0.2)
    site.server(RESOLVER, lambda q: knows_a(q, other))
    site.resolv_conf(RESOLVER, "192.0.2.99")
    assert site.resolve("home.example.net") == HOME[:1]


def test_what_one_resolver_cannot_say_another_one_does(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ANSWER_S", 0.2)
    site.dnsmasq(RESOLVER)
    site.server(OTHER, lambda q: knows_a(q, lambda _: []))
    site.resolv_conf(OTHER, RESOLVER)
    assert site.resolve("home.example.net") == HOME


def test_a_resolver_in_the_mesh_is_never_asked(site: Site) -> None:
    site.dnsmasq(RESOLVER)
    questions = site.server(IN_MESH, lambda _: [])
    site.resolv_conf(IN_MESH, RESOLVER)
    assert site.resolve("home.example.net") == HOME
    site.resolv_conf(IN_MESH)
    assert site.resolve("home.example.net") == ()
    assert questions == []


def test_questions_go_where_wireguards_own_packets_go(site: Site) -> None:
    """All but what has its mark goes into a tunnel, as on a host with an exit node."""
    site.dnsmasq(RESOLVER)
    site.host.run("ip", "route", "add", "blackhole", f"{RESOLVER}/32", "table", "7")
    site.host.run("ip", "rule", "add", "not", "fwmark", "0xca6c", "table", "7", "priority", "100")
    assert site.resolve("home.example.net", total_s=0.3) == ()
    assert site.resolve("home.example.net", mark=0xCA6C) == HOME


def test_whom_resolved_asks_is_asked_in_its_place(site: Site) -> None:
    site.dnsmasq(RESOLVER)
    site.resolv_conf("127.0.0.53")
    site.resolv_conf(RESOLVER, file="run/systemd/resolve/resolv.conf")
    assert site.resolve("home.example.net") == HOME


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: [], lambda _: [b""], lambda _: [b"\xff" * 2000], lambda q: [q],
        lambda q: [bytes([q[0] ^ 1, *q[1:]])] * 50,
        lambda q: [q[:2] + b"\x81\x80" + q[4:6] + b"\xff\xff" + q[8:] + b"\xc0\x0c" * 500],
        lambda q: [q[:2] + b"\x83\x80" + q[4:]],  # too long, says who speaks no TCP
    ],
    ids=["silence", "nothing", "noise", "echo", "guesses", "circles", "truncated"],
)  # fmt: skip
def test_a_hostile_resolver_costs_no_more_than_the_time_limit(
    site: Site, answer: Callable[[bytes], list[bytes]]
) -> None:
    site.server(RESOLVER, answer)
    started = time.monotonic()
    assert site.resolve("home.example.net", total_s=0.3) == ()
    assert time.monotonic() - started < 1.0


def test_the_loop_gets_the_answer_and_a_name_under_way_is_not_asked_for_again(site: Site) -> None:
    release = threading.Event()

    def answer(question: bytes) -> list[bytes]:
        release.wait(5)
        return [question[:2] + b"\x81\x83" + question[4:]]

    questions = site.server(RESOLVER, answer)
    handler = site.host.inside(lambda: Names(document("one"), {}, site.root))
    site.ends.callback(handler.close)
    known, unknown = NamedEndpoint("home", 1), NamedEndpoint("nobody.example.net", 2)
    (site.root / "etc/hosts").write_text("198.51.100.9 home\n")
    started = time.monotonic()
    for name in (unknown, unknown, known):
        site.host.inside(lambda name=name: handler.do(Resolve(name)))
    assert time.monotonic() - started < 1.0
    found: list[object] = []
    while len(found) < 2:
        with selectors.DefaultSelector() as selector:
            for sock, read in handler.sockets():
                selector.register(sock, selectors.EVENT_READ, read)
            ready = selector.select(10)
            assert ready
            found += [event for key, _ in ready for event in key.data(0.0)]
        if len(found) == 1:
            assert found == [Resolved(known, (Address("198.51.100.9", 1),))], "one that is slow holds up nobody"
            release.set()
    assert found[1] == Resolved(unknown, ())
    assert len(questions) == 2  # A and AAAA
