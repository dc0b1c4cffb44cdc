"""Whether a peer's path is alive, from WireGuard's own counters: nothing is sent while they say that it is.

A path that is dead shows as bytes that leave while none come. That is also how a flow in one direction looks, so it is
a sign and no proof (`distress`): the path is then checked. Silence without traffic is no sign until keepalives are
missed.
"""

from __future__ import annotations

from collections import deque
from math import inf

from meshctl.core.agent.blockage import Blockage, Came
from meshctl.core.agent.check import slow_s
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.lifetime import LATE, LONGEST_S
from meshctl.core.wire.demux import KEEPALIVE_BYTES, WIREGUARD_BYTES

# A handshake's two messages, with the keepalives beside it. All other packets are filled up to 16 bytes or the MTU.
_HANDSHAKES = frozenset(WIREGUARD_BYTES[kind] + count * KEEPALIVE_BYTES for kind in (1, 2) for count in range(3))
# What is around a message inside the tunnel at most (IPv6 and UDP), and what WireGuard fills packets up to.
HEADERS_BYTES, PADDING_BYTES = 48, 16
# How often the counters must be read for what follows to be found in time.
SAMPLE_S = 0.25
# And while no path is in use or in doubt: what then leaves unanswered is taken to have left right after the reading.
IDLE_SAMPLE_S = 1.0
# So long nothing came after something was sent. Sampling, this and the checks that follow it (check.PATH_SCHEDULE_S)
# make less than two seconds.
UNANSWERED_S = 0.5
# A flow in one direction has a keepalive for an answer each 10 s (KEEPALIVE_TIMEOUT), and nothing else. Each doubt that
# was none doubles the patience, up to this; content that comes in less than half of it halves it again,
# though not soon: it may be another flow's, beside the one to which nobody answers.
UNANSWERED_MAX_S = 4.0
UNANSWERED_HOLD_S = 30.0
# A host that only answers stops sending when the other's packets do not arrive. After STREAM readings in which
# something came, none more than PAUSE_S after the one before, a silence of STOPPED_S is a sign that the flow is over or
# the path dead, if it is PAUSES times as long as the longest of the NEWEST pauses.
STREAM = 3
NEWEST = 16
PAUSE_S = 2.5
STOPPED_S = 1.0
PAUSES = 2.0
# So many of the peer's keepalives may be lost before an idle path is checked.
MISSED_KEEPALIVES = 2.5
# The peer's keepalive may be longer than ours, which is all we know. Each silence that was none doubles the patience.
MAX_PATIENCE = 16
# WireGuard refuses keys that are older (REJECT_AFTER_TIME); with traffic there would be a new one by then.
HANDSHAKE_MAX_S = 180.0
# With keepalives alone there is a new one with the first of them after REKEY_AFTER_TIME, or with its first repetitions.
IDLE_HANDSHAKE_MAX_S = 120.0 + LONGEST_S * LATE + 15.0
# After so long without a sign of life an old handshake is one of death. A check that is answered is a sign of life.
SILENCE_S = 2.0

# Readings are never so long apart, but for a host that slept.
ASLEEP_S = 5.0
# Traffic within this makes a path one that is in use.
BUSY_S = 10.0


def has_session(status: PeerStatus | None) -> bool:
    """Whether a reading shows a tunnel by which messages can go, as far as WireGuard itself can tell."""
    if status is None or status.endpoint is None or status.handshake_age_s is None:
        return False
    return status.handshake_age_s < IDLE_HANDSHAKE_MAX_S


