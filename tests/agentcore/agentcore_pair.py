"""Two nodes and their anchors, each with a whole core, wired to each other: WireGuard in outline, and an internet.

Of WireGuard there is what the core reads and sets: endpoints that follow the peer, handshakes (that none crosses
another is taken for granted here; `tests/sim` has them as they are), counters and keepalives.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from agentcore_values import interface, key, peer

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.config import AgentConfig, Endpoint
from meshctl.core.agentcore import AgentCore, PathStatus
from meshctl.model.keys import PublicKey

PORT = 51820
REKEY_AFTER_S, REJECT_AFTER_S, REKEY_TIMEOUT_S = 120.0, 180.0, 5.0
# So often in one moment may a core want to be woken: more is spinning.
MAX_WAKES = 60
# "a" and "b", whichever has the smaller key.
CONTROLLING, OTHER = sorted("ab", key=lambda name: key(name).raw())
IPS = {"a": "198.51.100.1", "b": "192.0.2.2", "hub0": "203.0.113.1", "hub1": "203.0.113.2"}
NUMBERS = {"a": 10, "b": 11, "hub0": 1, "hub1": 2}


class Packet(NamedTuple):
    """One of WireGuard's: "ask" and "yes" are a handshake, "data" is encrypted."""

    sender: PublicKey
    kind: str
    data: bytes = b""


@dataclass
class Tunnel:
    """One peer in a kernel."""

    endpoint: Address | None = None
    keepalive_s: int = 0
    handshake_at: float | None = None
    rx: int = 0
    tx: int = 0
    asked_at: float = -inf
    staged: list[bytes] = field(default_factory=list)
    keepalives: int = 0  # how often the keepalive was set


def config_of(name: str, hubs: list[str], *, stun_servers: tuple[Endpoint, ...] = (), **settings: str) -> AgentConfig:
    """What the repository says for a node of these worlds."""
    others = [n for n in ("a", "b", *hubs) if n != name]
    peers = [
        peer(
            name, n, NUMBERS[n], kind="anchor" if n in hubs else "node", reaches=frozenset("ab") - {n},
            endpoints=(Address(IPS[n], PORT),) if n in hubs else (), **(settings if n in "ab" else {}),
        )
        for n in others
    ]  # fmt: skip
    return AgentConfig(name, (interface(name, NUMBERS[name], *peers, is_anchor=name in hubs),), stun_servers)


