"""How many requests of one node an anchor answers, whoever sends recorded ones of it again."""

from __future__ import annotations

from meshctl.core.agent.probes import Copies
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun

# Of so many sessions of one node, the present one and those that were heard of last, it is known which requests have
# come.
SESSIONS = 4


class Allowance:
    """A rate limit for authentic requests. Those made in the node's present session have one budget. Those made in
    another one, or before the session was known here, have a second budget of the same size: recorded requests are
    among these, and cannot use up the first. No request of the present session is answered twice, nor one of another,
    for as long as that is one of the newest."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._sessions: dict[bytes, Copies] = {}  # the newest comes last
        self._present, self._others = (TokenBucket(rate_per_s, burst) for _ in range(2))

    def take(self, request: stun.Message, made_in: bytes, session: bytes, now: float) -> bool:
        """Whether to answer a request that was made in the session `made_in`, by a node whose `session` is this as far
        as it is known here: not if it came before, or is one too many."""
        copies = self._sessions[made_in] = self._sessions.pop(made_in, Copies())
        if len(self._sessions) > SESSIONS:
            del self._sessions[next(each for each in self._sessions if each != session)]
        return copies.is_new(request) and (self._present if made_in == session else self._others).take(now)
