"""An agent's core, to which bytes come by all ways: of strangers, of routers, and of peers that have keys."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress

from agentcore_values import SESSION, interface, key, peer, shared

from meshctl.core.agent import events, signal
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
_KINDS = tuple(signal.MessageType)
_WAYS = 8
_STEP_S = 0.25
_ANSWERS = b"\x01\0\x08"  # the field's number, and how long it is


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
                answer = _ANSWERS + hello.sequence.to_bytes(8, "big")
                self.give(self.said(name, bytes((_KINDS.index(signal.MessageType.HELLO_ACK), 1)) + answer))

    def give(self, event: events.Event) -> None:
        self.core.handle(event, self._now)
        while (action := self.core.poll_action()) is not None:
            if isinstance(action, events.SendSignal):
                header = signal.peek(action.data)
                if header.kind is signal.MessageType.HELLO:
                    self._heard[header.destination] = header

    def wait(self, steps: int) -> None:
        """Time passes; the agent is woken when it wants to be."""
        until = self._now + steps * _STEP_S
        while (timeout := self.core.poll_timeout()) is not None and timeout[0] <= until:
            self._now = max(self._now, timeout[0])
            self.give(events.Wake())
        self._now = until

    def said(self, name: str, part: bytes) -> events.Event:
        """A message of that peer's with its tag: of which type, which number it has, and its fields."""
        heard = self._heard.get(node_id(key(name)))
        kind, number, fields = part[:1] or b"\0", part[1:2] or b"\0", part[2:]
        head = signal._HEADER.pack(
            signal.MAGIC, signal.VERSION, _KINDS[kind[0] % len(_KINDS)], signal.TTL, 0, node_id(key(name)),
            node_id(key("ann")), SESSION, heard.my_session if heard else bytes(signal.SESSION_BYTES), number[0],
        )  # fmt: skip
        data = head + fields
        return events.Signal(_PEERS[name], data + signal.tag(data, shared("ann", name)))


def run(data: bytes) -> None:
    """Parts of the bytes come one after another: of each, the first byte says by which way and how much later than the
    one before, the second how long it is. Whether the agent is an anchor's, the very first byte says."""
    agent, data = Agent(is_anchor=bool(data[:1] > b"\x7f")), data[1:]
    while data:
        way, steps, size = data[0] % _WAYS, data[0] // _WAYS, data[1] if len(data) > 1 else 0
        part, data = data[2 : 2 + size], data[2 + size :]
        agent.wait(steps)
        agent.give(_event(agent, way, part))
    agent.wait(100)


def _event(agent: Agent, way: int, part: bytes) -> events.Event:
    if way == 0:
        return events.Datagram(_OWN, _FAR, part)
    if way == 1:
        return events.RelayDatagram(40001, _FAR, part)
    if way == 2:
        return events.Signal(_PEERS["bob"], part)
    if way in (3, 4):
        return agent.said("hub" if way == 3 else "bob", part)
    if way == 5:  # a check of bob's
        with suppress(WireError):
            return events.Datagram(_OWN, _FAR, signed(stun.decode(part).message, shared("ann", "bob")))
        return events.Wake()
    if way == 6:
        return events.MappingDatagram(_GATEWAY, part)
    return events.HttpReply(part[0] if part else 0, 200, part[1:])


def begin() -> Iterable[bytes]:
    """An empty message of each type, of both peers, to a node and to an anchor."""
    for number, _kind in enumerate(_KINDS):
        for is_anchor in (0x00, 0x80):
            yield bytes((is_anchor, 3, 2, number, 2, 4, 2, number, 2))
