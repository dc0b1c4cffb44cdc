"""An agent's core, to which bytes come by all ways: of strangers, of routers, and of peers that have keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import fuzzmessages
from agentcore_values import SESSION, interface, key, peer, shared

from meshctl.core.agent import bodies, events, fields, signal
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.config import AgentConfig, node_id
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.probes import signed
from meshctl.core.agentcore import AgentCore
from meshctl.core.wire import stun
from meshctl.core.wire.error import WireError

_OWN, _FAR, _GATEWAY = Address("198.51.100.2", 51820), Address("203.0.113.9", 51820), Address("192.168.1.1", 5351)
_PEERS = {"hub": "10.42.0.1", "bob": "10.42.0.3"}
_BOTH = (
    peer("ann", "hub", 1, kind="anchor", endpoints=(Address("203.0.113.1", 51820),), reaches=frozenset({"ann", "bob"})),
    peer("ann", "bob", 3, reaches=frozenset({"ann"})),
)
_RELAY_PORT = 40001
_STEP_S = 0.25
_ANCHORS_FROM = 0x80  # of an input's first byte


class Agent:
    """ann's, or an anchor's of that name. What its peers say is of the sessions that it has told them, and they have
    answered its HELLO."""

    def __init__(self, *, is_anchor: bool) -> None:
        config = AgentConfig("ann", (interface("ann", 2, *_BOTH, is_anchor=is_anchor),))
        self.core, self._now = AgentCore(config, random.Random(1), 0.0), 0.0  # noqa: S311 - to be found again
        self._heard: dict[bytes, signal.Header] = {}  # the newest HELLO to each
        self.give(events.LocalAddresses((LocalAddress(_OWN.ip, 24, "eth0"),)))
        self.give(events.WgStatus(tuple(PeerStatus(p.public_key, _FAR, 1.0, 100, 100, 25) for p in _BOTH)))
        self.wait(4)
        for name in _PEERS:
            if (hello := self._heard.get(node_id(key(name)))) is not None:
                self.give(self.said(name, spoken(bodies.HelloAck(hello.sequence), 1)))

    def give(self, event: events.Event) -> bool:
        """Whether it does anything about it, but to ask who that is, as it does when it does not believe it."""
        self.core.handle(event, self._now)
        answered = False
        while (action := self.core.poll_action()) is not None:
            header = signal.peek(action.data) if isinstance(action, events.SendSignal) else None
            if header is not None and header.kind is signal.MessageType.HELLO:
                self._heard[header.destination] = header
            else:
                answered = True
        return answered

    def wait(self, steps: int) -> None:
        """Time passes; the agent is woken when it wants to be."""
        until = self._now + steps * _STEP_S
        while (timeout := self.core.poll_timeout()) is not None and timeout[0] <= until:
            self._now = max(self._now, timeout[0])
            self.give(events.Wake())
        self._now = until

    def said(self, name: str, part: bytes) -> events.Signal:
        """A message of that peer's with its tag: of which type, which number it has, and its fields (`spoken`)."""
        heard = self._heard.get(node_id(key(name)))
        kind, sequence, written = part[:1] or b"\0", part[1:2] or b"\0", part[2:]
        header = signal.Header(
            fuzzmessages.kind(kind[0]), node_id(key(name)), node_id(key("ann")), SESSION,
            heard.my_session if heard else signal.NO_SESSION, sequence[0],
        )  # fmt: skip
        data = fuzzmessages.unsigned(header, written)
        return events.Signal(_PEERS[name], data + signal.tag(data, shared("ann", name)))


def spoken(body: bodies.Body, sequence: int) -> bytes:
    """The bytes of which `Agent.said` makes a message with that body."""
    return bytes((fuzzmessages.number(body), sequence)) + fields.write(body)


def _datagram(_agent: Agent, part: bytes) -> events.Event:
    return events.Datagram(_OWN, _FAR, part)


def _relayed(_agent: Agent, part: bytes) -> events.Event:
    return events.RelayDatagram(_RELAY_PORT, _FAR, part)


def _signal(_agent: Agent, part: bytes) -> events.Event:
    return events.Signal(_PEERS["bob"], part)


def _said_by_hub(agent: Agent, part: bytes) -> events.Event:
    return agent.said("hub", part)


def _said_by_bob(agent: Agent, part: bytes) -> events.Event:
    return agent.said("bob", part)


def _check_of_bob(_agent: Agent, part: bytes) -> events.Event:
    try:
        return events.Datagram(_OWN, _FAR, signed(stun.decode(part).message, shared("ann", "bob")))
    except WireError:
        return events.Wake()


def _of_gateway(_agent: Agent, part: bytes) -> events.Event:
    return events.MappingDatagram(_GATEWAY, part)


def _http_reply(_agent: Agent, part: bytes) -> events.Event:
    return events.HttpReply(part[0] if part else 0, 200, part[1:])


_Way = Callable[[Agent, bytes], events.Event]
_WAYS: tuple[_Way, ...] = (
    _datagram, _relayed, _signal, _said_by_hub, _said_by_bob, _check_of_bob, _of_gateway, _http_reply,
)  # fmt: skip


def run(data: bytes) -> bool:
    """Parts of the bytes come one after another: of each, the first byte says by which way and how much later than the
    one before, the second how long it is. Whether the agent is an anchor's, the very first byte says. Returns whether
    it did anything about one of them."""
    agent, data = Agent(is_anchor=data[:1] >= bytes((_ANCHORS_FROM,))), data[1:]
    answered = False
    while data:
        steps, way = divmod(data[0], len(_WAYS))
        size = data[1] if len(data) > 1 else 0
        part, data = data[2 : 2 + size], data[2 + size :]
        agent.wait(steps)
        answered |= agent.give(_WAYS[way](agent, part))
    agent.wait(100)
    return answered


def begin() -> Iterable[bytes]:
    """A message of each type, of both peers, to a node and to an anchor; and a check."""
    check = stun.encode(stun.Message(stun.Class.REQUEST, bytes(stun.TRANSACTION_BYTES)))
    for first in (b"\0", bytes((_ANCHORS_FROM,))):
        for body in fuzzmessages.BODIES:
            part = spoken(body, 2)
            yield first + _given(_said_by_hub, part) + _given(_said_by_bob, part)
        yield first + _given(_check_of_bob, check)


def _given(way: _Way, part: bytes) -> bytes:
    """A part that comes by that way at once."""
    return bytes((_WAYS.index(way), len(part))) + part
