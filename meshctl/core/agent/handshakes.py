"""How old handshakes are, by a clock that nobody steps.

WireGuard shows when a handshake was, by the wall clock, and so its age is wrong by an hour after the wall clock was set
by an hour. An age that grows by more than time passes is such a step, and so is a handshake in the future; an age that
shrinks is a new handshake, which cannot be older than the reading before. But no handshake is without bytes that come:
where there were none, it is a step too, and who has been dead for an hour is so after the clock was set back.

An agent that starts after such a step has no reading before. But a message that comes through a tunnel comes by keys
that WireGuard does not refuse yet, however old it shows them to be.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.liveness import HANDSHAKE_MAX_S
from meshctl.model.keys import PublicKey

# The wall clock and ours are read one after the other, and `wg` shows whole seconds.
TOLERANCE_S = 1.5


class Handshakes:
    """The last reading of each peer, with the age that was made of it, and when that was."""

    def __init__(self) -> None:
        self._read: dict[PublicKey, PeerStatus] = {}
        self._read_at = 0.0
        self._heard: set[PublicKey] = set()  # since the last readings

    def heard(self, peer: PublicKey) -> None:
        """A message has come through the peer's tunnel."""
        self._heard.add(peer)

    def correct(self, statuses: Iterable[PeerStatus], now: float) -> dict[PublicKey, PeerStatus]:
        """The same with ages that can be trusted, by public key."""
        found = {}
        for status in statuses:
            key, shown = status.public_key, status.handshake_age_s
            found[key] = status if shown is None else self._one(status, shown, self._read.get(key), now)
        self._read, self._read_at = found, now
        self._heard.clear()
        return found

    def _one(self, status: PeerStatus, shown: float, before: PeerStatus | None, now: float) -> PeerStatus:
        if before is None or before.handshake_age_s is None:
            age = max(shown, 0.0)
        else:
            elapsed = now - self._read_at
            expected = before.handshake_age_s + elapsed
            new = -TOLERANCE_S <= shown < expected - TOLERANCE_S and status.rx_bytes != before.rx_bytes
            age = min(max(shown, 0.0), elapsed) if new else expected
        if age > HANDSHAKE_MAX_S and status.public_key in self._heard:
            age = HANDSHAKE_MAX_S
        return PeerStatus(  # _replace takes twice as long, and this is done for each peer each second
            status.public_key, status.endpoint, age, status.rx_bytes, status.tx_bytes, status.keepalive_s,
            status.userspace,
        )  # fmt: skip
