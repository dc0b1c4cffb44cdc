"""Addresses that are not gone to for a while. Hunted: a path that is given up for one bad moment, and one that fails
for ever and is tried for ever."""

from __future__ import annotations

from meshctl.core.agent.damping import (
    BLOCKED_FAILURES,
    FIRST_S,
    FORGOTTEN_S,
    FREE_FAILURES,
    LONGEST_S,
    MAX_HOSTS,
    Damping,
)

IP, OTHER = "192.0.2.2", "192.0.2.3"


def suppressed_for(damping: Damping, now: float) -> float:
    """How long the address is suppressed from now on, in whole seconds."""
    return next(s for s in range(10_000) if not damping.suppressed(IP, now + s))


def failures(damping: Damping, count: int, now: float) -> list[float]:
    """How long it is suppressed after each of so many failures, each of them as soon as it can be."""
    found = []
    for _ in range(count):
        damping.record_failure(IP, now)
        found.append(suppressed_for(damping, now))
        now += found[-1] + 1.0
    return found


def test_the_first_failures_suppress_nothing_and_each_further_one_twice_as_long_as_the_one_before() -> None:
    found = failures(Damping(), FREE_FAILURES + 4, 10.0)
    assert found == [0] * FREE_FAILURES + [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]


def test_the_longest_suppression_is_bounded() -> None:
    assert failures(Damping(), FREE_FAILURES + 40, 0.0)[-2:] == [LONGEST_S] * 2


def test_where_wireguard_does_not_come_through_one_failure_suppresses_for_minutes_and_the_next_for_longer() -> None:
    damping = Damping()
    damping.record_failure(IP, 0.0, blocked=True)
    first = suppressed_for(damping, 0.0)
    assert first == FIRST_S * 2 ** (BLOCKED_FAILURES - FREE_FAILURES - 1)
    damping.record_failure(IP, first, blocked=True)
    assert suppressed_for(damping, first) == 2 * first


def test_falls_are_forgotten_after_a_long_time_without_one() -> None:
    damping = Damping()
    failures(damping, FREE_FAILURES + 1, 0.0)
    end = FREE_FAILURES + FIRST_S
    damping.record_failure(IP, end + FORGOTTEN_S)
    assert suppressed_for(damping, end + FORGOTTEN_S) == 0
    failures(damping, FREE_FAILURES, end + FORGOTTEN_S)
    assert damping.any(end + FORGOTTEN_S + FREE_FAILURES)


def test_an_address_is_barred_by_its_own_falls_alone_and_not_after_all_was_forgotten() -> None:
    damping = Damping()
    assert not damping.any(0.0)
    damping.record_failure(IP, 0.0, blocked=True)
    assert (damping.suppressed(IP, 1.0), damping.suppressed(OTHER, 1.0), damping.any(1.0)) == (True, False, True)
    damping.clear()
    assert (damping.suppressed(IP, 1.0), damping.any(1.0)) == (False, False)


def test_of_many_addresses_the_newest_are_remembered() -> None:
    damping = Damping()
    damping.record_failure(IP, 0.0, blocked=True)
    for n in range(MAX_HOSTS):
        damping.record_failure(f"198.51.100.{n}", 1.0, blocked=True)
    assert not damping.suppressed(IP, 2.0)
    assert all(damping.suppressed(f"198.51.100.{n}", 2.0) for n in range(MAX_HOSTS))
