"""Binds: requests to a relay port, signed with the token of its grant, that show the anchor where an end is."""

from __future__ import annotations

import random

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.relaylease import MAX_UNANSWERED, Lease
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

FAMILIES = 2


class Binds:
    """The binds to the anchors of one peer that may still be answered."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._open: dict[bytes, tuple[bytes, Address]] = {}  # transaction -> anchor, and its relay's address

    def make(self, anchor: bytes, lease: Lease, bases: tuple[Address, ...]) -> tuple[SendProbe, ...]:
        """The next ones for this lease. The two ends must meet in one family: until they have, all are tried."""
        families = {lease.place.family} if lease.place else {relay.family for relay in lease.relay}
        for old in [t for t, (a, _) in self._open.items() if a == anchor][: -FAMILIES * MAX_UNANSWERED]:
            del self._open[old]
        return tuple(
            self._probe(anchor, lease.token, base, relay)
            for relay in lease.relay
            for base in bases
            if base.family == relay.family and relay.family in families
        )

    def _probe(self, anchor: bytes, token: bytes, base: Address, relay: Address) -> SendProbe:
        transaction = self._dice.getrandbits(96).to_bytes(stun.TRANSACTION_BYTES, "big")
        self._open[transaction] = anchor, relay
        request = stun.Message(stun.Class.REQUEST, transaction, username=token.hex())
        return SendProbe(base, relay, stun.encode(request, token, integrity=(MESSAGE_INTEGRITY_SHA256,)))

    def anchor(self, transaction: bytes) -> bytes | None:
        """Whose the bind of this transaction was."""
        return self._open[transaction][0] if transaction in self._open else None

    def take(self, transaction: bytes) -> tuple[bytes, Address] | None:
        """The anchor that was asked in this transaction and its relay's address, once."""
        return self._open.pop(transaction, None)

    def clear(self) -> None:
        """No answer counts any more."""
        self._open.clear()
