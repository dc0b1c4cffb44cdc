"""Who reaches whom, made of what agents answer: routed pairs, who is silent, and what a person sees of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from meshctl.agent.node.tables import TABLES
from meshctl.cli import cli
from meshctl.cli.status import status_text
from meshctl.deploy import asking
from meshctl.deploy.asking import Answers
from meshctl.deploy.meshstatus import MeshStatus, mesh_status, read_paths
from meshctl.deploy.transport import Completed
from meshctl.errors import RemoteError
from meshctl.inventory import load_schema, read
from meshctl.policy import compile_mesh

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  hub:   {roles: [anchor], endpoint: "203.0.113.10:51820"}
  alice: {}
  bob:   {}
  old:   {relay: routed}
  bare:  {agent: false, endpoint: "203.0.113.9:51820"}
  phone: {client: true}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""


def row(peer: str, state: str = "direct", **more: Any) -> dict[str, Any]:
    """One of an agent's paths."""
    return {
        "network": "corp", "peer": peer, "state": state, "endpoint": "203.0.113.10:51820", "relay": None,
        "rtt_ms": None, "since": None, "age_s": None, "reason": "so it is", **more,
    }  # fmt: skip


def answer(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"version": "0.1.0", "paths": list(rows)}


HUB = answer(row("alice"), row("bob"), row("old"), row("phone", endpoint="192.0.2.7:4444"))
ALICE = answer(row("hub", rtt_ms=20.0, since="2026-01-01T00:00:00Z", age_s=90), row("bob", rtt_ms=7.5, age_s=7200))
BOB = answer(row("hub", rtt_ms=30.0), row("alice"))
OLD = answer(row("hub", rtt_ms=5.5))


@pytest.fixture(name="status")
def _status(tmp_path: Path) -> Any:
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY)
    compiled = compile_mesh(read(path).mesh)

    def make(documents: dict[str, dict[str, Any]], *errors: RemoteError) -> MeshStatus:
        return mesh_status(compiled.mesh, compiled.topology, Answers(documents, {e.node: e for e in errors}))

    return make


def ways(status: MeshStatus) -> dict[tuple[str, str], Any]:
    return {(p.source, p.to): p for p in status.paths}


def test_a_routed_pair_is_told_of_by_both_its_tunnels(status: Any) -> None:
    path = ways(status({"hub": HUB, "alice": ALICE, "old": OLD}))["alice", "old"]
    assert (path.state, path.relay, path.rtt_ms) == ("routed", "hub", 25.5)
    assert (path.endpoint, path.since, path.age_s) == ("203.0.113.10:51820", "2026-01-01T00:00:00Z", 90)
    to_phone = ways(status({"hub": HUB, "alice": ALICE}))["alice", "phone"]
    assert (to_phone.state, to_phone.rtt_ms, to_phone.reason) == ("routed", None, "routed by anchor hub")


def test_a_routed_pair_is_down_when_either_tunnel_is_and_says_which(status: Any) -> None:
    hub = answer(*HUB["paths"][:2], row("old", "down", reason="no handshake yet"))
    path = ways(status({"hub": hub, "alice": ALICE}))["alice", "old"]
    assert (path.state, path.reason) == ("down", "hub does not reach old: no handshake yet")
    alice = answer(row("hub", "down", reason="no handshake"))
    assert ways(status({"hub": HUB, "alice": alice}))["alice", "old"].reason == "alice does not reach hub: no handshake"


def test_what_an_anchor_that_is_silent_would_know_is_left_open(status: Any) -> None:
    path = ways(status({"alice": ALICE}, RemoteError("no way", node="hub", kind="unreachable")))["alice", "phone"]
    assert (path.state, path.reason) == ("routed", "routed by anchor hub, which was not asked whether it reaches phone")


def test_the_document_fits_its_schema_and_says_who_did_not_answer(status: Any) -> None:
    found = status(
        {"hub": HUB, "alice": ALICE},
        RemoteError("no agent answers", node="bob", kind="no-agent", hint="look"),
        RemoteError("cannot reach it", node="old", kind="unreachable"),
    )
    document = found.to_json()
    Draft202012Validator(load_schema("status")).validate(document)
    assert {name: node["agent"] for name, node in document["nodes"].items()} == {
        "hub": "running", "alice": "running", "bob": "none", "old": "unreachable", "phone": "client",
        "bare": "off",
    }  # fmt: skip
    assert document["nodes"]["bob"]["error"] == {"kind": "no-agent", "message": "no agent answers", "hint": "look"}
    assert not found.ok


@pytest.mark.parametrize(
    ("alice", "ok"), [(ALICE, True), (answer(row("hub"), row("bob", "down")), False)]
)
def test_all_is_well_when_all_answer_and_nothing_is_down(status: Any, alice: dict[str, Any], ok: bool) -> None:
    assert status({"hub": HUB, "alice": alice, "bob": BOB, "old": OLD}).ok is ok


