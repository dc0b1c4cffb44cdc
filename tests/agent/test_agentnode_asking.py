"""The controller's commands with real agents, on this machine without SSH: each is asked as its own host would be."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agentnode_asked import running
from agentnode_stage import ROOT, Stage
from jsonschema import Draft202012Validator

from meshctl.inventory import load_schema

pytestmark = pytest.mark.lab

# The agents' sockets are in a folder of the test's: in production there is one on each host.
PROGRAM = """
import sys
from pathlib import Path
from meshctl.deploy import asking
asking.SOCKET = Path(sys.argv.pop(1))
from meshctl.cli import main
main()
"""


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running("asking", tmp_path_factory.mktemp("agents")) as stage:
        yield stage


def words(stage: Stage, node: str, *command: str) -> list[str]:
    inventory = ["--local", "--limit", node, "-i", str(stage.folder / "inventory.yml")]
    return [sys.executable, "-c", PROGRAM, str(stage.socket(node)), *command, *inventory]


def meshctl(stage: Stage, node: str, *command: str) -> subprocess.CompletedProcess[str]:
    """`meshctl COMMAND`, about one node."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words(stage, node, *command), env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("command", ["status", "paths", "events", "nat", "rebind"])
def test_the_answer_is_that_of_the_node_under_its_name(stage: Stage, command: str) -> None:
    done = meshctl(stage, "ann", "agent", command, "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator({**load_schema("agent-answer"), "oneOf": [{"$ref": "#/$defs/hosts"}]}).validate(document)
    assert document["errors"] == []
    assert document["nodes"]["ann"]["node"] == "ann"
    shown = meshctl(stage, "ann", "agent", command)
    assert shown.stdout.startswith("ann:\n")
    here = stage.agent("ann", command).stdout
    assert shown.stdout.splitlines()[1].split()[:3] == here.splitlines()[0].split()[:3]


def test_an_override_from_the_controller_is_heard_or_refused(stage: Stage) -> None:
    assert "bob: as it finds best" in meshctl(stage, "ann", "agent", "override", "ann", "bob", "auto").stdout
    refused = meshctl(stage, "ann", "agent", "override", "ann", "eve", "relay")
    assert refused.returncode == 1
    assert "ann: command (ask): this node has no path to a peer 'eve'" in refused.stdout


def test_the_status_of_the_mesh_is_what_the_asked_nodes_see(stage: Stage) -> None:
    done = meshctl(stage, "ann", "status", "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(load_schema("status")).validate(document)
    found = {(p["from"], p["to"]): p for p in document["paths"]}
    assert found["ann", "bob"]["state"] == "direct"
    assert found["ann", "bob"]["endpoint"] == stage.endpoint("ann", "bob")
    assert found["ann", "phone"]["state"] == "routed"
    assert document["nodes"]["phone"]["agent"] == "client"
    text = meshctl(stage, "ann", "status").stdout.splitlines()
    assert re.match(r"ann > bob +corp +direct +- +[\d.]+:\d+ +[\d.]+ ms +\d+[smh]  ", text[1])
    assert text[-1].endswith("0 down; 1 of 1 agents answered.")


@pytest.mark.parametrize("node", ["bob"])
def test_a_node_without_an_agent_is_said_so(stage: Stage, node: str) -> None:
    missing = words(stage, node, "status", "-o", "json")
    missing[3] += ".not-there"
    done = subprocess.run(missing, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 1
    document = json.loads(done.stdout)
    Draft202012Validator(load_schema("status")).validate(document)
    assert document["nodes"][node]["agent"] == "none"
    assert document["nodes"][node]["error"]["message"] == "no agent answers: No such file or directory"


def follow(command: list[str], enough: Callable[[str], bool]) -> tuple[str, int]:
    """What a person sees of a command in a terminal until there is enough of it and they type Ctrl-C; its status."""
    master, slave = pty.openpty()
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200", "LINES": "40"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd="/", env=env)
    os.close(slave)
    said = ""
    while not enough(said):
        ready, _, _ = select.select([master], [], [], 20)
        assert ready, said
        said += os.read(master, 1 << 16).decode()
    process.send_signal(signal.SIGINT)
    status = process.wait(timeout=20)
    os.close(master)
    return said, status


def test_a_watched_status_is_drawn_anew_in_its_place(stage: Stage) -> None:
    said, status = follow(
        words(stage, "ann", "status", "--watch", "--interval", "0.2"), lambda said: said.count("agents answered") >= 3
    )
    assert status == 0
    assert "\x1b[1A" in said, "the cursor goes up"
    assert "Traceback" not in said


def test_a_watched_status_is_a_document_a_line_for_programs(stage: Stage, tmp_path: Path) -> None:
    command = words(stage, "ann", "status", "--watch", "--interval", "0.2", "-o", "json")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd="/", text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    for line in lines:
        Draft202012Validator(load_schema("status")).validate(json.loads(line))
