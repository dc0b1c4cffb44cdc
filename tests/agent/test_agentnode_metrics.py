"""What Prometheus reads of real agents: a file, and what they serve to the mesh."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterator

import pytest
from agentnode_asked import fetch, path, running
from agentnode_stage import Stage, until
from prometheus_client.parser import text_string_to_metric_families

from meshctl.agent.node.clients import MAX_REQUEST_BYTES
from meshctl.agent.node.options import METRICS_PORT

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", name="stage")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running("metrics", tmp_path_factory.mktemp("agents")) as stage:
        yield stage


def samples(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Name -> labels -> value, as Prometheus's own parser reads them."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("gauge", "counter")
        assert family.documentation
        for sample in family.samples:
            assert sample.name.startswith("meshctl_")
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def body(answer: str) -> str:
    """Of an answer by HTTP."""
    return answer.partition("\n\n")[2]


def test_prometheus_reads_the_file_and_what_a_peer_is_served(stage: Stage) -> None:
    assert stat.S_IMODE(stage.metrics("ann").stat().st_mode) == 0o644
    until(lambda: "wg_status" in stage.metrics("ann").read_text(), 5, stage.logs)
    served = fetch(stage, "bob", stage.mesh_ip("ann"))
    assert served.startswith("HTTP/1.0 200 OK\nContent-Type: text/plain; version=0.0.4")
    to_bob = (("network", "corp"), ("peer", "bob"))
    for text in (body(served), stage.metrics("ann").read_text()):
        found = samples(text)
        assert found["meshctl_agent_info"] == {(("node", "ann"), ("version", "0.1.0")): 1}
        assert abs(found["meshctl_agent_start_time_seconds"][()] - time.time()) < 300
        assert found["meshctl_agent_events_total"][("event", "wg_status"),] > 0
    states = {dict(labels)["state"]: value for labels, value in samples(body(served))["meshctl_path_state"].items()
              if dict(labels)["peer"] == "bob"}  # fmt: skip
    assert states == {"direct": 1, "relayed": 0, "down": 0}
    assert 0 < samples(body(served))["meshctl_path_rtt_seconds"][to_bob] < 1
    assert samples(body(served))["meshctl_peer_switches_total"][to_bob] >= 1
    (nat,) = samples(body(served))["meshctl_nat_info"]
    assert dict(nat)["nat"] == "easy"


def test_an_anchors_relays_are_counted_for_each_way(stage: Stage) -> None:
    stage.agent("ann", "override", "bob", "relay")
    until(lambda: path(stage, "ann", "bob")["state"] == "relayed", 10, stage.logs)
    assert stage.ping("ann", "bob", 20)
    found = samples(body(fetch(stage, "ann", stage.mesh_ip(path(stage, "ann", "bob")["relay"]))))
    ways = {(dict(labels)["from"], dict(labels)["to"]): value
            for labels, value in found["meshctl_relay_packets_total"].items()}  # fmt: skip
    assert ways.keys() == {("ann", "bob"), ("bob", "ann")}
    assert min(ways.values()) >= 20
    assert min(found["meshctl_relay_bytes_total"].values()) > 20 * 100
    stage.agent("ann", "override", "bob", "auto")


def test_metrics_are_served_to_the_mesh_alone_and_nothing_else_is(stage: Stage) -> None:
    assert fetch(stage, "ann", "203.0.113.10") == ""
    assert fetch(stage, "mid", "127.0.0.1") == ""
    ip = stage.mesh_ip("mid")
    assert fetch(stage, "ann", ip, "GET /etc/passwd HTTP/1.1\r\n\r\n").startswith("HTTP/1.0 404 ")
    assert fetch(stage, "ann", ip, "POST /metrics HTTP/1.1\r\n\r\n").startswith("HTTP/1.0 405 ")
    assert fetch(stage, "ann", ip, "\0" * (MAX_REQUEST_BYTES + 1)) == ""
    assert fetch(stage, "ann", ip).startswith("HTTP/1.0 200 ")


def test_metrics_are_made_once_a_second_however_often_a_peer_asks(stage: Stage) -> None:
    """Each makes the text anew by what is counted: so many different ones a second, and no more."""
    ip = stage.mesh_ip("mid")
    program = (
        "import socket, time\n"
        "texts, ends_at = [], time.monotonic() + 3\n"
        "while time.monotonic() < ends_at:\n"
        f"    sock = socket.create_connection(({ip!r}, {METRICS_PORT}), 2)\n"
        "    sock.sendall(b'GET /metrics HTTP/1.1\\r\\n\\r\\n')\n"
        "    texts.append(b''.join(iter(lambda: sock.recv(65536), b'')))\n"
        "print(len(texts), len(set(texts)))\n"
    )
    asked, made = map(int, stage.run("ann", sys.executable, "-c", program).split())
    assert asked > 20, "or else this would show nothing"
    assert 1 < made <= 4
