"""What is possible between two nodes, from what stands in front of them alone.

Two ideal ends are put where the nodes are, in networks of their own that lose nothing: they know at once what anchors
see of the other, ask from every address to every address, and learn from what arrives. Where they cannot have answers
in both directions, nobody can without guessing ports.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from simclock import Clock
from simconfig import PORT, public_ips
from simnat import RANDOM, Place
from simnet import Host, Packet
from simsite import Underlay
from simspec import INTERNET, Link, NodeSpec, SiteSpec

from meshctl.core.reachability import DIRECT, RELAYED, SPLICED, UNREACHABLE

_SERVERS = ("85.0.0.1", "85.0.0.2")
_ROUNDS = 8
_ROUND_S = 0.2
# Question or answer, who sends it, and the number of the question.
_QUESTION = struct.Struct("!cQI")


@dataclass(frozen=True)
class Situation:
    """Where everybody is now: sites as their NATs behave at the moment, and each node's site."""

    sites: tuple[SiteSpec, ...]
    places: tuple[tuple[str, str], ...]
    nodes: tuple[NodeSpec, ...]

    def of_pair(self, a: str, b: str) -> Situation:
        """What matters for two nodes."""
        nodes = tuple(n for n in self.nodes if n.name in (a, b) or n.kind == "anchor")
        places = tuple(p for p in self.places if p[0] in (a, b))
        carriers = {s.name: s.carrier for s in self.sites}
        before = {place for _, place in places}
        before |= {carriers[place] for place in before if place != INTERNET}
        return Situation(tuple(s for s in self.sites if s.name in before), places, nodes)


class Oracle:
    """Answers for situations, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Situation, str, str], str] = {}

    def outcome(self, situation: Situation, a: str, b: str) -> str:
        """DIRECT, SPLICED (may be direct by guessing ports), RELAYED or UNREACHABLE, while all anchors are up."""
        a, b = sorted((a, b))
        key = (situation.of_pair(a, b), a, b)
        if key not in self._known:
            self._known[key] = _Trial(key[0], a, b).outcome()
        return self._known[key]


class _Ideal:
    """An end that knows all that can be known."""

    def __init__(self, trial: _Trial, spec: NodeSpec, place: str) -> None:
        self._trial = trial
        self.host = Host()
        self.ips: tuple[str, ...]
        self.place = place
        if place == INTERNET:
            self.ips, segment = public_ips(spec), trial.underlay.internet
        else:
            site = trial.underlay.sites[place]
            self.ips, segment = site.host_ips(spec.number, v4=spec.v4, v6=spec.v6), site.inside
        for ip in self.ips:
            self.host.join(segment, ip)
        self.host.bind(PORT, self._receive)
        self.seen_by: dict[str, Place] = {}  # server -> as which it sees us
        self.targets: dict[Place, None] = {}
        self._asked: list[Place] = []
        self.answered = False
        self.other: _Ideal | None = None

    def ask(self, target: Place, data: bytes) -> None:
        for ip in self.ips:
            self.host.send((ip, PORT), target, data)

    def check(self) -> None:
        """Ask every address of the other that is known."""
        for target in list(self.targets):
            self._asked.append(target)
            self.ask(target, _QUESTION.pack(b"?", id(self), len(self._asked) - 1))

    def advertised(self) -> list[Place]:
        """What the other end is told."""
        return [*((ip, PORT) for ip in self.ips), *self.seen_by.values(), *self._mapped()]

    def independent(self) -> bool | None:
        """Whether all IPv4 servers see the same mapping; None when they see nothing."""
        seen = {self.seen_by.get(ip) for ip in _SERVERS}
        return None if None in seen else len(seen) == 1

    def predictable(self) -> bool:
        """Whether ports of new mappings can be guessed from those before: those in a row are."""
        place, sites = self.place, self._trial.underlay.sites
        while place != INTERNET:
            if sites[place].spec.nat.allocation == RANDOM:
                return False
            place = sites[place].spec.carrier
        return True

    def _mapped(self) -> list[Place]:
        site = self._trial.underlay.sites.get(self.place)
        if site is None or not site.spec.speaks or site.spec.lie or site.spec.carrier:
            return []
        inner = next(((ip, PORT) for ip in self.ips if ":" not in ip), None)
        if inner is None:
            return []
        port = 30000 + len(site.router.nat.forwarded)
        site.router.nat.forward(port, inner)
        return [(site.router.nat.outer, port)]

    def _receive(self, packet: Packet) -> None:
        if self.other is None or len(packet.data) != _QUESTION.size:
            return
        kind, sender, number = _QUESTION.unpack(packet.data)
        if sender != id(self.other):
            return
        if kind == b"?":
            self.targets.setdefault(packet.source)
            self.host.send(packet.destination, packet.source, _QUESTION.pack(b"!", id(self), number))
        elif packet.source == self._asked[number]:  # an answer from elsewhere than asked counts for nothing
            self.answered = True


def _dice(name: str) -> random.Random:
    return random.Random(f"oracle {name}")  # noqa: S311


class _Trial:
    """One pair's attempt."""

    def __init__(self, situation: Situation, a: str, b: str) -> None:
        self._clock = Clock()
        self.underlay = Underlay(self._clock, situation.sites, Link(), _dice)
        places: Mapping[str, str] = dict(situation.places)
        self._servers: list[str] = []
        for anchor in situation.nodes:
            if anchor.kind == "anchor":
                self._serve(public_ips(anchor))
        self._anchors = [set(public_ips(a)) for a in situation.nodes if a.kind == "anchor"]
        self._serve(_SERVERS)
        nodes = {n.name: n for n in situation.nodes}
        self.ends = [_Ideal(self, nodes[name], places[name]) for name in (a, b)]

    def outcome(self) -> str:
        """See `Oracle.outcome`."""
        one, other = self.ends
        for end in self.ends:
            for server in self._servers:
                end.ask((server, PORT), id(end).to_bytes(8, "big"))
        self._clock.run(1.0)
        near = [{n for n, anchor in enumerate(self._anchors) if end.seen_by.keys() & anchor} for end in self.ends]
        if not all(near):
            return UNREACHABLE
        if self._meets(one, other):
            return DIRECT
        known = {one.independent(), other.independent()}
        guessable = known == {False} and (one.predictable() or other.predictable())
        if known == {True, False} or guessable:
            return SPLICED
        return RELAYED if near[0] & near[1] else UNREACHABLE

    def _meets(self, one: _Ideal, other: _Ideal) -> bool:
        for end, peer in ((one, other), (other, one)):
            end.other = peer
            end.targets.update(dict.fromkeys(p for p in peer.advertised() if p[0] not in end.ips))
        for _ in range(_ROUNDS):
            for end in self.ends:
                end.check()
            self._clock.run(self._clock.now + _ROUND_S)
        return one.answered and other.answered

    def _serve(self, ips: tuple[str, ...]) -> None:
        server = Host()
        for ip in ips:
            server.join(self.underlay.internet, ip)
            self._servers.append(ip)
        server.bind(PORT, self._saw)

    def _saw(self, packet: Packet) -> None:
        end = next(e for e in self.ends if id(e).to_bytes(8, "big") == packet.data)
        end.seen_by[packet.destination[0]] = packet.source
