"""Port mappings that no agent renews any more, ended at their routers: each is asked about until the router has said
that it is gone, or there is no more time. Requests get lost, and a router may be away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import count

from meshctl.agent.node.handler import HasFileno, Plain, Readable
from meshctl.agent.node.mappings import Mappings
from meshctl.core.agent.events import Event, HttpReply, HttpRequest, MappingDatagram
from meshctl.core.agent.portmap_pcp import NATPMP, PCP
from meshctl.core.agent.portmap_pinhole import PINHOLE
from meshctl.core.agent.portmap_state import Sweeper
from meshctl.core.agent.portmap_values import Held
from meshctl.core.wire import natpmp, pcp, soap
from meshctl.core.wire.error import WireError
from meshctl.core.wire.httpmessage import HttpResponse

# For all routers together; they answer in milliseconds, and one that is away keeps an apply waiting so long.
PATIENCE_S = 10.0
AGAIN_S = 0.5


class GiveBack(Plain):
    """Calls `stop` when nothing is `left`, or PATIENCE_S after `now`. Answers go to nobody else."""

    def __init__(self, held: Iterable[Held], mappings: Mappings, stop: Callable[[], None], now: float) -> None:
        self.left = list(held)
        self._mappings, self._stop = mappings, stop
        self._sweeper = Sweeper(partial(next, count()))
        self._asked: dict[int, Held] = {}  # by HTTP request
        self._again_at, self._ends_at = now, now + PATIENCE_S

    def sockets(self) -> Iterable[tuple[HasFileno, Readable]]:
        """See Handler."""
        for sock, read in self._mappings.sockets():
            yield sock, partial(self._read, read)

    def due(self) -> float | None:
        """See Handler."""
        return min(self._again_at, self._ends_at)

    def poll(self, now: float) -> list[Event]:
        """See Handler. Raises OSError for a router that cannot be sent to; the others are asked before."""
        if not self.left or now >= self._ends_at:
            self._stop()
            return []
        if now < self._again_at:
            return []
        self._again_at = now + AGAIN_S
        failure: OSError | None = None
        for held in self.left:
            if held not in self._asked.values():
                try:
                    self._ask(held)
                except OSError as error:
                    failure = error
        if failure is not None:
            raise failure
        return []

    def close(self) -> None:
        """See Handler."""
        self._mappings.close()

    # Inside

    def _ask(self, held: Held) -> None:
        self._sweeper.sweep(held)
        self._send(held)

    def _send(self, held: Held) -> bool:
        """What the sweeper wants sent for this one; whether it is anything."""
        actions = list(self._sweeper.actions())
        for action in actions:
            if isinstance(action, HttpRequest):
                self._asked[action.request_id] = held
            self._mappings.do(action)
        return bool(actions)

    def _read(self, read: Readable, now: float) -> list[Event]:
        for event in read(now):
            if isinstance(event, HttpReply):
                self._http(event)
            elif isinstance(event, MappingDatagram) and event.gateway.port == pcp.SERVER_PORT:
                self.left = [h for h in self.left if h.gateway != event.gateway.ip or not _is_ended(h, event.data)]
        return []

    def _http(self, reply: HttpReply) -> None:
        held = self._asked.pop(reply.request_id, None)
        if held is None:
            return
        if held.protocol == PINHOLE:
            ended = _is_done(reply)
        else:
            # That it leads to this host is answered by its deletion, and the next question by that it is there no more.
            ended = self._sweeper.reply(reply) is not None and not self._send(held)
        if ended:
            self.left.remove(held)


def _is_ended(held: Held, answer: bytes) -> bool:
    """Whether the router says with this that it has no such mapping (any more). Who asks again, for an answer was lost,
    is told the same (RFC 6887 section 15.1, RFC 6886 section 3.4); by miniupnpd 2.3 that there are no resources."""
    try:
        if held.protocol == PCP:
            got = pcp.decode(answer)
            asked = pcp.MapRequest(held.internal.ip, held.nonce, held.internal.port, 0)
            if not isinstance(got, pcp.Response) or not got.answers(asked):
                return False
            return got.result == pcp.Result.NO_RESOURCES or (got.retry is None and not got.lifetime_s)
        said = natpmp.decode(answer) if held.protocol == NATPMP else None
        return isinstance(said, natpmp.Mapping) and (said.internal_port, said.lifetime_s) == (held.internal.port, 0)
    except WireError:
        return False


def _is_done(reply: HttpReply) -> bool:
    try:
        return bool(reply.status) and soap.decode_done(HttpResponse(reply.status, reply.body)) is None
    except WireError:
        return False