def test_a_person_sees_a_line_for_each_pair_or_for_each_direction_where_they_differ(status: Any) -> None:
    bob = answer(row("hub"), row("alice", "relayed", relay="hub"))
    gone = RemoteError("gone", node="old", kind="timeout")
    text = status_text(status({"hub": HUB, "alice": ALICE, "bob": bob}, gone))
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    assert lines[0] == ["PAIR", "NETWORK", "STATE", "BY", "ENDPOINT", "RTT", "AGE", "WHY"]
    assert ["alice > bob", "corp", "direct", "-", "203.0.113.10:51820", "7.5 ms", "2h", "so it is"] in lines
    assert ["bob > alice", "corp", "relayed", "hub", "203.0.113.10:51820", "-", "-", "so it is"] in lines
    assert ["alice <> hub", "corp", "direct", "-", "203.0.113.10:51820", "20 ms", "90s", "so it is"] in lines
    assert "alice > old" in [line[0] for line in lines], "old did not answer"
    assert text.splitlines()[-2:] == [
        "old: timeout: gone", "5 direct, 1 relayed, 4 routed, 0 down; 3 of 4 agents answered."
    ]


@pytest.mark.parametrize(
    "document",
    [
        {}, [], "x", {"version": "1", "paths": 7}, {"version": "1", "paths": [{}]}, answer(row("a", "sideways")),
        answer(row("a", rtt_ms="fast")), answer(row("a", age_s=[])), {"paths": []}, answer(row("a", rtt_ms="nan")),
        answer(row("a", rtt_ms=-1)), answer(row("a", rtt_ms=10**400)), answer(row("a", rtt_ms=1e308)),
    ],
)
def test_an_answer_of_another_form_is_none(document: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        read_paths("a", document)


def said_at_the_socket(folder: Path, answer: str) -> Completed:
    """What asking a host leaves behind at whose socket somebody answers so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "agent.sock"))
        listener.listen()
        listener.settimeout(60)  # should nobody come

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer.encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        argv = [sys.executable, "-", str(folder / "agent.sock"), json.dumps({"request": "paths"})]
        done = subprocess.run(argv, input=asking._program(), capture_output=True, check=False, timeout=60)
        thread.join()
    return Completed(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rtt_ms", "NaN"), ("rtt_ms", "Infinity"), ("rtt_ms", "-Infinity"), ("rtt_ms", '"nan"'), ("rtt_ms", "1e999"),
        ("rtt_ms", "9" * 400), ("age_s", "1e999"), ("age_s", "NaN"), ("more", "NaN"), ("more", "1e999"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [lambda document: read_paths("hub", document), TABLES["paths"]])
def test_a_number_that_is_none_makes_an_answer_that_cannot_be_read(
    tmp_path: Path, form: Callable[[dict[str, Any]], object], field: str, value: str
) -> None:
    """JSON has no such number, so neither may what is made of the answer."""
    lie = json.dumps(answer(row("alice", **{field: "HERE"}))).replace('"HERE"', value)
    completed = said_at_the_socket(tmp_path, lie)
    with pytest.raises(RemoteError, match="the agent's answer cannot be read") as caught:
        asking._read("hub", completed, form)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("interval", ["inf", "nan", "1e300", "86401", "0"])
def test_an_interval_of_looks_is_a_number_of_seconds_up_to_a_day(interval: str) -> None:
    done = CliRunner().invoke(cli, ["status", "--watch", "--interval", interval], standalone_mode=False)
    assert isinstance(done.exception, click.BadParameter), done.exception


@pytest.mark.parametrize("limit", [[], ["--limit", "bare"]])
def test_a_node_without_an_agent_is_not_asked_and_shown_as_it_is_meant(tmp_path: Path, limit: list[str]) -> None:
    """At its address nobody answers, neither an agent nor SSH."""
    path = tmp_path / "inventory.yml"
    path.write_text("""
version: 1
networks: {corp: {cidr: [10.42.0.0/16]}}
nodes:
  bare:  {agent: false, endpoint: "203.0.113.9:51820", ssh: {host: 127.0.0.1, port: 1}}
policies: [{name: all, from: ["*"], to: ["*"], allow: [any]}]
""")

    def run(*words: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "meshctl", *words, "-i", str(path)]
        done = subprocess.run(argv, text=True, capture_output=True, check=False, timeout=60)
        return done.returncode, done.stdout or done.stderr

    assert run("status", *limit) == (
        0, "bare: no agent, by the inventory\n0 direct, 0 relayed, 0 routed, 0 down; 0 of 0 agents answered.\n"
    )  # fmt: skip
    status, document = run("status", *limit, "-o", "json")
    assert (status, json.loads(document)["nodes"]) == (0, {"bare": {"agent": "off", "version": None, "error": None}})
    status, said = run("agent", "paths", "bare")
    assert status == 64
    assert "no agent is to run on bare" in said
