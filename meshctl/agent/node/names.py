"""Endpoints that are DNS names: asked of the host's own resolvers, in threads, and never by way of the tunnel.

Not getaddrinfo: it has no SRV, no time limit, and does not say which resolver it asks. A resolver inside a mesh would
be reached by the tunnel that waits for its answer; with WireGuard's mark, questions go where its own packets go.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.sockopt import SO_MARK
from meshctl.agent.node.workers import Workers
from meshctl.core.agent.address import Address, NamedEndpoint, canonical, within
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, Resolve, Resolved
from meshctl.core.wire import dns
from meshctl.core.wire.error import WireError

# For a name, with all that it leads to; for one answer of one resolver; and how often all resolvers are asked.
TOTAL_S, ANSWER_S, ROUNDS = 8.0, 2.0, 2
_THREADS, _WAITING = 4, 4096
# As resolv.conf(5) has it, and a few more; what an SRV record leads to.
_MAX_SERVERS, _MAX_TARGETS = 4, 4
# systemd-resolved's own, which says nothing of whom it asks in turn; the other file does.
_STUBS = ("127.0.0.53", "127.0.0.54")


class Names(Plain):
    """`marks` are the fwmarks of WireGuard's ports; `root` is where the host's files are."""

    actions: tuple[type[Action], ...] = (Resolve,)

    def __init__(self, document: AgentDocument, marks: Mapping[int, int], root: Path = Path("/")) -> None:
        self._marks, self._root = marks, root
        self._workers = Workers("names", _THREADS, _WAITING)
        self._asked: set[NamedEndpoint] = set()
        self.configure(document, 0.0)

    def configure(self, document: AgentDocument, now: float) -> None:  # noqa: ARG002 - as Handler has it
        """See Handler."""
        self._ranges = tuple({r for n in document.config.networks for r in n.mesh_ranges})

    def do(self, action: Action) -> None:
        """See Handler. A name that is being asked for is not asked for twice."""
        if isinstance(action, Resolve) and action.name not in self._asked:
            lookup = Lookup(self._root, self._ranges, max(self._marks.values(), default=0))
            self._workers.submit(partial(_resolved, lookup, action.name))
            self._asked.add(action.name)

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        return tuple((sock, partial(self._read, read)) for sock, read in self._workers.sockets())

    def close(self) -> None:
        """See Handler."""
        self._workers.close()

    def _read(self, read: Readable, now: float) -> list[Event]:
        events = read(now)
        self._asked.difference_update(event.name for event in events if isinstance(event, Resolved))
        return events


def _resolved(lookup: Lookup, name: NamedEndpoint) -> Resolved:
    """In a thread."""
    try:
        return lookup.resolve(name)
    except (OSError, WireError, ValueError):
        return Resolved(name, ())


class Lookup:
    """One name's. No resolver within `ranges` is asked."""

    def __init__(self, root: Path, ranges: tuple[str, ...], mark: int, total_s: float = TOTAL_S) -> None:
        self._root, self._ranges, self._mark = root, ranges, mark
        self._total_s = total_s

    def resolve(self, name: NamedEndpoint) -> Resolved:
        """All addresses. Raises OSError or WireError when nobody knows any."""
        self._ends_at = time.monotonic() + self._total_s
        if name.port:
            ips, ttl_s = self._addresses(name.host)
            return Resolved(name, tuple(Address.of(ip, name.port) for ip in ips), ttl_s)
        (answer,) = self._ask(name.host, dns.SRV)
        found: list[Address] = []
        ttls = [answer.ttl_s] if answer.services else []
        for service in answer.services[:_MAX_TARGETS]:
            if service.port:
                ips, ttl_s = self._addresses(service.target)
                found += [Address.of(ip, service.port) for ip in ips]
                ttls += [] if ttl_s is None else [ttl_s]
        return Resolved(name, tuple(found), min(ttls, default=None))

    def servers(self) -> list[str]:
        """The resolvers to ask, in their order."""
        listed = list(_nameservers(self._root / "etc/resolv.conf")) or ["127.0.0.1"]
        if all(server in _STUBS for server in listed):
            listed = list(_nameservers(self._root / "run/systemd/resolve/resolv.conf")) or listed
        return [s for s in listed if not within(s.partition("%")[0], self._ranges)][:_MAX_SERVERS]

    # Inside

    def _addresses(self, host: str) -> tuple[list[str], int | None]:
        """The host's, and how long they count in seconds: None when no resolver has said so."""
        written = list(_in_hosts_file(self._root / "etc/hosts", host))
        if written:
            return written, None
        answers = [answer for answer in self._ask(host, dns.A, dns.AAAA) if answer.addresses]
        found = [ip for answer in answers for ip in answer.addresses]
        return found, min((answer.ttl_s for answer in answers), default=None)

    def _ask(self, host: str, *kinds: int) -> list[dns.Answer]:
        """An answer of each kind, from the first resolver that has all, or what there is without it: some have nothing
        but errors or silence for AAAA (RFC 4074). Raises OSError when there is none at all."""
        found: dict[int, dns.Answer] = {}
        for _ in range(ROUNDS):
            for server in self.servers():
                found = {**self._ask_server(server, host, kinds), **found}
                if len(found) == len(kinds) or time.monotonic() >= self._ends_at:
                    break
            if found or time.monotonic() >= self._ends_at:
                break
        if not found:
            raise TimeoutError("no resolver answers")
        return [found[kind] for kind in kinds if kind in found]

    def _ask_server(self, server: str, host: str, kinds: tuple[int, ...]) -> dict[int, dns.Answer]:
        """All questions at once, by UDP, and by TCP what is too long for that. Those of the answers that count."""
        ends_at = min(time.monotonic() + ANSWER_S, self._ends_at)
        numbers = {kind: secrets.randbelow(1 << 16) for kind in kinds}
        answers: dict[int, dns.Answer] = {}
        with contextlib.suppress(OSError, WireError), self._socket(server, socket.SOCK_DGRAM, ends_at) as sock:
            for kind, number in numbers.items():
                sock.send(dns.encode_question(number, host, kind))
            while len(answers) < len(kinds):
                sock.settimeout(_left(ends_at))
                raw = sock.recv(dns.MAX_UDP + 1)
                for kind, number in numbers.items():
                    with contextlib.suppress(WireError):  # a forged one, and another may come
                        answers[kind] = dns.decode_answer(raw, number, host, kind)
        for kind in [kind for kind, answer in answers.items() if answer.truncated]:
            del answers[kind]
            with contextlib.suppress(OSError, WireError):
                answers[kind] = self._ask_by_tcp(server, host, kind, ends_at)
        return {kind: answer for kind, answer in answers.items() if answer.code in (dns.NO_ERROR, dns.NO_SUCH_NAME)}

    def _ask_by_tcp(self, server: str, host: str, kind: int, ends_at: float) -> dns.Answer:
        number = secrets.randbelow(1 << 16)
        question = dns.encode_question(number, host, kind)
        with self._socket(server, socket.SOCK_STREAM, ends_at) as sock:
            sock.sendall(len(question).to_bytes(2, "big") + question)
            size = int.from_bytes(_exactly(sock, 2, ends_at), "big")
            if size > dns.MAX_TCP:
                raise WireError("the answer is too long")
            return dns.decode_answer(_exactly(sock, size, ends_at), number, host, kind)

    def _socket(self, server: str, kind: socket.SocketKind, ends_at: float) -> socket.socket:
        """Connected, so that nobody else's answers come; from a port of its own, so that they are hard to forge."""
        family, _, _, _, where = socket.getaddrinfo(server, dns.PORT, type=kind, flags=socket.AI_NUMERICHOST)[0]
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        try:
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, SO_MARK, self._mark)
            sock.settimeout(_left(ends_at))
            sock.connect(where)
        except OSError:
            sock.close()
            raise
        return sock


def _exactly(sock: socket.socket, size: int, ends_at: float) -> bytes:
    received = b""
    while len(received) < size:
        sock.settimeout(_left(ends_at))
        piece = sock.recv(size - len(received))
        if not piece:
            raise WireError("the answer is cut short")
        received += piece
    return received


def _left(ends_at: float) -> float:
    """Seconds. Raises TimeoutError when there are none."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the resolver takes too long")
    return left


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of each line, without comments; none of a file that is not there."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            yield line.partition("#")[0].partition(";")[0].split()


def _nameservers(path: Path) -> Iterator[str]:
    for words in _lines(path):
        if len(words) >= 2 and words[0] == "nameserver":
            ip, percent, scope = words[1].partition("%")
            with contextlib.suppress(ValueError):
                yield canonical(ip) + percent + scope


def _in_hosts_file(path: Path, host: str) -> Iterator[str]:
    wanted = host.rstrip(".").lower()
    for words in _lines(path):
        if wanted in (word.lower() for word in words[1:]):
            with contextlib.suppress(ValueError):
                yield canonical(words[0])
