"""One look at the mesh around hosts that change together: before they do, and when they have.

Both ends of a pair are asked, that which changes and the other one: a host that is not heard any more may hear all the
same, and does not know. What either finds speaks against whichever of the two waits to be confirmed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshctl.deploy.applier import agent_command
from meshctl.deploy.hints import hint
from meshctl.deploy.host import LOST, Connect, Host, peers_by_key
from meshctl.deploy.transport import Transport
from meshctl.deploy.waves import Through
from meshctl.errors import RemoteError
from meshctl.model.places import SEARCH_PATH
from meshctl.render import zipapp

# A host that has just got other routes may need a handshake before a connection comes through.
AGAIN_S = 1.0
# A keepalive of who has nothing else to say; or, where a peer has lost its session and does not ask, the time until a
# handshake is begun, with one that is lost: KEEPALIVE_TIMEOUT + 2 * REKEY_TIMEOUT of the protocol's paper.
ANSWER_S = 21.0
# A keepalive alone: who lives as yet is asked.
KEEPALIVE_S = 12.0
# Beyond what the node itself waits for peers.
MARGIN_S = 9.0
# What a node answers at once. On a connection that has died silently nothing ever comes.
COUNT_S = 10.0
# A session older than this is none (REJECT_AFTER_TIME): there was nothing that could break.
SESSION_S = 180
# An MTU that the way does not carry lets a connection be made, and stops the first packets that are full. So much is
# sent there and back, which is quick or never comes: full packets of any MTU up to a jumbo frame's, but not more than
# TCP sends at once (RFC 6928).
ECHO_BYTES, ECHO_TIMEOUT_S = 12288, 8.0
# So long it may take until the way to a host behind those that were changed carries again.
REACH_S = 8.0
_COUNTERS = f"PATH={SEARCH_PATH}; date +%s; wg show all latest-handshakes; wg show all transfer"


@dataclass(frozen=True)
class Counters:
    """What WireGuard has counted on a host: the bytes that have come, by interface and public key, and the last
    handshake by public key, as the host's clock had it then. `living` are the keys with a session."""

    received: Mapping[tuple[str, str], int]
    handshakes: Mapping[str, int]
    living: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Counters:
        """Of what `_COUNTERS` says. Raises ValueError."""
        clock, *lines = text.splitlines() or [""]
        now, rows = int(clock), [line.split("\t") for line in lines]
        received = {(row[0], row[1]): int(row[2]) for row in rows if len(row) == 4}
        handshakes: dict[str, int] = {}
        for row in rows:
            if len(row) == 3:
                handshakes[row[1]] = max(int(row[2]), handshakes.get(row[1], 0))
        return cls(received, handshakes, frozenset(key for key, at in handshakes.items() if now - at < SESSION_S))


