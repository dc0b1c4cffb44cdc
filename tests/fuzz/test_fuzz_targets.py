"""`make fuzz-parsers` begins with inputs that its targets read: one that fails by itself would hide all else."""

from __future__ import annotations

import fuzzcore
import pytest
from fuzztargets import TARGETS

from meshctl.core.agent.path import State


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_what_it_begins_with_and_the_halves_of_it(name: str) -> None:
    target = TARGETS[name]
    for data in (b"", *target.begin()):
        target.run(data[: target.max_bytes])
        target.run(data[: len(data) // 2])


def test_the_core_takes_what_its_peers_say_for_theirs() -> None:
    agent = fuzzcore.Agent(is_anchor=False)
    assert next(path for path in agent.core.paths() if path.peer == "bob").state is not State.UNKNOWN
