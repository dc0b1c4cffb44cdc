"""Static endpoints that are names. Hunted: a name that is asked without end, one that is never asked again, and an
address that is forgotten though nothing better is known."""

from __future__ import annotations

import itertools

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.events import Resolve, Resolved
from meshctl.core.agent.resolver import (
    DEAD_S,
    LONGEST_S,
    MAX_ADDRESSES,
    PATIENCE_S,
    RETRY_MAX_S,
    RETRY_S,
    SHORTEST_S,
    SPACING_S,
    UNSAID_S,
    Resolver,
)

HUB, SRV = NamedEndpoint("hub.example.net", 51820), NamedEndpoint("mesh.example.net", 0)
FIRST, SECOND = Address("198.51.100.1", 51820), Address("2001:db8::1", 51820)


class Clock:
    """A resolver and a clock that jumps to whatever is due. A name that is not among `answers` is not answered."""

    def __init__(self, *names: NamedEndpoint) -> None:
        self.now = 100.0
        self.resolver = Resolver(["10.42.0.0/16", "fd42::/48"])
        self.answers: dict[NamedEndpoint, tuple[Address, ...]] = {HUB: (FIRST,)}
        self.ttl_s: float | None = None
        self.asked: list[tuple[float, NamedEndpoint]] = []
        self.resolver.set_names(names, self.now)

    def run(self, seconds: float) -> list[float]:
        """Let time pass; when questions were asked, counted from the start of this."""
        start, end, before = self.now, self.now + seconds, len(self.asked)
        while (due := self.resolver.due()) is not None and due <= end:
            self.now = max(self.now, due)
            questions = self.resolver.poll(self.now)
            due = self.resolver.due()
            assert due is None or due > self.now, "it spins"
            for question in questions:
                self.asked.append((self.now, question.name))
                if question.name in self.answers:
                    self.resolver.resolved(Resolved(question.name, self.answers[question.name], self.ttl_s), self.now)
        self.now = end
        return [at - start for at, _ in self.asked[before:]]


def test_a_new_name_is_asked_for_at_once_and_once() -> None:
    resolver = Resolver([])
    resolver.set_names([SRV, HUB, HUB], 5.0)
    assert resolver.due() == 5.0
    assert resolver.poll(5.0) == (Resolve(HUB), Resolve(SRV))
    assert resolver.poll(5.0) == ()
    assert (resolver.addresses(HUB), resolver.why(HUB)) == ((), "not resolved yet")


def test_answers_are_sorted_and_carry_their_own_ports() -> None:
    clock = Clock(HUB, SRV)
    clock.answers = {HUB: (SECOND, FIRST, FIRST), SRV: (Address("198.51.100.9", 7777),)}
    clock.run(1)
    assert clock.resolver.addresses(HUB) == (FIRST, SECOND)
    assert clock.resolver.addresses(SRV) == (Address("198.51.100.9", 7777),)
    assert clock.resolver.why(HUB) == ""


def test_while_the_path_lives_a_name_without_a_ttl_is_asked_for_every_five_minutes_else_every_minute() -> None:
    clock = Clock(HUB)
    assert clock.run(2 * UNSAID_S) == [0, UNSAID_S, 2 * UNSAID_S]
    clock.resolver.set_dead({HUB})
    assert clock.run(3 * DEAD_S) == [DEAD_S, 2 * DEAD_S, 3 * DEAD_S]
    clock.resolver.set_dead(set())
    assert clock.run(UNSAID_S) == [UNSAID_S]


@pytest.mark.parametrize(
    ("ttl_s", "again_s", "dead_s"),
    [(0, SHORTEST_S, SHORTEST_S), (45, 45, 45), (600, 600, DEAD_S), (2**31 - 1, LONGEST_S, DEAD_S)],
)
def test_a_name_is_asked_for_again_when_its_ttl_is_over(ttl_s: float, again_s: float, dead_s: float) -> None:
    clock = Clock(HUB)
    clock.ttl_s = ttl_s
    assert clock.run(2 * again_s) == [0, again_s, 2 * again_s]
    clock.resolver.set_dead({HUB})
    assert clock.run(2 * dead_s) == [dead_s, 2 * dead_s]


def test_a_name_whose_path_has_died_is_not_asked_for_before_its_answer_is_a_minute_old() -> None:
    clock = Clock(HUB)
    clock.run(DEAD_S / 2)
    clock.resolver.set_dead({HUB})
    assert clock.run(DEAD_S)[0] == DEAD_S / 2


def test_another_network_asks_for_everything_at_once_but_not_many_times_a_second() -> None:
    clock = Clock(HUB)
    clock.run(10)
    for _ in range(100):
        clock.resolver.network_changed(clock.now)
        clock.run(0.1)
    assert clock.asked[1][0] == 110
    assert len(clock.asked) <= 2 + 10 / SPACING_S


def test_failures_are_asked_again_after_one_second_and_ever_later_up_to_a_minute() -> None:
    clock = Clock(HUB)
    clock.answers[HUB] = ()
    times = clock.run(400)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:6] == [RETRY_S * 2**n for n in range(6)]
    assert set(gaps[6:]) == {RETRY_MAX_S}
    assert clock.resolver.why(HUB) == "no address"


def test_a_name_that_resolves_no_more_keeps_its_last_answer_and_takes_the_next() -> None:
    clock = Clock(HUB)
    clock.run(1)
    clock.answers[HUB] = ()
    clock.run(3600)
    assert (clock.resolver.addresses(HUB), clock.resolver.why(HUB)) == ((FIRST,), "no address")
    clock.answers[HUB] = (SECOND,)
    clock.run(RETRY_MAX_S)
    assert (clock.resolver.addresses(HUB), clock.resolver.why(HUB)) == ((SECOND,), "")
    assert clock.run(UNSAID_S + RETRY_MAX_S)[0] > RETRY_MAX_S


