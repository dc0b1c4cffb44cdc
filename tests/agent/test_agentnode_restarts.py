"""What agents' ends and beginnings cost those who are spliced or relayed: with their state, and without it.

The agents that have a splice or a relay to lose; test_agentnode_detours.py has what is to go on with both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from agentnode_asked import asked
from agentnode_pings import SILENCE_S
from agentnode_stage import Stage, until
from test_agentnode_detours import INVENTORY, SPLICED_S, relay, state, tables

from meshctl.agent.node.ruletable import SWEEP_AFTER_S

pytestmark = pytest.mark.lab

ANCHORS = ("mid", "far")
NOISE = {"gone": None, "noise": os.urandom(5000)}
# Python's start is most of it: 0.2 to 0.7 s on a machine whose two cores have ten processes to run.
SILENT_S = 3.0


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-again", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        stage.start_all()
        settled(stage)
        yield stage


def settled(stage: Stage) -> None:
    """Wait until there are a splice and a relay, and traffic by both."""
    until(lambda: state(stage, "hard", "soft") == state(stage, "soft", "hard") == "direct", SPLICED_S, stage.logs)
    until(lambda: "meshctl_splices" in tables(stage, "hard"), SPLICED_S, stage.logs)
    until(lambda: relay(stage, "hard", "firm") == relay(stage, "firm", "hard") != "", SPLICED_S, stage.logs)
    for peer in ("soft", "firm"):
        until(lambda peer=peer: stage.ping("hard", peer, 10), 12, stage.logs)


def spoil(stage: Stage, node: str, content: bytes | None) -> None:
    """Instead of what the agent has saved."""
    if content is None:
        stage.state(node).unlink()
    else:
        stage.state(node).write_bytes(content)


def again(stage: Stage, node: str) -> None:
    """Start the agent; it has begun, and so long ago that it has ended what it does not know of."""
    before = len(stage.log(node))
    stage.start(node)
    until(lambda: "started" in stage.log(node)[before:], 10, stage.logs)
    ends_at = time.monotonic() + 2 * SWEEP_AFTER_S
    until(lambda: time.monotonic() > ends_at, 3 * SWEEP_AFTER_S)


@pytest.mark.parametrize("lost", NOISE)
@pytest.mark.parametrize("who", ["a node with a splice", "an anchor that relays"])
def test_a_state_that_is_lost_interrupts_neither_a_splice_nor_a_relay(stage: Stage, who: str, lost: str) -> None:
    """The kernel goes on, and the next agent has found out what it is for before it would end it."""
    settled(stage)
    node = "hard" if who == "a node with a splice" else relay(stage, "hard", "firm")
    with stage.pinging("hard", "soft") as spliced, stage.pinging("hard", "firm") as relayed:
        assert stage.ping("hard", "soft", 20)
        stage.kill(node)
        spoil(stage, node, NOISE[lost])
        again(stage, node)
        settled(stage)
    assert (spliced.complaint(), relayed.complaint()) == ("", "")
    assert "Traceback" not in stage.log(node)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_relay_that_the_agent_forwards_is_silent_until_the_next_one_runs(stage: Stage, end: str) -> None:
    """An anchor whose kernel does not forward: what its agent forwards itself begins again with what it has saved."""
    for anchor in ANCHORS:
        stage.run(anchor, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        stage.kill(anchor)
        stage.start(anchor)
    settled(stage)
    anchor = relay(stage, "hard", "firm")
    by = {frozenset(e["peer"] for e in r["ends"]): r["by"] for r in asked(stage, anchor, "status")["relays"]}
    assert by[frozenset({"hard", "firm"})] == "agent", "or else this would show nothing"
    with stage.pinging("hard", "firm") as relayed:
        assert stage.ping("hard", "firm", 20)
        (stage.kill if end == "kill" else stage.stop)(anchor)
        again(stage, anchor)
        settled(stage)
    assert SILENCE_S < relayed.longest_silence_s() < SILENT_S
