"""Whether a path that answers checks carries nothing else, from counters alone."""

from __future__ import annotations

import pytest
from agentcore_counters import DATA, KEEPALIVE, Tunnel

from meshctl.core.agent.blockage import BLOCKED_S, DETOUR_PAUSE_S, Came
from meshctl.core.agent.liveness import ASLEEP_S, SAMPLE_S, STREAM


def test_a_path_whose_packets_come_by_the_relay_alone_is_blocked_and_one_of_its_own_shows_that_it_is_not() -> None:
    for own in (False, True):
        tunnel = Tunnel()
        tunnel.liveness.moved(tunnel.now, 0.02)
        for second in range(1, round(BLOCKED_S) + 2):
            status = tunnel.status._replace(tx_bytes=7 + DATA * second, rx_bytes=5 + DATA * second)
            came = Came.BY_PATH if own and second == STREAM else Came.BY_RELAY
            assert tunnel.liveness.blocked() == ""
            tunnel.liveness.sample(status, tunnel.now + second, came)
        assert bool(tunnel.liveness.blocked()) is not own
        tunnel.liveness.moved(tunnel.now, 0.02)
        assert tunnel.liveness.blocked() == ""


def test_now_and_then_a_packet_by_the_relay_says_nothing_of_a_path_that_nobody_uses() -> None:
    tunnel = Tunnel()
    for second in range(1, 600, round(DETOUR_PAUSE_S) + 1):
        status = tunnel.status._replace(rx_bytes=5 + DATA * second)
        tunnel.liveness.sample(status, tunnel.now + second, Came.BY_RELAY)
        assert tunnel.liveness.blocked() == ""


@pytest.mark.parametrize("every_s", [1, 11])
def test_packets_that_come_by_the_relay_now_and_then_and_never_by_the_path_show_that_the_peer_is_not_on_it(
    every_s: int
) -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.02)
    second = 0
    while not tunnel.liveness.blocked():
        second += 1
        came = second // every_s
        status = tunnel.status._replace(tx_bytes=7 + DATA * came, rx_bytes=5 + DATA * came)
        tunnel.liveness.sample(status, tunnel.now + second, Came.BY_RELAY)
        assert second <= BLOCKED_S + every_s
    assert second == BLOCKED_S + every_s, "the first one came after a pause"


@pytest.mark.parametrize("by_relay_s", [3, 12, 20])
def test_a_path_on_which_nothing_comes_after_packets_came_by_the_relay_alone_has_been_blocked_since_then(
    by_relay_s: int
) -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.02)
    second, came = 0, 0
    while not tunnel.liveness.blocked():
        second += 1
        came += DATA if second <= by_relay_s else 0
        status = tunnel.status._replace(tx_bytes=7 + DATA * second, rx_bytes=5 + came)
        tunnel.liveness.sample(status, tunnel.now + second, Came.BY_RELAY)
    assert second == BLOCKED_S + 1, "the first packet came after a second"


def test_a_packet_by_the_relay_does_not_end_the_silence_of_a_path_on_which_nothing_came_before_it_either() -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.02)
    second = 0
    while not tunnel.liveness.blocked():
        second += 1
        came = DATA if second >= BLOCKED_S / 2 else 0
        status = tunnel.status._replace(tx_bytes=5 + DATA * second, rx_bytes=7 + came)
        tunnel.liveness.sample(status, tunnel.now + second, Came.BY_RELAY)
    assert second == BLOCKED_S + 1, "the first packet left after a second"


@pytest.mark.parametrize("quiet_s", [round(DETOUR_PAUSE_S) - 2, round(DETOUR_PAUSE_S) + 2])
def test_a_packet_by_the_relay_long_ago_does_not_count_against_a_path_on_which_nothing_comes(quiet_s: int) -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.02)
    status, second = tunnel.status._replace(rx_bytes=5 + DATA), 0
    while not tunnel.liveness.blocked():
        second += 1
        if second == quiet_s + 1:
            status = status._replace(tx_bytes=7 + DATA)
        tunnel.liveness.sample(status, tunnel.now + second, Came.BY_RELAY)
    assert second == 1 + BLOCKED_S + (quiet_s if quiet_s > DETOUR_PAUSE_S else 0)


