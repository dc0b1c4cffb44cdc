"""Signs of life, from counters alone."""

from __future__ import annotations

import pytest
from agentcore_counters import DATA, INITIATION, KEEPALIVE, REJECT_AFTER_S, RESPONSE, Tunnel

from meshctl.core.agent.check import PATH_ANSWER_MAX_S, PATH_ANSWER_S, PATH_SCHEDULE_S
from meshctl.core.agent.liveness import (
    BUSY_S,
    IDLE_SAMPLE_S,
    MISSED_KEEPALIVES,
    NEWEST,
    PAUSE_S,
    SAMPLE_S,
    SILENCE_S,
    STOPPED_S,
    STREAM,
    UNANSWERED_HOLD_S,
    UNANSWERED_MAX_S,
    UNANSWERED_S,
    Liveness,
)


def test_nothing_is_known_before_the_first_reading() -> None:
    liveness = Liveness()
    assert (liveness.heard_at, liveness.busy(0.0), liveness.distress(1e9)) == (None, False, "")
    liveness.heard(1.0)
    assert liveness.distress(1e9) == ""


def test_a_flow_that_is_answered_is_alive() -> None:
    tunnel = Tunnel()
    assert tunnel.run(60, sent=DATA, heard=DATA) == ""
    assert tunnel.liveness.heard_at == tunnel.now


def test_a_flow_that_is_not_answered_is_in_distress_within_a_second_and_says_for_how_long() -> None:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=DATA)
    started = tunnel.now
    assert tunnel.run(10, sent=DATA) == f"nothing came for {UNANSWERED_S:.1f} s after something was sent"
    assert tunnel.now - started == UNANSWERED_S + SAMPLE_S
    assert tunnel.liveness.distress(tunnel.now + 0.7).startswith(f"nothing came for {UNANSWERED_S + 0.7:.1f} s after")


def test_a_dead_path_under_traffic_is_known_to_be_dead_in_less_than_two_seconds() -> None:
    questions_s = PATH_SCHEDULE_S[-1] + PATH_ANSWER_S
    assert SAMPLE_S + UNANSWERED_S + SAMPLE_S + questions_s < 2
    assert SAMPLE_S < IDLE_SAMPLE_S
    assert IDLE_SAMPLE_S + questions_s < 2, "what leaves an idle path is taken for unanswered at the next reading"


def test_an_answer_that_takes_less_than_the_patience_is_no_distress() -> None:
    tunnel = Tunnel()
    tunnel.run(SAMPLE_S, sent=DATA)
    tunnel.liveness.heard(tunnel.now + UNANSWERED_S)
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S) == ""
    tunnel = Tunnel()
    tunnel.run(SAMPLE_S, sent=DATA)
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S)


def test_an_idle_tunnel_is_not_in_distress_and_keepalives_that_leave_are_no_traffic() -> None:
    tunnel = Tunnel()
    assert tunnel.run(600) == ""
    assert tunnel.run(SAMPLE_S, sent=KEEPALIVE) == ""
    assert not tunnel.liveness.busy(tunnel.now)
    assert tunnel.run(30) == ""
    tunnel.run(SAMPLE_S, sent=KEEPALIVE + 1)
    assert tunnel.liveness.busy(tunnel.now)


@pytest.mark.parametrize(
    ("sent", "heard"),
    [(INITIATION + KEEPALIVE, RESPONSE), (RESPONSE, INITIATION + KEEPALIVE), (INITIATION, 0), (0, INITIATION),
     (KEEPALIVE, RESPONSE), (INITIATION + 2 * KEEPALIVE, RESPONSE + KEEPALIVE)],
)  # fmt: skip
def test_a_handshake_alone_is_no_use_of_the_path(sent: int, heard: int) -> None:
    tunnel = Tunnel()
    tunnel.read(IDLE_SAMPLE_S, sent=sent, heard=heard)
    assert not tunnel.liveness.busy(tunnel.now)
    unanswered = sent == INITIATION and not heard
    assert bool(tunnel.liveness.distress(tunnel.now + UNANSWERED_S)) is unanswered
    tunnel.read(IDLE_SAMPLE_S, sent=sent + DATA, heard=heard + DATA)
    assert tunnel.liveness.busy(tunnel.now)


def test_handshakes_are_no_stream_that_may_stop() -> None:
    tunnel = Tunnel()
    for _ in range(STREAM + 1):
        tunnel.read(IDLE_SAMPLE_S, heard=INITIATION)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S + 1) == ""


