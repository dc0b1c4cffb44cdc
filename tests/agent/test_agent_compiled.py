"""What the applier leaves beside a zipapp for its next start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from meshctl.agent import compiled
from meshctl.render import zipapp

MAIN = b"def main():\n    print(__file__)\n"


@pytest.fixture(name="program")
def _program(tmp_path: Path) -> Path:
    """A zipapp that says from where it was imported."""
    members = {"__main__.py": zipapp.MAIN, "meshctl/agent/main.py": MAIN}
    members |= dict.fromkeys(("meshctl/__init__.py", "meshctl/agent/__init__.py"), b"")
    path = tmp_path / "meshctl-agent-0.pyz"
    path.write_bytes(zipapp.Zipapp(members).content)
    return path


def imported_from(path: Path) -> str:
    """What it says when it is run by that name."""
    argv = ["python3", "-I", "-S", str(path)]
    return subprocess.run(argv, check=True, text=True, capture_output=True).stdout.strip()


def beside(program: Path) -> list[str]:
    """All other files there."""
    return [path.name for path in program.parent.iterdir() if path != program]


def test_a_start_imports_what_was_compiled_by_the_same_python_by_a_link_too(program: Path) -> None:
    assert imported_from(program) == f"{program}/meshctl/agent/main.py"
    compiled.make(program)
    (name,) = beside(program)
    link = program.with_name("meshctl-agent.pyz")
    link.symlink_to(program.name)
    for path in (program, link):
        assert imported_from(path) == f"{program.with_name(name)}/meshctl/agent/main.pyc"
    assert program.with_name(name).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 and nothing else", bytes(1000)])
def test_a_start_does_without_what_is_damaged(program: Path, content: bytes) -> None:
    compiled.make(program)
    (name,) = beside(program)
    program.with_name(name).write_bytes(content)
    assert imported_from(program) == f"{program}/meshctl/agent/main.py"


def test_what_cannot_be_written_or_read_leaves_nothing_behind(program: Path) -> None:
    (program.parent / f"{program.name}{compiled.SUFFIX}.new").mkdir()
    compiled.make(program)
    assert len(beside(program)) == 1
    other = program.with_name("meshctl-agent-1.pyz")
    other.write_bytes(b"no archive")
    compiled.make(other)
    assert len(beside(program)) == 2
    compiled.make(program.with_name("meshctl-agent-2.pyz"))
    assert len(beside(program)) == 2


def test_what_is_there_is_not_made_again(program: Path) -> None:
    compiled.make(program)
    (name,) = beside(program)
    before = program.with_name(name).stat()
    compiled.make(program)
    assert program.with_name(name).stat() == before
