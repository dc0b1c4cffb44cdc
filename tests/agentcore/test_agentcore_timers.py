"""Hunted: a timer that is forgotten, rings twice, rings for what it was set for before, or leaves something behind."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.agent.timers import Timers

# (owner, when) sets a timer or takes it away; a number is a time at which what is due is asked for.
SETTING = st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9)))


def test_the_next_one_is_the_earliest_with_its_reason() -> None:
    timers: Timers[str] = Timers()
    assert timers.next() is None
    timers.set("a", 5.0, "tea")
    timers.set("b", 3.0, "bread")
    timers.set("c", 4.0, "wine")
    assert timers.next() == (3.0, "bread")


def test_a_timer_that_is_set_again_rings_at_the_new_time_alone_be_that_earlier_or_later() -> None:
    timers: Timers[str] = Timers()
    for first, then in ((5.0, 9.0), (9.0, 5.0)):
        timers.set("a", first, "before")
        timers.set("a", then, "after")
        assert timers.next() == (then, "after")
        assert list(timers.due(10.0)) == ["a"]
        assert timers.next() is None


def test_a_timer_that_is_taken_away_does_not_ring() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 5.0)
    timers.set("b", 6.0, "still there")
    timers.set("a", None)
    timers.set("c", None)
    assert timers.next() == (6.0, "still there")
    assert list(timers.due(10.0)) == ["b"]


def test_a_timer_is_due_at_its_very_time_and_not_before() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 5.0)
    assert list(timers.due(4.999)) == []
    assert list(timers.due(5.0)) == ["a"]


def test_those_due_at_one_moment_come_in_the_order_in_which_they_were_set() -> None:
    timers: Timers[str] = Timers()
    for owner in ("b", "c", "a"):
        timers.set(owner, 5.0)
    timers.set("d", 4.0)
    timers.set("c", 5.0)  # which is no change
    assert list(timers.due(5.0)) == ["d", "b", "c", "a"]


def test_a_timer_that_is_set_again_to_its_time_rings_for_the_new_reason_and_in_its_old_turn() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 5.0, "tea")
    timers.set("b", 5.0, "bread")
    timers.set("a", 5.0, "wine")
    assert timers.next() == (5.0, "wine")
    assert list(timers.due(5.0)) == ["a", "b"]


@given(st.lists(st.one_of(SETTING, st.integers(0, 9))))
def test_it_is_as_if_all_timers_were_looked_through_each_time(
    steps: list[tuple[str, int | None] | int],
) -> None:
    timers: Timers[str] = Timers()
    plain: dict[str, int] = {}
    for step in steps:
        if isinstance(step, int):
            assert sorted(timers.due(step)) == sorted(owner for owner, when in plain.items() if when <= step)
            plain = {owner: when for owner, when in plain.items() if when > step}
        else:
            owner, when = step
            timers.set(owner, when, f"for {when}")
            plain = {**{o: w for o, w in plain.items() if o != owner}, **({} if when is None else {owner: when})}
        first = min(plain.values(), default=None)
        assert timers.next() == (None if first is None else (first, f"for {first}"))


def _held(timers: Timers[str]) -> int:
    return sum(sys.getsizeof(part) for part in vars(timers).values())


def test_timers_that_are_set_again_and_again_take_no_more_room() -> None:
    timers: Timers[str] = Timers()
    for owner in "abc":
        timers.set(owner, 1.0)
    sizes = []
    for turn in range(2_000):
        timers.set("abc"[turn % 3], 2_000.0 - turn % 7)
        sizes.append(_held(timers))
    assert max(sizes[1_000:]) <= max(sizes[:100])
    assert sorted(timers.due(2_000.0)) == ["a", "b", "c"]