def test_after_a_network_change_failures_count_from_the_beginning() -> None:
    clock = Clock(HUB)
    clock.answers[HUB] = ()
    clock.run(200)
    clock.resolver.network_changed(clock.now)
    assert clock.run(2.5) == [0, RETRY_S]


def test_a_question_without_an_answer_is_a_failure_after_a_while() -> None:
    clock = Clock(SRV)
    assert clock.run(PATIENCE_S + RETRY_S) == [0, PATIENCE_S + RETRY_S]
    assert clock.resolver.why(SRV) == "no answer"


def test_the_answer_of_the_network_that_was_left_does_not_shut_out_that_of_the_new_one() -> None:
    resolver = Resolver([])
    resolver.set_names([HUB], 0.0)
    resolver.poll(0.0)
    resolver.network_changed(2.0)
    assert resolver.poll(2.0) == (Resolve(HUB),)
    assert resolver.resolved(Resolved(HUB, (FIRST,)), 2.1)
    assert resolver.resolved(Resolved(HUB, (SECOND,)), 2.2)
    assert resolver.addresses(HUB) == (SECOND,)


def test_an_answer_under_way_does_not_cancel_what_a_network_change_has_ordered() -> None:
    resolver = Resolver([])
    resolver.set_names([HUB], 0.0)
    resolver.poll(0.0)
    resolver.network_changed(0.5)
    resolver.resolved(Resolved(HUB, (FIRST,)), 0.6)
    resolver.resolved(Resolved(HUB, ()), 0.7)
    assert resolver.poll(SPACING_S) == (Resolve(HUB),)


@pytest.mark.parametrize("ip", ["10.42.0.7", "fd42::7", "127.0.0.1", "0.0.0.0", "224.0.0.1", "fe80::1", "nonsense"])  # noqa: S104
def test_an_address_inside_the_mesh_or_of_nobody_is_no_endpoint(ip: str) -> None:
    clock = Clock(HUB)
    clock.answers[HUB] = (Address(ip, 51820),)
    clock.run(1)
    assert clock.resolver.addresses(HUB) == ()
    assert clock.resolver.why(HUB) == "no usable address"
    clock.answers[HUB] = (Address(ip, 51820), FIRST, Address("198.51.100.2", 0))
    clock.run(5)
    assert clock.resolver.addresses(HUB) == (FIRST,)


def test_only_another_set_of_addresses_is_a_change() -> None:
    resolver = Resolver([])
    resolver.set_names([HUB], 0.0)
    answers = [((), False), ((FIRST, SECOND), True), ((SECOND, FIRST), False), ((), False), ((FIRST,), True)]
    for addresses, changed in answers:
        assert resolver.resolved(Resolved(HUB, addresses), 1.0) is changed


def test_a_name_that_is_configured_no_more_is_forgotten_and_the_others_are_left_alone() -> None:
    clock = Clock(HUB, SRV)
    clock.answers[SRV] = (SECOND,)
    clock.run(10)
    clock.resolver.set_names([HUB], clock.now)
    assert clock.resolver.addresses(HUB) == (FIRST,)
    assert clock.resolver.addresses(SRV) == ()
    assert not clock.resolver.resolved(Resolved(SRV, (SECOND,)), clock.now)
    assert clock.run(UNSAID_S) == [UNSAID_S - 10]
    clock.resolver.set_names([], clock.now)
    assert clock.resolver.due() is None


def test_a_name_with_addresses_without_end_has_so_many() -> None:
    clock = Clock(HUB)
    clock.answers[HUB] = tuple(Address(f"198.51.100.{n}", 51820) for n in range(1, 200))
    clock.run(1)
    assert len(clock.resolver.addresses(HUB)) == MAX_ADDRESSES


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "fail", "silence", "network", "dead", "alive", "two names", "one name"]),
        st.none() | st.floats(0, 2 * LONGEST_S),
        st.floats(0, LONGEST_S),
    ),
    max_size=30,
)


@settings(max_examples=examples(50))
@given(STEPS)
def test_whatever_happens_a_name_is_asked_once_a_second_at_most_and_once_an_hour_at_least_or_a_minute_while_dead(
    steps: list[tuple[str, float | None, float]],
) -> None:
    clock, dead, patience_s = Clock(HUB), False, 0.0
    for what, clock.ttl_s, seconds in steps:
        if what in ("answer", "fail"):
            clock.answers[HUB] = (FIRST,) if what == "answer" else ()
        elif what == "silence":
            clock.answers.pop(HUB, None)
            patience_s = PATIENCE_S  # from now on: a question of before may be waited for
        elif what == "network":
            clock.resolver.network_changed(clock.now)
        elif what in ("dead", "alive"):
            dead = what == "dead"
            clock.resolver.set_dead({HUB} if dead else set())
        else:
            clock.resolver.set_names([HUB] if what == "one name" else [HUB, SRV], clock.now)
        began, asked_before = clock.now, len(clock.asked)
        clock.run(seconds)
        times = [began, *(at for at, name in clock.asked[asked_before:] if name == HUB), clock.now]
        longest_s = max(DEAD_S, RETRY_MAX_S) + patience_s if dead else LONGEST_S
        assert all(later - earlier <= longest_s + 1e-6 for earlier, later in itertools.pairwise(times))
    times = [at for at, name in clock.asked if name == HUB]
    gaps = [later - earlier for earlier, later in itertools.pairwise([*times, clock.now])]
    assert all(gap <= LONGEST_S + 1e-6 for gap in gaps)
    assert all(gap >= min(RETRY_S, SPACING_S) - 1e-6 for gap in gaps[:-1])
