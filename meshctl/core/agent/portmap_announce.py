"""What routers announce by SSDP: that they have restarted, so that mappings are perhaps lost."""

from __future__ import annotations

from meshctl.core.agent.portmap_values import SOONEST_S
from meshctl.core.wire import ssdp
from meshctl.core.wire.error import WireError

# A router says goodbye before it restarts, and is back after half a minute or more; when it is, it says so.
GOODBYE_S = 30.0
# More routers than a host has; over IPv6 anyone in its subnet may claim to be one.
MAX_ROUTERS = 8
# One box may be several devices (media servers, printers), each with a boot number of its own.
_DEVICE = ":InternetGatewayDevice:"


class Announcements:
    """What each router has last said of itself. Anyone on the LAN can say it in its name: so it costs no more than one
    question for each mapping in `SOONEST_S`."""

    def __init__(self) -> None:
        self._boots: dict[str, str | None] = {}  # by address; None: it said goodbye, "": it does not say
        self._asked_at: dict[str, float] = {}

    def hear(self, data: bytes, sender: str, now: float) -> float | None:
        """Take a datagram of SSDP from a router. When its mappings are to be asked for again; None: no need."""
        if sender not in self._boots and len(self._boots) >= MAX_ROUTERS:
            return None
        try:
            said = ssdp.decode_announcement(data)
        except WireError:
            self._replied(data, sender)
            return None
        if _DEVICE not in said.target:
            return None
        before = self._boots.get(sender, "")
        self._boots[sender] = None if said.notice is ssdp.Notice.BYEBYE else said.boot
        if said.notice is ssdp.Notice.BYEBYE:
            return None if before is None else now + GOODBYE_S
        if said.notice is ssdp.Notice.UPDATE or before in ("", said.boot):
            return None
        when = max(now, self._asked_at.get(sender, float("-inf")) + SOONEST_S)
        self._asked_at[sender] = when
        return when

    def _replied(self, data: bytes, sender: str) -> None:
        """The answer to a search has the boot number too."""
        try:
            reply = ssdp.decode_reply(data, sender)
        except WireError:
            return
        if _DEVICE in reply.target:
            self._boots[sender] = reply.boot
