"""Twins: a world with and without somebody on every path who sends again what was sent, and forges. All must be equal.

This attacker sees all that a host is sent, and puts messages right before its agent, or into the tunnel behind the last
hop: no NAT or link is in its way, and none is moved by what it does. It has its own randomness, no key, and stops no
packet. As the world's randomness is not touched, a decision that is another one, or comes a millisecond later, is what
a message did that should have done nothing.

What an honest agent answers though it changes nothing is not among it, for the answer is a packet more in the world:
HELLOs and messages of sessions that are over. Questions to anchors and relays are sent again, from elsewhere.

Nor does it answer for a STUN server that has no key. Nothing in such an answer could be refused: whoever sees the
question, and is quicker, is that server. What can come of it is what comes of a server that lies (`simstun`), and
that is bounded, not nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from simattack import VICTIM_IP, made_up
from simconfig import STUN_SERVER
from simnat import Place
from simspec import WorldSpec
from simwatch import Finding
from simworld import Outcome, World

from meshctl.core.agent.events import Signal
from meshctl.core.agent.liveness import counted_bytes
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.agent.session import Received, Session, Verdict
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError

if TYPE_CHECKING:
    from simdriver import Driver
    from simnode import Node

# Of the worlds, one in so many has a twin.
EVERY = 40
KINDS = ("STUN forged", "STUN replayed", "bind forged", "bind replayed", "signal forged", "signal replayed")
_KEPT = 32
_OFTEN = 0.3
_LATEST_S = 20.0
_QUESTION = b"\0\1"  # a STUN message's first bytes
_ANSWERS = (stun.Class.SUCCESS, stun.Class.SUCCESS, stun.Class.ERROR)
_VICTIM = TransportAddress(VICTIM_IP, 4444)
_FOREIGN: Place = ("83.66.0.2", 51820)
_SEQUENCE_ENDS = 46  # in a message's header
_HONEST = {"malicious": "node"}
_LINES = 10_000  # of a trace, so that the first difference is still there


class _Heard(NamedTuple):
    """STUN that a host was sent. `counted`: from then on the agent knows it as one that it has had."""

    local: Place
    remote: Place
    data: bytes
    counted: bool


class _Said(NamedTuple):
    """A signalling message that counted, in which session, and with which one of the sender."""

    session: Session
    theirs: bytes
    data: bytes


class Copyist:
    """`delivered` counts what it put before honest agents, by KINDS."""

    def __init__(self, world: World) -> None:
        self._world, self._dice = world, world.dice("copyist")
        self._stun: dict[str, deque[_Heard]] = {}
        self._signals: dict[tuple[Driver | None, str], deque[_Said]] = {}
        self._accepted: Session | None = None  # which has taken the message that was handed over last
        self.delivered: Counter[str] = Counter()

    def heard_stun(self, node: Node, local: Place, remote: Place, data: bytes, *, answered: bool) -> None:
        """An agent was handed this. It, or another, is sent again later."""
        heard = self._stun.setdefault(node.name, deque(maxlen=_KEPT))
        heard.append(_Heard(local, remote, data, answered))
        if self._dice.random() < _OFTEN:
            again = self._dice.choice(tuple(heard))
            delay_s = self._dice.choice((0.0, 0.01, self._dice.random() * _LATEST_S))
            self._world.clock.after(delay_s, lambda: self._send(node, again))

    def heard_signal(self, node: Node, hop: str, data: bytes) -> None:
        """An agent was handed this by `hop`, which hands it another one at once: so nothing is learned of the tunnel
        that was not known."""
        accepted, self._accepted = self._accepted, None
        heard = self._signals.setdefault((node.driver, hop), deque(maxlen=_KEPT))
        if accepted is not None:
            heard.append(_Said(accepted, accepted.theirs, data))
        present = [said.data for said in heard if said.session.theirs == said.theirs]
        if present and self._dice.random() < _OFTEN and _listens(node):
            self._say(node, hop, self._dice.choice(present))

    def judged(self, session: Session, verdict: Verdict) -> None:
        """An agent thinks so of a message."""
        self._accepted = session if verdict is Verdict.ACCEPTED else None

    def sent_stun(self, node: Node, local: Place, remote: Place, data: bytes) -> None:
        """An agent sends this. If it is a question, it is answered before anybody else can."""
        if self._dice.random() < _OFTEN and data[:2] == _QUESTION and remote != STUN_SERVER:
            local = local if local[0] else (node.kernel.addresses[0], local[1])
            like = stun.decode(data).message._replace(message_class=self._dice.choice(_ANSWERS), username=None)
            forged = stun.encode(like._replace(xor_mapped_address=_VICTIM), self._dice.choice((None, b"its own")))
            answer = _Heard(local, remote, forged, counted=False)
            self._world.clock.after(0.0, lambda: self._put(node, answer, forged=True))

    def takes(self, remote: Place) -> bool:
        """Whether an answer is for it: that passes no link, and opens no NAT."""
        return remote[0] == _FOREIGN[0]

    # Inside

    def _send(self, node: Node, heard: _Heard) -> None:
        dice, forged, data = self._dice, self._dice.random() < 0.5, heard.data
        try:
            like = stun.decode(data).message
        except WireError:  # another's forgery
            return
        remote = dice.choice((heard.remote, _FOREIGN, dice.choice(tuple(self._stun[node.name])).remote))
        asked = like.message_class is stun.Class.REQUEST
        if forged:
            data = made_up(like, dice)
        elif asked and not heard.counted:  # the session was not known yet: to the agent, it has only been late
            return
        elif asked and node.spec.kind == "anchor":
            remote = _FOREIGN  # it is authentic, and answered each time: not where that would open a NAT
        elif not asked:
            remote = heard.remote  # from elsewhere than it was awaited from it has not counted, and still would
        self._put(node, heard._replace(remote=remote, data=data), forged=forged)

    def _put(self, node: Node, heard: _Heard, *, forged: bool) -> None:
        if _listens(node) and node.driver is not None:
            self._count("bind" if heard.local[1] in RELAY_PORTS else "STUN", forged=forged)
            node.driver.give_stun(heard.local, heard.remote, heard.data)

    def _say(self, node: Node, hop: str, data: bytes) -> None:
        forged = self._dice.random() < 0.5
        if forged:
            data = self._forged(data)
        peer = next(p for p in node.kernel.wg.peers() if hop in p.allowed)
        peer.rx_bytes += counted_bytes(len(data))
        self._count("signal", forged=forged)
        node.give(Signal(hop, data))

    def _forged(self, data: bytes) -> bytes:
        """The message with a bit turned, or with the next numbers; the tag is the old one."""
        changed = bytearray(data)
        if self._dice.random() < 0.5:
            changed[self._dice.randrange(_SEQUENCE_ENDS, len(data))] ^= 1 << self._dice.randrange(8)
        else:
            changed[_SEQUENCE_ENDS - 2 : _SEQUENCE_ENDS] = bytes((0xFF, self._dice.randrange(256)))
        return bytes(changed)

    def _count(self, what: str, *, forged: bool) -> None:
        self.delivered[f"{what} {'forged' if forged else 'replayed'}"] += 1


def _listens(node: Node) -> bool:
    """Whether it runs an honest agent that is handed things at once: a slow host's delay is drawn."""
    return node.spec.kind != "malicious" and node.core is not None and node.kernel.up and not node.slow_s


