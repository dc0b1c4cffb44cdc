"""Which pair is used, and that it is not changed for little or often."""

from __future__ import annotations

from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.choice import FAILED_AGAIN, RUNNERS_UP, Changes, best, rivals

LOCAL = Address("192.0.2.1", 51820)
A, B, C = (Pair(LOCAL, Address(f"198.51.100.{i}", 51820)) for i in (1, 2, 3))
VALID = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.integers(0, 9), st.floats(0.0001, 2.0)), unique_by=lambda v: v[0]
)


def test_the_shorter_way_is_taken_though_its_priority_is_lower() -> None:
    assert best([(A, 9, 0.200), (B, 1, 0.020)]) == B


def test_of_ways_as_short_the_one_of_higher_priority_is_taken() -> None:
    assert best([(A, 1, 0.020), (B, 9, 0.025)]) == B
    assert best([(A, 9, 0.025), (B, 1, 0.020)]) == A


def test_ten_milliseconds_are_no_difference_nor_is_a_fifth() -> None:
    assert best([(A, 1, 0.0), (B, 9, 0.010)]) == B
    assert best([(A, 1, 0.0), (B, 9, 0.0101)]) == A
    assert best([(A, 1, 0.100), (B, 9, 0.124)]) == B
    assert best([(A, 1, 0.100), (B, 9, 0.126)]) == A


def test_without_a_valid_pair_there_is_none() -> None:
    assert best([]) is None


def test_the_shortest_others_are_compared_with_the_pair_in_use() -> None:
    others = [(Pair(LOCAL, Address("198.51.100.9", n)), 1, n / 1000) for n in range(1, RUNNERS_UP + 3)]
    assert rivals([(A, 1, 0.0), *others[::-1]], [], A, 0) == {pair for pair, _, _ in others[:RUNNERS_UP]}
    assert rivals([(A, 1, 0.0)], [], A, 0) == frozenset()


def test_pairs_that_have_failed_come_in_turns_until_each_was_compared() -> None:
    failed = [Pair(LOCAL, Address("198.51.100.9", n)) for n in range(5)]
    for turn in range(7):
        numbers = {n % len(failed) for n in range(FAILED_AGAIN * turn, FAILED_AGAIN * (turn + 1))}
        assert rivals([(A, 1, 0.0)], failed, A, turn) == {failed[n] for n in numbers}
    assert rivals([(A, 1, 0.0)], failed[:1], A, 7) == {failed[0]}


@settings(max_examples=examples(50))
@given(VALID)
def test_the_best_is_the_same_in_whichever_order_pairs_were_found(valid: list[tuple[Pair, int, float]]) -> None:
    assert best(valid) == best(valid[::-1])


@settings(max_examples=examples(50))
@given(VALID, st.sampled_from([A, B, C]))
def test_whatever_is_changed_to_is_better_by_ten_milliseconds_and_a_fifth(
    valid: list[tuple[Pair, int, float]], current: Pair
) -> None:
    wanted = Changes().worth(valid, current, 0.0)
    rtts = {pair: rtt for pair, _, rtt in valid}
    if wanted is not None:
        assert rtts[current] - rtts[wanted] > 0.01
        assert rtts[wanted] < 0.8 * rtts[current]


def test_a_pair_that_is_not_valid_any_more_is_not_changed_from_here() -> None:
    assert Changes().worth([(A, 1, 0.010)], B, 0.0) is None
    assert Changes().worth([], B, 0.0) is None


def test_two_pairs_that_are_by_turns_the_better_one_are_changed_four_times_an_hour() -> None:
    changes, current, times = Changes(), A, []
    start = 5000.0
    for second in range(0, 3 * 3600, 100):
        other = B if current == A else A
        wanted = changes.worth([(current, 1, 0.1), (other, 1, 0.01)], current, start + second)
        if wanted is not None:
            current = wanted
            times.append(second)
    assert times == [hour * 3600 + n * 100 for hour in range(3) for n in range(4)]


def test_an_hour_is_over_when_it_is_over() -> None:
    changes = Changes()
    better = [(A, 1, 0.1), (B, 1, 0.01)]
    assert [changes.worth(better, A, 50.0 + n) for n in range(5)] == [B, B, B, B, None]
    assert changes.worth(better, A, 3649.5) is None
    assert changes.worth(better, A, 3650.0) == B
    assert changes.worth(better, A, 3650.5) is None
    assert changes.worth(better, A, 9000.0) == B


def test_what_is_not_worth_a_change_does_not_use_one_up() -> None:
    changes = Changes()
    for _ in range(20):
        assert changes.worth([(A, 1, 0.020), (B, 9, 0.020)], A, 10.0) is None
    assert changes.worth([(A, 1, 0.1), (B, 1, 0.01)], A, 11.0) == B