class Host:
    """One host. What its kernel knows outlives its agent."""

    def __init__(self, world: PairWorld, name: str, config: AgentConfig) -> None:
        self.world, self.name, self.config, self.ip = world, name, config, IPS[name]
        self.peers = {p.public_key: p for i in config.networks for p in i.peers}
        self.tunnels = {public: Tunnel() for public in self.peers}
        self.relays: dict[int, tuple[Address, Address]] = {}
        self.core: AgentCore | None = None
        self.actions: list[tuple[float, ev.Action]] = []
        self.heard: list[tuple[float, str]] = []  # pings and pongs, and from whom
        self.saved = b""
        self._starts = 0
        for public, p in self.peers.items():
            if p.is_anchor:
                self.tunnels[public].endpoint = Address(IPS[p.name], PORT)
                self.set_keepalive(public, 25)

    # The agent

    def start(self) -> None:
        """A new agent, with what the one before saved."""
        self._starts += 1
        dice = random.Random(f"{self.name} {self._starts}")  # noqa: S311
        self.core = AgentCore(self.config, dice, self.world.now, self.saved)
        self.tell_addresses()

    def stop(self) -> None:
        """The host leaves the mesh, and its agent ends."""
        assert self.core is not None
        self.give(ev.Reconfigured(AgentConfig(self.name, ())))
        self.core = None

    def kill(self) -> None:
        self.core = None

    def tell_addresses(self) -> None:
        self.give(ev.LocalAddresses((LocalAddress(self.ip, 24, "eth0"),)))

    def give(self, event: ev.Event) -> None:
        """An event for the agent, if it runs."""
        if self.core is not None:
            self.core.handle(event, self.world.now)
            self._drain()

    def path(self, name: str) -> PathStatus:
        assert self.core is not None
        return next(p for p in self.core.paths() if p.peer == name)

    def done(self, kind: type, since: float = 0.0) -> list[tuple[float, ev.Action]]:
        """The agent's actions of this kind from that time on."""
        return [(at, action) for at, action in self.actions if at >= since and isinstance(action, kind)]

    def _drain(self) -> None:
        asked = deque[ev.Event]()
        while self.core is not None:
            action = self.core.poll_action()
            if action is None:
                if not asked:
                    return
                self.core.handle(asked.popleft(), self.world.now)
                continue
            self.actions.append((self.world.now, action))
            if isinstance(action, ev.PollWg):
                asked.append(ev.WgStatus(self.statuses()))
            else:
                self._do(action)

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.SendProbe):
            source = Address(action.local.ip or self.ip, action.local.port)
            self.world.send(source, action.remote, action.data)
        elif isinstance(action, ev.SendSignal):
            to = next(public for public, p in self.peers.items() if action.mesh_ip in p.mesh_addresses)
            self.send(to, b"S" + action.data)
        elif isinstance(action, ev.SetEndpoint):
            self.tunnels[action.peer].endpoint = action.address
        elif isinstance(action, ev.SetKeepalive):
            self.set_keepalive(action.peer, action.interval_s)
        elif isinstance(action, ev.InstallRelay):
            self.relays[action.port] = action.a, action.b
        elif isinstance(action, ev.RemoveRelay):
            del self.relays[action.port]
        elif isinstance(action, ev.SaveState):
            self.saved = action.data

    # The kernel

    def statuses(self) -> tuple[ev.PeerStatus, ...]:
        now = self.world.now
        return tuple(
            ev.PeerStatus(
                public, t.endpoint, None if t.handshake_at is None else now - t.handshake_at, t.rx, t.tx, t.keepalive_s
            )
            for public, t in self.tunnels.items()
        )

    def ping(self, name: str) -> None:
        """Something that the other host answers."""
        self.send(key(name), b"ping")

    def send(self, to: PublicKey, data: bytes = b"") -> None:
        """Into the tunnel; without data it is a keepalive."""
        tunnel, now = self.tunnels[to], self.world.now
        age = inf if tunnel.handshake_at is None else now - tunnel.handshake_at
        if age < REJECT_AFTER_S:
            self._emit(to, "data", data)
        else:
            tunnel.staged.append(data)
        if age >= REKEY_AFTER_S:
            self._ask(to)

    def _ask(self, to: PublicKey) -> None:
        tunnel = self.tunnels[to]
        if self.world.now - tunnel.asked_at >= REKEY_TIMEOUT_S and tunnel.endpoint is not None:
            tunnel.asked_at = self.world.now
            self._emit(to, "ask")
            self.world.at(self.world.now + REKEY_TIMEOUT_S, lambda: self._ask(to) if tunnel.staged else None)

    def _emit(self, to: PublicKey, kind: str, data: bytes = b"") -> None:
        tunnel = self.tunnels[to]
        if tunnel.endpoint is not None:
            tunnel.tx += {"ask": 148, "yes": 92}.get(kind, 32) + len(data)
            self.world.send(Address(self.ip, PORT), tunnel.endpoint, Packet(key(self.name), kind, data))

    def set_keepalive(self, to: PublicKey, interval_s: int) -> None:
        tunnel = self.tunnels[to]
        tunnel.keepalive_s = interval_s
        tunnel.keepalives += 1
        self._keep_alive(to, tunnel.keepalives)

    def _keep_alive(self, to: PublicKey, number: int) -> None:
        tunnel = self.tunnels[to]
        if number == tunnel.keepalives and tunnel.keepalive_s:
            self.send(to)
            self.world.at(self.world.now + tunnel.keepalive_s, lambda: self._keep_alive(to, number))

    def receive(self, local: Address, remote: Address, what: Packet | bytes) -> None:
        """A datagram came: WireGuard's, a relay's, or STUN."""
        ends = self.relays.get(local.port)
        if isinstance(what, bytes):
            relayed = self.config.networks[0].is_anchor and local.port != PORT
            self.give(ev.RelayDatagram(local.port, remote, what) if relayed else ev.Datagram(local, remote, what))
        elif ends is not None and remote in ends:
            self.world.send(local, ends[1 - ends.index(remote)], what)
        elif local.port == PORT:
            self._tunnel(remote, what)

    def _tunnel(self, remote: Address, packet: Packet) -> None:
        tunnel, now = self.tunnels[packet.sender], self.world.now
        tunnel.endpoint = remote
        tunnel.rx += {"ask": 148, "yes": 92}.get(packet.kind, 32) + len(packet.data)
        if packet.kind == "data":
            self._inner(packet)
            return
        tunnel.handshake_at = now
        if packet.kind == "ask":
            self._emit(packet.sender, "yes")
        staged, tunnel.staged = tunnel.staged, []
        for data in staged or [b""]:
            self._emit(packet.sender, "data", data)

    def _inner(self, packet: Packet) -> None:
        sender = self.peers[packet.sender]
        if packet.data[:1] == b"S":
            self.give(ev.Signal(sender.mesh_addresses[0], packet.data[1:]))
        elif packet.data:
            self.heard.append((self.world.now, sender.name))
            if packet.data == b"ping":
                self.send(packet.sender, b"pong")


