"""Files that are put in others' places. Hunted: half of one, which is left where the disk is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshctl.agent.files import put


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_leaves_what_was_there_and_nothing_else(disk: Path) -> None:
    put(disk / "pending.json", b"old", 0o600)
    with pytest.raises(OSError, match="No space left on device"):
        put(disk / "pending.json", bytes(1 << 17), 0o600)
    assert [path.read_bytes() for path in disk.iterdir()] == [b"old"]
    put(disk / "pending.json", bytes(1 << 14), 0o600)


def test_what_somebody_left_who_was_killed_while_he_wrote_is_in_nobodys_way(tmp_path: Path) -> None:
    theirs, path = tmp_path / "theirs", tmp_path / "pending.json"
    theirs.write_bytes(b"theirs")
    (tmp_path / ".pending.json.new").symlink_to(theirs)
    put(path, b"whole", 0o644)
    assert (path.read_bytes(), theirs.read_bytes()) == (b"whole", b"theirs")
    assert path.stat().st_mode & 0o777 == 0o644
    assert set(tmp_path.iterdir()) == {path, theirs}
