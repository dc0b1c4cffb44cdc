"""When the pair in use is compared with others, with which, and what comes of it."""

from __future__ import annotations

from math import inf

from agentcore_field import IPS, PORT, Field, address, found

from meshctl.core.agent.address import Address
from meshctl.core.agent.check import COMPARE_SCHEDULE_S
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.choice import CHANGES_PER_HOUR, FAILED_AGAIN
from meshctl.core.agent.events import SendProbe


def test_another_pair_is_better_only_where_one_is_in_use() -> None:
    field = found()
    assert field.ends["a"].it.better(field.now) is None
    field.ends["a"].it.selected = Pair(address("a"), address("b"))
    assert field.ends["a"].it.better(field.now) is None, "there is no other"


def test_the_answers_that_come_while_a_better_pair_is_nominated_use_up_none_of_the_hours_changes() -> None:
    field = Field()
    field.delays = {IPS["b"][0]: 0.2}
    field.ends["b"].stand(*IPS["b"])
    field.ends["a"].offered(address("b"), address("b", 1))
    field.ends["b"].offered(address("a"))
    field.run(2.0)
    it = field.ends["a"].it
    it.selected = Pair(address("a"), address("b"))
    for _ in range(2 * CHANGES_PER_HOUR):
        better = it.better(field.now)
        if better is not None:
            it.nominate(better, field.now)
    field.run(2.0)
    assert it.better(field.now) is not None, "of four changes one is used up"


def dead_but_one(count: int) -> tuple[Field, list[Address]]:
    """Both use the first of b's addresses, the one that works; the others that b offers have failed, the best first."""
    field = Field()
    others = [Address(IPS["b"][0], PORT + n) for n in range(1, count + 1)]
    field.ends["a"].offered(address("b"), *others)
    field.ends["b"].offered(address("a"))
    field.lost = lambda probe: probe.remote in others
    field.run(10.0)
    field.ends["a"].it.selected = Pair(address("a"), address("b"))
    return field, others


def test_with_each_comparison_some_of_the_pairs_that_failed_are_asked_again_the_best_first_and_in_turns() -> None:
    field, others = dead_but_one(5)
    asked = []
    for turn in range(4):
        start = field.now
        field.ends["a"].it.compare(turn, start)
        field.run(10.0)
        asked.append(sorted(set(field.ends["a"].asked(start)) - {address("b")}))
        assert len(field.ends["a"].asked(start)) == (1 + FAILED_AGAIN) * len(COMPARE_SCHEDULE_S) - 2
    expected = [[others[n % 5] for n in range(FAILED_AGAIN * turn, FAILED_AGAIN * (turn + 1))] for turn in range(4)]
    assert asked == [sorted(pairs) for pairs in expected]


def test_where_nothing_has_failed_and_nothing_else_answers_there_is_nothing_to_compare() -> None:
    field = found()
    it = field.ends["a"].it
    it.selected, start = Pair(address("a"), address("b")), field.now
    it.compare(0, start)
    field.run(5.0)
    assert field.ends["a"].asked(start) == []
    assert not it.comparing(start)


def test_a_shorter_way_that_begins_to_work_is_found_though_each_end_lets_in_only_whom_it_has_just_asked() -> None:
    field = Field()
    field.delays = {IPS["a"][0]: 0.2}
    for name, other in ("ab", "ba"):
        field.ends[name].stand(*IPS[name])
        field.ends[name].offered(address(other), address(other, 1))
    second, asked_at = {address("a", 1), address("b", 1)}, dict[tuple[Address, Address], float]()

    def closed(probe: SendProbe) -> bool:
        asked_at[probe.local, probe.remote] = field.now
        return bool({probe.local, probe.remote} & second) and (
            field.now - asked_at.get((probe.remote, probe.local), -inf) > 1.0
        )

    field.lost = lambda probe: bool({probe.local, probe.remote} & second)
    field.run(10.0)
    ends = [field.ends[name].it for name in "ab"]
    ends[0].selected, ends[1].selected = Pair(address("a"), address("b")), Pair(address("b"), address("a"))
    field.lost = closed
    for turn in range(4):
        for it in ends:
            it.compare(turn, field.now)
        field.run(10.0)
    better = ends[0].better(field.now)
    assert better is not None
    assert better.local == address("a", 1)
