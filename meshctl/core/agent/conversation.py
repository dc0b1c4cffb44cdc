"""What this agent and one other have to say to each other: the session, and offers until they have arrived."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import inf

from meshctl.core.agent.backoff import Backoff
from meshctl.core.agent.bodies import NO_OFFER, Ack, Body, Offer, SignalError
from meshctl.core.agent.config import PeerConfig
from meshctl.core.agent.reliable import OfferReceiver, OfferSender
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.session import Received, Session, Verdict, new_session

# Between two rounds of questions to an agent that does not answer: soon at first, for it may be starting too; and
# never longer than what an operator waits who has just mended a network.
AGAIN_FIRST_S, AGAIN_LONGEST_S = 5.0, 60.0
# The other's offers that are read. It makes one with each change of its addresses, its restarts and what its operator
# wants, and says it again a few times; each that is read costs a few milliseconds, and may have relays asked for.
OFFERS_PER_S, OFFERS_BURST = 5.0, 50.0
# A round of questions that began so long ago is begun anew when a way opens: its next question may be late.
ANEW_S = 1.0
# In a session that is not the first one, the other's offer is asked for after this: who is new there says it unasked.
MISSING_S = 1.0


class Conversation:
    """This agent's end of the conversation with one other. `lost`: the other has answered no HELLO of the last round;
    `failures` counts such rounds; `offers` limits how many of its offers are read: what is not read is not
    acknowledged, so that it is sent again."""

    def __init__(self, own_id: bytes, peer: PeerConfig, dice: random.Random) -> None:
        self.peer = peer
        self.session = Session(own_id, peer.id, peer.pair_key, new_session(dice))
        self.sender = OfferSender()
        self.receiver = OfferReceiver()
        self.offers = TokenBucket(OFFERS_PER_S, OFFERS_BURST)
        self.lost = False
        self.failures = 0
        self._missing = Backoff()  # the other's offer, which it takes for known
        self._asking = False
        self._began_at = -inf
        self._again_at: float | None = None
        self._pause_s = AGAIN_FIRST_S

    @property
    def alive(self) -> bool:
        """Whether the other's session is known and nothing speaks against it."""
        return self.session.established and not self.lost

    @property
    def due(self) -> float | None:
        """When `poll` has something to do."""
        first = self.session.due
        for when in (self._again_at, *((self.sender.due, self._missing.due) if self.alive else ())):
            if when is not None and (first is None or when < first):
                first = when
        return first

    def ask(self, now: float, *, opened: bool = False) -> None:
        """Ask for the other's session, unless that is under way. Something has changed: patience begins anew. `opened`:
        there is a way that was not there before, so do not wait for the next question of the round."""
        self._pause_s = AGAIN_FIRST_S
        if self.session.due is None or (opened and now >= self._began_at + ANEW_S):
            self._ask(now)
        elif not self._asking:  # one of the other's messages began the round: it is as good, and may be in vain too
            self._asking, self._again_at = True, None

    def poll(self, now: float) -> Iterator[tuple[bytes, int]]:
        """What is to be sent, each with the number of the attempt (for `Router.route`)."""
        if self._again_at is not None and now >= self._again_at:
            self._ask(now)
        hello = self.session.poll(now)
        if hello is not None:
            yield hello, self.session.attempt
        if self._asking and self.session.due is None:
            self._asking = False
            if self.session.unanswered:
                self.lost = True
                self.failures += 1
                self._again_at = now + self._pause_s
                self._pause_s = min(2 * self._pause_s, AGAIN_LONGEST_S)
        if self.alive:
            if self._missing.take(now):
                yield self.session.seal(Ack(NO_OFFER)), 0
            offer = self.sender.poll(now)
            if offer is not None:
                yield self.session.seal(offer), self.sender.attempt
            elif self.sender.unacknowledged and not self._asking:
                self._ask(now)

    def seal(self, body: Body) -> bytes | None:
        """A message to be sent once; None while the other's session is not known."""
        try:
            return self.session.seal(body)
        except SignalError:
            return None

    def receive(self, data: bytes, now: float) -> Received:
        """Judge a message; what counts shows that the other lives.

        A session that comes after another one may have been there before it, where two agents run by one key: who is in
        it has said all and does not know that it was forgotten, so that it is asked to say it again.
        """
        known = self.session.established
        received = self.session.receive(data, now)
        answered = received.verdict is Verdict.SESSION and not received.replies
        if received.verdict is Verdict.ACCEPTED or answered:
            self.lost = False
            self._again_at = None
            self._pause_s = AGAIN_FIRST_S
        if received.renewed:
            self.receiver.renewed()
            if known:
                self._missing.start(now + MISSING_S)
        if received.message is not None and isinstance(received.message.body, Offer):
            self._missing.stop()
        if received.renewed or (answered and self.sender.unacknowledged):
            self.sender.renewed(now)
        return received

    def _ask(self, now: float) -> None:
        self._again_at = None
        self._asking, self._began_at = True, now
        self.session.start(now)
