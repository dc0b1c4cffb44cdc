"""A mapping by PCP (RFC 6887) or NAT-PMP (RFC 6886): on the same port of the router, which names the one it speaks."""

from __future__ import annotations

import random

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import SendMapping
from meshctl.core.agent.portmap_values import LIFETIME_S, REFUSED_S, SILENT_S, SOONEST_S, Held, Method
from meshctl.core.wire import natpmp, pcp
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.error import WireError

# RFC 6887 section 8.1.1: 3 s, doubled each time, a tenth more or less. It would have us go on for ever, but miniupnpd
# is deaf for almost a minute after each request that its rules deny: after these, the router counts as silent.
FIRST_WAIT_S = 3.0
TRIES = 4
NATPMP_TRIES = 3
PCP = "pcp"
NATPMP = "nat-pmp"


class PortControl(Method):
    """PCP first, NAT-PMP when the router refuses its version or is silent. `remembered` is what was held before."""

    def __init__(
        self, gateway: str, internal: Address, dice: random.Random, remembered: Held | None = None
    ) -> None:
        super().__init__(gateway, internal, dice)
        ours = remembered if remembered is not None and remembered.protocol in (PCP, NATPMP) else None
        self.protocol = ours.protocol if ours and internal.family == 4 else PCP
        # With the nonce of before the router gives the mapping of before (RFC 6887 section 11.3).
        fresh = dice.getrandbits(8 * pcp.NONCE_BYTES).to_bytes(pcp.NONCE_BYTES, "big")
        self._nonce = ours.nonce if ours and len(ours.nonce) == pcp.NONCE_BYTES else fresh
        self._suggested = ours.external if ours else None
        self._epoch: tuple[str, pcp.Epoch] | None = None
        self._sent, self._wait_s, self._last_sent = 0, 0.0, float("-inf")
        self._switched = False
        self._address: str | None = None  # of NAT-PMP's two answers, the one that came first
        self._mapping: natpmp.Mapping | None = None

    def restart(self, now: float) -> None:
        if self.asking and now < self._last_sent + FIRST_WAIT_S:
            # That may be answered still, and a router that refuses the version does not say of which request.
            self._sent, self._wake = 0, self._last_sent + FIRST_WAIT_S
        elif self.asking:
            self._ask_anew(now)

    def receive(self, data: bytes, now: float) -> None:
        """A datagram from the gateway's port, or its announcement."""
        try:
            if self.protocol == PCP:
                self._pcp(pcp.decode(data), now)
            else:
                self._natpmp(natpmp.decode(data), now)
        except WireError:
            return

    # Asking

    def _ask(self, now: float) -> None:
        self._switched = False
        self._begin(now)

    def _ask_anew(self, now: float) -> None:
        self.protocol = PCP if self.mapped is None else self.protocol
        self._ask(now)

    def _begin(self, now: float) -> None:
        self._sent, self._wait_s = 0, FIRST_WAIT_S
        self._address, self._mapping = None, None
        self._send(now)

    def _send(self, now: float) -> None:
        self._sent, self._last_sent = self._sent + 1, now
        self._wake = now + self._wait_s * self.dice.uniform(0.9, 1.1)
        self._wait_s *= 2
        if self.protocol == PCP:
            self._emit(pcp.encode_map(self._request(LIFETIME_S)))
            return
        port = self._suggested.port if self._suggested else self.internal.port
        if self._address is None:
            self._emit(natpmp.encode_external_address())
        if self._mapping is None:
            self._emit(natpmp.encode_map(self.internal.port, port, LIFETIME_S))

    def _request(self, lifetime_s: int) -> pcp.MapRequest:
        wanted = self._suggested
        if wanted is None and self.internal.family == 4:
            wanted = Address("0.0.0.0", self.internal.port)  # noqa: S104 - any address, but this port
        suggested = TransportAddress(*wanted) if wanted else None
        return pcp.MapRequest(self.internal.ip, self._nonce, self.internal.port, lifetime_s, suggested)

    def _emit(self, data: bytes) -> None:
        self._actions.append(SendMapping(Address(self.gateway, pcp.SERVER_PORT), data, self.internal.ip))

    def _unanswered(self, now: float) -> None:
        if not self._sent:
            self._ask_anew(now)
        elif self._sent < (TRIES if self.protocol == PCP else NATPMP_TRIES):
            self._send(now)
        elif self.mapped is not None or not self._switch(now):
            self.protocol = PCP if self.mapped is None else self.protocol
            self._fail("the router does not answer PCP or NAT-PMP", SILENT_S, now)

    def _switch(self, now: float) -> bool:
        """Ask by the other protocol, once in a round; a pinhole has no other. Whether it is so."""
        if self._switched or self.internal.family == 6:
            return False
        self._switched = True
        self.protocol = NATPMP if self.protocol == PCP else PCP
        self._begin(now)
        return True

    # Answers

    def _pcp(self, got: pcp.Response | pcp.VersionRefused, now: float) -> None:
        if isinstance(got, pcp.VersionRefused):
            self._version_refused(got.speaks == natpmp.VERSION, now)
            return
        lost = self._lost(got.epoch_s, now)
        if not self.asking or not got.answers(self._request(LIFETIME_S)):
            if lost:
                self.doubt(self._last_sent + SOONEST_S, now)
        elif got.retry is not None:
            refused = got.retry is not pcp.Retry.LATER
            if got.result == pcp.Result.UNSUPP_OPCODE and self._switch(now):
                return
            self._fail(got.meaning, REFUSED_S if refused else got.lifetime_s, now)
        elif got.mapping is not None:
            self._have(Address(*got.mapping.external), got.lifetime_s, now)

    def _natpmp(
        self, got: natpmp.ExternalAddress | natpmp.Mapping | natpmp.Refusal | pcp.VersionRefused, now: float
    ) -> None:
        if isinstance(got, pcp.VersionRefused):
            self._version_refused(got.speaks == pcp.VERSION, now)
            return
        lost = self._lost(got.epoch_s, now)
        if not self.asking:
            moved = isinstance(got, natpmp.ExternalAddress) and self.mapped and self.mapped.external.ip != got.address
            if lost or moved:
                self.doubt(self._last_sent + SOONEST_S, now)
            return
        if isinstance(got, natpmp.Refusal):
            later = got.retry is pcp.Retry.LATER
            self._fail(got.meaning, pcp.MIN_ERROR_S if later else REFUSED_S, now)
            return
        if isinstance(got, natpmp.ExternalAddress):
            self._address = got.address
        elif got.internal_port == self.internal.port:
            self._mapping = got
        if self._address is not None and self._mapping is not None:
            self._have(Address(self._address, self._mapping.external_port), self._mapping.lifetime_s, now)

    def _version_refused(self, other_spoken: bool, now: float) -> None:
        if self.asking and not (other_spoken and self._switch(now)):
            self._fail("the router speaks another version", REFUSED_S, now)

    def _have(self, external: Address, lifetime_s: int, now: float) -> None:
        self._suggested = external
        nonce = self._nonce if self.protocol == PCP else b""
        self._grant(Held(self.gateway, self.internal, external, self.protocol, nonce), lifetime_s, now)
        if self.mapped is None:
            self._suggested = None

    def _lost(self, epoch_s: int, now: float) -> bool:
        """Whether the router has restarted since it was last heard."""
        before, current = self._epoch, pcp.Epoch(epoch_s, now)
        self._epoch = (self.protocol, current)
        if before is None or before[0] != self.protocol:
            return False
        return (pcp.lost_state if self.protocol == PCP else natpmp.lost_state)(before[1], current)

    def _delete(self, held: Held) -> None:
        self._emit(deletion(held))


def deletion(held: Held) -> bytes:
    """The request that deletes a mapping of PCP or NAT-PMP. Raises WireError."""
    if held.protocol == NATPMP:
        return natpmp.encode_map(held.internal.port, 0, 0)
    return pcp.encode_map(pcp.MapRequest(held.internal.ip, held.nonce, held.internal.port, 0))
