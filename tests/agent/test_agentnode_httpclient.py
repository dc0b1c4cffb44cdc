"""HTTP to routers that may be anybody: what is asked of whom, and what a hostile server can cause."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from agentnode_hosts import Space, cable

from meshctl.agent.node.httpclient import TOTAL_S, fetch
from meshctl.agent.node.watch import host_addresses
from meshctl.core.agent.events import HttpReply, HttpRequest
from meshctl.core.wire.httpmessage import MAX_BODY

Serve = Callable[[socket.socket], None]
NOTHING = HttpReply(7, 0, b"")
# A hostile server has so long in these tests.
PATIENCE_S = 0.4


class Lan:
    """A host, and a server beside it that does what the test says with each connection."""

    def __init__(self, ends: ExitStack) -> None:
        self.host, self.router = Space(ends), Space(ends)
        cable(self.host, self.router, ("192.168.7.2/24", "192.168.7.1/24"), ("fd07::2/64", "fd07::1/64"))
        self._ends = ends

    def serve(self, serve: Serve, ip: str = "192.168.7.1", port: int = 5000, space: Space | None = None) -> list[str]:
        """Who has connected, as it grows."""
        seen: list[str] = []

        def listening() -> socket.socket:
            sock = socket.create_server((ip, port), family=socket.AF_INET6 if ":" in ip else socket.AF_INET)
            sock.settimeout(10)
            return sock

        listener = (space or self.router).inside(listening)

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, sender = listener.accept()
                    seen.append(sender[0])
                    with connection, suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end() -> None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()

        self._ends.callback(end)
        return seen

    def fetch(self, url: str, source: str = "", body: bytes = b"", patience_s: float = TOTAL_S) -> HttpReply:
        """From the host."""
        request = HttpRequest(7, "POST" if body else "GET", url, (("Host", "x"), ("X", "y")), body, source)
        return self.host.inside(lambda: fetch(request, host_addresses(frozenset()), patience_s))


@pytest.fixture
def lan() -> Iterator[Lan]:
    with ExitStack() as ends:
        yield Lan(ends)


def answering(raw: bytes, *, then: Serve = lambda _: None) -> Serve:
    """Reads one request, answers this, and goes on."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(raw)
        then(connection)

    return serve


def hold(connection: socket.socket) -> None:
    """Leaves the connection open until the other side ends it."""
    while connection.recv(4096):
        pass


@pytest.mark.parametrize(
    ("raw", "then"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", hold),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", lambda _: None),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", hold),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", hold),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", hold),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2;x=y\nhe\n3\nllo\n0\n\n", hold),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", lambda _: None),
    ],
)
def test_a_routers_answer_comes_back_whether_or_not_it_closes_the_connection(lan: Lan, raw: bytes, then: Serve) -> None:
    lan.serve(answering(raw, then=then))
    started = time.monotonic()
    assert lan.fetch("http://192.168.7.1:5000/x") == HttpReply(7, 200, b"hello")
    assert time.monotonic() - started < TOTAL_S / 2


def test_the_request_is_what_the_core_wrote_and_comes_from_the_address_that_it_named(lan: Lan) -> None:
    lan.host.run("ip", "addr", "add", "192.168.7.3/24", "dev", f"to-{lan.router.name[5:]}")
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n!")

    seen = lan.serve(serve)
    assert lan.fetch("http://192.168.7.1:5000/a/b?c", "192.168.7.3", b"<xml/>") == HttpReply(7, 500, b"!")
    assert heard == [b"POST /a/b?c HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n<xml/>"]
    assert seen == ["192.168.7.3"]


def test_a_router_is_asked_over_ipv6(lan: Lan) -> None:
    lan.serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "fd07::1")
    assert lan.fetch("http://[fd07::1]:5000/", "fd07::2") == HttpReply(7, 200, b"ok")


