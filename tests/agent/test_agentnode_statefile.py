"""The state file: whole or as before, for its owner alone, and no loss when it is gone."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agentnode_stage import until

from meshctl.agent.node.log import Log
from meshctl.agent.node.statefile import AGAIN_S, StateFile, load_state
from meshctl.core.agent.events import SaveState
from meshctl.core.agent.state import MAX_BYTES


def save(path: Path, *contents: bytes) -> str:
    """Save these one after the other, and end. What was said about it."""
    said = io.StringIO()
    file = StateFile(path, Log(lambda: 0.0, said))
    for content in contents:
        file.do(SaveState(content))
    file.close()
    return said.getvalue()


def test_what_was_saved_last_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "state.json"
    save(path, b"one", b"two")
    assert load_state(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    save(path, b"three")
    assert load_state(path) == b"three"
    assert list(path.parent.iterdir()) == [path]


def test_what_an_agent_left_that_was_killed_while_it_wrote_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.new").symlink_to("/etc/passwd")
    save(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert Path("/etc/passwd").read_bytes() != b"whole"


def _missing(path: Path) -> None:
    assert not path.exists()


def _folder(path: Path) -> None:
    path.mkdir()


def _huge(path: Path) -> None:
    path.write_bytes(bytes(MAX_BYTES + 1))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [_missing, _folder, _huge, _pipe])
def test_a_file_that_cannot_be_one_of_ours_is_as_good_as_none(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "state.json")
    assert load_state(tmp_path / "state.json") == b""


def test_more_than_is_read_again_is_refused_and_what_was_saved_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save(path, bytes(MAX_BYTES))
    with pytest.raises(ValueError, match=f"{MAX_BYTES + 1} bytes of state are more than the {MAX_BYTES}"):
        save(path, bytes(MAX_BYTES + 1))
    assert load_state(path) == bytes(MAX_BYTES)


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.lab
def test_a_full_disk_leaves_what_was_saved_and_is_told(disk: Path) -> None:
    path = disk / "state.json"
    assert save(path, b"before") == ""
    assert save(path, bytes(100_000)) == f'error SaveState reason="[Errno 28] No space left on device" file={path}\n'
    assert list(disk.iterdir()) == [path]
    assert load_state(path) == b"before"
    assert save(path, b"after") == ""
    assert load_state(path) == b"after"


@pytest.mark.lab
def test_what_a_full_disk_did_not_take_is_saved_once_there_is_room(disk: Path) -> None:
    def tried(now: float) -> bool:
        file.poll(now)
        return said.getvalue() != ""

    path, ballast, said = disk / "state.json", disk / "ballast", io.StringIO()
    ballast.write_bytes(bytes(60_000))
    file = StateFile(path, Log(lambda: 0.0, said))
    file.do(SaveState(bytes(30_000)))
    until(lambda: tried(100.0), 5)
    assert said.getvalue().startswith("warning SaveState file=")
    assert file.due() == 100.0 + AGAIN_S
    ballast.unlink()
    file.poll(file.due())
    until(lambda: load_state(path) == bytes(30_000), 5)
    assert file.due() is None
    file.close()
    assert len(said.getvalue().splitlines()) == 1


@pytest.mark.lab
def test_what_is_newer_than_what_could_not_be_written_is_not_undone(disk: Path) -> None:
    path, said = disk / "state.json", io.StringIO()
    file = StateFile(path, Log(lambda: 0.0, said))
    file.do(SaveState(bytes(100_000)))
    until(lambda: not file.poll(100.0) and said.getvalue() != "", 5)
    file.do(SaveState(b"newer"))
    until(lambda: load_state(path) == b"newer", 5)
    file.poll(100.0 + AGAIN_S)
    file.close()
    assert load_state(path) == b"newer"