def test_a_path_is_in_use_until_so_long_after_the_last_packet_that_left() -> None:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=KEEPALIVE)
    assert tunnel.liveness.busy(tunnel.now + BUSY_S - 0.01)
    assert not tunnel.liveness.busy(tunnel.now + BUSY_S)
    assert not tunnel.liveness.busy(tunnel.now + BUSY_S + 1)


def test_who_only_answers_notices_that_the_questions_have_stopped() -> None:
    tunnel = Tunnel()
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    assert not tunnel.liveness.busy(tunnel.now + 1e6)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S) == "what came all the time has stopped 1.0 s ago"
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S + 1) == "what came all the time has stopped 2.0 s ago"
    tunnel.liveness.heard(tunnel.now + 5)
    assert tunnel.liveness.distress(tunnel.now + 10) == ""
    assert not tunnel.liveness.busy(tunnel.now + 10)


@pytest.mark.parametrize(("every_s", "after_s"), [(0.75, 1.5), (1.0, 2.0), (2.25, 4.5)])
def test_what_came_now_and_then_has_stopped_after_twice_its_pause(every_s: float, after_s: float) -> None:
    tunnel = Tunnel()
    for _ in range(STREAM + 2):
        assert tunnel.read(every_s, heard=DATA) == ""
    assert tunnel.liveness.distress(tunnel.now + after_s - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + after_s)


def test_only_the_newest_pauses_count_for_what_has_stopped() -> None:
    tunnel = Tunnel()
    tunnel.read(SAMPLE_S, heard=DATA)
    tunnel.read(PAUSE_S, heard=DATA)  # a message, and then a flow
    tunnel.run((NEWEST - 1) * SAMPLE_S, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S) == ""
    tunnel.read(SAMPLE_S, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S)


def test_what_comes_after_longer_pauses_is_no_stream_and_a_new_one_has_pauses_of_its_own() -> None:
    tunnel = Tunnel()
    for _ in range(STREAM + 2):
        tunnel.read(PAUSE_S + 0.25, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + 1e3) == ""
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S)


def test_a_few_packets_and_keepalives_are_no_stream_that_could_stop() -> None:
    for count, size in ((STREAM - 1, DATA), (1000, KEEPALIVE)):
        tunnel = Tunnel()
        tunnel.run(count * SAMPLE_S, heard=size)
        assert tunnel.liveness.busy(tunnel.now) is (size == DATA)
        assert tunnel.run(60) == ""
    tunnel.run(STREAM * SAMPLE_S, heard=KEEPALIVE + 1)
    assert tunnel.liveness.busy(tunnel.now)


def test_a_stream_over_a_slow_path_may_pause_for_its_round_trips() -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 2.0)
    tunnel.run(5, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + 1.5 * 2.0 - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + 1.5 * 2.0 + 0.01)


def test_missed_keepalives_of_an_idle_tunnel_are_distress() -> None:
    tunnel = Tunnel(keepalive_s=25)
    began = tunnel.now
    assert tunnel.run(90) == "nothing came for 62 s, though there is a keepalive every 25 s"
    assert tunnel.now - began == pytest.approx(MISSED_KEEPALIVES * 25)
    assert tunnel.liveness.distress(tunnel.now + 100)


@pytest.mark.parametrize("shown", ["outlived", "carried"])
def test_each_silence_of_an_idle_tunnel_that_was_no_death_doubles_the_patience_until_there_is_another_path(
    shown: str,
) -> None:
    tunnel = Tunnel(keepalive_s=10)
    waited = []
    for _ in range(7):
        began = tunnel.now
        assert tunnel.run(1000)
        waited.append(tunnel.now - began)
        getattr(tunnel.liveness, shown)(tunnel.now)
    first = MISSED_KEEPALIVES * 10
    assert waited == [pytest.approx(first * times, abs=SAMPLE_S) for times in (1, 2, 4, 8, 16, 16, 16)]
    tunnel.liveness.moved(tunnel.now, 0.0)
    assert tunnel.run(1000)
    assert tunnel.now - began - waited[-1] == pytest.approx(first, abs=SAMPLE_S)


def test_that_the_relay_is_there_says_nothing_where_something_was_not_answered() -> None:
    tunnel = Tunnel(keepalive_s=10)
    words = tunnel.run(5, sent=DATA)
    assert words
    for _ in range(20):
        tunnel.liveness.carried(tunnel.now)
        assert tunnel.read(10.0)
    tunnel.liveness.moved(tunnel.now, 0.0)
    assert tunnel.run(MISSED_KEEPALIVES * 10 + 1), "no more patient than before"


