"""WireGuard's counters, read by wg(8), and the two settings that are the agent's.

A reading by `wg` costs 1.6 ms of CPU with a hundred peers and 0.2 ms by a userspace implementation's own socket, but
`wg` is one way for all of them, and four readings a second are still less than a hundredth of a core. A line that is
the same as in the reading before is not parsed again.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meshctl.agent.node.handler import Plain
from meshctl.agent.node.wgset import is_userspace, set_peer
from meshctl.agent.process import ENVIRONMENT, find
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.events import Action, Event, PeerStatus, PollWg, SetEndpoint, SetKeepalive, WgStatus
from meshctl.core.wgdump import parse_interface, parse_peer
from meshctl.model.keys import PublicKey

# `wg` answers in milliseconds. A userspace implementation that hangs must not hang the agent with it.
TIMEOUT_S = 2.0
_INTERFACE_FIELDS = 5  # of `wg show all dump`: name, private key, public key, listen port, fwmark
_PRIVATE_KEY = 1
_READ_BYTES = 1 << 18


class _Line(NamedTuple):
    """One peer's line; `handshake` is in seconds of the wall clock, 0 for none."""

    public_key: PublicKey
    endpoint: Address | None
    handshake: int
    rx_bytes: int
    tx_bytes: int
    keepalive_s: int


class WireGuard(Plain):
    """All interfaces of this node's configuration. `marks` is by listen port, as of the last reading: the fwmark of
    each interface. `wall` is the clock that WireGuard's handshake times are of."""

    actions = (PollWg, SetEndpoint, SetKeepalive)

    def __init__(self, document: AgentDocument, wall: Callable[[], float] = time.time) -> None:
        program = find("wg")
        if program is None:
            raise OSError("wg is not installed")
        self._wg: str = program
        self._wall = wall
        self._lines: dict[str, _Line] = {}  # text -> parsed, of the last reading
        self._events: list[Event] = []
        self.marks: dict[int, int] = {}
        self._configure(document.config)

    def configure(self, document: AgentDocument, _now: float) -> None:
        """See Handler."""
        self._configure(document.config)

    def _configure(self, config: AgentConfig) -> None:
        self._interfaces = frozenset(n.interface for n in config.networks)
        self._interface_of = {p.public_key: n.interface for n in config.networks for p in n.peers}

    def do(self, action: Action) -> None:
        """See Handler. Raises ValueError for a peer of no network, OSError when WireGuard says no."""
        if isinstance(action, PollWg):
            self._events.append(WgStatus(self.read()))
        elif isinstance(action, SetEndpoint):
            set_peer(self._interface_with(action.peer), action.peer, endpoint=action.address)
        elif isinstance(action, SetKeepalive):
            set_peer(self._interface_with(action.peer), action.peer, keepalive_s=action.interval_s)

    def poll(self, _now: float) -> list[Event]:
        """See Handler."""
        events, self._events = self._events, []
        return events

    def read(self) -> tuple[PeerStatus, ...]:
        """All peers of the node's interfaces. An interface that is not there has none. Raises OSError, ValueError."""
        text = run([self._wg, "show", "all", "dump"])
        wall = self._wall()
        known, self._lines = self._lines, {}
        self.marks.clear()
        found = []
        userspace = {name: is_userspace(name) for name in self._interfaces}
        for line in text.splitlines():
            name, _, rest = line.partition("\t")
            if name not in self._interfaces:
                continue
            try:
                if rest.count("\t") + 2 == _INTERFACE_FIELDS:
                    self._interface(line)
                    continue
                peer = self._lines[line] = known.get(line) or _parse(line)
            except ValueError:  # what is in the line is not told: of another form, it may have a key anywhere
                raise ValueError("WireGuard's dump has a line of another form") from None
            found.append(_status(peer, wall, userspace=userspace[name]))
        return tuple(found)

    def _interface(self, line: str) -> None:
        fields = line.split("\t")
        del fields[_PRIVATE_KEY]
        facts = parse_interface(fields)
        self.marks[facts.listen_port] = facts.fwmark

    def _interface_with(self, peer: PublicKey) -> str:
        interface = self._interface_of.get(peer)
        if interface is None:
            raise ValueError(f"{peer} is no peer of this node")
        return interface


def _status(line: _Line, wall: float, *, userspace: bool) -> PeerStatus:
    age = wall - line.handshake if line.handshake else None
    return PeerStatus(line.public_key, line.endpoint, age, line.rx_bytes, line.tx_bytes, line.keepalive_s, userspace)


def _parse(line: str) -> _Line:
    peer = parse_peer(line.split("\t")[1:])
    return _Line(
        peer.public_key, _endpoint(peer.endpoint), peer.latest_handshake, peer.rx_bytes, peer.tx_bytes, peer.keepalive_s
    )


def _endpoint(text: str | None) -> Address | None:
    """A link-local endpoint has a scope, which means nothing to the core: it counts as none."""
    if text is None or "%" in text:
        return None
    return Address.parse(text)


def run(argv: Sequence[str]) -> str:
    """A program's standard output. Raises OSError with what it said when it fails or takes longer than TIMEOUT_S.

    `subprocess` takes a third of a millisecond more, four times a second.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        pid = os.posix_spawn(argv[0], list(argv), ENVIRONMENT, file_actions=actions)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        output, complete = _drain(reader)
    finally:
        os.close(reader)
    if not complete:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not complete:
        raise OSError(f"{' '.join(argv[:3])}: no end after {TIMEOUT_S:g} s")
    if status:
        raise OSError(f"{' '.join(argv[:3])}: {output.decode(errors='replace').strip()[:200]}")
    return output.decode()


def _drain(descriptor: int) -> tuple[bytes, bool]:
    """Everything up to the end, and whether the end came in time."""
    poll = select.poll()
    chunks: list[bytes] = []
    poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + TIMEOUT_S
    while True:
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            return b"", False
        chunk = os.read(descriptor, _READ_BYTES)
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)
