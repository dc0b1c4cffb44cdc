"""The control socket, and metrics where another agent is, was, or neither can be made."""

from __future__ import annotations

import errno
import random
import socket
import stat
import threading
from pathlib import Path

import pytest
from agentnode_space import document, peer

from meshctl.agent.node.ask import answers, ask
from meshctl.agent.node.control import Control
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.exposition import Sample, exposition, family
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Counts, clock
from meshctl.agent.node.metrics import MetricsFile
from meshctl.agent.node.report import Report
from meshctl.core.agentcore import AgentCore


@pytest.fixture(name="report")
def _report() -> Report:
    config = document(peer("ann", 2)).config
    core = AgentCore(config, random.SystemRandom(), clock())
    return Report(core, Decisions(config, Log(clock)), Counts(), lambda: [], clock())


def test_a_socket_that_a_killed_agent_has_left_is_replaced(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "run" / "agent.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert not answers(path)
    control = Control(path, report)
    assert control.poll(clock()) == []
    assert answers(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    control.close()
    assert not path.exists()


def test_a_socket_at_which_another_agent_answers_stays_that_ones(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "agent.sock"
    first, second = Control(path, report), Control(path, report)
    with pytest.raises(OSError, match="another agent answers") as caught:
        second.poll(clock())
    assert caught.value.errno == errno.EADDRINUSE
    assert second.poll(clock()) == [], "it is said once"
    second.close()
    assert answers(path)
    first.close()


def test_an_agent_whose_files_cannot_be_made_says_so_and_goes_on(report: Report) -> None:
    nowhere = Path("/proc/nowhere")
    control, metrics = Control(nowhere / "agent.sock", report), MetricsFile(nowhere / "agent.prom", report, 15.0, 0.0)
    for handler in (control, metrics):
        with pytest.raises(OSError, match="nowhere"):
            handler.poll(1.0)
    assert (control.due(), metrics.due()) == (None, 16.0)
    assert control.sockets() == []
    control.close()
    metrics.close()


@pytest.mark.parametrize(
    ("said", "error"), [(b'{"node": ', ValueError), (b"hello\n", ValueError), (None, TimeoutError)]
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, said: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as sock:
                sock.recv(100)
                sock.sendall(said or b"")

        thread = threading.Thread(target=answer)
        if said is not None:
            thread.start()
        with pytest.raises(error):
            ask(path, {"request": "status"}, patience_s=5 if said else 0.1)
        if said is not None:
            thread.join()


def test_a_label_cannot_end_its_value_or_its_line() -> None:
    text = family("x", "gauge", "What it is.", [Sample({"a": 'b"} 1\nc\\'}, 0.5)])
    assert text.splitlines()[2:] == [r'meshctl_x{a="b\"} 1\nc\\"} 0.5']


def test_metrics_of_a_new_agent_are_complete_lines(report: Report) -> None:
    assert exposition(report, clock()).endswith(b"\n")
