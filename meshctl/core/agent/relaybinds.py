"""Binds: requests to a relay port, signed with the token of its grant, that show the anchor where an end is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import Transactions, signed
from meshctl.core.agent.relaylease import MAX_UNANSWERED, Lease
from meshctl.core.wire import stun

FAMILIES = 2
NAME_BYTES = 8


def bind_name(token: bytes) -> str:
    """What binds with this token are called: it says whose they are to who knows the token, and to nobody the token."""
    return hashlib.sha256(b"meshctl relay bind" + token).digest()[:NAME_BYTES].hex()


def bind_username(token: bytes, session: bytes) -> str:
    """USERNAME of binds with this token, in that session of the node with the anchor."""
    return f"{bind_name(token)}:{session.hex()}"


def read_bind(username: str) -> tuple[str, bytes]:
    """What a bind is called, and in which session it was made; "" and b"" for a USERNAME that is no bind's."""
    name, _, session = username.partition(":")
    try:
        return name, bytes.fromhex(session)
    except ValueError:
        return "", b""


class Bind(NamedTuple):
    """One that was sent: from where, to which address of which anchor's relay, with which token; `nonce` "": it had
    none."""

    anchor: bytes
    base: Address
    relay: Address
    token: bytes
    nonce: str = ""


class Binds:
    """The binds to the anchors of one peer that may still be answered. `my_session` is this node's own with an anchor,
    by its id."""

    def __init__(self, transactions: Transactions, my_session: Callable[[bytes], bytes]) -> None:
        self._transactions, self._my_session = transactions, my_session
        self._open: dict[bytes, Bind] = {}  # by transaction

    def make(self, anchor: bytes, lease: Lease, bases: tuple[Address, ...]) -> tuple[SendProbe, ...]:
        """The next ones for this lease. The two ends must meet in one family: until they have, all are tried."""
        families = {lease.place.family} if lease.place else {relay.family for relay in lease.relay}
        for old in [t for t, bind in self._open.items() if bind.anchor == anchor][: -FAMILIES * MAX_UNANSWERED]:
            del self._open[old]
        return tuple(
            self.send(Bind(anchor, base, relay, lease.token))
            for relay in lease.relay
            for base in bases
            if base.family == relay.family and relay.family in families
        )

    def send(self, bind: Bind) -> SendProbe:
        """This one."""
        transaction = self._transactions.new()
        self._open[transaction] = bind
        username = bind_username(bind.token, self._my_session(bind.anchor))
        request = stun.Message(stun.Class.REQUEST, transaction, username=username, nonce=bind.nonce or None)
        return SendProbe(bind.base, bind.relay, signed(request, bind.token))

    def token(self, transaction: bytes) -> bytes | None:
        """The key of the answer to the bind of this transaction."""
        return self._open[transaction].token if transaction in self._open else None

    def take(self, transaction: bytes) -> Bind | None:
        """The bind of this transaction, once."""
        return self._open.pop(transaction, None)

    def clear(self) -> None:
        """No answer counts any more."""
        self._open.clear()
