"""Why a path is what it is: what is remembered, and what of it is told."""

from __future__ import annotations

from meshctl.core.agent.history import REMEMBERED, Decision, History
from meshctl.core.agent.path import State, Trigger


def test_without_a_decision_there_is_no_reason() -> None:
    assert (History().why, History().decisions) == ("", ())


def test_the_reason_is_that_of_the_last_change_and_what_is_repeated_stands_there_once() -> None:
    history = History()
    history.add(Decision(0.0, State.PROBING, State.RELAYED, Trigger.RELAY_READY, "hub is ready"))
    for turn in range(100):
        history.add(Decision(1.0 + turn, State.RELAYED, State.RELAYED, Trigger.EXHAUSTED, f"round {turn}"))
    assert history.why == "hub is ready"
    assert [d.reason for d in history.decisions] == ["hub is ready", "round 99"]


def test_from_one_relay_or_pair_to_another_is_a_reason_of_its_own_though_the_state_stays() -> None:
    for state, trigger in ((State.RELAYED, Trigger.RELAY_READY), (State.DIRECT, Trigger.NOMINATED)):
        history = History()
        for place in ("one", "other", "other", "third"):
            history.add(Decision(0.0, state, state, trigger, place))
        assert [d.reason for d in history.decisions] == ["one", "other", "third"]
        assert history.why == "third"


def test_two_things_by_turns_are_both_remembered() -> None:
    history = History()
    for turn in range(2):
        history.add(Decision(turn, State.DIRECT, State.DIRECT, Trigger.RELAY_READY, "ready"))
        history.add(Decision(turn, State.DIRECT, State.DIRECT, Trigger.RELAY_LOST, "lost"))
    assert [d.reason for d in history.decisions] == ["ready", "lost", "ready", "lost"]


def test_the_same_in_another_state_is_another_thing() -> None:
    history = History()
    for state in (State.DIRECT, State.SUSPECT, State.DIRECT):
        history.add(Decision(0.0, state, state, Trigger.EXHAUSTED, "none answered"))
    assert len(history.decisions) == 3


def test_changes_of_state_are_never_thrown_together_and_the_oldest_is_forgotten_first() -> None:
    history = History()
    for turn in range(REMEMBERED + 10):
        history.add(Decision(turn, State.DIRECT, State.SUSPECT, Trigger.DISTRESS, f"silence {turn}"))
    assert [d.at for d in history.decisions] == [float(turn) for turn in range(10, REMEMBERED + 10)]
    assert history.why == f"silence {REMEMBERED + 9}"
