"""What an anchor answers to one node, however often somebody sends recorded requests of that again."""

from __future__ import annotations

from meshctl.core.agent.probes import Copies
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun

# The sessions of one node, the newest to be heard of, of which it is known what was asked in them.
SESSIONS = 4


class Allowance:
    """So many authentic requests at once, and in the long run. As many again are answered that were made before the
    node's session was known here, or was another one: recorded ones are among these. None is answered twice, for as
    long as its session is one of the newest."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._sessions: dict[bytes, Copies] = {}  # the newest comes last
        self._present, self._others = (TokenBucket(rate_per_s, burst) for _ in range(2))

    def take(self, request: stun.Message, made_in: bytes, session: bytes, now: float) -> bool:
        """Whether one is to be answered that was `made_in` that session, of a node whose `session` is this, as far as
        it is known: not one that came before, or is one too many."""
        copies = self._sessions[made_in] = self._sessions.pop(made_in, Copies())
        if len(self._sessions) > SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return copies.is_new(request) and (self._present if made_in == session else self._others).take(now)
