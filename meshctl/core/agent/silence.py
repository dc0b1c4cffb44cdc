"""How long the NAT keeps a mapping that nothing uses, tried out where it costs nothing (RFC 5780 section 4.6).

A port of its own is mapped by a question to an anchor and then left in silence. After that another port asks, and wants
the answer sent to where the first one was mapped: if it comes, the mapping is still there. (Asking from the first port
again would tell nothing: it makes the mapping anew, and most NATs give it the same port.)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import OpenPorts, SendProbe
from meshctl.core.agent.interfacecontext import SILENCE, InterfaceContext
from meshctl.core.agent.mutex import Mutex
from meshctl.core.agent.probes import signed
from meshctl.core.agent.stunclient import Server
from meshctl.core.wire import stun
from meshctl.model.keys import PublicKey

# The dynamic ports (RFC 6335 section 6).
PORTS = range(49152, 65536)
# Between two packets, and how long each answer has.
PACE_S = 10.0
# So many questions in a row may be lost before the silence counts as too long.
TRIES = 3
# Before the next experiment: after one that told something, and when there is nothing to learn or nobody to ask.
NEXT_S = 30.0
LATER_S = 600.0


class Place(NamedTuple):
    """Where to try: an anchor, from an own address. No port of `taken` is used."""

    anchor: PublicKey
    server: Server
    local_ip: str
    taken: frozenset[int] = frozenset()


class Phase(enum.Enum):
    """How far the experiment is."""

    IDLE = "idle"
    MAPPING = "mapping"  # the first port asks
    SILENCE = "silence"
    ASKING = "asking"  # the second port asks, for the first
    CONTROL = "control"  # the second port asks for itself: is it the mapping that is gone, or the anchor?


class Silence:
    """One network's experiments, while it holds the node's `mutex`. `where` says before each of them where to try;
    None: not now."""

    def __init__(self, context: InterfaceContext, mutex: Mutex, where: Callable[[], Place | None], now: float) -> None:
        self._context, self._mutex, self._where = context, mutex, where
        self._place: Place | None = None
        self._mapped: Address | None = None
        self._end(now + NEXT_S)

    @property
    def ports(self) -> tuple[int, int]:
        """The two local ports of the experiment that is under way; (0, 0) without one."""
        return self._ports

    def due(self) -> float:
        """When `poll` has something to do."""
        return self._due

    def poll(self, now: float) -> None:
        """Do what is due."""
        self._context.touch(SILENCE)
        if now < self._due:
            return
        if self._phase is Phase.IDLE:
            self._begin(now)
        elif self._phase is Phase.SILENCE:
            self._enter(Phase.ASKING, now)
        elif self._asked < TRIES:
            self._ask(now)
        elif self._phase is Phase.ASKING:
            self._enter(Phase.CONTROL, now)
        else:
            self._end(now + LATER_S)

    def stop(self, now: float) -> None:
        """The network is another one, or time has jumped: what is under way says nothing."""
        self._end(now + NEXT_S)

    def keep(self, anchors: Container[PublicKey], now: float) -> None:
        """The others are no anchors any more: what is tried out with one of them ends."""
        if self._place is not None and self._place.anchor not in anchors:
            self.stop(now)

    # Inside

    def _receive(self, received: stun.Received, local: Address, remote: Address, now: float) -> bool:
        """A STUN message has come to one of the two ports; it may be the answer that is waited for."""
        place, message = self._place, received.message
        if place is None or remote != place.server.address or message.transaction not in self._transactions:
            return False
        if place.server.key and not received.is_authentic(place.server.key):
            return False
        mapped = message.reflexive_address if message.message_class is stun.Class.SUCCESS else None
        wanted = self._ports[0] if self._phase in (Phase.MAPPING, Phase.ASKING) else self._ports[1]
        if mapped is None or local.port != wanted:
            # An anchor that cannot send its answers elsewhere.
            self._end(now + LATER_S)
        else:
            self._answered(Address.of(*mapped), now)
        return True

    def _begin(self, now: float) -> None:
        silence_s = self._context.lifetime.next_silence_s(now)
        place = self._where() if silence_s is not None else None
        if silence_s is None or place is None:
            self._due = now + LATER_S
            return
        if not self._mutex.acquire(self):
            self._due = now + NEXT_S
            return
        self._place, self._silence_s = place, max(silence_s, PACE_S)
        self._ports = self._two_ports(place)
        self._context.act(OpenPorts(place.anchor, self._ports))
        self._enter(Phase.MAPPING, now)

    def _two_ports(self, place: Place) -> tuple[int, int]:
        drawn = self._context.dice.sample(PORTS, 2 + len(place.taken))
        first, second = [port for port in drawn if port not in place.taken][:2]
        return first, second

    def _enter(self, phase: Phase, now: float) -> None:
        self._phase, self._asked, self._transactions = phase, 0, set[bytes]()
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self._place is None:
            return
        self._asked += 1
        self._due = now + PACE_S
        server = self._place.server
        transaction = self._context.transactions.new()
        self._transactions.add(transaction)
        request = stun.Message(
            stun.Class.REQUEST, transaction, username=server.username or None,
            response_port=self._mapped.port if self._phase is Phase.ASKING and self._mapped else None,
        )  # fmt: skip
        data = signed(request, server.key or None)
        port = self._ports[0] if self._phase is Phase.MAPPING else self._ports[1]
        self._context.probe(SendProbe(Address(self._place.local_ip, port), server.address, data), self._receive)

    def _answered(self, mapped: Address, now: float) -> None:
        if self._phase is Phase.MAPPING:
            self._context.touch(SILENCE)
            self._mapped, self._phase = mapped, Phase.SILENCE
            self._due = now + self._silence_s
            return
        same_outside = self._mapped is not None and mapped.ip == self._mapped.ip
        if self._phase is Phase.ASKING:
            self._context.lifetime.survived(self._silence_s)
        elif same_outside:
            # The anchor answers, and would have answered the first port at this very address.
            self._context.lifetime.lost(self._silence_s, now)
        self._end(now + (NEXT_S if self._phase is Phase.ASKING or same_outside else LATER_S))

    def _end(self, due: float) -> None:
        self._context.touch(SILENCE)
        if self._place is not None:
            self._context.act(OpenPorts(self._place.anchor, ()))
            self._mutex.release(self)
        self._phase, self._place, self._mapped = Phase.IDLE, None, None
        self._ports, self._transactions = (0, 0), set[bytes]()
        self._asked, self._silence_s = 0, 0.0
        self._due = due
