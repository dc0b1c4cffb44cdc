"""One relay of one peer, at one anchor: when it is asked for, bound to, and renewed, and whether it can be used."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import RelayGrant
from meshctl.core.agent.config import PeerConfig

# What was asked is asked again until both ends are bound, after 1 s so many times, then after 2 s, 4 s …: a grant that
# was lost on its way to the other end is so sent again, and where much is lost, one in four that were asked comes to
# nothing. So it is after a refusal, each time later: who says that the pair is not permitted may not have heard of it
# yet, for an inventory reaches one host after the other.
ASK_AGAIN_S, ASKS_SOON, ASK_LONGEST_S = 1.0, 3, 60.0
# An anchor drops what it is asked before it knows this agent's session. Its first word shows that it does: what was
# asked is asked again, unless the answer comes right behind.
ASK_SOON_S = 0.05
# An anchor that has not answered so many questions is not counted upon.
MAX_ASKED = 3
# Binds until both ends are bound, ever slower: the other end may not be there at all. A grant begins anew.
BIND_FIRST_S, BIND_LONGEST_S = 0.05, 25.6
# Binds to a relay that is ready, when there is doubt; with liveness.UNANSWERED_S they make less than the two seconds
# after which traffic must flow again.
CHECK_AGAIN_S = (0.2, 0.2, 0.4)
MAX_UNANSWERED = len(CHECK_AGAIN_S)
# The last one to an anchor that is far has so many round trips, for each takes two where the anchor wants a new nonce,
# but no longer than this: one that was longer had a queue on the way.
RTTS, SLOWEST_S = 2.5, 3.0
# Binds to a relay that is ready and not used: what shows that it is still there. One in use has WireGuard's packets.
REBIND_S = 100.0
# Between any two packets that nobody is in a hurry for: the inventory's `keepalive`, by default.
IDLE_GAP_S = 25.0
# When a lease is renewed, as a share of its lifetime.
RENEW_SHARE = 0.5


@dataclass
class Lease:
    """What is known of it, and when the next thing is due (`inf`: not at all).

    `place` is the relay's address at which both ends are bound, None while they are not. Counters are of what had no
    answer yet, and of questions since it was last ready.
    """

    anchor: PeerConfig
    up: bool = True  # the tunnel to the anchor
    token: bytes = b""
    relay: tuple[Address, ...] = ()
    place: Address | None = None
    answered_at: float = -inf
    urgent: bool = False  # somebody waits for the next bind
    ask_at: float = inf
    asks: int = 0
    unanswered: int = 0
    bind_at: float = inf
    binds: int = 0
    renew_at: float = inf
    renewals: int = 0
    expires_at: float = inf
    refused_until: float = -inf
    refusals: int = 0  # since the last grant

    @property
    def silent(self) -> bool:
        """Whether the anchor does not answer, or grants again and again what both ends cannot be bound to: one of them
        does not reach it, or none its relay ports."""
        return self.place is None and max(self.unanswered, self.asks) >= MAX_ASKED

    @property
    def due(self) -> float:
        """When the next thing is to be done."""
        if not self.up:
            return inf
        again = self.refused_until if self.refused_until > -inf else inf
        return min(self.ask_at, self.bind_at, self.renew_at, again)

    def ask(self, now: float) -> None:
        """Begin to ask for it."""
        self.ask_at, self.asks = now, 0

    def asked(self, now: float) -> None:
        """It was asked for once more."""
        self.asks += 1
        self.ask_at = now + min(ASK_AGAIN_S * 2 ** max(0, self.asks - ASKS_SOON), ASK_LONGEST_S)
        self.unanswered += 1

    def heard(self, now: float) -> None:
        """The anchor knows this agent's session: was it asked before that?"""
        if not self.token and self.asks == 1:
            self.ask_at = min(self.ask_at, now + ASK_SOON_S)

    def granted(self, grant: RelayGrant, now: float) -> None:
        """The anchor's word. What worked until now works until its binds fail, though this may be another port.

        A grant that this end has not asked for is one that the other end has: it has doubts, or is new there.
        """
        new = (self.token, self.relay) != (grant.token, grant.relay)
        expected = self.renewals or self.unanswered
        if new:
            self.token, self.relay, self.binds = grant.token, grant.relay, 0
        if self.ask_at < inf:  # it was asked again soon, in case that nothing came
            self.ask_at = max(self.ask_at, now + ASK_AGAIN_S)
        self.unanswered = self.renewals = self.refusals = 0
        self.refused_until = -inf
        self.renew_at = now + RENEW_SHARE * grant.lifetime_s
        self.expires_at = now + grant.lifetime_s
        if new or self.place is None or not expected:
            self.hurry(now)

    def refused(self, retry_s: float, now: float) -> Lease:
        """What is left of it: when to ask again, which the anchor says, or does not (0)."""
        until = now + (retry_s or min(ASK_AGAIN_S * 2**self.refusals, ASK_LONGEST_S))
        return Lease(self.anchor, up=self.up, refused_until=until, refusals=self.refusals + 1)

    def hurry(self, now: float) -> None:
        """Bind now, and quickly: it is new, or there is doubt. Nothing changes while a check is going on."""
        if self.token and (self.place is None or not self.binds):
            self.bind_at, self.binds, self.urgent = now, 0, True

    def bound(self, now: float, rtt_s: float) -> bool:
        """A bind is about to be sent to an anchor so far away. False if too many had no answer: the relay is lost, and
        this is a new attempt."""
        lost = self.place is not None and self.binds >= MAX_UNANSWERED
        if lost:
            self.place, self.binds = None, 0
        self.bind_at = now + self._gap_s(rtt_s)
        self.binds += 1
        return not lost

    def answered(self, place: Address, now: float) -> None:
        """Both ends are bound there."""
        self.place, self.answered_at, self.urgent = place, now, False
        self.binds = 0
        self.ask_at = inf
        self.bind_at = now + REBIND_S

    def renewed(self, now: float) -> None:
        """It was asked to renew it once more."""
        self.renew_at = now + min(ASK_AGAIN_S * 2**self.renewals, ASK_LONGEST_S)
        self.renewals += 1

    def down(self) -> None:
        """The tunnel to the anchor is down: what was granted may be there when it is up again."""
        self.up, self.place, self.binds = False, None, 0

    def _gap_s(self, rtt_s: float) -> float:
        """From the bind that is about to be sent to the next one."""
        if self.place is None:
            return min(BIND_FIRST_S * float(2**self.binds), BIND_LONGEST_S)
        gap_s = CHECK_AGAIN_S[self.binds]
        if self.binds < MAX_UNANSWERED - 1:
            return gap_s
        return max(gap_s, min(RTTS * rtt_s, SLOWEST_S) - sum(CHECK_AGAIN_S[:-1]))
