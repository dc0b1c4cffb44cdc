"""Twins. Hunted: a message that was made up, or was sent before, and is believed; and a twin that could not show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import simtwin
from simdraw import draw
from simworld import World

from meshctl.core.agent import signal
from meshctl.core.agent.checks import CheckList
from meshctl.core.agent.relayserver import RelayServer
from meshctl.core.agent.session import Window
from meshctl.core.wire import stun

SEED = 0


def differs() -> bool:
    """Whether the first seconds of the world and of its twin are two."""
    spec = replace(draw(SEED), faults=(), quiet_at=12.0, seconds=12.0)
    return "forged and replayed messages change nothing" in {f.invariant for f in simtwin.outcome_of(spec).findings}


def test_the_first_seconds_of_twins_are_equal() -> None:
    assert not differs()


def test_twins_are_equal_though_every_kind_of_message_was_delivered() -> None:
    outcome = simtwin.outcome_of(draw(SEED))
    assert outcome.findings == ()
    assert set(dict(outcome.copies)) == set(simtwin.KINDS)


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
        (CheckList, "is_new", _always),
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


def test_an_anchor_that_believes_a_bind_that_was_sent_again_differs_in_its_twin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nonce(_server: RelayServer, *_args: Any) -> str:
        return ""  # which is what a first bind has

    monkeypatch.setattr(RelayServer, "_nonce", nonce)
    assert differs()
