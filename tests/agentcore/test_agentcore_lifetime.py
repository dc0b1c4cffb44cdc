"""Keepalives below a mapping's lifetime, against NATs of any lifetime. Hunted: a keepalive that lets a mapping die, one
that is needlessly short, and a search without end."""

from __future__ import annotations

from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.lifetime import (
    ANSWERED_S,
    DOUBT_S,
    LATE,
    LONGEST_S,
    RESOLUTION_S,
    SHORTEST_S,
    MappingLifetime,
)

CONFIGURED = 25


def search(lifetime: MappingLifetime, nat_s: float, now: float = 0.0) -> int:
    """Try silences until there is nothing to learn; how many it took."""
    for tries in range(100):
        silence = lifetime.next_silence_s(now)
        if silence is None:
            return tries
        if silence < nat_s:
            lifetime.survived(silence)
        else:
            lifetime.lost(silence, now)
        now += silence
    raise AssertionError("a search without end")


def well_below(silence_s: float) -> float:
    """The keepalive for a mapping that survives so long a silence."""
    return min(max((silence_s - ANSWERED_S) / LATE, SHORTEST_S), LONGEST_S)


@settings(max_examples=examples(50))
@given(st.floats(1, 1000), st.integers(1, 120))
def test_the_keepalive_that_is_found_is_below_the_nats_lifetime_and_not_far_below(
    nat_s: float, configured: int
) -> None:
    lifetime = MappingLifetime(configured)
    assert search(lifetime, nat_s) <= 12
    assert SHORTEST_S <= lifetime.keepalive_s <= LONGEST_S
    if nat_s > SHORTEST_S:
        assert lifetime.keepalive_s < nat_s
        assert lifetime.keepalive_s >= well_below(nat_s - RESOLUTION_S) - 1
    if nat_s > SHORTEST_S * LATE + ANSWERED_S:
        assert lifetime.keepalive_s * LATE + ANSWERED_S < nat_s


def test_a_nat_that_keeps_mappings_for_long_gets_the_longest_keepalive_in_few_tries() -> None:
    lifetime = MappingLifetime(CONFIGURED)
    assert lifetime.keepalive_s == CONFIGURED
    assert search(lifetime, 1000) == 6
    assert lifetime.keepalive_s == LONGEST_S
    assert lifetime.next_silence_s(1e9) is None


@settings(max_examples=examples(50))
@given(st.floats(1, 1000), st.lists(st.floats(0, 1), max_size=5))
def test_a_loss_makes_the_keepalive_shorter_than_what_was_lost(nat_s: float, shares: list[float]) -> None:
    lifetime = MappingLifetime(CONFIGURED)
    search(lifetime, nat_s)
    for share in shares:
        before = lifetime.keepalive_s
        silence = before * (0.5 + share / 2)
        lifetime.lost(silence, 0.0)
        assert lifetime.keepalive_s <= before
        assert lifetime.keepalive_s <= max(SHORTEST_S, silence / LATE)


@settings(max_examples=examples(50))
@given(st.floats(15, 1000), st.floats(15, 1000))
def test_another_nat_with_another_lifetime_is_learned_after_the_loss_and_the_doubt(
    first_s: float, second_s: float
) -> None:
    lifetime = MappingLifetime(CONFIGURED)
    search(lifetime, first_s)
    if lifetime.keepalive_s >= second_s:
        lifetime.lost(lifetime.keepalive_s, 0.0)
    for round_ in range(1, 40):
        search(lifetime, second_s, round_ * (DOUBT_S + 1000))
    assert lifetime.keepalive_s <= max(second_s, SHORTEST_S)
    assert lifetime.keepalive_s >= well_below(second_s - RESOLUTION_S) - 1


def test_one_loss_that_nothing_confirms_is_tried_again_after_an_hour_and_forgotten() -> None:
    lifetime = MappingLifetime(CONFIGURED)
    search(lifetime, 1000)
    lifetime.lost(60.0, 0.0)
    assert search(lifetime, 1000, 1.0) > 0
    assert lifetime.keepalive_s < (60 - ANSWERED_S) / LATE
    assert lifetime.next_silence_s(10.0) is None
    search(lifetime, 1000, DOUBT_S + 1000)
    assert lifetime.keepalive_s == LONGEST_S


def test_where_the_inventory_wants_no_keepalive_there_is_none() -> None:
    lifetime = MappingLifetime(0)
    lifetime.lost(30.0, 0.0)
    assert lifetime.keepalive_s == 0


def test_in_another_network_learning_begins_anew() -> None:
    lifetime = MappingLifetime(CONFIGURED)
    search(lifetime, 15)
    lifetime.reset()
    assert lifetime.keepalive_s == CONFIGURED
