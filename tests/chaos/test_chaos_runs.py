"""What `make chaos` counts when runs and labs break; its own labs take minutes, so there is none here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import chaosfaults
import chaosruns
import pytest
from chaoslab import OLD, Way
from chaosround import LabError, is_one_round

_WAY = Way("hub", second=True, bare=False)
_FIRST, _SECOND = "Go on with wave 2 of 2 (what is new)? [y/N] \n", "Go on with wave 1 of 2? [y/N] \n"


class _Script:
    """What becomes of turns, by their number, and of beginnings, one after another; and which labs came and went."""

    def __init__(self) -> None:
        self.broken_turns: dict[int, Exception] = {}
        self.beginnings: list[Exception | None] = []
        self.labs: list[str] = []
        self.turns = 0


class _Lab:
    """Where nothing happens but by the script."""

    def __init__(self, script: _Script) -> None:
        self.lines, self.seconds, self._script = {_WAY: 9}, 1.0, script
        self.begin()

    def begin(self) -> None:
        if self._script.beginnings and (error := self._script.beginnings.pop(0)):
            raise error

    def turn(self, **_: bool) -> None:
        self._script.turns += 1
        if error := self._script.broken_turns.get(self._script.turns):
            raise error

    def way(self, _node: str) -> Way:
        return _WAY


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> _Script:
    """For the labs of this test."""
    script = _Script()

    @contextmanager
    def running(_folder: object) -> Iterator[_Lab]:
        script.labs.append("up")
        try:
            yield _Lab(script)
        finally:
            script.labs.append("down")

    monkeypatch.setattr(chaosruns, "running", running)
    monkeypatch.setattr(chaosruns, "one", lambda *_: ([], OLD, chaosfaults.Blow("", 3)))
    return script


def _hits(tally: chaosruns.Tally) -> int:
    return tally.became.total()


@pytest.mark.parametrize("error", [AssertionError("apply"), LabError("still there"), subprocess.TimeoutExpired("x", 1)])
def test_a_run_whose_turn_breaks_off_is_counted_by_itself_and_the_others_are_run(
    script: _Script, error: Exception
) -> None:
    script.broken_turns[2] = error
    tally = chaosruns.some(range(5))
    assert (_hits(tally), tally.broken.total(), tally.missed.total(), tally.not_run) == (4, 1, 0, 0)
    assert (tally.findings, tally.is_good, script.labs) == (1, False, ["up", "down"])
    assert "broken off" in str(tally)


def test_a_lab_that_cannot_be_begun_anew_is_taken_down_and_the_other_runs_have_a_new_one(script: _Script) -> None:
    script.broken_turns[2] = LabError("still there")
    script.beginnings += [None, LabError("home does not reach the hub"), None]
    tally = chaosruns.some(range(5))
    assert (_hits(tally), tally.broken.total(), tally.not_run, tally.findings) == (4, 1, 0, 2)
    assert script.labs == ["up", "down"] * 2


def test_runs_for_which_no_lab_can_be_had_are_counted_and_what_was_before_them_is_kept(script: _Script) -> None:
    script.broken_turns[2] = LabError("still there")
    script.beginnings += [None, *[LabError("home does not reach the hub")] * 2]
    tally = chaosruns.some(range(5))
    assert (_hits(tally), tally.broken.total(), tally.not_run, tally.is_good) == (1, 1, 3, False)
    assert (tally.lines, script.labs) == ({_WAY: 9}, ["up", "down"] * 2)


def test_not_to_have_run_is_not_good_though_nothing_was_found() -> None:
    assert chaosruns.Tally().is_good
    assert not chaosruns.Tally(not_run=1).is_good


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        (["Wave 1 of 2 (what is new): hub\n", _FIRST, "Wave 2 of 2 (what is new): web\n", _SECOND], True),
        (["Wave 1 of 1 (what is new): hub\n", _SECOND], True),
        (["Wave 1 of 2: hub\n", "Go on with wave 2 of 2? [y/N] \n"], False),  # there was one round alone
        (["Wave 1 of 2 (what is new): hub\n", _FIRST], False),  # it ended in the first
        (["Wave 1 of 2 (new things): hub\n", "Continue with wave 2 of 2 (new things)? [y/N] \n"], False),
        ([], False),
    ],
)
def test_a_first_round_is_one_that_another_follows(said: list[str], is_one: bool) -> None:
    assert is_one_round(said) is is_one
