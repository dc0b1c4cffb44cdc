"""Signs of life, from counters alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agentcore_values import key

from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.liveness import HANDSHAKE_MAX_S, KEEPALIVE_BYTES, SAMPLE_S, UNANSWERED_S, Liveness

DATA = 128


class Tunnel:
    """Counters that are read every SAMPLE_S."""

    def __init__(self, keepalive_s: int = 0) -> None:
        self.now = 0.0
        self.status = PeerStatus(key("peer"), None, 1.0, 0, 0, keepalive_s)
        self.liveness = Liveness()
        self.liveness.sample(self.status, self.now)

    def run(self, seconds: float, *, sent: int = 0, heard: int = 0) -> str:
        """So many bytes each sample; the first word of distress there is on the way."""
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            status = self.status
            age = (status.handshake_age_s or 0) + SAMPLE_S
            self.status = replace(
                status, tx_bytes=status.tx_bytes + sent, rx_bytes=status.rx_bytes + heard, handshake_age_s=age
            )
            self.liveness.sample(self.status, self.now)
            if self.liveness.distress(self.now):
                return self.liveness.distress(self.now)
        return ""


def test_a_flow_that_is_answered_is_alive() -> None:
    assert Tunnel().run(60, sent=DATA, heard=DATA) == ""


def test_a_flow_that_is_not_answered_is_in_distress_within_a_second() -> None:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=DATA)
    started = tunnel.now
    assert tunnel.run(10, sent=DATA).startswith("nothing came for")
    assert tunnel.now - started <= UNANSWERED_S + 2 * SAMPLE_S


def test_an_idle_tunnel_is_not_in_distress_and_keepalives_that_leave_are_no_traffic() -> None:
    tunnel = Tunnel()
    assert tunnel.run(600) == ""
    assert tunnel.run(SAMPLE_S, sent=KEEPALIVE_BYTES) == ""
    assert tunnel.run(30) == ""
    assert not tunnel.liveness.busy(tunnel.now)


def test_missed_keepalives_of_an_idle_tunnel_are_distress() -> None:
    tunnel = Tunnel(keepalive_s=25)
    assert "keepalive every 25 s" in tunnel.run(90)
    assert tunnel.now == pytest.approx(62.5)


def test_an_answered_question_ends_the_distress_of_a_flow_in_one_direction() -> None:
    tunnel = Tunnel()
    assert tunnel.run(5, sent=DATA)
    tunnel.liveness.heard(tunnel.now)
    assert tunnel.liveness.distress(tunnel.now) == ""
    assert tunnel.run(5, sent=DATA)


def test_traffic_under_a_handshake_that_is_too_old_is_distress() -> None:
    assert "handshake" in Tunnel().run(HANDSHAKE_MAX_S + 5, sent=DATA, heard=DATA)


def test_counters_that_begin_again_say_nothing_of_the_time_before() -> None:
    tunnel = Tunnel()
    tunnel.run(1, sent=DATA)
    tunnel.status = replace(tunnel.status, tx_bytes=0, rx_bytes=0)
    assert tunnel.run(SAMPLE_S) == ""
