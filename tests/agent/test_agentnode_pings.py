"""What tests take for a path that was never interrupted."""

from __future__ import annotations

import pytest
from agentnode_pings import INTERVAL_S, LOST, SILENCE_S, UNANSWERED, complaint

GAP = round(SILENCE_S / INTERVAL_S)


def said(count: int, *lost: int) -> str:
    """Of a ping that has sent so many."""
    answered = [number for number in range(1, count + 1) if number not in lost]
    answers = [f"[1.0] 64 bytes from 10.0.0.1: icmp_seq={number} ttl=64 time=1 ms" for number in answered]
    return "\n".join([*answers, f"{count} packets transmitted, {len(answers)} received, 0% packet loss, time 1ms"])


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(said(300), id="all are answered"),
        pytest.param(said(50, *range(10, 10 + LOST)), id="a busy machine drops a few"),
        pytest.param(said(300, *range(299, 301)), id="some are under way"),
        pytest.param(said(300, *range(301 - 2 * GAP, 301)), id="many are under way in a slow moment"),
    ],
)
def test_a_path_that_was_not_interrupted_gives_no_reason_to_complain(told: str) -> None:
    assert complaint(told) == ""


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(said(300, *range(100, 100 + GAP)), id="a tunnel is bounced"),
        pytest.param(said(300, *range(1, 300, 10)), id="every tenth is lost"),
        pytest.param(said(300, *range(301 - UNANSWERED, 301)), id="it is dead at the end"),
        pytest.param(said(300, *range(1, 301)), id="it never lived"),
    ],
)
def test_a_path_that_was_interrupted_does(told: str) -> None:
    assert complaint(told)
