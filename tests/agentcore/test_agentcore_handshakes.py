"""Ages of handshakes while the wall clock is set. Hunted: a tunnel that counts as dead, or a dead one that counts as
alive, because somebody has corrected the time."""

from __future__ import annotations

import pytest
from agentcore_values import key

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.handshakes import TOLERANCE_S, Handshakes
from meshctl.core.agent.liveness import HANDSHAKE_MAX_S

HOUR_S = 3600.0
SAMPLE_S = 0.5
HANDSHAKE_BYTES = 92
PLACE = Address("192.0.2.1", 1)


class Clocks:
    """Peers whose handshakes were at `made`, by a clock that nobody steps, seen by a wall clock that is `off`."""

    def __init__(self, *peers: str) -> None:
        self.now, self.off = 1000.0, 0.0
        self.made: dict[str, float | None] = dict.fromkeys(peers)
        self.came = dict.fromkeys(peers, 0)  # bytes
        self.handshakes = Handshakes()

    def read(self, after: float = SAMPLE_S) -> dict[str, float | None]:
        """The ages as they are found right, by peer."""
        self.now += after
        # WireGuard's time of the handshake is that of the wall clock then.
        statuses = [
            PeerStatus(key(p), PLACE, None if at is None else self.now + self.off - at, self.came[p], 2, 25)
            for p, at in self.made.items()
        ]
        found = self.handshakes.correct(statuses, self.now)
        return {peer: found[key(peer)].handshake_age_s for peer in self.made}

    def shake(self, peer: str) -> None:
        self.made[peer] = self.now + self.off
        self.came[peer] += HANDSHAKE_BYTES


def test_without_a_step_ages_are_what_wireguard_shows() -> None:
    clocks = Clocks("a", "b")
    clocks.shake("a")
    assert clocks.read(10.0) == {"a": 10.0, "b": None}
    assert clocks.read(5.0) == {"a": 15.0, "b": None}
    clocks.shake("a")
    clocks.shake("b")
    assert clocks.read(2.0) == {"a": 2.0, "b": 2.0}


def test_what_else_is_shown_stays_as_it_is() -> None:
    status = PeerStatus(key("a"), Address("192.0.2.1", 1), 7.0, 1, 2, 25)
    assert Handshakes().correct([status], 0.0) == {key("a"): status}


def test_after_the_clock_was_set_forward_by_an_hour_handshakes_are_as_old_as_they_are() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(10.0)
    clocks.off += HOUR_S
    assert clocks.read() == {"a": 10.5}
    assert clocks.read(100.0) == {"a": 110.5}


def test_a_handshake_just_before_the_clock_was_set_forward_is_not_older_than_the_reading_before() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(100.0)
    clocks.shake("a")
    clocks.off += 60.0
    age = clocks.read()["a"]
    assert age is not None
    assert 0.0 <= age <= SAMPLE_S


def test_a_new_handshake_after_the_clock_was_set_forward_is_new() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(100.0)
    clocks.off += HOUR_S
    clocks.read()
    clocks.shake("a")
    assert clocks.read() == {"a": SAMPLE_S}


@pytest.mark.parametrize("jitter", [-TOLERANCE_S, TOLERANCE_S])
def test_whole_seconds_are_no_step_and_no_handshake(jitter: float) -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(100.0)
    clocks.off += jitter
    assert clocks.read() == {"a": 100.5}


def test_a_first_reading_is_taken_as_it_is_but_for_the_future() -> None:
    clocks = Clocks("a")
    clocks.made["a"] = clocks.now + HOUR_S
    assert clocks.read() == {"a": 0.0}


def test_of_a_peer_that_was_away_nothing_is_remembered() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(10.0)
    made = clocks.made.pop("a")
    clocks.read()
    clocks.off += HOUR_S
    clocks.made["a"] = made
    assert clocks.read() == {"a": 10.0 + 2 * SAMPLE_S + HOUR_S}


def test_a_tunnel_without_a_handshake_any_more_has_none() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(10.0)
    clocks.made["a"] = None
    assert clocks.read() == {"a": None}
    clocks.shake("a")
    assert clocks.read() == {"a": SAMPLE_S}


def test_after_the_clock_was_set_back_by_an_hour_handshakes_are_as_old_as_they_are() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(100.0)
    clocks.off -= HOUR_S
    assert clocks.read() == {"a": 100.5}
    assert clocks.read(100.0) == {"a": 200.5}


def test_who_is_dead_for_an_hour_is_so_after_the_clock_was_set_back_by_less_than_that() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(HOUR_S)
    clocks.off -= HOUR_S / 2
    assert clocks.read() == {"a": HOUR_S + SAMPLE_S}
    clocks.shake("a")
    assert clocks.read() == {"a": SAMPLE_S}


def test_a_handshake_whose_bytes_are_counted_a_reading_later_is_new_then() -> None:
    clocks = Clocks("a")
    clocks.shake("a")
    clocks.read(100.0)
    clocks.made["a"] = clocks.now
    assert clocks.read() == {"a": 100.0 + SAMPLE_S}
    clocks.came["a"] += HANDSHAKE_BYTES
    assert clocks.read() == {"a": SAMPLE_S}


def test_a_message_by_a_tunnel_shows_that_its_handshake_is_no_older_than_keys_can_be() -> None:
    clocks = Clocks("a", "b")
    clocks.shake("a")
    clocks.shake("b")
    clocks.off = HOUR_S
    assert clocks.read(10.0) == {"a": HOUR_S + 10.0, "b": HOUR_S + 10.0}, "the agent has just started"
    clocks.handshakes.heard(key("a"))
    assert clocks.read(10.0) == {"a": HANDSHAKE_MAX_S, "b": HOUR_S + 20.0}
    assert clocks.read(10.0)["a"] == HANDSHAKE_MAX_S + 10.0, "and that ages"
    clocks.shake("a")
    clocks.handshakes.heard(key("a"))
    assert clocks.read(10.0)["a"] == 10.0