def counted_bytes(size: int) -> int:
    """What a message of so many bytes that goes through the tunnel adds to a counter, at most."""
    return KEEPALIVE_BYTES + -(-(HEADERS_BYTES + size) // PADDING_BYTES) * PADDING_BYTES


class _Stream:
    """What comes all the time: readings with content, none longer than PAUSE_S after the one before."""

    def __init__(self) -> None:
        self._count = 0
        self._newest_at = -inf
        self._pauses: deque[float] = deque(maxlen=NEWEST)  # seconds between two of them

    def came(self, now: float) -> None:
        """One more, or the first of the next stream."""
        pause_s = now - self._newest_at
        if pause_s > PAUSE_S:
            self._count = 0
            self._pauses.clear()
        else:
            self._pauses.append(pause_s)
        self._count += 1
        self._newest_at = now

    def moved(self, now: float) -> None:
        """It comes by another path from now on; that nothing came by the one before was no pause of its own."""
        self._newest_at = now

    def has_stopped(self, silence_s: float, answer_s: float) -> bool:
        """Whether that much silence is a sign, where an answer takes so long."""
        return self._count >= STREAM and silence_s >= max(STOPPED_S, PAUSES * max(self._pauses), answer_s)


class Liveness:
    """One peer's signs of life. `sample` is fed with each reading of the counters."""

    def __init__(self) -> None:
        self._last: PeerStatus | None = None
        self._heard_at: float | None = None
        self._unanswered_since: float | None = None
        self._used_at: float | None = None
        self._blockage = Blockage()
        self._stream = _Stream()
        self._own_tx = self._own_rx = 0  # bytes at most of our own messages since the last reading
        self._read_at = 0.0
        self._patience = 1  # times that a silence is longer than the own keepalive lets expect
        self._answer_within_s = UNANSWERED_S
        self._patient_since = -inf  # when that was last doubled or halved
        self.sent_at = 0.0  # the last reading that shows a packet that left
        self.rtt_s = 0.0  # of the path, as it was measured last

    def sample(self, status: PeerStatus, now: float, came: Came = Came.BY_PATH) -> None:
        """Take one reading. A counter that fell is a new interface: nothing is known of it. `came`: how the newest
        packet has."""
        last, self._last = self._last, status
        (own_tx, own_rx), (self._own_tx, self._own_rx) = (self._own_tx, self._own_rx), (0, 0)
        read_at, self._read_at = self._read_at, now
        if now - read_at > ASLEEP_S:
            self._blockage.forget()
        if last is None or status.tx_bytes < last.tx_bytes or status.rx_bytes < last.rx_bytes:
            self._heard_at, self._unanswered_since, self._used_at = now, None, None
            self.sent_at, self._stream, self._answer_within_s = now, _Stream(), UNANSWERED_S
            self._blockage.forget()
            return
        if status.tx_bytes > last.tx_bytes:
            self._sent(status.tx_bytes - last.tx_bytes, own_tx, read_at, now)
        if status.rx_bytes > last.rx_bytes:
            self._came(status.rx_bytes - last.rx_bytes, own_rx, self._blockage.came(came, now), now)

    def signalled(self, size: int, *, sent: bool) -> None:
        """A message of ours, of that many bytes, goes or came through the tunnel: that is no use of the path."""
        if sent:
            self._own_tx += counted_bytes(size)
        else:
            self._own_rx += counted_bytes(size)

    def heard(self, now: float) -> None:
        """The path has shown that it lives: a check was answered. That what came regularly has stopped has another
        cause, then."""
        self._hear(now)
        self._stream = _Stream()

    def outlived(self, now: float) -> None:
        """As `heard`, of a path that was in doubt: if it was for a silence, the next one of that kind may be longer."""
        if self._silent_too_long(now):
            self._patience = min(2 * self._patience, MAX_PATIENCE)
        if self._unanswered(now):
            self._answer_within_s = min(2 * self._answer_within_s, UNANSWERED_MAX_S)
            self._patient_since = now
        self.heard(now)

    def carried(self, now: float) -> None:
        """The relay of the path is there. If that was asked for a silence, the next silence may be longer: where the
        other end's keepalive is not shorter, this end's come before it, and no packet of WireGuard's ever comes."""
        if self._unanswered_since is None and self._silent_too_long(now):
            self._patience = min(2 * self._patience, MAX_PATIENCE)
            self._hear(now)

    def moved(self, now: float, rtt_s: float) -> None:
        """The peer has another path now: what was not answered on the old one says nothing of it. But what came all the
        time is to come by the new one too."""
        self.rtt_s, self._patience, self._answer_within_s = rtt_s, 1, UNANSWERED_S
        self._blockage.forget()
        self._stream.moved(now)
        self._hear(now)

    @property
    def heard_at(self) -> float | None:
        """When it last showed that it lives."""
        return self._heard_at

    def busy(self, now: float) -> bool:
        """Whether anybody uses the path."""
        return self._used_at is not None and now - self._used_at < BUSY_S

    def blocked(self) -> str:
        """Why the path, if it has just answered a check, carries nothing else, in words; "" when nothing says so."""
        return self._blockage.reason(self._read_at)

    def unconfirmed(self, now: float) -> bool:
        """Whether nothing has come for as long as would be a sign, had it not been none before: a flow in one direction
        dies as unseen as it lives, so the path is checked all the time."""
        return self._answer_within_s > UNANSWERED_S and bool(self._waited_s(now, UNANSWERED_S))

    def distress(self, now: float) -> str:
        """Why the path may be dead, in words; "" when nothing says so."""
        status = self._last
        if status is None or self._heard_at is None:
            return ""
        unanswered = self._unanswered(now)
        if unanswered:
            return f"nothing came for {unanswered:.1f} s after something was sent"
        age, silence = status.handshake_age_s, now - self._heard_at
        if self._stream.has_stopped(silence, self._answer_s):
            return f"what came all the time has stopped {silence:.1f} s ago"
        if self.busy(now) and silence >= SILENCE_S and age is not None and age > HANDSHAKE_MAX_S:
            return f"the last handshake was {age:.0f} s ago"
        if self._silent_too_long(now):
            return f"nothing came for {silence:.0f} s, though there is a keepalive every {status.keepalive_s} s"
        return ""

    # Inside

    @property
    def _answer_s(self) -> float:
        """How long an answer takes, until a reading shows it."""
        return SAMPLE_S + slow_s(self.rtt_s)

    def _unanswered(self, now: float) -> float:
        """For how many seconds nothing has come after something was sent, if for too long; else 0."""
        return self._waited_s(now, self._answer_within_s)

    def _waited_s(self, now: float, at_least_s: float) -> float:
        if self._unanswered_since is None:
            return 0.0
        waited_s = now - self._unanswered_since
        return waited_s if waited_s >= max(at_least_s, self._answer_s) else 0.0

    def _sent(self, size: int, own: int, read_at: float, now: float) -> None:
        self.sent_at = now
        if size > KEEPALIVE_BYTES:
            self._blockage.sent(now)
        if size > KEEPALIVE_BYTES + own:
            if size not in _HANDSHAKES:
                if not self.busy(now):  # another flow than the one to which nobody answers
                    self._answer_within_s = UNANSWERED_S
                self._used_at = now
            if self._unanswered_since is None:
                # Between two rare readings it may have left right after the first one.
                self._unanswered_since = now if now - read_at < 2 * SAMPLE_S else read_at

    def _came(self, size: int, own: int, waited_s: float, now: float) -> None:
        if size > KEEPALIVE_BYTES + own and size not in _HANDSHAKES:
            self._stream.came(now)
            self._used_at = now
            if waited_s < self._answer_within_s / 2 and now >= self._patient_since + UNANSWERED_HOLD_S:
                self._answer_within_s = max(self._answer_within_s / 2, UNANSWERED_S)
                self._patient_since = now
        self._hear(now)


    def _silent_too_long(self, now: float) -> bool:
        interval_s = self._last.keepalive_s if self._last is not None else 0
        silence = now - self._heard_at if self._heard_at is not None else 0.0
        return interval_s > 0 and silence >= self._patience * MISSED_KEEPALIVES * interval_s

    def _hear(self, now: float) -> None:
        self._heard_at, self._unanswered_since = now, None
