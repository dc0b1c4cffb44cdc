"""Real agents behind NATs that let no packet straight through: a splice, and a relay in the anchor's kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from agentnode_stage import Stage, until

pytestmark = pytest.mark.lab

# Two anchors: one alone does not show that a NAT gives another destination another port.
INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  far:  {roles: [anchor], endpoint: "198.51.100.20:51820"}
  soft: {lab: {nat: easy}}
  hard: {lab: {nat: symmetric}}
  firm: {lab: {nat: symmetric}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""
ANCHORS = {"203.0.113.10": "mid", "198.51.100.20": "far"}
# One attempt in fifty hits no port, or more on a busy machine; the next one comes after half a minute.
SPLICED_S = 80.0


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-detour", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        yield stage


def state(stage: Stage, node: str, peer: str) -> str:
    """What the agent last said of its path to the peer."""
    states = re.findall(rf" peer={peer} state=(\w+)", stage.log(node))
    return states[-1] if states else ""


def relay(stage: Stage, node: str, peer: str) -> str:
    """The anchor whose relay the node's packets for the peer go to, "" for none."""
    ip, _, port = stage.endpoint(node, peer).rpartition(":")
    return ANCHORS.get(ip, "") if port.startswith("4") and len(port) == 5 else ""


def tables(stage: Stage, node: str) -> str:
    return stage.run(node, "nft", "list", "ruleset")


def test_a_hard_nat_is_spliced_to_an_easy_one_and_relayed_to_a_hard_one(stage: Stage) -> None:
    stage.start_all()
    until(lambda: state(stage, "hard", "soft") == state(stage, "soft", "hard") == "direct", SPLICED_S, stage.logs)
    until(lambda: state(stage, "hard", "firm") == state(stage, "firm", "hard") == "relayed", SPLICED_S, stage.logs)
    for node, peer in (("hard", "soft"), ("hard", "firm"), ("firm", "soft")):
        until(lambda node=node, peer=peer: stage.ping(node, peer, 10), 12, stage.logs)
    anchor = relay(stage, "hard", "firm")
    assert "meshctl_relays" in tables(stage, anchor)
    assert "meshctl_splices" in tables(stage, "hard")
    assert relay(stage, "soft", "hard") == ""


def test_neither_needs_an_agent_once_it_stands_and_the_next_agents_take_both_over(stage: Stage) -> None:
    with stage.pinging("hard", "soft") as spliced, stage.pinging("hard", "firm") as relayed:
        for end in (stage.kill, stage.stop):
            for node in ("hard", relay(stage, "hard", "firm")):
                before = len(stage.log(node))
                end(node)
                stage.start(node)
                until(lambda node=node, before=before: "started" in stage.log(node)[before:], 10, stage.logs)
        until(lambda: state(stage, "hard", "soft") == "direct", 20, stage.logs)
        until(lambda: state(stage, "hard", "firm") == "relayed", 20, stage.logs)
    assert (spliced.complaint(), relayed.complaint()) == ("", "")
    assert stage.ping("hard", "soft", 10)
    assert stage.ping("hard", "firm", 10)


def test_rules_that_somebody_flushes_are_put_back(stage: Stage) -> None:
    for node, table in (("hard", "meshctl_splices"), (relay(stage, "hard", "firm"), "meshctl_relays")):
        stage.run(node, "nft", "flush", "ruleset")
        until(lambda node=node, table=table: table in tables(stage, node), 5, stage.logs)
    assert stage.ping("hard", "soft", 10)
    assert stage.ping("hard", "firm", 10)
    assert "Traceback" not in stage.logs()


def test_an_agent_that_ends_leaves_what_it_did_and_cleaning_up_gives_it_back(stage: Stage) -> None:
    anchor = relay(stage, "hard", "firm")
    clean = {node: stage.agent(node, "cleanup") for node in ("hard", anchor)}
    assert [(done.returncode, done.stderr) for done in clean.values()] == [
        (75, "the agent runs: stop it first (systemctl stop meshctl-agent)\n")
    ] * 2
    with stage.pinging("hard", "soft") as spliced, stage.pinging("hard", "firm") as relayed:
        for node in ("hard", "firm", anchor):  # those of the ends would else take the other anchor's relay
            assert stage.stop(node) == 0
        assert stage.ping("hard", "soft", 10)
        assert stage.ping("hard", "firm", 10)
    assert (spliced.complaint(), relayed.complaint()) == ("", "")
    for node in clean:
        assert stage.agent(node, "cleanup").returncode == 0
        assert "meshctl" not in tables(stage, node)
        assert not stage.state(node).exists()
    # What the kernel had been told of the connection, too.
    assert not stage.ping("hard", "firm", within_s=2)
