"""The simulator's WireGuard does what a real one does, message by message."""

from __future__ import annotations

import pytest
from wgcompare import ALLOWED, differences
from wgplay import play_all
from wgreal import usual
from wgscenarios import SCENARIOS, Scenario
from wgstage import Record

pytestmark = pytest.mark.lab
# What takes minutes, and what wireguard-go does in another way than the kernel, is for `make wg-model`.
PLAYED = [scenario for scenario in SCENARIOS if not scenario.long and not scenario.go_differs]


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    """All scenarios, played side by side by the machine's own WireGuard: the kernel's if it has one."""
    found: dict[str, Record] = {}
    play_all(PLAYED, usual(), found.__setitem__)
    return found


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.name)
def test_the_model_does_what_wireguard_does(scenario: Scenario, records: dict[str, Record]) -> None:
    assert differences(scenario, records[scenario.name], ALLOWED) == []
