"""Cleaning up, and the lock beside the state. Hunted: a file that stays on a host without an agent, and two agents at
once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agentnode_hosts import Space

from meshctl.agent.node import giveback, runlock
from meshctl.agent.node.cleanup import clean_up
from meshctl.agent.node.log import Log
from meshctl.agent.node.runlock import EXIT_RUNS
from meshctl.core.agent.address import Address
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument
from meshctl.core.agent.portmap_pcp import NATPMP
from meshctl.core.agent.portmap_state import dump
from meshctl.core.agent.portmap_values import Held
from meshctl.core.agent.state import Kept
from meshctl.core.agent.state import dump as dump_state

ROOT = Path(__file__).parents[2]
KEPT = dump_state(Kept(ports=dump([
    Held("192.0.2.1", Address("192.0.2.2", 51820), Address("203.0.113.1", port), NATPMP) for port in (51820, 51821)
])))  # fmt: skip
AGENTS, TURNS = 4, 2000


@pytest.fixture(name="place")
def _place(ends: ExitStack) -> Space:
    return Space(ends)


def run(place: Space, folder: Path) -> subprocess.CompletedProcess[str]:
    """`meshctl-agent cleanup` where these are the node's files."""
    files = [f"--{name}={folder / file}" for name, file in
             (("state", "state.json"), ("document", "agent.json"), ("socket", "agent.sock"))]  # fmt: skip
    argv = ["ip", "netns", "exec", place.name, sys.executable, "-m", "meshctl.agent.main", "cleanup", *files]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=env, text=True, capture_output=True, check=False, timeout=60)


@pytest.mark.lab
def test_no_file_stays_of_an_agent_that_was_killed_while_it_saved(place: Space, tmp_path: Path) -> None:
    for name in ("state.json", ".state.json.new", "state.lock"):
        (tmp_path / name).write_bytes(b"{}")
    done = run(place, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.lab
def test_the_lock_of_an_agent_that_runs_is_not_removed(place: Space, tmp_path: Path) -> None:
    lock = runlock.take(tmp_path / "state.json")
    assert run(place, tmp_path).returncode == EXIT_RUNS
    with pytest.raises(BlockingIOError):
        runlock.take(tmp_path / "state.json")
    os.close(lock)


def test_there_is_one_holder_at_most_though_each_removes_the_lock(tmp_path: Path) -> None:
    """Who has opened a lock that is removed before he has it holds nothing."""
    state, held, wrong = tmp_path / "state.json", threading.Lock(), []
    taken = 0

    def agent() -> None:
        nonlocal taken
        for _ in range(TURNS):
            try:
                lock = runlock.take(state)
            except BlockingIOError:
                continue
            alone = held.acquire(blocking=False)
            time.sleep(0)
            if alone:
                taken += 1
                held.release()
            else:
                wrong.append(lock)
            runlock.remove(state)
            os.close(lock)

    agents = [threading.Thread(target=agent) for _ in range(AGENTS)]
    for each in agents:
        each.start()
    for each in agents:
        each.join()
    assert wrong == []
    assert taken > TURNS / 10
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.lab
def test_on_a_full_disk_what_is_left_is_told_and_the_state_stays_as_it_was(
    place: Space, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giveback, "PATIENCE_S", 0.2)
    path = disk / "state.json"
    path.write_bytes(KEPT)
    ballast = subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'ballast'}"], check=False, capture_output=True)
    assert b"No space left" in ballast.stderr
    nobody = AgentDocument(AgentConfig("", ()))
    left = place.inside(lambda: clean_up(nobody, path, Log(lambda: 0.0, io.StringIO())))
    assert [words.partition(":")[0] for words in left] == [
        "the router 192.0.2.1 has not said that it is done (nat-pmp)",
        "the router 192.0.2.1 has not said that it is done (nat-pmp)",
        str(path),
    ]
    assert "No space left on device" in left[-1]
    assert path.read_bytes() == KEPT
    assert sorted(each.name for each in disk.iterdir()) == ["ballast", "state.json"]
