"""Both ends of a search for a direct path, in virtual time, and what is between them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from math import inf

from agentcore_values import SESSION, interface, peer

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.bodies import Offer, Offered
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.checklist import CheckSucceeded, Credentials, Pair
from meshctl.core.agent.events import Action, SendProbe
from meshctl.core.agent.interfacecontext import Answered, InterfaceContext, Pace
from meshctl.core.agent.negotiation import Negotiation
from meshctl.core.wire import stun

PORT, ONE_WAY_S = 51820, 0.01
IPS = {"a": ("198.51.100.1", "198.18.0.1"), "b": ("192.0.2.2", "198.18.7.2")}
KEY = b"of the pair in this session 32 b"


def credentials(name: str, key: bytes = KEY) -> Credentials:
    other = "ab".replace(name, "")
    return Credentials(f"{other}:{name}", key)


class End:
    """One end; "a" controls. `answers` are those that count."""

    def __init__(self, field: Field, name: str, pace: Pace) -> None:
        self.field, self.name = field, name
        self.willing = True
        self.answers: list[tuple[float, CheckSucceeded]] = []
        self.questions: list[tuple[float, Pair, bool]] = []
        self.sent: list[tuple[float, SendProbe]] = []
        self._awaited: dict[bytes, Answered] = {}
        config = interface(name, 10, peer(name, "ab".replace(name, ""), 11))
        self.own = LocalCandidates(config.mesh_ranges)
        self.context = InterfaceContext(
            config, self.own, random.Random(name), pace, self._act, self._probe,  # noqa: S311
            lambda *_: None, lambda _: None, lambda _: SESSION,
        )  # fmt: skip
        self.it = Negotiation(
            self.context, lambda answer, now: self.answers.append((now, answer)), controlling=name == "a"
        )
        self.it.renew(credentials(name))
        self.stand(IPS[name][0])

    def stand(self, *ips: str) -> None:
        self.context.hosts = tuple(LocalAddress(ip, 24, "eth0") for ip in ips)
        self.own.set_hosts(self.context.hosts, PORT)

    def offered(self, *addresses: Address, generation: int = 1) -> None:
        """The other end's candidates."""
        told = tuple(Offered("host", a, f"{n:08x}", 1000 - n) for n, a in enumerate(addresses))
        self.it.remote.offer(Offer(generation, told))
        self.it.refresh(self.field.now)

    def _probe(self, probe: SendProbe, answered: Answered) -> None:
        self._awaited[probe.data[8:20]] = answered
        self.sent.append((self.field.now, probe))
        self.field.carry(probe)

    def _act(self, action: Action) -> None:
        assert isinstance(action, SendProbe)
        self.field.carry(action)

    def receive(self, data: bytes, pair: Pair) -> None:
        received, now = stun.decode(data), self.field.now
        if received.message.message_class is stun.Class.REQUEST:
            question = self.it.check_received(received.message, pair, now, willing=self.willing)
            if question is not None:
                self.questions.append((now, pair, question.nominated))
        else:
            answered = self._awaited.pop(received.message.transaction, None)
            if answered is not None:
                answered(received, *pair, now)

    def asked(self, since: float = 0.0) -> list[Address]:
        return [probe.remote for at, probe in self.sent if at >= since]

    def nominations(self) -> list[tuple[float, Pair]]:
        return [
            (at, Pair(p.local, p.remote)) for at, p in self.sent if stun.decode(p.data).message.use_candidate
        ]  # fmt: skip


class Field:
    """Both ends and what is between them; `lost` says which packets do not arrive."""

    def __init__(self) -> None:
        self.now = 10.0
        self.lost: Callable[[SendProbe], bool] = lambda _: False
        self.seen: Callable[[SendProbe], Address] = lambda probe: probe.local  # where from, at the other end
        self.delays: dict[str, float] = {}  # to an address
        self.rounds: list[tuple[float, str]] = []  # that ended in vain
        self.nominate = True
        self._wire: list[tuple[float, int, SendProbe]] = []
        self._count = 0
        self.ends = {name: End(self, name, Pace()) for name in "ab"}

    def carry(self, probe: SendProbe) -> None:
        if not self.lost(probe):
            self._count += 1
            delay = max(self.delays.get(ip, ONE_WAY_S) for ip in (probe.local.ip, probe.remote.ip))
            heapq.heappush(self._wire, (self.now + delay, self._count, replace(probe, local=self.seen(probe))))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [d for e in self.ends.values() if (d := e.it.due) is not None]
            when = min([*due, *(w[0] for w in self._wire[:1])], default=inf)
            if when > end:
                break
            self.now = max(self.now, when)
            while self._wire and self._wire[0][0] <= self.now:
                probe = heapq.heappop(self._wire)[2]
                for each in self.ends.values():
                    if probe.remote.ip in {a.ip for a in each.context.hosts}:
                        each.receive(probe.data, Pair(probe.remote, probe.local))
            for name, each in self.ends.items():
                each.it.poll(self.now, nominate=self.nominate)
                if each.it.take_exhausted(self.now):
                    self.rounds.append((self.now, name))
                assert each.it.due is None or each.it.due > self.now, f"{name} was polled, and is still due"
        self.now = end


def address(name: str, n: int = 0) -> Address:
    return Address(IPS[name][n], PORT)


def offered() -> Field:
    field = Field()
    field.ends["a"].offered(address("b"))
    field.ends["b"].offered(address("a"))
    return field


def found() -> Field:
    """Both have found the one pair that there is, and "a" has nominated it."""
    field = offered()
    field.ends["a"].it.settle(Pair(address("a"), address("b")), field.now)
    field.run(2.0)
    assert field.ends["a"].nominations()
    return field
