"""A node that reaches the internet by way of an exit node: with traffic, and while it is switched on and off."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from meshlab import MeshLab

pytestmark = pytest.mark.lab

INVENTORY = """
version: 1
defaults: {ssh: {user: root}}
networks: {corp: {cidr: [10.42.0.0/16, "fd42:42::/48"], policy: open}}
nodes:
  exit1: {roles: [gateway], exit_node: true, endpoint: "198.51.100.20:51820"}
  srv1:  {endpoint: "198.51.100.30:51820"}
  fra1:  {endpoint: "203.0.113.10:51820"}
  outside: {client: true, lab: {nat: none}}
"""
EXIT, SERVER = "198.51.100.20", "198.51.100.30"
# Answers every line with the address that it came from.
TELLS_ADDRESS = """
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _ in self.rfile:
            self.wfile.write(self.client_address[0].encode() + b"\\n")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""
# For each line of its input one line over one connection, and what came back (or why nothing did).
TALKS = """
import socket, sys
with socket.create_connection((sys.argv[1], 9000), timeout=5) as sock:
    for line in sys.stdin:
        sock.sendall(b"?\\n")
        print(sock.recv(100).decode().strip(), flush=True)
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    """An applied lab in which nobody uses the exit node yet; `srv1` and `outside` run the address server."""
    path: Path = tmp_path_factory.mktemp("exit") / "inventory.yml"
    document = yaml.safe_load(INVENTORY)
    mesh = MeshLab(f"exit{os.getpid()}", path, document, copy.deepcopy(document))
    mesh.write()
    done = mesh.run("lab", "up", str(path), "--name", mesh.name)
    try:
        assert done.code == 0, done.err
        mesh.apply()
        for node in ("srv1", "outside"):
            mesh.sh(node, f"systemd-run -q --unit address-server python3 -c '{TELLS_ADDRESS}'")
        yield mesh
    finally:
        mesh.run("lab", "down", "--name", mesh.name)


@contextmanager
def connection(mesh: MeshLab, source: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """One TCP connection to the address server, over which `say` talks."""
    words = [sys.executable, "-m", "meshctl", "lab", "exec", "--name", mesh.name, source, "--"]
    words += ["python3", "-c", TALKS, address]
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert say(process)
        yield process
        assert process.stdin is not None
        process.stdin.close()


def say(process: subprocess.Popen[str]) -> str:
    """The answer, "" when the connection is dead."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def seen_as(mesh: MeshLab) -> str:
    """The address under which srv1 shows itself to the internet."""
    address = mesh.sh("outside", "ip -4 -o addr show dev eth0 | awk '{sub(\"/.*\", \"\", $4); print $4}'").strip()
    with connection(mesh, "srv1", address) as process:
        return say(process)


def test_an_exit_node_is_switched_on_survives_a_reboot_and_is_switched_off(mesh: MeshLab) -> None:
    assert seen_as(mesh) == SERVER
    # What came in from the internet (the operator's own SSH session is such a connection) lives on.
    with mesh.lossless(("srv1", "fra1"), ("fra1", "srv1")), connection(mesh, "outside", SERVER) as inbound:
        mesh.edit(lambda d: d["nodes"]["srv1"].update(exit_via="exit1"))
        mesh.apply()
        assert say(inbound)
    assert seen_as(mesh) == EXIT
    with connection(mesh, "outside", SERVER) as inbound:
        assert say(inbound), "a new connection from the internet is answered"
    assert mesh.plan()["changes"] == []

    assert mesh.run("lab", "reboot", "--name", mesh.name, "srv1").code == 0
    assert mesh.plan()["changes"] == []
    assert seen_as(mesh) == EXIT
    mesh.sh("srv1", f"systemd-run -q --unit address-server python3 -c '{TELLS_ADDRESS}'")

    with mesh.lossless(("srv1", "fra1"), ("fra1", "srv1")), connection(mesh, "outside", SERVER) as inbound:
        mesh.reset()
        mesh.apply()
        assert say(inbound)
    assert seen_as(mesh) == SERVER
    assert mesh.plan()["changes"] == []
    assert "51820" not in mesh.sh("srv1", "ip rule")