class Check:
    """The look around the hosts of `changing`. `hosts` are those of the run, `outside` all others that SSH could reach;
    of those nothing is read, and nothing is asked but whether they still are reached."""

    def __init__(
        self, changing: Iterable[Host], hosts: Mapping[str, Host], outside: Mapping[str, Host], path: Through
    ) -> None:
        self._changing, self._hosts, self._outside = {host.name for host in changing}, hosts, outside
        self._path, self._agent = path, zipapp.build()
        self._near = self._changing | {
            p.name for host in hosts.values() if host.name in self._changing
            for w in host.doc.interfaces() for p in w.peers
        }  # fmt: skip
        self._before: dict[str, Counters] = {}
        self._counted: dict[str, Counters] = {}
        self._heard: dict[str, set[str]] = {}  # of those that the run has not reached, by who heard them before
        self._waiting: set[str] = set()
        self._reached: set[str] = set()
        self._found: list[tuple[str, str]] = []  # against whom, and what
        self._asked: set[str] = set()
        self._cut_off: dict[str, str] = {}

    # Who is asked

    @property
    def near(self) -> list[Host]:
        """Those that change and their peers, as far as this run has reached them."""
        return [host for name, host in self._hosts.items() if name in self._near and host.error is None]

    @property
    def behind(self) -> list[Host]:
        """Those to which SSH goes through one that changes, as far as they are reached: of this run and of the others,
        whom `try_way` has tried."""
        everybody = (*self._hosts.values(), *self._outside.values())
        return [h for h in everybody if h.error is None and not self._changing.isdisjoint(self._path.get(h.name, ()))]

    # Before

    def look(self, host: Host) -> None:
        """Note with whom it has a session, by its own clock, which may be set meanwhile. One that changes asks those
        that this run has not reached, too: who is heard now is waited for afterwards. Never raises."""
        with contextlib.suppress(RemoteError, ValueError):
            before = self._before[host.name] = counters(host)
            unreached = self._outside.keys() | {name for name, other in self._hosts.items() if other.error is not None}
            asked = {
                at: peer.name for at, peer in peers_by_key(host.doc).items()
                if peer.name in unreached and at[1] in before.living
            }  # fmt: skip
            if host.name in self._changing and host.transport is not None and asked and self._has_program(host):
                silent, _ = self._ask(host.name, host.transport, dict.fromkeys(asked, (True, None, None)), KEEPALIVE_S)
                self._heard[host.name] = {name for at, name in asked.items() if at not in silent}

    # Afterwards

    def wait(self, waiting: Iterable[Host]) -> None:
        """These are to be confirmed, or not."""
        self._waiting = {host.name for host in waiting}
        self._reached = {host.name for host in self.near}

    def count(self, host: Host) -> None:
        """Note how much has come from each peer, before any host asks: who asks a moment after its peer has done so
        would else wait for that one's next keepalive. Without the numbers it does. Never raises."""
        with contextlib.suppress(RemoteError, ValueError):
            self._counted[host.name] = counters(host)

    def ask(self, host: Host, fresh: Transport | None = None) -> None:
        """Note who is not heard of those that there was a session with, or whose endpoint has just been changed. One
        that has not this version to ask with is not asked; one whose connection has broken is, once there is a `fresh`
        one. Raises RemoteError."""
        transport = fresh or host.transport
        if transport is None or not self._has_program(host):
            self._asked.add(host.name)
            return
        waits = host.name in self._waiting
        about = self._reached | self._heard.get(host.name, set()) if waits else self._waiting
        peers = {at: peer.name for at, peer in peers_by_key(host.doc).items() if peer.name in about}
        moved = {
            change.name: change.after["endpoint"] for change in host.applied
            if change.kind == "peer" and change.action == "update" and change.after and change.after.get("endpoint")
        }  # fmt: skip
        before, counted = self._before.get(host.name), self._counted.get(host.name)
        asked = {
            (interface, key): (
                f"{interface} {name}" in moved or (before is not None and key in before.living),
                counted.received.get((interface, key)) if counted else None,
                before.handshakes.get(key, 0) if before else None,
            ) for (interface, key), name in peers.items()
        }  # fmt: skip
        try:
            silent, now = self._ask(host.name, transport, asked, ANSWER_S) if asked else (set(), {})
        except RemoteError as error:
            if (error.kind in LOST and fresh is None) or not waits:
                return
            raise
        self._asked.add(host.name)
        for at, name in sorted(peers.items()):
            new = moved.get(f"{at[0]} {name}")
            if at in silent:
                self._found += [
                    (host.name, f"nothing comes from {name} ({at[0]}) any more"),
                    (name, f"nothing comes to {host.name} ({at[0]}) any more"),
                ]
            elif new is not None and _is_literal(new) and new != now.get(at) == host.endpoints.get(at):
                self._found.append((host.name, f"{name} ({at[0]}) answers from {now[at]}, and not at {new}"))

    def note(self, name: str, words: str) -> None:
        """Something speaks against that host."""
        self._found.append((name, words))

    def is_asked(self, host: Host) -> bool:
        """Whether it has said all that it knows."""
        return host.name in self._asked

    def reach(self, host: Host, fresh: Connect) -> None:
        """Look whether the host, to which SSH goes through others that were just changed, still is reached. Never
        raises."""
        until = time.monotonic() + REACH_S
        while True:
            try:
                echo(host.name, fresh())
                return
            except RemoteError as error:
                if time.monotonic() > until:
                    self._cut_off[host.name] = error.message
                    return
            time.sleep(AGAIN_S)

    def against(self, host: Host) -> RemoteError | None:
        """What speaks against that it keeps what was applied."""
        words = [found for name, found in self._found if name == host.name]
        words += [
            f"{name}, which is reached through it, is not any more: {why}"
            for name, why in sorted(self._cut_off.items()) if host.name in self._path[name]
        ]  # fmt: skip
        if not words:
            return None
        told = "; ".join(dict.fromkeys(words))
        return RemoteError(told, node=host.name, kind="broken", step="check", hint=hint("broken", host.name))

    # Inside

    def _has_program(self, host: Host) -> bool:
        return host.facts is not None and self._agent.hash in host.facts.agents

    def _ask(
        self, node: str, transport: Transport,
        asked: Mapping[tuple[str, str], tuple[bool, int | None, int | None]], for_s: float,
    ) -> tuple[set[tuple[str, str]], dict[tuple[str, str], str]]:  # fmt: skip
        """Which peers, by interface and key, are silent, and where WireGuard sends to each (`meshctl.agent.probe`)."""
        peers: dict[str, dict[str, tuple[bool, int | None, int | None]]] = {}
        for (interface, key), how in asked.items():
            peers.setdefault(interface, {})[key] = how
        document = json.dumps({"for_s": for_s, "peers": peers}).encode()
        completed = transport.run(agent_command(self._agent.path, "probe"), document, for_s + MARGIN_S)
        try:
            found = json.loads(completed.text())
            silent = {(interface, key) for interface, keys in found["silent"].items() for key in keys}
            now = {(interface, key): at for interface, ends in found["endpoints"].items() for key, at in ends.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RemoteError(
                f"asking its peers ended with status {completed.status}: {completed.last_line()}", node=node,
                kind="command", step="check", hint=hint("command", node),
            ) from None  # fmt: skip
        return silent, now


def try_way(host: Host) -> None:
    """Connect to a host of which nothing else is wanted. Raises RemoteError."""
    host.transport = host.connect()
    echo(host.name, host.transport)


def counters(host: Host) -> Counters:
    """What its WireGuard has counted. Raises RemoteError, and ValueError when there is none to say anything."""
    if host.transport is None:
        raise ValueError("not connected")
    return Counters.parse(host.transport.run(_COUNTERS, timeout_s=COUNT_S).text())


def _is_literal(endpoint: str) -> bool:
    """Whether it is an address, and no name, which may lead where WireGuard sends."""
    return endpoint[:1] == "[" or endpoint.rpartition(":")[0].replace(".", "").isdigit()


def echo(node: str, transport: Transport) -> None:
    """Raises RemoteError unless packets of full size come through, there and back."""
    try:
        came = transport.run("cat", bytes(ECHO_BYTES), ECHO_TIMEOUT_S).stdout
    except RemoteError as error:
        if error.kind != "timeout":
            raise
        came = b""
    if len(came) != ECHO_BYTES:
        raise RemoteError(
            "it can be connected to, but large packets do not come through (is an MTU too large?)", node=node,
            kind="timeout", step="confirm",
        )  # fmt: skip
