"""The simulator's WireGuard does what a real one does, message by message."""

from __future__ import annotations

import threading
import time

import pytest
from wgcompare import ALLOWED, differences
from wgplay import play_all
from wgreal import usual
from wgscenarios import SCENARIOS, Scenario
from wgstage import Record

pytestmark = pytest.mark.lab
# What takes minutes, and what wireguard-go does in another way than the kernel, is for `make wg-model`.
PLAYED = [scenario for scenario in SCENARIOS if not scenario.long and not scenario.go_differs]


# A machine that stands still for longer than this has been measured, and not WireGuard.
FROZEN_S, BEAT_S, PLAYS = 0.1, 0.02, 4


class Heart(threading.Thread):
    """Beats while the block runs; `longest_s` is how much later than it should a beat came at the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest_s = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Heart:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(BEAT_S):
            now = time.monotonic()
            self.longest_s, before = max(self.longest_s, now - before - BEAT_S), now


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    """All scenarios, played side by side by the machine's own WireGuard: the kernel's if it has one. Those that differ
    once more where the machine stood still meanwhile."""
    found: dict[str, Record] = {}
    left = PLAYED
    for _ in range(PLAYS):
        with Heart() as heart:
            play_all(left, usual(), found.__setitem__)
        left = [scenario for scenario in left if differences(scenario, found[scenario.name], ALLOWED)]
        if not left or heart.longest_s < FROZEN_S:
            break
    return found


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: scenario.name)
def test_the_model_does_what_wireguard_does(scenario: Scenario, records: dict[str, Record]) -> None:
    assert differences(scenario, records[scenario.name], ALLOWED) == []