class PairWorld:
    """`cut` says which packets are lost, by the addresses that they have on the way. `outside` is a NAT that maps a
    host's addresses to another one, the port plus a number: who knows that address may send to it."""

    def __init__(
        self, *, hubs: int = 1, delay_s: float = 0.01, agents: str | tuple[str, ...] = "ab",
        configs: dict[str, AgentConfig] | None = None, outside: dict[str, tuple[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self.now, self.delay_s = 1000.0, delay_s
        self.cut: Callable[[Address, Address], bool] = lambda _source, _destination: False
        self.blocked: Callable[[Address, Address], bool] = self.cut  # of WireGuard's packets alone
        self.outside = dict(outside or {})
        self.far_s: dict[str, float] = {}  # by ip: how much longer packets to and from there take
        self.servers: dict[str, Callable[[Address, bytes], bytes | None]] = {}  # by ip: what answers to STUN
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.names = [f"hub{n}" for n in range(hubs)]
        known = configs or {}
        self.hosts = {n: Host(self, n, known.get(n) or config_of(n, self.names)) for n in (*"ab", *self.names)}
        for name in (*self.names, *agents):
            self.hosts[name].start()

    def apart(self, *names: str) -> None:
        """No packet passes between any two of these hosts, wherever they stand."""
        ips = {IPS[n] for n in names} | {self.outside[IPS[n]][0] for n in names if IPS[n] in self.outside}
        self.cut = lambda source, destination: source.ip in ips and destination.ip in ips

    def block(self, *ways: str) -> None:
        """No packet of WireGuard passes these ways (`ab` is from a to b), and checks do."""
        ips = {(IPS[way[0]], IPS[way[1]]) for way in ways}
        self.blocked = lambda source, destination: (source.ip, destination.ip) in ips

    def together(self) -> None:
        """All packets pass again."""
        self.cut = lambda _source, _destination: False

    def run(self, seconds: float) -> None:
        """Everything that happens in so many seconds."""
        end = self.now + seconds
        wakes = dict.fromkeys(self.hosts, 0)
        while True:
            due = {n: t[0] for n, h in self.hosts.items() if h.core is not None and (t := h.core.poll_timeout())}
            when = min([*due.values(), *(entry[0] for entry in self._queue[:1])], default=inf)
            if when > end:
                break
            if when > self.now:
                wakes = dict.fromkeys(wakes, 0)
            self.now = max(when, self.now)
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for name, host in self.hosts.items():
                if due.get(name, inf) <= self.now:
                    wakes[name] += 1
                    assert wakes[name] < MAX_WAKES, f"{name} spins: {host.core and host.core.poll_timeout()}"
                    host.give(ev.Wake())
        self.now = end

    def until(self, done: Callable[[], bool], within: float) -> float:
        """Run until that is so; how long it took."""
        start = self.now
        while not done():
            assert self.now - start <= within, {n: h.core and h.core.paths() for n, h in self.hosts.items()}
            self.run(0.02)
        return self.now - start

    def talk(self, seconds: float, every: float = 0.1) -> None:
        """Traffic between the two nodes, in both directions."""
        for _ in range(round(seconds / every)):
            self.hosts["a"].ping("b")
            self.run(every)

    def states(self) -> tuple[str, str]:
        """Of the path between the two nodes, as each of them sees it."""
        return tuple(  # type: ignore[return-value]
            host.path("ba"[n]).state.value if (host := self.hosts["ab"[n]]).core else "" for n in range(2)
        )

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, call))

    def send(self, source: Address, destination: Address, what: Packet | bytes) -> None:
        """A datagram on its way."""
        ip, shift = self.outside.get(source.ip, (source.ip, 0))
        seen = Address(ip, source.port + shift)
        lost = self.cut(seen, destination) or (isinstance(what, Packet) and self.blocked(seen, destination))
        if not lost:
            more_s = self.far_s.get(seen.ip, 0.0) + self.far_s.get(destination.ip, 0.0)
            self.at(self.now + self.delay_s + more_s, lambda: self._arrive(seen, destination, what))

    def _arrive(self, source: Address, destination: Address, what: Packet | bytes) -> None:
        if destination.ip in self.servers and isinstance(what, bytes):
            answer = self.servers[destination.ip](source, what)
            if answer is not None:
                self.send(destination, source, answer)
            return
        for host in self.hosts.values():
            ip, shift = self.outside.get(host.ip, (host.ip, 0))
            if ip == destination.ip:
                host.receive(Address(host.ip, destination.port - shift), source, what)


def pair_of(world: PairWorld) -> tuple[Host, Host]:
    """The controlling node, and the other one."""
    return world.hosts[CONTROLLING], world.hosts[OTHER]
