"""The path's table, said a second time and the other way round: what each thing that happens leads to, and when each
thing is done. A row that is wrong contradicts one of these sentences."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest

from meshctl.core.agent.path import Effect, IllegalTransitionError, State, Step, Trigger, rows, step

TABLE = {(state, trigger): found for state, trigger, found in rows()}
UNKNOWN, PROBING, RELAYED, SPLICING, DIRECT, SUSPECT = State
# Where packets go from end to end, where by an anchor, and where nobody knows; and where checks are made in earnest.
BY_PAIR, BY_RELAY, NOWHERE = {DIRECT, SUSPECT}, {RELAYED, SPLICING}, {UNKNOWN, PROBING}
KNOWN = set(State) - {UNKNOWN}


class Row(NamedTuple):
    """One row's place in the table: the state before, what happens, the state after."""

    before: State
    on: Trigger
    after: State

    @property
    def entered(self) -> State | None:
        """The state after, if it is another one."""
        return self.after if self.after is not self.before else None


def leads(trigger: Trigger) -> dict[State, State]:
    """Where it leads from each state in which it can happen."""
    return {before: found.state for (before, on), found in TABLE.items() if on is trigger}


def done(effect: Effect) -> set[Row]:
    """The rows in which it is done."""
    return {Row(before, on, found.state) for (before, on), found in TABLE.items() if effect in found.effects}


def when(rule: Callable[[Row], bool]) -> set[Row]:
    """The rows of which the rule is true."""
    return {row for row in (Row(before, on, found.state) for (before, on), found in TABLE.items()) if rule(row)}


def stay(*states: State) -> dict[State, State]:
    """These stay as they are."""
    return {state: state for state in states}


# What each thing that happens leads to


def test_a_peer_whose_agent_answers_is_probed_and_it_answers_first_only_once() -> None:
    assert leads(Trigger.SESSION) == {UNKNOWN: PROBING}


def test_a_tunnel_that_works_before_its_agents_have_met_is_kept_and_asked() -> None:
    assert leads(Trigger.ADOPTED) == {UNKNOWN: SUSPECT}


def test_a_peer_whose_agent_is_gone_is_unknown_but_a_direct_tunnel_works_without_it() -> None:
    assert leads(Trigger.SESSION_LOST) == {PROBING: UNKNOWN, RELAYED: UNKNOWN, **stay(DIRECT)}


def test_a_checked_pair_is_taken_wherever_the_peer_was_known() -> None:
    assert leads(Trigger.NOMINATED) == dict.fromkeys(KNOWN, DIRECT)


def test_a_relay_that_is_ready_is_taken_where_nothing_is_and_changes_nothing_elsewhere() -> None:
    assert leads(Trigger.RELAY_READY) == {PROBING: RELAYED, **stay(RELAYED, SPLICING, DIRECT, SUSPECT)}


def test_a_relay_that_is_lost_ends_what_goes_by_it_and_nothing_else() -> None:
    assert leads(Trigger.RELAY_LOST) == {**dict.fromkeys(BY_RELAY, PROBING), **stay(*BY_PAIR)}


def test_that_no_pair_answers_changes_no_state() -> None:
    assert leads(Trigger.EXHAUSTED) == stay(*KNOWN)


def test_a_splice_is_tried_from_the_relay_and_falls_back_to_it() -> None:
    assert leads(Trigger.SPLICE_BEGUN) == {RELAYED: SPLICING}
    assert leads(Trigger.SPLICE_FAILED) == {SPLICING: RELAYED}


def test_signs_of_death_make_a_direct_path_suspect_and_no_other_path_worse() -> None:
    assert leads(Trigger.DISTRESS) == {DIRECT: SUSPECT, **stay(SUSPECT, RELAYED, SPLICING)}


def test_only_what_comes_of_questions_makes_a_direct_path_dead_and_an_answer_clears_it() -> None:
    assert leads(Trigger.DEAD) == {SUSPECT: PROBING}
    assert leads(Trigger.ANSWERED) == {SUSPECT: DIRECT, DIRECT: DIRECT}


def test_an_operator_takes_a_direct_path_back_to_the_relay() -> None:
    assert leads(Trigger.DEMOTED) == dict.fromkeys(BY_PAIR, RELAYED)


# When each thing is done


def test_the_endpoint_moves_to_a_pair_when_one_is_nominated_and_only_then() -> None:
    assert done(Effect.USE_PAIR) == when(lambda row: row.on is Trigger.NOMINATED)


def test_the_endpoint_moves_to_a_relay_that_is_ready_unless_the_path_is_direct_and_at_an_operators_word() -> None:
    assert done(Effect.USE_RELAY) == when(
        lambda row: row.on is Trigger.DEMOTED or (row.on is Trigger.RELAY_READY and row.before not in BY_PAIR)
    )


def test_a_relay_is_asked_for_wherever_one_may_be_needed_next() -> None:
    assert done(Effect.ASK_RELAY) == when(lambda row: row.after is PROBING or row.entered is SUSPECT)


def test_all_pairs_are_checked_when_there_is_no_path_or_one_that_nobody_has_checked() -> None:
    assert done(Effect.CHECK_PAIRS) == when(lambda row: row.entered is PROBING or row.on is Trigger.ADOPTED)


def test_a_path_is_asked_when_it_becomes_suspect_and_not_again_at_each_further_sign() -> None:
    assert done(Effect.CHECK_PATH) == when(lambda row: row.entered is SUSPECT)


