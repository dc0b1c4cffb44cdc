"""Real agents around real WireGuards: two nodes behind NATs meet by an anchor, and need no agent once they have met."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from agentnode_stage import Stage, until

from meshctl.core.agent.document import encode

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:  {roles: [anchor], endpoint: "203.0.113.10:51820"}
  ann:  {lab: {nat: easy}}
  bob:  {lab: {nat: easy}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-agent", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        yield stage


def reached(stage: Stage, node: str, peer: str) -> bool:
    """Whether the agent says that its path to the peer is direct."""
    states = [line for line in stage.log(node).splitlines() if f" peer={peer} state=" in line]
    return bool(states) and " state=direct " in states[-1]


def test_two_nodes_behind_easy_nats_reach_each_other_directly(stage: Stage) -> None:
    for node in stage.mesh.nodes:
        stage.start(node)
    until(lambda: reached(stage, "ann", "bob") and reached(stage, "bob", "ann"), 15, stage.logs)
    # WireGuard repeats a handshake that was lost after five seconds (REKEY_TIMEOUT).
    until(lambda: stage.ping("ann", "bob", 10), 12, stage.logs)
    assert stage.endpoint("ann", "bob").endswith(":51820")
    assert stage.endpoint("ann", "bob") not in (stage.endpoint("ann", "mid"), "(none)")


def test_a_killed_agent_leaves_the_tunnel_and_the_next_one_adopts_it(stage: Stage) -> None:
    before, said = stage.endpoint("ann", "bob"), len(stage.log("ann"))
    stage.kill("ann")
    assert stage.ping("ann", "bob", 10)
    with stage.pinging("ann", "bob") as pings:
        stage.start("ann")
        until(lambda: "peer=bob state=direct" in stage.log("ann")[said:], 15, lambda: stage.log("ann"))
    assert pings.complaint() == ""
    assert stage.endpoint("ann", "bob") == before
    since = stage.log("ann")[said:]
    assert "peer=bob state=probing" not in since
    set_again = [line for line in since.splitlines() if "endpoint peer=bob" in line]
    assert all(line.endswith(f"address={before}") for line in set_again)


def test_a_document_that_cannot_be_used_changes_nothing_and_the_next_one_is_taken(stage: Stage) -> None:
    good = stage.content("bob")
    stage.put(stage.document("bob"), b'{"version": 1, "node": "bob"}')
    for times in (1, 2):
        until(lambda: stage.log("bob").count("`networks` is missing") == times, 5, lambda: stage.log("bob"))  # noqa: B023
        stage.signal("bob", signal.SIGHUP if times == 1 else 0)
    assert stage.ping("ann", "bob", 3)
    (network,) = good.config.networks
    alone = replace(network, peers=tuple(p for p in network.peers if p.name != "ann"))
    stage.put(stage.document("bob"), encode(replace(good, config=replace(good.config, networks=(alone,)))))
    until(lambda: "info reloaded" in stage.log("bob"), 5, lambda: stage.log("bob"))
    assert stage.ping("ann", "bob", 3), "whose peer is whose is for WireGuard's own configuration to say"
    assert "Traceback" not in stage.log("bob")


def test_an_agent_that_is_asked_to_end_ends_and_leaves_the_tunnel(stage: Stage) -> None:
    for node in stage.mesh.nodes:
        assert stage.stop(node) == 0
        assert stage.log(node).endswith("info stopped\n")
    assert stage.ping("ann", "bob", 10)