def test_an_answered_question_ends_the_distress_of_a_flow_in_one_direction() -> None:
    tunnel = Tunnel()
    assert tunnel.run(5, sent=DATA)
    tunnel.liveness.heard(tunnel.now)
    assert tunnel.liveness.distress(tunnel.now) == ""
    assert tunnel.run(5, sent=DATA)


def doubted_after(tunnel: Tunnel) -> float:
    """How long a flow that nobody answers goes on until the path is in doubt, which a check then shows to be none."""
    began = tunnel.now
    assert tunnel.run(10.0, sent=DATA)
    tunnel.liveness.outlived(tunnel.now)
    return tunnel.now - began - SAMPLE_S


def one_way() -> Tunnel:
    """A flow in one direction, of which it is known that nobody answers."""
    tunnel = Tunnel()
    while doubted_after(tunnel) < UNANSWERED_MAX_S:
        pass
    return tunnel


def test_each_doubt_of_a_flow_in_one_direction_that_was_none_doubles_the_patience_up_to_a_bound() -> None:
    tunnel = Tunnel()
    waited = [doubted_after(tunnel) for _ in range(6)]
    assert waited == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert waited[0] == UNANSWERED_S
    assert waited[-1] == UNANSWERED_MAX_S


def test_a_flow_in_one_direction_is_to_be_confirmed_as_soon_as_another_would_be_in_distress() -> None:
    for tunnel in (Tunnel(), one_way()):
        patient = tunnel.liveness.distress(tunnel.now) == "" and tunnel.read(SAMPLE_S, sent=DATA) == ""
        assert not tunnel.liveness.unconfirmed(tunnel.now)
        said = tunnel.read(UNANSWERED_S, sent=DATA)
        assert tunnel.liveness.unconfirmed(tunnel.now) is (patient and not said)
        tunnel.liveness.heard(tunnel.now)
        assert not tunnel.liveness.unconfirmed(tunnel.now)
    tunnel.read(60.0)
    assert not tunnel.liveness.unconfirmed(tunnel.now), "nothing was sent"


def test_keepalives_do_not_end_that_patience() -> None:
    tunnel = one_way()
    tunnel.read(SAMPLE_S, sent=DATA, heard=KEEPALIVE)
    assert doubted_after(tunnel) == UNANSWERED_MAX_S


def test_a_flow_in_both_directions_is_in_distress_as_soon_as_ever_some_time_after_one_that_had_no_answers() -> None:
    tunnel = one_way()
    tunnel.run(1.0, sent=DATA, heard=DATA)
    assert doubted_after(tunnel) > UNANSWERED_S
    tunnel.run(4 * UNANSWERED_HOLD_S, sent=DATA, heard=DATA)
    assert doubted_after(tunnel) == UNANSWERED_S


def test_a_flow_in_both_directions_beside_one_without_answers_has_a_path_doubted_now_and_then_only() -> None:
    tunnel, doubts = Tunnel(), 0
    for _ in range(600):
        for sent, heard in ((DATA, DATA), (DATA, 0), (0, 0), (0, 0), (0, 0)):  # one that pauses for a second
            if tunnel.read(SAMPLE_S, sent=sent, heard=heard):
                tunnel.liveness.outlived(tunnel.now)
                doubts += 1
    assert doubts <= 600 * 5 * SAMPLE_S / UNANSWERED_HOLD_S + 3


@pytest.mark.parametrize("event", ["another path", "another flow", "another interface"])
def test_that_nobody_answered_says_nothing_of(event: str) -> None:
    tunnel = one_way()
    if event == "another path":
        tunnel.liveness.moved(tunnel.now, 0.02)
    elif event == "another flow":
        tunnel.read(BUSY_S)
    else:
        tunnel.status = tunnel.status._replace(tx_bytes=0)
        tunnel.read(SAMPLE_S)
    assert doubted_after(tunnel) == UNANSWERED_S


def test_answers_that_always_take_long_do_not_have_the_path_doubted_each_time() -> None:
    tunnel, doubts = Tunnel(), 0
    for _ in range(20):
        tunnel.read(SAMPLE_S, sent=DATA)
        for _ in range(3):
            if tunnel.read(SAMPLE_S, sent=KEEPALIVE):
                doubts += 1
                tunnel.liveness.outlived(tunnel.now)
        tunnel.read(SAMPLE_S, heard=DATA)
    assert doubts == 1


def test_what_was_not_answered_on_one_path_says_nothing_of_the_next() -> None:
    tunnel = Tunnel()
    tunnel.run(SAMPLE_S, sent=DATA)
    tunnel.liveness.moved(tunnel.now, 0.0)
    assert tunnel.run(5) == ""