def drip(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(PATIENCE_S / 20)


def flood(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


@pytest.mark.parametrize(
    "serve",
    [
        drip, flood, hold, lambda _: None,
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + bytes(2 * MAX_BODY)),
        answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, then=hold),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
        answering(b"\0\xff" * 1000),
    ],
    ids=["drip", "flood", "silence", "nothing", "too much", "endless head", "contradiction", "cut short", "garbage"],
)
def test_a_hostile_server_gets_neither_time_nor_memory_and_its_answer_is_none(lan: Lan, serve: Serve) -> None:
    lan.serve(serve)
    started = time.monotonic()
    tracemalloc.start()
    try:
        assert lan.fetch("http://192.168.7.1:5000/", patience_s=PATIENCE_S) == NOTHING
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 3 * PATIENCE_S
    assert peak_bytes < 8 * MAX_BODY, "the server's own, in a thread of this process, among them"


def test_a_server_that_sends_without_end_is_left_long_before_the_time_is_up(lan: Lan) -> None:
    lan.serve(flood)
    started = time.monotonic()
    assert lan.fetch("http://192.168.7.1:5000/", patience_s=20.0) == NOTHING
    assert time.monotonic() - started < 5.0


def test_a_redirect_leads_nowhere(lan: Lan) -> None:
    elsewhere = lan.serve(answering(b"HTTP/1.1 200 OK\r\n\r\n"), port=5001)
    lan.serve(answering(b"HTTP/1.1 302 Found\r\nLocation: http://192.168.7.1:5001/\r\nContent-Length: 0\r\n\r\n"))
    assert lan.fetch("http://192.168.7.1:5000/", patience_s=PATIENCE_S) == NOTHING
    assert elsewhere == []


def test_neither_loopback_nor_the_link_is_a_network_to_ask_in_but_the_router_may_be_on_the_link(lan: Lan) -> None:
    """Loopback's network has more addresses than the host's own; 169.254.169.254 is where clouds tell secrets."""
    for space, ip in ((lan.host, "169.254.7.2/16"), (lan.router, "169.254.7.1/16"), (lan.router, "169.254.169.254/16")):
        space.run("ip", "addr", "add", ip, "dev", f"to-{(lan.router if space is lan.host else lan.host).name[5:]}")
    anywhere = ("0.0.0.0", "::")  # noqa: S104
    own = [lan.serve(hold, ip, space=lan.host) for ip in anywhere]
    ok = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    metadata, router = lan.serve(ok, "169.254.169.254"), lan.serve(ok, "169.254.7.1")
    loopback = ("127.0.0.2", "127.1.2.3", "[::1]", "[::ffff:127.0.0.2]", anywhere[0], "[::]")
    for host in (*loopback, "169.254.169.254", "169.254.7.1"):
        assert lan.fetch(f"http://{host}:5000/", patience_s=PATIENCE_S) == NOTHING
    assert [*own, metadata, router] == [[], [], [], []]
    lan.host.run("ip", "route", "add", "default", "via", "169.254.7.1")
    assert lan.fetch("http://169.254.7.1:5000/") == HttpReply(7, 200, b"ok")
    assert lan.fetch("http://169.254.169.254:5000/", patience_s=PATIENCE_S) == NOTHING
    assert metadata == []


def test_nobody_is_asked_but_a_neighbour(lan: Lan) -> None:
    """Not this host itself, and no host behind a router though the network's prefix and a route say that it is near."""
    own = [lan.serve(hold, ip, space=lan.host) for ip in ("127.0.0.1", "192.168.7.2")]
    far = Space(lan._ends)
    cable(lan.router, far, ("192.168.7.129/25", "192.168.7.130/25"))
    lan.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    far.run("ip", "route", "add", "default", "via", "192.168.7.129")
    lan.host.run("ip", "route", "add", "192.168.7.130", "via", "192.168.7.1")
    lan.host.run("ip", "route", "add", "198.51.100.0/24", "via", "192.168.7.1")
    lan.host.run("ping", "-c", "1", "-W", "2", "192.168.7.130")
    seen = lan.serve(hold, "192.168.7.130", space=far)
    for host in ("127.0.0.1", "192.168.7.2", "192.168.7.130", "198.51.100.1", "router.example"):
        assert lan.fetch(f"http://{host}:5000/", patience_s=PATIENCE_S) == NOTHING
    assert [seen, *own] == [[], [], []]