def test_a_relay_that_shows_signs_of_death_is_asked_each_time() -> None:
    assert done(Effect.CHECK_RELAY) == when(lambda row: row.on is Trigger.DISTRESS and row.before in BY_RELAY)


def test_checks_rest_when_a_path_is_found_or_proved_and_when_a_suspect_one_is_left_for_the_relay() -> None:
    assert done(Effect.REST_CHECKS) == when(
        lambda row: row.entered is DIRECT or (row.before is SUSPECT and row.after is RELAYED)
    )


def test_a_splice_is_ended_in_every_way_out_of_its_state() -> None:
    assert done(Effect.END_SPLICE) == when(lambda row: row.before is SPLICING and row.entered is not None)


def test_what_failed_is_tried_again_later_while_there_is_no_direct_path_and_no_splice_under_way() -> None:
    assert done(Effect.RETRY_LATER) == when(
        lambda row: row.on is Trigger.SPLICE_FAILED
        or (row.on is Trigger.EXHAUSTED and row.before in (PROBING, RELAYED))
    )


def test_a_peer_that_is_unknown_again_is_forgotten() -> None:
    assert done(Effect.FORGET) == when(lambda row: row.after is UNKNOWN)


# What holds of the table as a whole


def test_every_state_can_be_reached_and_from_every_state_there_is_a_way_to_a_direct_path() -> None:
    for start, wanted in [(UNKNOWN, set(State)), *((state, {DIRECT}) for state in State)]:
        reached, waiting = {start}, deque([start])
        while waiting:
            state = waiting.popleft()
            further = {found.state for (before, _), found in TABLE.items() if before is state} - reached
            reached |= further
            waiting.extend(further)
        assert wanted <= reached


@pytest.mark.parametrize("state", sorted(BY_PAIR | BY_RELAY, key=lambda state: state.value))
def test_packets_go_another_way_only_with_an_effect_that_moves_them(state: State) -> None:
    for (before, on), found in TABLE.items():
        if on is Trigger.ADOPTED:  # they go that way already
            continue
        arrives = found.state is state and before not in (BY_PAIR if state in BY_PAIR else BY_RELAY)
        moves = Effect.USE_PAIR if state in BY_PAIR else Effect.USE_RELAY
        assert not arrives or moves in found.effects, (before, on)


def test_no_effect_contradicts_another_one_or_the_state() -> None:
    for found in TABLE.values():
        effects = set(found.effects)
        assert len(effects) == len(found.effects)
        assert not {Effect.USE_PAIR, Effect.USE_RELAY} <= effects
        assert len({Effect.CHECK_PAIRS, Effect.REST_CHECKS, Effect.RETRY_LATER} & effects) <= 1
        assert len({Effect.CHECK_PATH, Effect.CHECK_RELAY, Effect.REST_CHECKS} & effects) <= 1
        assert Effect.USE_PAIR not in effects or found.state is DIRECT
        assert Effect.USE_RELAY not in effects or found.state in BY_RELAY
        assert Effect.FORGET not in effects or found.state in NOWHERE


def test_packets_move_before_anything_is_torn_down_and_forgetting_comes_last() -> None:
    moves, ends = {Effect.USE_PAIR, Effect.USE_RELAY}, {Effect.END_SPLICE, Effect.REST_CHECKS, Effect.RETRY_LATER}
    for found in TABLE.values():
        kinds = [0 if e in moves else 1 if e in ends else None for e in found.effects]
        assert (ordered := [k for k in kinds if k is not None]) == sorted(ordered)
        assert Effect.FORGET not in found.effects[:-1]


def test_the_pair_in_use_is_asked_last_for_checking_all_would_slow_its_questions_down() -> None:
    for found in TABLE.values():
        if {Effect.CHECK_PAIRS, Effect.CHECK_PATH} <= set(found.effects):
            assert found.effects.index(Effect.CHECK_PAIRS) < found.effects.index(Effect.CHECK_PATH)


def test_nothing_is_done_twice_for_the_same_news() -> None:
    for before, on in itertools.product(State, Trigger):
        found = TABLE.get((before, on), Step(before))
        again = TABLE.get((found.state, on), Step(found.state))
        if found.state is not before:
            assert again.state is found.state


# Taking a step


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_a_step_is_what_the_table_says_and_anything_else_is_illegal(state: State, trigger: Trigger) -> None:
    if (state, trigger) in TABLE:
        assert step(state, trigger) == TABLE[state, trigger]
    else:
        with pytest.raises(IllegalTransitionError, match=f"^{trigger.value} while {state.value}$"):
            step(state, trigger)


def test_the_rows_come_state_by_state() -> None:
    assert [state for state, _ in itertools.groupby(state for state, _, _ in rows())] == list(State)


def test_a_peers_day_from_its_first_word_to_a_direct_path_a_rebinding_and_back() -> None:
    state = UNKNOWN
    story = [
        (Trigger.SESSION, PROBING), (Trigger.RELAY_READY, RELAYED), (Trigger.NOMINATED, DIRECT),
        (Trigger.DISTRESS, SUSPECT), (Trigger.DEAD, PROBING), (Trigger.RELAY_READY, RELAYED),
        (Trigger.SPLICE_BEGUN, SPLICING), (Trigger.NOMINATED, DIRECT), (Trigger.SESSION_LOST, DIRECT),
        (Trigger.DISTRESS, SUSPECT), (Trigger.ANSWERED, DIRECT), (Trigger.DEMOTED, RELAYED),
        (Trigger.SESSION_LOST, UNKNOWN),
    ]  # fmt: skip
    for trigger, after in story:
        state = step(state, trigger).state
        assert state is after
