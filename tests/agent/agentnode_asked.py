"""A stage whose agents are asked what they know: two anchors, two nodes that reach each other, a stock client."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentnode_stage import Stage, until

from meshctl.agent.node.clients import PATIENCE_S
from meshctl.agent.node.options import METRICS_PORT

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  mid:   {roles: [anchor], endpoint: "203.0.113.10:51820"}
  far:   {roles: [anchor], endpoint: "198.51.100.20:51820"}
  ann:   {lab: {nat: easy}}
  bob:   {lab: {nat: easy}}
  phone: {client: true, peers: [ann], lab: {nat: easy}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""


@contextmanager
def running(name: str, folder: Path) -> Iterator[Stage]:
    """All agents run, and the two nodes have met."""
    with Stage(f"pytest{os.getpid()}-{name}", INVENTORY, folder) as stage:
        nodes = [node.name for node in stage.mesh.managed()]
        stage.start_all()
        until(lambda: all(stage.socket(node).exists() for node in nodes), 10, stage.logs)
        until(lambda: states(stage) == ("direct", "direct"), 20, stage.logs)
        yield stage


def states(stage: Stage) -> tuple[str, str]:
    """How ann and bob reach each other, as each of them says."""
    return path(stage, "ann", "bob")["state"], path(stage, "bob", "ann")["state"]


def asked(stage: Stage, node: str, command: str, *words: str) -> dict[str, Any]:
    """The answer as JSON."""
    done = stage.agent(node, command, *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def path(stage: Stage, node: str, peer: str) -> dict[str, Any]:
    """What the node says of its path to the peer."""
    (found,) = [p for p in asked(stage, node, "paths")["paths"] if p["peer"] == peer]
    return found


def raw(stage: Stage, node: str, said: bytes) -> bytes:
    """What the control socket answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2 * PATIENCE_S)
        sock.connect(str(stage.socket(node)))
        sock.sendall(said)
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def fetch(stage: Stage, node: str, ip: str, request: str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> str:
    """What the port for metrics at this address answers to the node; "" when nobody hears."""
    program = (
        "import socket, sys\n"
        f"try: sock = socket.create_connection(({ip!r}, {METRICS_PORT}), 2)\n"
        "except OSError: sys.exit()\n"
        f"sock.sendall({request.encode()!r})\n"
        "while piece := sock.recv(65536): sys.stdout.write(piece.decode())\n"
    )
    return stage.run(node, sys.executable, "-c", program)
