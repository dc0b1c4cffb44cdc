"""Policies: how long they compile, how fast a node's table loads, and what more rules cost the packets."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_meshes
import policy_inventory
from measure import ROOT, run
from netns_line import End, line

# (nodes, groups, rules): one grows, then the other, then both.
SIZES = ((100, 20, 200), (100, 20, 2000), (1000, 200, 200), (1000, 200, 2000))
ROUNDS = 5
# Rules of the node that the packets pass; the packets' own are the last ones.
FEW, MANY = 10, 2000
THROUGHPUT_ROUNDS = 9
SECONDS = 3
CONNECTIONS = 3000
PORT = 5201
CLIENT, GATE, LAN, SERVER = "10.42.0.1", "10.42.0.2", "192.168.10.0/24", "192.168.10.9"
ENVIRONMENT = {"MESHCTL_SECRET": bench_meshes.SECRET, "PYTHONPATH": str(ROOT)}
PROGRAM = ROOT / "tests" / "bench" / "compile_ours.py"


def measure() -> dict[str, list[dict[str, Any]]]:
    """`compile`: a row a size; `load`: the tables' milliseconds; `throughput`: rates with few and with many rules."""
    with tempfile.TemporaryDirectory() as scratch:
        compiled = [_compiled(Path(scratch), *size) for size in SIZES]
        few, many = (_table(Path(scratch), rules) for rules in (FEW, MANY))
    largest = compiled[-1]["table"]
    with _namespaces() as node:
        tables = {"a gateway of the largest mesh above": largest, f"a gateway, {MANY:,} rules about it": many}
        load = [{"table": name, "bytes": len(text), "ms": _load_ms(node, text)} for name, text in tables.items()]
        throughput = _throughput(node, few, many)
    found = {
        "compile": [{k: v for k, v in row.items() if k != "table"} for row in compiled],
        "load": load,
        "throughput": throughput,
    }
    print(found, file=sys.stderr)
    return found


def _compiled(scratch: Path, nodes: int, groups: int, rules: int) -> dict[str, Any]:
    path = policy_inventory.write(scratch / f"{nodes}-{rules}", nodes, groups, rules)
    rounds = [json.loads(run([sys.executable, PROGRAM, path], environment=ENVIRONMENT).stdout) for _ in range(ROUNDS)]
    times = {key: statistics.median(r[key] for r in rounds) for key in ("read_s", "compile_s", "mesh_s", "table_s")}
    peak = max(r["peak_mib"] for r in rounds)
    return {"nodes": nodes, "groups": groups, "rules": rules, **times, "peak_mib": peak, "pairs": rounds[0]["pairs"],
            "table": rounds[0]["table"]}  # fmt: skip


def _table(scratch: Path, rules: int) -> str:
    """The firewall of a gateway about which there are so many rules."""
    folder = scratch / f"gate-{rules}"
    folder.mkdir()
    path = folder / "inventory.yml"
    ports = [*range(10000, 10000 + rules - 2), PORT, PORT + 1]
    policies = "".join(
        f"  - {{name: r{port}, from: [client], to: [{SERVER}/32], allow: [tcp/{port}]}}\n" for port in ports
    )
    path.write_text(
        f"""version: 1
networks: {{corp: {{cidr: [10.42.0.0/24]}}}}
nodes:
  client: {{ssh: {{host: 198.18.0.1}}, endpoint: "198.18.0.1:51820", address: {CLIENT}}}
  gate:
    {{ssh: {{host: 198.18.0.2}}, endpoint: "198.18.0.2:51820", address: {GATE}, roles: [gateway], routes: [{LAN}]}}
policies:
{policies}""",
        encoding="utf-8",
    )
    table: str = json.loads(run([sys.executable, PROGRAM, path], environment=ENVIRONMENT).stdout)["table"]
    assert table.count("\tcounter rule_") == rules, "not every rule is in the table"
    return table


@contextmanager
def _namespaces() -> Iterator[str]:
    """client - wg0, the node, lan0 - server: cables, so that no encryption hides what the rules cost."""
    client, node, server = (f"bench-{name}" for name in ("client", "node", "server"))
    with line(End(client, "wg0", GATE, CLIENT), node, End(server, "lan0", "192.168.10.1", SERVER)):
        yield node


def _load(node: str, table: str) -> float:
    """Seconds that nft takes to put the table in the place of the one before, its own start included."""
    with tempfile.NamedTemporaryFile("w", suffix=".nft", encoding="utf-8") as file:
        file.write(f"table inet meshctl\ndelete table inet meshctl\n{table}")
        file.flush()
        return run(["ip", "netns", "exec", node, "nft", "-f", file.name]).wall_s


def _load_ms(node: str, table: str) -> float:
    return statistics.median(_load(node, table) for _ in range(ROUNDS)) * 1000


def _throughput(node: str, few: str, many: str) -> list[dict[str, Any]]:
    """Through the node with both tables, in turns, so that a slow moment of the machine hits both."""
    kinds = {"TCP, one stream, Gbit/s": _iperf, "new connections/s": _connections}
    rates: dict[str, dict[str, list[float]]] = {kind: {"few": [], "many": []} for kind in kinds}
    with _server("iperf3", "--server", "--forceflush", "--port", str(PORT)), _server(
        sys.executable, "-u", "-c", _ACCEPT, str(PORT + 1)
    ):
        for turn in range(THROUGHPUT_ROUNDS * 2):
            which = "few" if (turn + turn // 2) % 2 == 0 else "many"
            _load(node, few if which == "few" else many)
            for kind, measured in kinds.items():
                rates[kind][which].append(measured())
    return [
        {"kind": kind, **{w: statistics.median(r) for w, r in found.items()},
         "ratio": statistics.median(m / f for f, m in zip(found["few"], found["many"], strict=True))}
        for kind, found in rates.items()
    ]  # fmt: skip


# Accept and close, from the argument's port; and connect as often as the third argument says. Connections end by reset,
# for tens of thousands in TIME_WAIT make every port hard to find.
_ACCEPT = """
import contextlib, socket, sys
listener = socket.create_server(("", int(sys.argv[1])), backlog=1024)
print("listening")
while True:
    with contextlib.closing(listener.accept()[0]) as connection, contextlib.suppress(ConnectionError):
        connection.recv(1)
"""
_CONNECT = """
import socket, struct, sys, time
reset = struct.pack("ii", 1, 0)
started = time.perf_counter()
for _ in range(int(sys.argv[3])):
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    connection.close()
print(int(sys.argv[3]) / (time.perf_counter() - started))
"""


@contextmanager
def _server(*command: str) -> Iterator[None]:
    """A program on the server that says when it listens."""
    words = ["ip", "netns", "exec", "bench-server", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if not any("listening" in line for line in server.stdout):
                raise SystemExit(f"bench: {' '.join(words)} does not listen")
            yield
        finally:
            server.terminate()


def _iperf() -> float:
    command = ["ip", "netns", "exec", "bench-client", "iperf3", "--json", "--client", SERVER, "--port", str(PORT)]
    rate: float = json.loads(run([*command, "--time", str(SECONDS)]).stdout)["end"]["sum_received"]["bits_per_second"]
    return rate / 1e9


def _connections() -> float:
    words = [sys.executable, "-c", _CONNECT, SERVER, str(PORT + 1), str(CONNECTIONS)]
    return float(run(["ip", "netns", "exec", "bench-client", *words]).stdout)
