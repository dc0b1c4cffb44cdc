"""STUN on one interface's ports: each response goes to the part that sent its request, each request to whom it is for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from meshctl.core.agent.events import Action, Datagram, SendProbe
from meshctl.core.agent.interfacecontext import Answered
from meshctl.core.wire import stun
from meshctl.core.wire.error import WireError

# Requests whose answers are awaited: of 300 peers that all check at their quickest, those of the last seconds.
MAX_AWAITED = 4096


class StunPort:
    """STUN of one interface. `act` has a request sent."""

    def __init__(self, act: Callable[[Action], None]) -> None:
        self._act = act
        self._awaited: OrderedDict[bytes, Answered] = OrderedDict()
        self._peers: dict[str, bytes] = {}  # USERNAME of a peer's checks -> peer

    def ask(self, probe: SendProbe, answered: Answered) -> None:
        """Send a request. What says that it is the answer goes to `answered`, until one is authentic."""
        self._awaited[probe.data[stun.TRANSACTION]] = answered
        if len(self._awaited) > MAX_AWAITED:
            self._awaited.popitem(last=False)
        self._act(probe)

    def expect(self, peer: bytes, username: str) -> None:
        """Checks of this peer have that USERNAME from now on, and no other."""
        self._peers = {name: known for name, known in self._peers.items() if known != peer}
        self._peers[username] = peer

    def whose(self, username: str) -> bytes | None:
        """The peer whose checks have this USERNAME."""
        return self._peers.get(username)

    def receive(self, event: Datagram, now: float) -> stun.Received | None:
        """Something came. A request or an indication is given back; a response has gone to the part that awaits it."""
        try:
            received = stun.decode(event.data)
        except WireError:
            return None
        if received.message.message_class in (stun.Class.REQUEST, stun.Class.INDICATION):
            return received
        transaction = received.message.transaction
        answered = self._awaited.get(transaction)
        if answered is not None and answered(received, event.local, event.remote, now):
            self._awaited.pop(transaction, None)
        return None
