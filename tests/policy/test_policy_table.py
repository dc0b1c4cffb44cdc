"""What the loaded table does beside deciding: reloads keep connections, rules count, limits act, drops are logged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from packets import Host
from test_policy_packets import LAYOUT, table
from test_policy_reference import read

from meshctl.policy import compile_mesh

pytestmark = pytest.mark.lab
N4, N5 = (LAYOUT["nodes"][name]["address"]["corp"][0] for name in ("n4", "n5"))
RULE: dict[str, Any] = {"name": "ping", "from": "n5", "to": "n4", "allow": ["icmp"]}


@pytest.fixture
def n4() -> Iterator[Host]:
    made = Host({"wg0": [f"{N4}/16"]}, {})
    yield made
    made.close()


def rendered(*rules: dict[str, Any]) -> str:
    return table(compile_mesh(read({**LAYOUT, "policies": list(rules)})), "n4")


def test_a_rule_counts_the_connections_that_it_decides(n4: Host) -> None:
    n4.load(rendered(RULE))
    for _ in range(3):
        assert n4.passes("wg0", N5, N4, "icmp", 0) == "wg0"
    counted = re.search(r"packets (\d+)", n4.run("nft", "list", "counter", "inet", "meshctl", "rule_ping"))
    assert counted is not None
    assert counted[1] == "3"


def test_new_connections_beyond_a_rule_s_limit_are_dropped(n4: Host) -> None:
    n4.load(rendered({**RULE, "limits": {"connections_per_second": 2}}))
    answers = [n4.passes("wg0", N5, N4, "icmp", 0) for _ in range(40)]
    assert answers[:2] == ["wg0", "wg0"]
    assert "" in answers


def test_a_connection_survives_the_reload_that_takes_its_rule_away(n4: Host) -> None:
    n4.load(rendered(RULE))
    assert n4.passes("wg0", N5, N4, "icmp", 0) == "wg0"
    serial = n4.serial
    n4.load(rendered({**RULE, "allow": ["tcp/22"]}))
    assert n4.passes("wg0", N5, N4, "icmp", 0) == ""
    assert n4.passes("wg0", N5, N4, "icmp", 0, serial) == "wg0"
