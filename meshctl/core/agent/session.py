"""One peer's signalling session: which of its messages count.

Each start of an agent has a session id of its own, drawn at random. A message counts when it is authentic, names this
agent's session and the session that the peer is believed to be in, and has a sequence number not seen before.

What a peer's session is, only its HELLO-ACK tells, and only one that answers a HELLO of the round that is under way: so
it was written after that HELLO was sent. Had any message with this agent's session in it been enough, one recorded
before the peer restarted would have brought its dead session back, and with it all that was said in that. A round's
first good answer ends it, so whoever believes a session and later another one never comes back to the first.

Replayed or delayed messages can cause a HELLO or HELLO-ACK to be sent, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from random import Random

from meshctl.core.agent import signal
from meshctl.core.agent.backoff import FIRST_S, Backoff
from meshctl.core.agent.bodies import TYPE_OF, Body, Hello, HelloAck, SignalError
from meshctl.core.agent.config import purpose_key
from meshctl.core.agent.signal import NO_SESSION, Header, Message
from meshctl.core.agent.window import Window

WINDOW = 64  # messages, as RFC 6479's smallest bitmap: more than are ever under way between two agents
# A message of another session makes us ask for the peer's, at most this often: replaying one costs little.
ASK_INTERVAL_S = 0.25
# One that was sent a moment ago may still arrive.
ON_ITS_WAY_S = FIRST_S


class Verdict(Enum):
    """What became of a message. All but the first two are dropped."""

    ACCEPTED = "accepted"
    SESSION = "session"  # HELLO or HELLO-ACK, done with here
    REFUSED = "not authentic or not readable"
    FOREIGN = "not of this pair"
    DUPLICATE = "seen before, or older than the window"
    STALE = "of another session"


@dataclass(frozen=True)
class Received:
    """`message` is there when it counts. `replies` go back the way it came, which works now. `renewed`: the peer's
    session is a new one, so it knows nothing of what was said before, and counts its generations anew."""

    verdict: Verdict
    message: Message | None = None
    replies: tuple[bytes, ...] = ()
    renewed: bool = False


def new_session(rng: Random) -> bytes:
    """A session id; not one of two is the same, and none is `NO_SESSION`."""
    return rng.randrange(1, 2 ** (8 * signal.SESSION_BYTES)).to_bytes(signal.SESSION_BYTES, "big")


class Session:
    """This agent's side of the session with one peer.

    A restart of the agent is a new object with a new id. Sessions are not part of the state that is saved: with an old
    copy of it, sequence numbers would be used twice.
    """

    def __init__(self, own_id: bytes, peer_id: bytes, key: bytes, session_id: bytes) -> None:
        self._own_id = own_id
        self._peer_id = peer_id
        self._key = key
        self.mine = session_id
        self.theirs = NO_SESSION
        self._window = Window(WINDOW)
        self._sequence = 0  # of the last message sent
        self._answerable = 0  # HELLOs up to this sequence number cannot be answered any more
        self._hello = Backoff()
        self._attempt = 0
        self._beside_at = inf  # one more HELLO in the round under way, which does not count as one of its tries
        self._asked_back_at = self._asked_at = -inf

    @property
    def established(self) -> bool:
        """Whether the peer's session is known, so that messages can be sealed."""
        return self.theirs != NO_SESSION

    @property
    def due(self) -> float | None:
        """When `poll` has a HELLO to send, or to give up; None: no round is under way."""
        return None if self._hello.due is None else min(self._hello.due, self._beside_at)

    @property
    def unanswered(self) -> bool:
        """Whether the last round of HELLOs has ended without an answer."""
        return self._hello.exhausted

    @property
    def attempt(self) -> int:
        """Which of its round the HELLO is that `poll` gave last, from 0: for `Router.route`. One beside the round goes
        the best way, as the first does: the peer has just been heard."""
        return self._attempt

    def shared_key(self, purpose: bytes) -> bytes:
        """32 bytes that both ends derive for this purpose, once each knows the other's session; others after a restart
        of either."""
        return purpose_key(self._key, purpose + b"".join(sorted((self.mine, self.theirs))))

    def start(self, now: float) -> None:
        """Ask for the peer's session, at once and then until it answers or `Backoff` gives up."""
        if self._hello.due is None:  # else answers to what is under way stay good
            self._answerable = self._sequence
        self._beside_at = inf
        self._hello.start(now)

    def poll(self, now: float) -> bytes | None:
        """The HELLO that is due, if one is."""
        if self._hello.take(now):
            self._attempt = self._hello.sent - 1
        elif self._hello.due is not None and now >= self._beside_at:
            self._attempt = 0
        else:
            return None
        self._asked_at, self._beside_at = now, inf
        return self._ask()

    def knock(self) -> bytes:
        """A HELLO outside any round; what answers it counts only if a round is under way."""
        return self._ask()

    def seal(self, body: Body) -> bytes:
        """A message to the peer, to be sent once: one that is sent again is sealed again. Raises SignalError while
        the peer's session is not known."""
        if not self.established:
            raise SignalError("the peer's session is not known yet")
        return self._seal(body, self.theirs)

    def receive(self, data: bytes, now: float) -> Received:
        """Judge a message that claims to be from the peer."""
        try:
            message = signal.decode(data, self._key)
        except SignalError:
            return Received(Verdict.REFUSED)
        header = message.header
        # Our own messages, turned back at us, are authentic too: the pair has one key.
        if header.source != self._peer_id or header.destination != self._own_id or header.my_session == NO_SESSION:
            return Received(Verdict.FOREIGN)
        if isinstance(message.body, Hello):
            return self._on_hello(header, now)
        if header.your_session != self.mine:
            return Received(Verdict.STALE, replies=self._ask_back(now))
        if isinstance(message.body, HelloAck):
            return self._on_answer(header, message.body.answers)
        if header.my_session != self.theirs:
            return Received(Verdict.STALE, replies=self._ask_back(now))
        if not self._window.accept(header.sequence):
            return Received(Verdict.DUPLICATE)
        return Received(Verdict.ACCEPTED, message)

    def _on_hello(self, header: Header, now: float) -> Received:
        answer = self._seal(HelloAck(header.sequence), header.my_session)
        asked = () if header.my_session == self.theirs else self._ask_back_soon(now)
        return Received(Verdict.SESSION, replies=(answer, *asked))

    def _on_answer(self, header: Header, answers: int) -> Received:
        if not self._answerable < answers <= self._sequence:
            return Received(Verdict.STALE)
        self._answerable = self._sequence
        self._hello.stop()
        if header.my_session == self.theirs:
            return Received(Verdict.SESSION)
        self.theirs = header.my_session
        self._window = Window(WINDOW)
        return Received(Verdict.SESSION, renewed=True)

    def _ask(self) -> bytes:
        return self._seal(Hello(), self.theirs)

    def _ask_back_soon(self, now: float) -> tuple[bytes, ...]:
        """A HELLO at once, unless one was sent a moment ago: two that start together ask each other, and need not ask
        again. But one that started since then has not heard it: there is another one when the answer would be here.

        A round that is under way does not begin anew, nor end sooner: an old HELLO, sent again and again, would keep it
        from ever being in vain."""
        if now >= self._asked_at + ON_ITS_WAY_S:
            return self._ask_back(now)
        if now >= self._asked_back_at + ASK_INTERVAL_S:
            self._asked_back_at = now
            if self._hello.due is None:
                self.start(self._asked_at + ON_ITS_WAY_S)
            else:
                self._beside_at = self._asked_at + ON_ITS_WAY_S
        return ()

    def _ask_back(self, now: float) -> tuple[bytes, ...]:
        """A HELLO, unless this was done a moment ago. The way is open now: it does not wait for a round's timer."""
        if now < self._asked_back_at + ASK_INTERVAL_S:
            return ()
        self._asked_back_at = now
        if self._hello.due is None:
            self.start(now)
            self._hello.take(now)
        return (self._ask(),)

    def _seal(self, body: Body, theirs: bytes) -> bytes:
        self._sequence += 1
        header = Header(TYPE_OF[type(body)], self._own_id, self._peer_id, self.mine, theirs, self._sequence)
        return signal.encode(header, body, self._key)
