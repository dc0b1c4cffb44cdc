"""What an anchor answers to one node, however often somebody sends recorded requests of that again."""

from __future__ import annotations

from meshctl.core.agent.probes import Copies
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.signal import NO_SESSION
from meshctl.core.wire import stun


class Allowance:
    """So many authentic requests at once, and in the long run. As many again are answered that were made before the
    node's session was known here, or was another one: recorded ones are among these."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._session, self._copies = NO_SESSION, Copies()
        self._present, self._others = (TokenBucket(rate_per_s, burst) for _ in range(2))

    def take(self, request: stun.Message, made_in: bytes, session: bytes, now: float) -> bool:
        """Whether one is to be answered that was `made_in` that session, of a node whose `session` is this, as far as
        it is known: not one that came before in this, or is one too many."""
        if made_in != session:
            return self._others.take(now)
        if session != self._session:
            self._session, self._copies = session, Copies()
        return self._copies.is_new(request) and self._present.take(now)
