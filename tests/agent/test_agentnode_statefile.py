"""The state file: whole or as before, for its owner alone, and no loss when it is gone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meshctl.agent.node.statefile import StateFile, load_state
from meshctl.core.agent.events import SaveState
from meshctl.core.agent.state import MAX_BYTES


def save(path: Path, *contents: bytes) -> None:
    file = StateFile(path)
    for content in contents:
        file.do(SaveState(content))
    file.close()
    file.poll(0.0)


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


@pytest.mark.parametrize("spoil", [_missing, _folder, _huge])
def test_a_file_that_cannot_be_one_of_ours_is_as_good_as_none(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "state.json")
    assert load_state(tmp_path / "state.json") == b""


@pytest.mark.lab
def test_a_full_disk_leaves_what_was_saved_and_is_told(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        path = tmp_path / "state.json"
        save(path, b"before")
        with pytest.raises(OSError, match="No space left"):
            save(path, bytes(100_000))
        assert list(tmp_path.iterdir()) == [path]
        assert load_state(path) == b"before"
        save(path, b"after")
        assert load_state(path) == b"after"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
