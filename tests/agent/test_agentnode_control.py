"""The control socket, and metrics where another agent is, was, or neither can be made."""

from __future__ import annotations

import errno
import io
import os
import random
import socket
import stat
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from agentnode_space import document, peer

from meshctl.agent.node import control as control_module
from meshctl.agent.node.ask import answers, ask
from meshctl.agent.node.control import LOOK_S, Control
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.exposition import Sample, exposition, family
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Counts, Loop, clock
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
    assert (control.due(), metrics.due()) == (1.0 + LOOK_S, 16.0)
    assert control.poll(1.0 + LOOK_S / 2) == []
    assert control.sockets() == []
    control.close()
    metrics.close()


def test_a_socket_that_could_not_be_put_in_its_place_leaves_nothing_beside_it(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "agent.sock"
    path.mkdir()
    control = Control(path, report)
    with pytest.raises(IsADirectoryError):
        control.poll(0.0)
    control.close()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_has_to_be_made_is_open_to_who_collects_metrics(tmp_path: Path, report: Report) -> None:
    """Whatever is made first, with the umask that the unit has, and read as the user `nobody`."""
    before = os.umask(0o077)
    try:
        for number in range(2):
            folder = tmp_path / f"run{number}"
            files = [Control(folder / "agent.sock", report), MetricsFile(folder / "agent.prom", report, 15.0, 0.0)]
            for handler in reversed(files) if number else files:
                handler.poll(1.0)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o755
            for handler in files:
                handler.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "why", ["a file is in the folder's place", pytest.param("the folder is full", marks=pytest.mark.lab)]
)
def test_a_socket_that_could_not_be_made_is_made_once_it_can_be(tmp_path: Path, report: Report, why: str) -> None:
    folder = tmp_path / "run"
    path = folder / "agent.sock"
    with ExitStack() as ends:
        if "full" in why:
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs", str(folder)], check=True)
            ends.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        obstacle = folder / "obstacle" if "full" in why else folder
        obstacle.touch()
        control = Control(path, report)
        ends.callback(control.close)
        for now in (0.0, LOOK_S):
            with pytest.raises(OSError, match="No space left" if "full" in why else "run"):
                control.poll(now)
        obstacle.unlink()
        assert control.poll(2 * LOOK_S) == []
        assert answers(path)


@pytest.mark.lab
@pytest.mark.parametrize("again", [False, True], ids=["no folder", "another folder"])
def test_where_only_a_start_makes_the_sockets_folder_the_log_says_so(
    tmp_path: Path, report: Report, again: bool
) -> None:
    """As in the unit's file system, when somebody removes /run/meshctl."""
    path = tmp_path / "meshctl" / "agent.sock"
    with ExitStack() as ends:
        if again:
            path.parent.mkdir()
        subprocess.run(["mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path)], check=True)
        ends.callback(subprocess.run, ["umount", "-l", str(tmp_path)], check=True)
        control = Control(path, report)
        ends.callback(control.close)
        for now in (0.0, LOOK_S):
            with pytest.raises(OSError, match="only a start makes it anew: systemctl restart meshctl-agent") as caught:
                control.poll(now)
            assert caught.value.filename == str(path)


HARM = {
    "gone": "rm agent.sock",
    "gone with its folder": "rm -r ../run",
    "moved": "mv agent.sock elsewhere",
    "a file": "rm agent.sock; touch agent.sock",
    "a link to nowhere": "ln -sf nowhere agent.sock",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_socket_that_is_there_no_more_is_made_again_while_the_agent_runs(
    tmp_path: Path, report: Report, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "LOOK_S", 0.1)
    path = tmp_path / "run" / "agent.sock"
    control = Control(path, report)
    config = document(peer("ann", 2)).config
    said = io.StringIO()
    log = Log(clock, said)
    loop = Loop(AgentCore(config, random.SystemRandom(), clock()), (control,), Decisions(config, log), log)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for _ in range(2):
            assert ask(path, {"request": "status"})["node"] == config.name
            subprocess.run(["sh", "-c", HARM[harm]], cwd=path.parent, check=True)
            ends_at = clock() + 5.0
            while not answers(path) and clock() < ends_at:
                time.sleep(0.02)
        assert ask(path, {"request": "status"})["node"] == config.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        loop.stop()
        with suppress(OSError, ValueError):
            ask(path, {"request": "rebind"})  # wakes it
        thread.join()
    assert "of=Control" not in said.getvalue()
    assert not path.exists()


def test_a_socket_that_another_agent_has_since_is_left_to_it(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "agent.sock"
    first = Control(path, report)
    first.poll(0.0)
    path.unlink()
    second = Control(path, report)
    with pytest.raises(OSError, match="another agent answers"):
        first.poll(LOOK_S)
    first.close()
    assert answers(path)
    second.close()
    assert not path.exists()


def test_whether_an_agent_answers_is_known_at_once_though_many_ask(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with ExitStack() as ends:
        listener = ends.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        started = time.monotonic()
        for _ in range(4):
            sock = ends.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.connect(str(path))
        assert answers(path)
        assert time.monotonic() - started < 1.0


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
