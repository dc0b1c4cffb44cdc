"""The path's table: complete where it must be, and closed where it is not."""

from __future__ import annotations

import itertools

import pytest

from meshctl.core.agent.history import REMEMBERED, Decision, History
from meshctl.core.agent.path import Effect, IllegalTransitionError, State, Trigger, rows, step

TABLE = {(state, trigger): found for state, trigger, found in rows()}


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_a_step_is_what_the_table_says_and_anything_else_is_illegal(state: State, trigger: Trigger) -> None:
    if (state, trigger) in TABLE:
        assert step(state, trigger) == TABLE[state, trigger]
    else:
        with pytest.raises(IllegalTransitionError, match=trigger.value):
            step(state, trigger)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.UNKNOWN}
    while True:
        further = reached | {found.state for (state, _), found in TABLE.items() if state in reached}
        if further == reached:
            break
        reached = further
    assert reached == set(State)
    for state in State:
        assert any(found.state is not state for (before, _), found in TABLE.items() if before is state)


def test_a_working_tunnel_is_left_alone_when_the_peers_agent_is_gone() -> None:
    for state in (State.DIRECT, State.SUSPECT):
        assert step(state, Trigger.SESSION_LOST) == (state, ())


def test_traffic_moves_exactly_with_the_states_that_say_where_it_goes() -> None:
    for (before, _), found in TABLE.items():
        if found.state is State.DIRECT and before is not State.DIRECT and before is not State.SUSPECT:
            assert Effect.USE_PAIR in found.effects
        if found.state is State.RELAYED and before not in (State.RELAYED, State.SPLICING):
            assert Effect.USE_RELAY in found.effects
        assert not {Effect.USE_PAIR, Effect.USE_RELAY} <= set(found.effects)


def test_a_splice_that_was_begun_is_ended_in_every_way_out() -> None:
    for (before, _), found in TABLE.items():
        if before is State.SPLICING:
            assert (found.state is State.SPLICING) != (Effect.END_SPLICE in found.effects)
        assert (Effect.START_SPLICE in found.effects) == (before is not State.SPLICING is found.state)


def test_the_history_tells_why_and_forgets_the_oldest() -> None:
    history = History()
    assert history.why == ""
    history.add(Decision(0.0, State.PROBING, State.RELAYED, Trigger.RELAY_READY, "hub is ready"))
    for turn in range(100):
        history.add(Decision(1.0 + turn, State.RELAYED, State.RELAYED, Trigger.EXHAUSTED, f"round {turn}"))
    assert history.why == "hub is ready"
    assert [d.reason for d in history.decisions] == ["hub is ready", "round 99"]
    for turn in range(100):
        history.add(Decision(200.0 + turn, State.DIRECT, State.SUSPECT, Trigger.DISTRESS, "silence"))
    assert len(history.decisions) == REMEMBERED
