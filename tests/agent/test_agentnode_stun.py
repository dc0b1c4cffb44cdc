"""A `stun:` server of somebody else's, without a key: the real coturn tells a node behind a NAT where it is seen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agentnode_asked import asked
from agentnode_stage import Stage, until

from meshctl.lab.names import netns

pytestmark = pytest.mark.lab

SERVER = "203.0.113.77"
# No anchor sees anybody. What the server is to the mesh does not matter; it has to stand somewhere.
INVENTORY = f"""
version: 1
stun: ["stun:{SERVER}"]
networks:
  corp: {{cidr: [10.42.0.0/16]}}
nodes:
  office: {{endpoint: "198.51.100.20:51820"}}
  home:   {{lab: {{nat: easy}}}}
  server: {{agent: false, endpoint: "{SERVER}:51820"}}
policies:
  - {{name: all, from: [home], to: [office], allow: [any]}}
"""
LEARNED_S = 20.0


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(f"pytest{os.getpid()}-stun", INVENTORY, tmp_path) as stage:
        yield stage


@contextmanager
def coturn(stage: Stage) -> Iterator[None]:
    """Debian's, at the server's address, for STUN alone."""
    words = ["turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "-L", SERVER]
    words += ["--log-file", "stdout", "--pidfile", str(stage.folder / "coturn.pid")]
    argv = ["ip", "netns", "exec", netns(stage.name, "server"), *words]
    with (stage.folder / "coturn.log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, cwd=stage.folder)
    try:
        until(lambda: f"{SERVER}:3478" in stage.run("server", "ss", "-Huan"), 10)
        yield
    finally:
        server.kill()
        server.wait()


def logs(stage: Stage) -> str:
    """Of both agents."""
    return f"office:\n{stage.log('office')}\nhome:\n{stage.log('home')}"


def outside(stage: Stage) -> list[dict[str, str]]:
    """Where home offers to be reached, but for its own addresses."""
    (network,) = asked(stage, "home", "nat")["networks"]
    return [candidate for candidate in network["candidates"] if candidate["kind"] != "host"]


def test_a_node_whom_no_anchor_sees_learns_from_a_server_without_a_key_where_it_is_seen(stage: Stage) -> None:
    where = f"{stage.outside('home-router')}:51820"
    for node in ("office", "home"):
        stage.start(node)
        until(stage.socket(node).exists, 10, lambda: logs(stage))
    assert stage.ping("home", "office", 10), "the tunnel has WireGuard's port while the server is asked from it"
    assert outside(stage) == [], "nobody has told"
    with coturn(stage), stage.pinging("home", "office") as pings:
        assert stage.agent("home", "rebind").returncode == 0
        until(lambda: outside(stage) != [], LEARNED_S, lambda: logs(stage))
        assert outside(stage) == [{"kind": "told", "address": where}], "it may lie, and so is no srflx"
        (nat,) = asked(stage, "home", "nat")["networks"][0]["nats"]
    assert nat["seen"] == [{"server": f"{SERVER}:3478", "address": where}]
    assert stage.endpoint("office", "home") == where, "as WireGuard itself is seen"
    assert pings.complaint() == ""
    assert "Traceback" not in logs(stage)
