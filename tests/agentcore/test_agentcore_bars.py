"""Addresses that are not gone to for a while. Hunted: a path that is given up for one bad moment, and one that fails
for ever and is tried for ever."""

from __future__ import annotations

from meshctl.core.agent.bars import BLOCKED_FALLS, FIRST_S, FORGOTTEN_S, FREE_FALLS, LONGEST_S, MAX_HOSTS, Bars

IP, OTHER = "192.0.2.2", "192.0.2.3"


def barred_for(bars: Bars, now: float) -> float:
    """How long the address is barred from now on, in whole seconds."""
    return next(s for s in range(10_000) if not bars.barred(IP, now + s))


def falls(bars: Bars, count: int, now: float) -> list[float]:
    """How long it is barred after each of so many falls, each of them as soon as it can be."""
    found = []
    for _ in range(count):
        bars.fell(IP, now)
        found.append(barred_for(bars, now))
        now += found[-1] + 1.0
    return found


def test_the_first_falls_bar_nothing_and_each_further_one_twice_as_long_as_the_one_before() -> None:
    found = falls(Bars(), FREE_FALLS + 4, 10.0)
    assert found == [0] * FREE_FALLS + [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]


def test_the_longest_bar_is_bounded() -> None:
    assert falls(Bars(), FREE_FALLS + 40, 0.0)[-2:] == [LONGEST_S] * 2


def test_where_wireguard_does_not_come_through_the_first_fall_bars_for_minutes_and_the_next_for_longer() -> None:
    bars = Bars()
    bars.fell(IP, 0.0, blocked=True)
    first = barred_for(bars, 0.0)
    assert first == FIRST_S * 2 ** (BLOCKED_FALLS - FREE_FALLS - 1)
    bars.fell(IP, first, blocked=True)
    assert barred_for(bars, first) == 2 * first


def test_falls_are_forgotten_after_a_long_time_without_one() -> None:
    bars = Bars()
    falls(bars, FREE_FALLS + 1, 0.0)
    end = FREE_FALLS + FIRST_S
    bars.fell(IP, end + FORGOTTEN_S)
    assert barred_for(bars, end + FORGOTTEN_S) == 0
    falls(bars, FREE_FALLS, end + FORGOTTEN_S)
    assert bars.any(end + FORGOTTEN_S + FREE_FALLS)


def test_an_address_is_barred_by_its_own_falls_alone_and_not_after_all_was_forgotten() -> None:
    bars = Bars()
    assert not bars.any(0.0)
    bars.fell(IP, 0.0, blocked=True)
    assert (bars.barred(IP, 1.0), bars.barred(OTHER, 1.0), bars.any(1.0)) == (True, False, True)
    bars.clear()
    assert (bars.barred(IP, 1.0), bars.any(1.0)) == (False, False)


def test_of_many_addresses_the_newest_are_remembered() -> None:
    bars = Bars()
    bars.fell(IP, 0.0, blocked=True)
    for n in range(MAX_HOSTS):
        bars.fell(f"198.51.100.{n}", 1.0, blocked=True)
    assert not bars.barred(IP, 2.0)
    assert all(bars.barred(f"198.51.100.{n}", 2.0) for n in range(MAX_HOSTS))
