"""Two nodes, three anchors, and everything between relay clients and relay servers: signalling, binds, offers."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from agentcore_values import SESSION, interface, key, shared

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import AnchorDistance, RelayAsk, RelayGrant, RelayRefresh, RelayRefuse
from meshctl.core.agent.config import InterfaceConfig, PeerConfig
from meshctl.core.agent.events import InstallRelay, RemoveRelay, SendProbe
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.relaybinds import Binds
from meshctl.core.agent.relayclient import RelayClient
from meshctl.core.agent.relayoutputs import Ready, Say
from meshctl.core.agent.relayserver import RelayServer
from meshctl.core.wire import stun

PORT = 51820
NAMES = ("a", "b")  # "a" controls
HUBS = ("hub0", "hub1", "hub2")
# No client may be woken more often than this in one moment: it would spin.
MAX_TURNS = 20


def places_of(client: RelayClient) -> set[Address]:
    """All addresses at which anchors relay for it."""
    return {address for lease in client._leases.values() for address in lease.relay}


def entry(name: str, number: int, kind: str = "node") -> PeerConfig:
    others = frozenset(NAMES) - {name}
    return PeerConfig(name, key(name), (f"10.42.0.{number}",), shared("x", name), kind, reaches=others)


class RelayWorld:
    """Time goes from event to event. `dead` anchors answer nothing; `drop` says which messages are lost; `delay_s` is
    that of every message one way."""

    def __init__(self, *, loss: float = 0.0, families: tuple[tuple[int, ...], ...] = ((4, 6), (4, 6))) -> None:
        self.dice, self.loss, self.now = random.Random(1), loss, 0.0  # noqa: S311
        self.nodes = {name: entry(name, 10 + i) for i, name in enumerate(NAMES)}
        self.anchors = {hub: entry(hub, 1 + i, "anchor") for i, hub in enumerate(HUBS)}
        self.rtts = {name: {hub: 0.02 * (i + 1) for i, hub in enumerate(HUBS)} for name in NAMES}
        self.dead: set[str] = set()
        self.delay_s = 0.01
        self.down: dict[str, set[str]] = {name: set() for name in NAMES}  # anchors whose tunnel is down, by node
        self.drop: Callable[[str, str, object], bool] = lambda _to, _hub, _body: False
        self.servers: dict[str, RelayServer] = {}
        self.forwards: dict[str, dict[int, tuple[Address, Address]]] = {}
        for hub in HUBS:
            self.restart(hub)
        self.clients: dict[str, RelayClient] = {}
        self.bases: dict[str, tuple[Address, ...]] = {}
        for i, name in enumerate(NAMES):
            binds = Binds(Transactions(self.dice), lambda _: SESSION)
            self.clients[name] = RelayClient(self.nodes[NAMES[1 - i]], controlling=i == 0, binds=binds)
            of = {4: Address(f"198.51.100.{i + 1}", PORT), 6: Address(f"2001:db8:{i + 1}::1", PORT)}
            self.bases[name] = tuple(of[family] for family in families[i])
        self.told: dict[str, tuple[AnchorDistance, ...]] = dict.fromkeys(NAMES, ())
        self.relay: dict[str, Address | None] = dict.fromkeys(NAMES)
        self.moves: list[tuple[float, str, Address | None]] = []
        self.sent: list[tuple[float, str, str, object]] = []  # when, who, to which anchor, what
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0
        self._moves = 0

    # What tests do

    def run(self, seconds: float) -> None:
        """Everything that happens in so many seconds."""
        end, turns = self.now + seconds, 0
        while True:
            due = [d for d in (c.due() for c in self.clients.values()) if d is not None]
            due += [d for d in (s.due() for s in self.servers.values()) if d is not None]
            when = max(min([*due, *(entry[0] for entry in self._queue[:1])], default=end), self.now)
            if when > end:
                break
            turns = turns + 1 if when == self.now else 0
            assert turns < MAX_TURNS, "something spins"
            self.now = when
            self._step()
            if not due and not self._queue:
                break
        self.now = end

    def want(self, *names: str) -> None:
        """Have the clients told of the anchors, as this world has them now."""
        for name in names or NAMES:
            up = {hub for hub in HUBS if hub not in self.down[name]}
            anchors = {self.anchors[h].id: (self.anchors[h], self.rtts[name][h]) for h in up}
            other = self.told[NAMES[1 - NAMES.index(name)]]
            self.clients[name].want(anchors, {d.anchor: d.rtt_ms / 1000 for d in other}, self.now)
            self.drain(name)

    def check(self, *names: str) -> None:
        for name in names or NAMES:
            self.clients[name].check(self.now)

    def move(self, name: str) -> None:
        """The node has other addresses, and knows it."""
        self._moves += 1
        of = {4: Address(f"198.51.100.{10 + self._moves}", PORT), 6: Address(f"2001:db8:{10 + self._moves}::1", PORT)}
        self.bases[name] = tuple(of[base.family] for base in self.bases[name])
        self.check(name)

    def release(self, *names: str) -> None:
        for name in names or NAMES:
            self.clients[name].release()
            self.drain(name)

    def restart(self, hub: str, *, told: bool = False) -> None:
        """The anchor's agent is a new one, which knows nothing; its kernel forwards for nobody. `told`: both notice."""
        number = 1 + HUBS.index(hub)
        config: InterfaceConfig = interface(hub, number, *self.nodes.values(), is_anchor=True)
        own = (Address(f"203.0.113.{number}", PORT), Address(f"2001:db8::{number}", PORT))
        self.servers[hub] = RelayServer(config, self.dice, set(), lambda _: SESSION)
        self.servers[hub].set_addresses(own)
        self.forwards[hub] = {}
        for name in NAMES if told else ():
            self.clients[name].anchor_restarted(self.anchors[hub], self.now)

    def hub_of(self, name: str) -> str | None:
        """Which anchor relays for the node."""
        place = self.relay[name]
        return HUBS[int(place.ip.replace(":", ".").rpartition(".")[2]) - 1] if place else None

    def works(self) -> bool:
        """Whether both ends use one relay, and that forwards between them."""
        place, hub = self.relay["a"], self.hub_of("a")
        if place is None or hub is None or place != self.relay["b"]:
            return False
        ends = {base for bases in self.bases.values() for base in bases}
        between = self.forwards[hub].get(place.port)
        return hub not in self.dead and between is not None and set(between) <= ends

    # Inside

    def _step(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        for hub, server in self.servers.items():
            server.expire(self.now)
            self._kernel(hub)
        for name in NAMES:
            self.clients[name].poll(self.bases[name], self.now)
            self.drain(name)

    def _kernel(self, hub: str) -> None:
        for action in self.servers[hub].actions():
            if isinstance(action, InstallRelay):
                self.forwards[hub][action.port] = action.a, action.b
            elif isinstance(action, RemoveRelay):
                del self.forwards[hub][action.port]

    def _later(self, call: Callable[[], None]) -> None:
        if self.dice.random() >= self.loss:
            self._asked += 1
            heapq.heappush(self._queue, (self.now + self.delay_s, self._asked, call))

    def drain(self, name: str) -> None:
        """Carry out what a client wants done, and tell the other end what an offer would."""
        for output in self.clients[name].outputs():
            if isinstance(output, Say):
                self._say(name, output)
            elif isinstance(output, SendProbe):
                self._probe(name, output)
            else:
                self.relay[name] = output.relay if isinstance(output, Ready) else None
                self.moves.append((self.now, name, self.relay[name]))
        offer = self.clients[name].distances()
        if offer != self.told[name]:
            self.told[name] = offer
            other = NAMES[1 - NAMES.index(name)]
            self._asked += 1  # offers are repeated until they arrive
            heapq.heappush(self._queue, (self.now + 3 * self.delay_s, self._asked, lambda: self._offered(other)))

    def _offered(self, to: str) -> None:
        other = self.told[NAMES[1 - NAMES.index(to)]]
        self.clients[to].prefer(next((d.anchor for d in other if d.used), None))
        self.drain(to)
        if self.clients[to].wanted:
            self.want(to)

    def _reaches(self, name: str, hub: str) -> bool:
        return hub not in self.dead and hub not in self.down[name]

    def _say(self, name: str, say: Say) -> None:
        hub = say.anchor.name
        self.sent.append((self.now, name, hub, say.body))
        if self._reaches(name, hub):
            self._later(lambda: self._told(name, hub, say.body))

    def _told(self, name: str, hub: str, body: Any) -> None:
        server, asking = self.servers[hub], self.nodes[name]
        if isinstance(body, RelayAsk):
            answers = server.ask(asking, body, self.now)
        elif isinstance(body, RelayRefresh):
            answers = server.refresh(asking, body, self.now)
        else:
            server.release(asking, body)
            answers = []
        self._kernel(hub)
        for to, answer in answers:
            if self._reaches(to.name, hub) and not self.drop(to.name, hub, answer):
                self._later(lambda t=to, b=answer: self._answered(t.name, hub, b))  # type: ignore[misc]

    def _answered(self, name: str, hub: str, body: RelayGrant | RelayRefuse) -> None:
        client = self.clients[name]
        if isinstance(body, RelayGrant):
            client.granted(self.anchors[hub], body, self.now)
        else:
            client.refused(self.anchors[hub], body, self.now)
        self.drain(name)

    def _probe(self, name: str, probe: SendProbe) -> None:
        hub = HUBS[int(probe.remote.ip.replace(":", ".").rpartition(".")[2]) - 1]
        self.sent.append((self.now, name, hub, probe))
        if self._reaches(name, hub):
            self._later(lambda: self._bound(name, hub, probe))

    def _bound(self, name: str, hub: str, probe: SendProbe) -> None:
        answer = self.servers[hub].bind(probe.remote.port, probe.local, probe.data, self.now)
        self._kernel(hub)
        if answer is not None:
            data = answer.data
            self._later(lambda: self._heard(name, data))

    def _heard(self, name: str, data: bytes) -> None:
        client, received = self.clients[name], stun.decode(data)
        token = client.token_of(received.message.transaction)
        if token is not None and received.is_authentic(token):
            client.answered(received.message, self.now)
            self.drain(name)
