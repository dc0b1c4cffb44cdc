"""What the controller shows of agents that apply has deployed, over SSH: who reaches whom, and who cannot be asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from meshlab import MeshLab

from meshctl.inventory import load_schema

pytestmark = pytest.mark.lab

FOUND_S = 20.0
STEP_S = 0.2


def status(mesh: MeshLab) -> dict[str, Any]:
    """The document of `meshctl status`."""
    document: dict[str, Any] = mesh.on_lab("status", "-o", "json").json()
    Draft202012Validator(load_schema("status")).validate(document)
    return document


def ways(mesh: MeshLab) -> dict[tuple[str, str], dict[str, Any]]:
    """(from, to) -> path."""
    return {(path["from"], path["to"]): path for path in status(mesh)["paths"]}


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + FOUND_S
    while not condition():
        assert time.monotonic() < end, f"not within {FOUND_S:.0f} s: {what}"
        time.sleep(STEP_S)


def test_all_agents_are_asked_at_once_and_tell_what_wireguard_does(applied_agents: MeshLab) -> None:
    agents = applied_agents
    wanted = {("alice", "bob"): "direct", ("sym1", "sym2"): "relayed"}
    until(lambda: all(ways(agents)[pair]["state"] == state for pair, state in wanted.items()), "paths are found")
    until(lambda: ways(agents)["sym1", "sym2"]["rtt_ms"] is not None, "the way by the relay is measured")
    found = ways(agents)
    for one, other in (("alice", "bob"), ("bob", "alice"), ("sym1", "sym2")):
        key = agents.sh(other, "wg show wg0 public-key").strip()
        endpoint = agents.sh(one, f"wg show wg0 endpoints | grep -F {key} | cut -f2").strip()
        assert found[one, other]["endpoint"] == endpoint
    assert found["sym1", "sym2"]["relay"] == found["sym2", "sym1"]["relay"] == "hub"
    assert found["sym1", "sym2"]["rtt_ms"] > 0
    assert found["hub", "alice"]["state"] == found["alice", "hub"]["state"] == "direct"
    assert {node["agent"] for node in status(agents)["nodes"].values()} == {"running"}
    until(lambda: agents.on_lab("status").code == 0, "no path is down")
    assert agents.on_lab("status").out.endswith("0 routed, 0 down; 5 of 5 agents answered.\n")


def test_one_nodes_agent_answers_and_a_rebind_costs_no_packet(applied_agents: MeshLab) -> None:
    agents = applied_agents
    words = ("-i", str(agents.path), "--lab", agents.name)
    nat = agents.run("agent", "nat", "sym1", "-o", "json", *words).json()
    Draft202012Validator(load_schema("agent-answer")).validate(nat)
    assert list(nat["nodes"]) == ["sym1"]
    served = agents.run("agent", "status", "hub", "-o", "json", *words).json()["nodes"]["hub"]["relays"]
    assert {"sym1", "sym2"} in [{end["peer"] for end in relay["ends"]} for relay in served]
    with agents.lossless(("alice", "bob")):
        assert "everything is found out anew" in agents.run("agent", "rebind", "alice", *words).out
        until(lambda: ways(agents)["alice", "bob"]["state"] == "direct", "alice and bob are direct again")


def test_the_command_on_the_node_and_the_file_for_prometheus_are_there(applied_agents: MeshLab) -> None:
    shown = applied_agents.sh("alice", "meshctl-agent paths")
    assert shown.split()[:3] == ["PEER", "NETWORK", "STATE"]
    modes = applied_agents.sh("alice", "stat -c '%a %U' /run/meshctl/agent.sock /run/meshctl/agent.prom")
    assert modes.splitlines() == ["660 root", "644 root"]
    assert 'meshctl_agent_info{node="alice"' in applied_agents.sh("alice", "cat /run/meshctl/agent.prom")


def test_who_may_open_the_port_reads_a_nodes_metrics_by_the_mesh(applied_agents: MeshLab) -> None:
    url = f"http://{applied_agents.address('alice')}:51872/metrics"
    read = f"""python3 -c 'import urllib.request as u; print(u.urlopen("{url}").read().decode())'"""
    assert 'meshctl_agent_info{node="alice"' in applied_agents.sh("bob", read)


def test_an_agent_that_is_stopped_is_named_and_its_tunnels_are_as_they_were(agents: MeshLab) -> None:
    wanted = {("alice", "bob"): "direct", ("sym1", "sym2"): "relayed", ("sym2", "sym1"): "relayed"}
    until(lambda: all(ways(agents)[pair]["state"] == state for pair, state in wanted.items()), "paths are found")
    with agents.lossless(("alice", "bob"), ("sym1", "sym2")):
        agents.sh("bob", "systemctl stop meshctl-agent")
        agents.sh("hub", "systemctl stop meshctl-agent")
        done = agents.on_lab("status", "-o", "json")
        agents.sh("hub", "systemctl start meshctl-agent")
        agents.sh("bob", "systemctl start meshctl-agent")
    assert done.code == 1
    nodes = done.json()["nodes"]
    assert {name: node["agent"] for name, node in nodes.items()} == {
        "alice": "running", "bob": "none", "hub": "none", "sym1": "running", "sym2": "running",
    }  # fmt: skip
    assert nodes["bob"]["error"]["kind"] == "no-agent"
    until(lambda: ways(agents)["alice", "bob"]["state"] == "direct", "alice and bob are direct again")
