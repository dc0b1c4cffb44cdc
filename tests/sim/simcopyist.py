"""Somebody on every path who sends again what was sent, and forges: the attacker of the twins (`simtwin`).

It sees all that a host is sent, and puts messages right before its agent, or into the tunnel behind the last hop: no
NAT or link is in its way, and none is moved by what it does. It has its own randomness, no key, and stops no packet.

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
from typing import TYPE_CHECKING, NamedTuple

from simattack import VICTIM_IP, made_up
from simconfig import STUN_SERVER
from simnat import Place
from simwatch import BINDING_REQUEST

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
    from simworld import World

KINDS = ("STUN forged", "STUN replayed", "bind forged", "bind replayed", "signal forged", "signal replayed")
# Of what a host was sent, the newest.
_KEPT = 32
# How often something follows what was seen: a few worlds of a quarter of a minute have all KINDS then.
_OFTEN = 0.3
# Long after the last answer to a round of checks is awaited.
_LATEST_S = 20.0
_ANSWERS = (stun.Class.SUCCESS, stun.Class.SUCCESS, stun.Class.ERROR)
_VICTIM = TransportAddress(VICTIM_IP, 4444)
_FOREIGN: Place = ("83.66.0.2", 51820)
_SEQUENCE_ENDS = 46  # in a message's header


class _Heard(NamedTuple):
    """STUN that a host was sent. `counted`: from then on the agent knows it as one that it has had."""

    local: Place
    remote: Place
    data: bytes
    counted: bool
    driver: Driver | None = None  # whose it was


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
        self._accepted: tuple[Session, bytes] | None = None  # which has taken the message that was judged last
        self.delivered: Counter[str] = Counter()

    def heard_stun(self, node: Node, local: Place, remote: Place, data: bytes, *, answered: bool) -> None:
        """An agent was handed this. It, or another, is sent again later."""
        heard = self._stun.setdefault(node.name, deque(maxlen=_KEPT))
        heard.append(_Heard(local, remote, data, answered, node.driver))
        if self._dice.random() < _OFTEN:
            again = self._dice.choice(tuple(heard))
            delay_s = self._dice.choice((0.0, 0.01, self._dice.random() * _LATEST_S))
            self._world.clock.after(delay_s, lambda: self._send(node, again))

    def heard_signal(self, node: Node, hop: str, data: bytes) -> None:
        """An agent was handed this by `hop`, which hands it another one at once: so nothing is learned of the tunnel
        that was not known."""
        accepted, self._accepted = self._accepted, None
        heard = self._signals.setdefault((node.driver, hop), deque(maxlen=_KEPT))
        if accepted is not None and accepted[1] == data:
            heard.append(_Said(accepted[0], accepted[0].theirs, data))
        present = [said.data for said in heard if said.session.theirs == said.theirs]
        if present and self._dice.random() < _OFTEN and _listens(node):
            self._say(node, hop, self._dice.choice(present))

    def reconfigured(self, node: Node) -> None:
        """Its agent may have other sessions with who has left and come back: what it was told in those is old."""
        self._signals = {(driver, hop): said for (driver, hop), said in self._signals.items() if driver != node.driver}

    def judged(self, session: Session, data: bytes, verdict: Verdict) -> None:
        """An agent thinks so of a message, which a slow one was handed long ago."""
        self._accepted = (session, data) if verdict is Verdict.ACCEPTED else None

    def sent_stun(self, node: Node, local: Place, remote: Place, data: bytes) -> None:
        """An agent sends this. If it is a question, it is answered before anybody else can."""
        if self._dice.random() < _OFTEN and data[:2] == BINDING_REQUEST and remote != STUN_SERVER:
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
        at_once = asked or like.message_class is stun.Class.ERROR  # what is done for it, if it counts
        if forged:
            data = made_up(like, dice)
        elif at_once and not (heard.counted and self._remembers(node, heard)):  # to the agent, it has only been late
            return
        elif asked and node.spec.kind == "anchor":
            remote = _FOREIGN  # it is answered if its session is not known there: not where that would open a NAT
        elif not asked:
            remote = heard.remote  # from elsewhere than it was awaited from it has not counted, and still would
        self._put(node, heard._replace(remote=remote, data=data), forged=forged)

    def _remembers(self, node: Node, heard: _Heard) -> bool:
        """Whether its agent may know that it has had this. An anchor's that is a new one answers so many old questions,
        and then not all new ones either (`meshctl.core.agent.allowance`)."""
        return node.spec.kind != "anchor" or heard.driver is node.driver

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
def judging(copyist: Copyist) -> Iterator[None]:
    """Tell of each verdict of each session in this process while it is reached."""
    original = Session.receive

    def receive(session: Session, data: bytes, now: float) -> Received:
        received = original(session, data, now)
        copyist.judged(session, data, received.verdict)
        return received

    Session.receive = receive  # type: ignore[method-assign]
    try:
        yield
    finally:
        Session.receive = original  # type: ignore[method-assign]
