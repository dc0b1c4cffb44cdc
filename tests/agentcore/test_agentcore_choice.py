"""Which pair is used, and that it is not changed for little or often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.checks import Pair
from meshctl.core.agent.choice import CHANGES_PER_HOUR, Changes, best

LOCAL = Address("192.0.2.1", 51820)
A, B, C = (Pair(LOCAL, Address(f"198.51.100.{i}", 51820)) for i in (1, 2, 3))
VALID = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.integers(0, 9), st.floats(0.0001, 2.0)), unique_by=lambda v: v[0]
)


def test_the_shorter_way_is_taken_though_its_priority_is_lower() -> None:
    assert best([(A, 9, 0.200), (B, 1, 0.020)]) == B


def test_of_ways_as_short_the_one_of_higher_priority_is_taken() -> None:
    assert best([(A, 1, 0.020), (B, 9, 0.025)]) == B


def test_without_a_valid_pair_there_is_none() -> None:
    assert best([]) is None


@given(VALID)
def test_the_best_is_the_same_in_whichever_order_pairs_were_found(valid: list[tuple[Pair, int, float]]) -> None:
    assert best(valid) == best(valid[::-1])


@given(VALID, st.sampled_from([A, B, C]))
def test_whatever_is_changed_to_is_better_by_ten_milliseconds_and_a_fifth(
    valid: list[tuple[Pair, int, float]], current: Pair
) -> None:
    wanted = Changes().worth(valid, current, 0.0)
    rtts = {pair: rtt for pair, _, rtt in valid}
    if wanted is not None:
        assert rtts[current] - rtts[wanted] > 0.01
        assert rtts[wanted] < 0.8 * rtts[current]


def test_two_pairs_that_are_by_turns_the_better_one_are_changed_a_few_times_an_hour() -> None:
    changes, current, times = Changes(), A, []
    for minute in range(180):
        rtts = (0.1, 0.01) if minute % 2 else (0.01, 0.1)
        wanted = changes.worth([(A, 1, rtts[0]), (B, 1, rtts[1])], current, minute * 60.0)
        if wanted is not None:
            current = wanted
            times.append(minute)
    assert times
    assert max(sum(start <= t < start + 60 for t in times) for start in range(120)) == CHANGES_PER_HOUR
