"""Two nodes on bad lines: each loses 5 % of all packets and keeps the others for up to 200 ms, in both directions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from agentnode_stage import Stage, until

pytestmark = pytest.mark.lab

LINE = "{nat: easy, delay: 20ms, jitter: 200ms, loss: 5%}"
INVENTORY = f"""
version: 1
networks:
  corp: {{cidr: [10.42.0.0/16]}}
nodes:
  mid:  {{roles: [anchor], endpoint: "203.0.113.10:51820"}}
  far:  {{roles: [anchor], endpoint: "198.51.100.20:51820"}}
  ann:  {{lab: {LINE}}}
  bob:  {{lab: {LINE}}}
policies:
  - {{name: all, from: ["*"], to: ["*"], allow: [any]}}
"""
DIRECT_S = 30.0
# A ping crosses four lines, where 0.95 ** 4 = 81 % of them are left. Of so many, 70 % answered is ten deviations off.
PINGS, ANSWERED = 1500, 0.7


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-weather", INVENTORY, tmp_path_factory.mktemp("agents")) as stage:
        stage.start_all()
        yield stage


def states(stage: Stage, node: str, peer: str, since: int = 0) -> list[str]:
    """What the agent said of its path to the peer, from that place of its log on."""
    return re.findall(rf" peer={peer} state=(\w+)", stage.log(node)[since:])


def test_a_direct_path_is_found_over_bad_lines_and_not_left_for_their_sake(stage: Stage) -> None:
    ends = (("ann", "bob"), ("bob", "ann"))
    until(lambda: all(states(stage, *end)[-1:] == ["direct"] for end in ends), DIRECT_S, stage.logs)
    since = {node: len(stage.log(node)) for node, _ in ends}
    words = ["ping", "-n", "-q", "-i", "0.01", "-c", str(PINGS), "-w", "60", stage.mesh_ip("bob")]
    said = stage.run("ann", "sh", "-c", f"{' '.join(words)} || true")
    answered = int(re.findall(r"(\d+) received", said)[0])
    assert answered > ANSWERED * PINGS, f"{said}\n{stage.logs()}"
    seen = {state for node, peer in ends for state in states(stage, node, peer, since[node])}
    assert seen <= {"suspect", "direct"}, stage.logs()
