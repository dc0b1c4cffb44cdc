"""What real agents say of themselves: on the control socket, and to who types `meshctl-agent`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from agentnode_asked import asked, fetch, path, raw, running, states
from agentnode_stage import ROOT, Stage, until
from jsonschema import Draft202012Validator

from meshctl.agent.node.ask import answers
from meshctl.agent.node.clients import MAX_CLIENTS, MAX_REQUEST_BYTES
from meshctl.agent.node.runlock import EXIT_RUNS
from meshctl.core.agent.state import load
from meshctl.inventory import load_schema

pytestmark = pytest.mark.lab

FOLLOWED_S = 30.0  # whoever follows decisions gives up then
ASKED = {"status": "status", "paths": "paths", "events": "events", "nat": "nat", "rebind": "done"}


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running("asked", tmp_path_factory.mktemp("agents")) as stage:
        yield stage


def seen(stage: Stage, node: str, command: str) -> list[list[str]]:
    """What a person sees: the words of each line, where columns are two spaces apart."""
    done = stage.agent(node, command)
    assert done.returncode == 0, done.stderr
    return [re.split(r" {2,}", line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("command", ASKED)
@pytest.mark.parametrize("node", ["ann", "mid"])
def test_each_answer_is_of_its_schema(stage: Stage, node: str, command: str) -> None:
    schema = load_schema("agent-answer")
    answer = asked(stage, node, command)
    Draft202012Validator({**schema, "oneOf": [{"$ref": f"#/$defs/{ASKED[command]}"}]}).validate(answer)
    assert answer["node"] == node


def test_a_path_is_told_as_wireguard_has_it(stage: Stage) -> None:
    until(lambda: path(stage, "ann", "bob")["state"] == "direct", 10, stage.logs)
    bob = path(stage, "ann", "bob")
    assert bob["endpoint"] == stage.endpoint("ann", "bob")
    assert 0 < bob["rtt_ms"] < 1000
    assert {"host", "srflx"} <= {c["kind"] for c in bob["candidates"]}
    kinds = {p["peer"]: (p["kind"], p["state"], p["phase"]) for p in asked(stage, "ann", "paths")["paths"]}
    assert kinds["mid"] == ("anchor", "direct", "direct")
    seen_by_anchor = {p["peer"]: (p["kind"], p["state"], p["phase"]) for p in asked(stage, "mid", "paths")["paths"]}
    assert seen_by_anchor["ann"] == ("node", "direct", None)
    assert seen_by_anchor["phone"][0] == "client"


def test_a_stock_client_is_where_its_handshake_came_from(stage: Stage) -> None:
    until(lambda: path(stage, "mid", "phone")["state"] == "direct", 15, stage.logs)
    phone = path(stage, "mid", "phone")
    assert phone["endpoint"] == stage.endpoint("mid", "phone")
    assert re.fullmatch(r"WireGuard's last handshake was \d+ s ago", phone["reason"])


def test_a_person_sees_a_table(stage: Stage) -> None:
    head, *rows = seen(stage, "ann", "paths")
    assert head == ["PEER", "NETWORK", "STATE", "RELAY", "ENDPOINT", "RTT", "AGE", "WHY"]
    bob = next(row for row in rows if row[0] == "bob")
    assert bob[1:5] == ["corp", "direct", "-", stage.endpoint("ann", "bob")]
    assert re.fullmatch(r"[\d.]+ ms", bob[5])
    assert re.fullmatch(r"\d+[smh]", bob[6])
    first, _, head, corp = seen(stage, "ann", "status")
    assert first[0].startswith("ann: agent 0.")
    counted = dict(zip(head, corp, strict=True))
    assert (counted["ROLE"], counted["ADDRESSES"], counted["DIRECT"]) == ("node", stage.mesh_ip("ann"), str(len(rows)))
    head, nat, *_ = seen(stage, "ann", "nat")
    assert nat[2:4] == ["easy", "endpoint-independent"]
    assert nat[head.index("SEEN AS")].endswith(":51820")
    head, *rows = seen(stage, "ann", "events")
    assert ["unknown > probing", "session: its agent answers"] in [row[-2:] for row in rows if row[1] == "bob"]


def test_an_override_holds_a_pair_on_the_relay_and_is_taken_back_and_nothing_is_interrupted(stage: Stage) -> None:
    assert stage.ping("ann", "bob", 10)
    with stage.pinging("ann", "bob") as pings:
        assert stage.agent("ann", "override", "bob", "relay").stdout == "ann: bob: relay, until the agent ends\n"
        until(lambda: states(stage) == ("relayed", "relayed"), 10, stage.logs)
        relayed = path(stage, "ann", "bob")
        anchor = relayed["relay"]
        # The reason of the newest move: a second anchor may be ready a moment later, and be nearer.
        assert relayed["reason"].endswith(f"both ends are bound at {anchor}")
        made = [e["reason"] for e in asked(stage, "ann", "events")["events"] if e["event"] == "demoted"]
        assert made[-1].startswith("an operator wants the relay, and both ends are bound at ")
        until(lambda: len(asked(stage, anchor, "status")["relays"]) == 1, 5, stage.logs)
        relay_packets = [end["packets"] for end in asked(stage, anchor, "status")["relays"][0]["ends"]]
        assert stage.agent("ann", "override", "bob", "auto").returncode == 0
        until(lambda: path(stage, "ann", "bob")["state"] == "direct", 10, stage.logs)
    assert pings.complaint() == ""
    assert min(relay_packets) > 0
    until(lambda: path(stage, "bob", "ann")["state"] == "direct", 10, stage.logs)


def test_an_anchor_relays_no_more_for_a_pair_than_the_inventory_lets_it(stage: Stage) -> None:
    def limit(document: dict[str, Any]) -> None:
        for anchor in ("mid", "far"):
            document["nodes"][anchor]["relay_limit"] = "100kbit/s"

    def lift(document: dict[str, Any]) -> None:
        for anchor in ("mid", "far"):
            del document["nodes"][anchor]["relay_limit"]

    stage.agent("ann", "override", "bob", "relay")
    until(lambda: states(stage) == ("relayed", "relayed"), 10, stage.logs)
    assert stage.ping("ann", "bob", 100)
    stage.apply(limit, "mid", "far")
    until(lambda: not stage.ping("ann", "bob", 100, within_s=2, size=1000), 10, stage.logs)
    stage.apply(lift, "mid", "far")
    until(lambda: stage.ping("ann", "bob", 100, within_s=2, size=1000), 20, stage.logs)
    stage.agent("ann", "override", "bob", "auto")
    until(lambda: states(stage) == ("direct", "direct"), 20, stage.logs)


def test_decisions_can_be_followed_as_they_are_made(stage: Stage) -> None:
    # Where tests run in the background of a shell, SIGINT is ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "meshctl.agent.main"]
    command += ["events", "--follow", "-o", "json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    follower = subprocess.Popen(
        [*command, "--socket", str(stage.socket("ann"))], stdout=subprocess.PIPE, text=True, env=env
    )
    assert follower.stdout is not None
    impatience = threading.Timer(FOLLOWED_S, follower.kill)
    impatience.start()
    lines = iter(follower.stdout.readline, "")
    assert json.loads(next(lines))["before"] == "unknown"
    since = asked(stage, "ann", "status")["at"]
    stage.agent("ann", "override", "bob", "relay")
    event = next(e for e in map(json.loads, lines) if e["event"] == "demoted" and e["at"] >= since)
    assert (event["peer"], event["after"]) == ("bob", "relayed")
    stage.agent("ann", "override", "bob", "auto")
    assert any((e["event"], e["peer"]) == ("nominated", "bob") for e in map(json.loads, lines))
    impatience.cancel()
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=10)[0].count("Traceback") == 0
    assert follower.returncode == 0


@pytest.mark.parametrize("words", [["paths"], ["events", "--follow"]])
@pytest.mark.parametrize(("output", "says"), [("|", ""), ("/dev/full", "standard output: No space left on device\n")])
def test_an_answer_that_nobody_reads_is_not_called_a_missing_agent(
    stage: Stage, words: list[str], output: str, says: str
) -> None:
    argv = [sys.executable, "-m", "meshctl.agent.main", *words, "--socket", str(stage.socket("ann"))]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed, Path("/dev/full").open("w") as full:
        done = subprocess.run(
            argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=closed if output == "|" else full,
            stderr=subprocess.PIPE, text=True, check=False, timeout=10,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, says)


def test_what_an_override_does_not_know_it_refuses(stage: Stage) -> None:
    for words, says in ((("eve", "relay"), "this node has no path to a peer 'eve'"), (("mid", "relay"), "'mid'")):
        done = stage.agent("ann", "override", *words)
        assert done.returncode == 64
        assert says in done.stderr
    answer = json.loads(raw(stage, "ann", b'{"request": "override", "peer": "bob", "mode": "sideways"}\n'))
    assert answer == {"error": "`mode` is none of auto, relay, direct, prefer-relay"}


def test_rebinding_asks_everybody_anew_and_loses_nothing(stage: Stage) -> None:
    with stage.pinging("ann", "bob") as pings:
        before = asked(stage, "ann", "events")["next"]
        assert stage.agent("ann", "rebind").stdout == "ann: everything is found out anew\n"

        def reasons() -> set[str]:
            answer = json.loads(raw(stage, "ann", json.dumps({"request": "events", "after": before}).encode() + b"\n"))
            return {event["reason"] for event in answer["events"]}

        until(lambda: "this node's network has changed" in reasons(), 5, stage.logs)
        until(lambda: path(stage, "ann", "bob")["phase"] == "direct", 10, stage.logs)
    assert pings.complaint() == ""


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"hello\n", {"error": "that is no JSON"}),
        (b"[" * 3000 + b"\n", {"error": "that is no JSON"}),
        (b'"status"\n', {"error": "the request is none of status, paths, events, nat, rebind, override"}),
        (b'{"request": ["paths"]}\n', {"error": "the request is none of status, paths, events, nat, rebind, override"}),
        (b'{"request": "events", "after": "x"}\n', {"error": "`after` is no number"}),
        (b"x" * (MAX_REQUEST_BYTES + 1), None),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(stage: Stage, said: bytes, answer: dict[str, str] | None) -> None:
    got = raw(stage, "ann", said)
    assert (json.loads(got) if got else None) == answer
    assert asked(stage, "ann", "status")["node"] == "ann"


def test_who_says_nothing_holds_up_nobody_for_long(stage: Stage) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS)]
    for sock in silent:
        sock.connect(str(stage.socket("ann")))
    try:
        with stage.pinging("ann", "bob") as pings:
            assert asked(stage, "ann", "status")["node"] == "ann"
        assert pings.complaint() == ""
        assert [sock.recv(1) for sock in silent] == [b""] * MAX_CLIENTS
    finally:
        for sock in silent:
            sock.close()


def test_only_root_may_ask_and_no_answer_has_a_secret(stage: Stage) -> None:
    assert stat.S_IMODE(stage.socket("ann").stat().st_mode) == 0o660
    document = json.loads(stage.document("mid").read_text())
    keys = {peer["pair_key"] for network in document["networks"] for peer in network["peers"]}
    tokens = {end.token.hex() for relay in load(stage.state("mid").read_bytes()).relays for end in (relay.a, relay.b)}
    said = "".join(stage.agent("mid", command, "-o", "json").stdout for command in ASKED)
    said += fetch(stage, "ann", stage.mesh_ip("mid"))
    assert keys
    assert not [secret for secret in keys | tokens if secret in said]


def test_without_an_agent_the_command_says_so(stage: Stage) -> None:
    words = [sys.executable, "-m", "meshctl.agent.main", "paths", "--socket", str(stage.socket("phone"))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert done.stderr == f"no agent answers at {stage.socket('phone')}: No such file or directory\n"


AS_NOBODY = """
import os, sys
from meshctl.agent.node.commands import main
main("status", ["--socket", "/nowhere"])  # all is imported then: `nobody` may not be able to read this Python
os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(main("status", sys.argv[1:]))
"""


def test_who_may_not_ask_is_told_who_may(stage: Stage) -> None:
    words = [sys.executable, "-c", AS_NOBODY, "--socket", str(stage.socket("ann"))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert done.stderr.splitlines()[1:] == [f"the agent at {stage.socket('ann')} answers root alone: ask with sudo"]


@pytest.mark.parametrize("words", [
    ("status", "--bogus"), ("status", "extra"), ("paths", "-o", "xml"), ("events", "--follow", "extra"),
    ("override", "bob"), ("override", "bob", "bogus"), ("run", "--metrics-port", "x"), ("run", "extra"),
    ("cleanup", "extra"), ("bogus",), ("apply", "extra"), ("probe", "extra"),
], ids=" ".join)  # fmt: skip
def test_words_that_make_no_sense_end_with_a_status_of_their_own(words: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meshctl.agent.main", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr.startswith("usage: ")


def test_an_agent_that_ends_takes_its_socket_and_its_metrics_along(stage: Stage) -> None:
    assert stage.stop("bob") == 0
    assert not stage.socket("bob").exists()
    assert not stage.metrics("bob").exists()
    assert "Traceback" not in stage.logs()


def test_a_second_agent_of_the_node_is_refused_and_so_is_a_cleanup(stage: Stage) -> None:
    """Whether or not the first one has its control socket: somebody may have removed that."""
    files = ["--document", str(stage.document("ann")), "--state", str(stage.state("ann"))]
    stage.socket("ann").unlink()
    second = stage.agent("ann", "run", *files, "--metrics-file", str(stage.metrics("ann").with_suffix(".second")))
    clean = stage.agent("ann", "cleanup")
    assert second.returncode == clean.returncode == EXIT_RUNS
    assert second.stderr.startswith(f'error lock file={stage.state("ann")} reason="another agent runs" hint="stop ')
    assert clean.stderr == "the agent runs: stop it first (systemctl stop meshctl-agent)\n"
    assert stage.state("ann").exists()
    until(lambda: answers(stage.socket("ann")), 10, stage.logs)  # it looks every five seconds
    assert asked(stage, "ann", "status")["node"] == "ann"