def test_what_came_all_the_time_on_one_path_is_to_come_by_the_next_or_that_is_asked_once() -> None:
    tunnel = Tunnel()
    tunnel.run(5.0, heard=DATA)
    tunnel.liveness.moved(tunnel.now, 0.0)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S) == "what came all the time has stopped 1.0 s ago"
    tunnel.liveness.outlived(tunnel.now + STOPPED_S)  # the flow was over, and not the path dead
    assert tunnel.liveness.distress(tunnel.now + 3 * STOPPED_S) == ""


def test_a_slow_path_has_the_time_that_its_round_trips_take() -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 0.4)
    tunnel.run(SAMPLE_S, sent=DATA)
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + 1.5 * 0.4 - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + 1.5 * 0.4 + 0.01)
    tunnel.liveness.moved(tunnel.now, 0.01)
    tunnel.run(SAMPLE_S, sent=DATA)
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S)


def test_a_round_trip_that_was_long_for_once_does_not_make_silence_last_for_ever() -> None:
    tunnel = Tunnel()
    tunnel.liveness.moved(tunnel.now, 60.0)
    tunnel.run(SAMPLE_S, sent=DATA)
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + PATH_ANSWER_MAX_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + SAMPLE_S + PATH_ANSWER_MAX_S)


def test_an_old_handshake_is_distress_when_a_path_in_use_falls_silent_and_none_while_it_is_heard() -> None:
    tunnel = Tunnel()
    assert tunnel.run(REJECT_AFTER_S + 60, sent=DATA, heard=KEEPALIVE) == ""
    assert tunnel.liveness.distress(tunnel.now + SILENCE_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + SILENCE_S) == "the last handshake was 241 s ago"
    assert tunnel.liveness.distress(tunnel.now + SILENCE_S + 1)
    assert tunnel.liveness.distress(tunnel.now + BUSY_S) == ""


@pytest.mark.parametrize(("age_s", "old"), [(REJECT_AFTER_S, False), (REJECT_AFTER_S + 0.5, True)])
def test_a_handshake_is_old_when_wireguard_refuses_its_keys(age_s: float, old: bool) -> None:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=KEEPALIVE)
    tunnel.status = tunnel.status._replace(handshake_age_s=age_s)
    tunnel.liveness.sample(tunnel.status, tunnel.now)
    assert bool(tunnel.liveness.distress(tunnel.now + 3)) is old


def test_an_old_handshake_without_traffic_and_traffic_before_any_handshake_are_no_distress() -> None:
    assert Tunnel().run(2 * REJECT_AFTER_S) == ""
    tunnel = Tunnel()
    tunnel.status = tunnel.status._replace(handshake_age_s=None, tx_bytes=tunnel.status.tx_bytes + DATA)
    tunnel.liveness.sample(tunnel.status, tunnel.now)
    assert tunnel.liveness.distress(tunnel.now) == ""


@pytest.mark.parametrize(("sent", "heard"), [(0, 9000), (9000, 0), (0, 0)])
def test_counters_that_begin_again_say_nothing_of_the_time_before(sent: int, heard: int) -> None:
    tunnel = Tunnel()
    tunnel.run(5, sent=DATA, heard=DATA)
    tunnel.run(UNANSWERED_S, sent=DATA)
    tunnel.now += 5
    tunnel.status = tunnel.status._replace(tx_bytes=sent, rx_bytes=heard)
    tunnel.liveness.sample(tunnel.status, tunnel.now)
    assert tunnel.liveness.distress(tunnel.now + 30) == ""
    assert not tunnel.liveness.busy(tunnel.now)
    assert tunnel.liveness.heard_at == tunnel.now


def test_of_rare_readings_what_left_in_between_may_have_left_at_the_beginning() -> None:
    tunnel = Tunnel()
    assert tunnel.read(IDLE_SAMPLE_S, sent=DATA) == "nothing came for 1.0 s after something was sent"
    for after in (2 * SAMPLE_S, 2.5 * SAMPLE_S):
        tunnel = Tunnel()
        assert tunnel.read(after, sent=DATA) == f"nothing came for {after:.1f} s after something was sent"


def test_of_frequent_readings_what_left_in_between_has_just_left() -> None:
    tunnel = Tunnel()
    assert tunnel.read(1.9 * SAMPLE_S, sent=DATA) == ""
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S - 0.01) == ""
    assert tunnel.liveness.distress(tunnel.now + UNANSWERED_S)


