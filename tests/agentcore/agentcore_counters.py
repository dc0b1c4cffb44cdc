"""A tunnel as its counters show it, read by `Liveness`."""

from __future__ import annotations

from agentcore_values import key

from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.liveness import SAMPLE_S, Liveness

DATA = 100
# What WireGuard sends at its own time: an empty transport message (header, counter and tag), and how old a key may be
# (REJECT_AFTER_TIME). Its paper, sections 5.4.6 and 6.1.
KEEPALIVE, REJECT_AFTER_S = 32, 180
# Of a handshake.
INITIATION, RESPONSE = 148, 92


class Tunnel:
    """Counters that are read every SAMPLE_S."""

    def __init__(self, keepalive_s: int = 0) -> None:
        self.now = 0.25
        self.status = PeerStatus(key("peer"), None, 1.0, 7, 5, keepalive_s)
        self.liveness = Liveness()
        self.liveness.sample(self.status, self.now)

    def read(self, after: float, *, sent: int = 0, heard: int = 0) -> str:
        """The next reading, so much later; the word of distress there is then."""
        self.now += after
        status, liveness = self.status, self.liveness
        self.status = status._replace(tx_bytes=status.tx_bytes + sent, rx_bytes=status.rx_bytes + heard)
        liveness.sample(self.status, self.now)
        return liveness.distress(self.now)

    def run(self, seconds: float, *, sent: int = 0, heard: int = 0) -> str:
        """So many bytes each sample; the first word of distress there is on the way."""
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            status = self.status
            age = (status.handshake_age_s or 0) + SAMPLE_S
            self.status = status._replace(
                tx_bytes=status.tx_bytes + sent, rx_bytes=status.rx_bytes + heard, handshake_age_s=age
            )
            self.liveness.sample(self.status, self.now)
            if self.liveness.distress(self.now):
                return self.liveness.distress(self.now)
        return ""
