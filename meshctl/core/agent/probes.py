"""What all STUN messages between agents have in common: whoever asks, relays or answers makes them here."""

from __future__ import annotations

import random

from meshctl.core.wire import stun
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256


def new_transaction(dice: random.Random) -> bytes:
    """A transaction id that nobody can guess (RFC 8489 section 5)."""
    return dice.getrandbits(8 * stun.TRANSACTION_BYTES).to_bytes(stun.TRANSACTION_BYTES, "big")


def signed(message: stun.Message, key: bytes | None) -> bytes:
    """The message with MESSAGE-INTEGRITY-SHA256 under the key, and without when there is none."""
    return stun.encode(message, key, integrity=(MESSAGE_INTEGRITY_SHA256,))