@contextmanager
def _judging(copyist: Copyist) -> Iterator[None]:
    """Tell of each verdict of each session in this process while it is reached."""
    original = Session.receive

    def receive(session: Session, data: bytes, now: float) -> Received:
        received = original(session, data, now)
        copyist.judged(session, received.verdict)
        return received

    Session.receive = receive  # type: ignore[method-assign]
    try:
        yield
    finally:
        Session.receive = original  # type: ignore[method-assign]


def outcome_of(spec: WorldSpec) -> Outcome:
    """What comes of a world; where it has a twin, what differs there is a finding too."""
    outcome = World(spec).run()
    return outcome if spec.seed % EVERY else _with_twin(spec, outcome)


def _with_twin(spec: WorldSpec, outcome: Outcome) -> Outcome:
    """The same, and what the attacker did in its twin: of a world in which nobody else uses keys that it should not."""
    honest = replace(
        spec, nodes=tuple(replace(n, kind=_HONEST.get(n.kind, n.kind)) for n in spec.nodes),
        faults=tuple(f for f in spec.faults if f.kind != "double"),
    )  # fmt: skip
    plain = outcome if honest == spec else World(honest).run()
    twin, delivered = attacked(honest)
    copies = tuple(sorted(delivered.items()))
    if twin.course == plain.course:
        return replace(outcome, copies=copies)
    plain, twin = World(honest, kept_lines=_LINES).run(), attacked(honest)[0]
    lines = zip_longest(plain.text.splitlines(), twin.text.splitlines(), fillvalue="nothing")
    words = next((f"{one.strip()} | {other.strip()}" for one, other in lines if one != other), "only the digests")
    found = Finding("forged and replayed messages change nothing", spec.seconds, "all", f"differs in {words}")
    return replace(outcome, copies=copies, findings=(*outcome.findings, found))


def attacked(spec: WorldSpec) -> tuple[Outcome, Counter[str]]:
    """The world with the attacker, and what that delivered."""
    world = World(spec, kept_lines=_LINES)
    world.copyist = copyist = Copyist(world)
    with _judging(copyist):
        return world.run(), copyist.delivered
