"""The comparison of a run with the model finds what is not the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from wgcompare import Allowed, differences, furthest
from wgscenarios import SCENARIOS, Scenario
from wgstage import Record
from wgvirtual import play

SEEDS = 20
EXACT = Allowed(1e-6, 1e-6)
HANDSHAKE = next(scenario for scenario in SCENARIOS if scenario.name == "handshake")
# Its runs go on in many ways, and each of those is rare among so few seeds.
ONE_WAY = [scenario for scenario in SCENARIOS if scenario.name != "crossing"]


@pytest.mark.parametrize("scenario", ONE_WAY, ids=lambda scenario: scenario.name)
def test_a_run_of_the_model_is_what_the_model_does(scenario: Scenario) -> None:
    jitter = Allowed(10.0, 10.0)
    assert differences(scenario, play(scenario, SEEDS), jitter, SEEDS) == []


def test_a_message_of_another_size_is_found() -> None:
    record = play(HANDSHAKE, 0)
    record.sent["a"][1] = replace(record.sent["a"][1], size=176)
    found = differences(HANDSHAKE, record, EXACT, SEEDS)
    assert "-a sends type 4, 160 bytes, 203.0.113.1 to 203.0.113.2" in found
    assert "+a sends type 4, 176 bytes, 203.0.113.1 to 203.0.113.2" in found


def test_a_message_too_many_is_found() -> None:
    record = play(HANDSHAKE, 0)
    record.sent["b"].append(record.sent["b"][-1])
    assert differences(HANDSHAKE, record, EXACT, SEEDS)


@pytest.mark.parametrize("change", [{"endpoint": "203.0.113.66:51820"}, {"rx": 1}, {"tx": 1}, {"handshake": None}])
def test_another_state_is_found(change: dict[str, str | int | None]) -> None:
    record = play(HANDSHAKE, 0)
    record.shown[-1] = replace(record.shown[-1], **change)
    assert differences(HANDSHAKE, record, EXACT, SEEDS)


def test_an_inner_packet_that_is_missing_is_found() -> None:
    record = play(HANDSHAKE, 0)
    del record.got[0]
    assert differences(HANDSHAKE, record, EXACT, SEEDS)


def test_a_message_that_is_late_is_found_and_said() -> None:
    record = play(HANDSHAKE, 0)
    record.sent["a"][0] = replace(record.sent["a"][0], at=0.3)
    (found,) = differences(HANDSHAKE, record, Allowed(0.2, 0.2), SEEDS)
    assert found == "a sends type 1 to 203.0.113.2 at 0.300 s, in the model between 0.000 and 0.000 s"
    assert differences(HANDSHAKE, record, Allowed(0.2, 0.31), SEEDS) == []
    assert furthest(HANDSHAKE, record, SEEDS) == pytest.approx(0.3)


def test_a_record_is_the_same_after_it_was_sent_as_json() -> None:
    record = play(HANDSHAKE, 0)
    assert Record.from_json(record.as_json()) == record