def test_the_first_of_several_packets_that_are_not_answered_begins_the_time() -> None:
    tunnel = Tunnel()
    tunnel.read(SAMPLE_S, sent=DATA)
    first = tunnel.now
    tunnel.read(SAMPLE_S / 2, sent=DATA)
    assert tunnel.liveness.distress(first + UNANSWERED_S)


@pytest.mark.parametrize("event", ["answer", "new interface"])
def test_a_stream_is_counted_anew_after_an_answer_and_on_a_new_interface(event: str) -> None:
    for count in (STREAM - 1, STREAM):
        tunnel = Tunnel()
        tunnel.run(STREAM * SAMPLE_S, heard=DATA)
        if event == "answer":
            tunnel.liveness.heard(tunnel.now)
        else:
            tunnel.status = tunnel.status._replace(rx_bytes=0)
            tunnel.read(SAMPLE_S)
        tunnel.run(count * SAMPLE_S, heard=DATA)
        assert bool(tunnel.liveness.distress(tunnel.now + STOPPED_S)) is (count == STREAM)


@pytest.mark.parametrize("event", ["answer", "new interface"])
def test_a_pause_before_an_answer_or_a_new_interface_makes_no_later_silence_longer(event: str) -> None:
    tunnel = Tunnel()
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    tunnel.read(PAUSE_S - 2 * SAMPLE_S, heard=DATA)
    tunnel.read(PAUSE_S - SAMPLE_S)
    if event == "answer":
        tunnel.liveness.heard(tunnel.now)
    else:
        tunnel.status = tunnel.status._replace(rx_bytes=0)
        tunnel.read(0.0)
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S)


def test_that_nothing_came_by_a_dead_path_makes_no_later_silence_on_the_next_longer() -> None:
    tunnel = Tunnel()
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    tunnel.read(PAUSE_S - SAMPLE_S)
    tunnel.liveness.moved(tunnel.now, 0.02)
    tunnel.run(STREAM * SAMPLE_S, heard=DATA)
    assert tunnel.liveness.distress(tunnel.now + STOPPED_S)


# What agents say to each other in the tunnel


# What a message adds to a counter at most: 40 and 8 bytes of IPv6's and UDP's headers, filled up to 16 bytes, and 32
# around it (WireGuard's paper, section 5.4.6).
@pytest.mark.parametrize(("size", "counted"), [(1, 96), (16, 96), (17, 112), (48, 128), (200, 288)])
@pytest.mark.parametrize("direction", ["sent", "heard"])
def test_a_message_between_agents_is_no_use_of_the_path_but_a_byte_more_is(
    size: int, counted: int, direction: str
) -> None:
    for more, is_used in ((-16, False), (0, False), (1, True)):
        tunnel = Tunnel()
        tunnel.liveness.signalled(size, sent=direction == "sent")
        tunnel.read(SAMPLE_S, **{direction: counted + KEEPALIVE + more})
        assert tunnel.liveness.busy(tunnel.now) is is_used


@pytest.mark.parametrize("direction", ["sent", "heard"])
def test_messages_between_agents_add_up_until_the_next_reading_and_count_for_that_one_alone(direction: str) -> None:
    tunnel = Tunnel()
    for _ in range(3):
        tunnel.liveness.signalled(16, sent=direction == "sent")
    tunnel.read(SAMPLE_S, **{direction: 3 * 96})
    assert not tunnel.liveness.busy(tunnel.now)
    tunnel.read(SAMPLE_S, **{direction: 96})
    assert tunnel.liveness.busy(tunnel.now)


def test_a_message_in_one_direction_excuses_nothing_in_the_other() -> None:
    for direction, other in (("sent", "heard"), ("heard", "sent")):
        tunnel = Tunnel()
        tunnel.liveness.signalled(16, sent=direction == "sent")
        tunnel.read(SAMPLE_S, **{other: 96})
        assert tunnel.liveness.busy(tunnel.now)


def test_a_message_that_leaves_waits_for_no_answer_and_one_that_comes_shows_that_the_path_lives() -> None:
    tunnel = Tunnel()
    tunnel.liveness.signalled(16, sent=True)
    assert tunnel.read(SAMPLE_S, sent=96) == tunnel.run(60) == ""
    tunnel.run(SAMPLE_S, sent=DATA)
    tunnel.liveness.signalled(16, sent=False)
    assert tunnel.read(SAMPLE_S, heard=96) == tunnel.run(60) == ""
    assert tunnel.liveness.heard_at == tunnel.now - 60