@pytest.mark.parametrize("happens", ["sleep", "a new interface"])
def test_what_came_by_the_relay_before_a_sleep_or_on_another_interface_does_not_count(happens: str) -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.02)
    for second in range(1, 11):
        tunnel.liveness.sample(tunnel.status._replace(rx_bytes=5 + DATA * second), float(second), Came.BY_RELAY)
    woke_at = 10.0 + (ASLEEP_S + 1.0 if happens == "sleep" else 1.0)
    came = 5 + DATA * 10 if happens == "sleep" else 0
    for second in range(1 + round(BLOCKED_S)):
        assert tunnel.liveness.blocked() == ""
        status = tunnel.status._replace(tx_bytes=7 + DATA * second, rx_bytes=came)
        tunnel.liveness.sample(status, woke_at + second, Came.BY_RELAY)


def test_a_packet_of_which_nobody_knows_how_it_came_neither_makes_nor_ends_what_comes_by_the_relay_alone() -> None:
    for first in (Came.BY_RELAY, Came.UNKNOWN):
        tunnel = Tunnel()
        tunnel.liveness.moved(tunnel.now, 0.02)
        for second in range(1, round(BLOCKED_S) + 2):
            status = tunnel.status._replace(tx_bytes=7 + DATA * second, rx_bytes=5 + DATA * second)
            tunnel.liveness.sample(status, tunnel.now + second, Came.UNKNOWN if second % 2 == 0 else first)
        assert bool(tunnel.liveness.blocked()) is (first is Came.BY_RELAY)


# Checks are answered, and nothing else


def moved() -> Tunnel:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=DATA)
    tunnel.liveness.moved(tunnel.now, 0.02)
    return tunnel


def deaf_after(tunnel: Tunnel, *, sent: int = DATA) -> float:
    """How long after the next reading the path is taken to carry nothing, though it answers a check at each."""
    for step in range(200):
        tunnel.read(SAMPLE_S, sent=sent)
        tunnel.liveness.heard(tunnel.now)
        if tunnel.liveness.blocked():
            return step * SAMPLE_S
    return float("inf")


def test_a_path_that_carries_nothing_is_given_up_after_a_while_with_the_reason() -> None:
    tunnel = moved()
    assert deaf_after(tunnel) == BLOCKED_S
    words = f"WireGuard's packets have not come through for {BLOCKED_S:.0f} s, though checks do"
    assert tunnel.liveness.blocked() == words
    tunnel.read(3.0)
    assert tunnel.liveness.blocked() == words.replace(f"{BLOCKED_S:.0f}", f"{BLOCKED_S + 3:.0f}")


def test_the_smallest_packet_of_wireguard_shows_that_it_comes_through_and_what_is_sent_after_it_counts_anew() -> None:
    tunnel = moved()
    tunnel.read(SAMPLE_S, sent=DATA)
    tunnel.run(BLOCKED_S - 2 * SAMPLE_S)
    tunnel.read(SAMPLE_S, heard=KEEPALIVE)
    tunnel.run(100)
    assert tunnel.liveness.blocked() == ""
    tunnel.read(SAMPLE_S, heard=KEEPALIVE)
    assert deaf_after(tunnel) == BLOCKED_S


def test_nothing_but_content_asks_for_an_answer_of_wireguard_and_messages_of_agents_are_content() -> None:
    tunnel = moved()
    assert deaf_after(tunnel, sent=KEEPALIVE) == float("inf")
    tunnel = moved()
    tunnel.liveness.signalled(DATA, sent=True)
    tunnel.read(SAMPLE_S, sent=KEEPALIVE + 1)
    assert deaf_after(tunnel, sent=0) == BLOCKED_S - SAMPLE_S


def test_of_a_new_path_and_of_a_new_interface_nothing_is_said_before_something_was_sent() -> None:
    tunnel = moved()
    tunnel.read(SAMPLE_S, sent=DATA)
    tunnel.liveness.moved(tunnel.now, 0.02)
    assert deaf_after(tunnel, sent=0) == float("inf")
    tunnel.read(SAMPLE_S, sent=DATA)
    tunnel.read(SAMPLE_S, sent=-2 * DATA)
    assert deaf_after(tunnel, sent=0) == float("inf")


def test_a_host_that_sleeps_while_an_answer_is_awaited_does_not_take_the_path_for_one_that_carries_nothing() -> None:
    tunnel = moved()
    tunnel.read(SAMPLE_S, sent=DATA)
    tunnel.read(ASLEEP_S)
    assert tunnel.liveness.blocked() == ""
    assert deaf_after(tunnel, sent=0) == BLOCKED_S - ASLEEP_S - SAMPLE_S, "it was looked on at all the time"
    tunnel = moved()
    tunnel.read(SAMPLE_S, sent=DATA)
    tunnel.read(3600.0)
    assert deaf_after(tunnel, sent=0) == float("inf")
