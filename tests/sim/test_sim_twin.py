"""Twins. Hunted: a message that was made up, or was sent before, and is believed; and a twin that could not show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import main
import pytest
import simcopyist
import simshrink
import simtwin
from simcopyist import KINDS
from simdraw import draw
from simnat import Behaviour
from simspec import Fault, WorldSpec
from simspecs import EASY, HARD, NEVER, spec_of
from simworld import World

from meshctl.core.agent import signal
from meshctl.core.agent.allowance import Allowance
from meshctl.core.agent.probes import Copies
from meshctl.core.agent.relayserver import RelayServer
from meshctl.core.agent.window import Window
from meshctl.core.wire import stun

# One pair that is direct, one that is relayed, and one of which both ends move, each with a few seeds that have twins.
_ROAMS = (Fault("roam", 8.0, 0.0, "n0"), Fault("roam", 8.5, 0.0, "n1"))
_KINDS = (EASY, NEVER, replace(EASY, faults=_ROAMS, quiet_at=8.5))
SPECS = [replace(spec, seed=seed * simtwin.EVERY, seconds=15.0) for spec in _KINDS for seed in range(4)]


def differs(specs: Iterable[WorldSpec] = SPECS) -> bool:
    """Whether one of the worlds and its twin are two."""
    outcomes = map(simtwin.outcome_of, specs)
    return any(f.invariant == "forged and replayed messages change nothing" for o in outcomes for f in o.findings)


def test_twins_are_equal_though_every_kind_of_message_was_delivered() -> None:
    assert not differs()
    delivered = {kind for spec in SPECS for kind, _ in simtwin.outcome_of(spec).copies}
    assert delivered == set(KINDS)


def test_who_answers_for_a_stun_server_without_a_key_is_that_server_and_no_forger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simcopyist, "_OFTEN", 1.0)
    hard = spec_of(Behaviour(), HARD, stun="honest", seconds=15.0)
    assert not differs(replace(hard, seed=seed * simtwin.EVERY) for seed in range(2))


def test_other_worlds_have_no_twin() -> None:
    outcome = simtwin.outcome_of(draw(1))
    assert outcome.copies == ()
    assert outcome == World(draw(1)).run()


def _always(*_args: Any) -> bool:
    return True


def _unchecked(_received: stun.Received, _key: bytes) -> bool:
    return True


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [
        (Copies, "is_new", _always),
        (Window, "accept", _always),
        (signal, "authentic", _always),
        (stun.Received, "is_authentic", _unchecked),
    ],
    ids=["checks again", "signalling again", "signalling by anybody", "STUN by anybody"],
)
def test_an_agent_that_believes_what_it_should_not_differs_in_its_twin(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, instead: Callable[..., bool]
) -> None:
    monkeypatch.setattr(where, name, instead)
    assert differs()


def test_what_differs_in_a_twin_is_printed_with_both_traces_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "shrink", lambda spec, fails: simshrink.shrink(spec, fails, tries=1))
    monkeypatch.setattr(Copies, "is_new", _always)
    shown = main.smallest(main.run(simtwin.EVERY))
    assert [f.invariant for f in shown.findings] == ["forged and replayed messages change nothing"]
    lines = shown.text.splitlines()
    first, second = (line[1:].strip() for line in lines if line.startswith(">"))
    assert shown.findings[0].words == f"differs in {first} | {second}"
    assert lines[0].startswith(f"seed {shown.seed}, "), "after the world's description"


def test_an_anchor_that_believes_a_bind_that_was_sent_again_differs_in_its_twin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nonce(_server: RelayServer, *_args: Any) -> str:
        return ""  # which is what a first bind has

    monkeypatch.setattr(RelayServer, "_nonce", nonce)
    monkeypatch.setattr(Allowance, "take", _always)
    assert differs()
