"""What all STUN messages between agents have in common: whoever asks, relays or answers makes them here.

The transaction id of a request begins with a number that grows: no request is sent twice, so one whose number was
there before is somebody else's copy. MESSAGE-INTEGRITY covers it.
"""

from __future__ import annotations

import random

from meshctl.core.agent.window import Window
from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

# 23 years of a node that does all it can (below); the rest, 56 bits, nobody can guess (RFC 8489 section 5).
NUMBER_BYTES = 5
# How far back a number may still be new. All requests of an interface share one count, and a node that does all it can
# sends 1,500 a second (`interfacecontext.GAP_S`, `splice.PACE_S`): one that is late by more than 2.7 s is taken for a
# copy.
WINDOW = 4096

# An answer that comes later than this has waited for a host that slept: what it says of the way's round trip, an hour
# perhaps, would be believed in all that is measured by round trips.
LATEST_S = 10.0


class Transactions:
    """Transaction ids of the requests that one interface sends."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._last = 0

    def new(self) -> bytes:
        """The next one."""
        self._last += 1
        unknown = stun.TRANSACTION_BYTES - NUMBER_BYTES
        return self._last.to_bytes(NUMBER_BYTES, "big") + self._dice.getrandbits(8 * unknown).to_bytes(unknown, "big")


class Copies:
    """Which messages of one sender in one session have come; to be asked of authentic ones alone."""

    def __init__(self) -> None:
        self._window = Window(WINDOW)

    def is_new(self, message: stun.Message) -> bool:
        """Whether this came for the first time; once."""
        return self._window.accept(int.from_bytes(message.transaction[:NUMBER_BYTES], "big"))


def signed(message: stun.Message, key: bytes | None) -> bytes:
    """The message with MESSAGE-INTEGRITY-SHA256 under the key, and without when there is none."""
    return stun.encode(message, key, integrity=(MESSAGE_INTEGRITY_SHA256,))
