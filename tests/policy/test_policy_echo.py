"""What an inventory or an argument holds cannot drive the reader's terminal, nor write a line of its own into a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_strategies import inventory, node
from test_policy_revisions import commit, git

from meshctl.cli import run

# A colour, a return to the line's start, a command to GitHub's runner, writing from right to left, a line break of
# Unicode's.
HOSTILE = "x\x1b[31m\r\n::error::forged\u202e\u2028::error::too"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESHCTL_INVENTORY", raising=False)
    return tmp_path


def write(path: Path, *allow: str) -> None:
    nodes = {name: node(n, ("corp",), endpoint=True) for n, name in enumerate(("web1", "db1"), 1)}
    rule: dict[str, Any] = {"name": "sql", "from": "web1", "to": "db1", "allow": list(allow)}
    rule |= {"owner": HOSTILE, "reason": HOSTILE}
    tests = [{"from": "web1", "to": "db1", "cannot": ["tcp/22"]}]
    made = inventory(nodes, groups={}, policies=[rule], tests=tests)
    path.write_text(yaml.safe_dump(made, sort_keys=False))


def harmless(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable(), line
        assert not line.lstrip().startswith("::"), line
    return out + err


@pytest.mark.parametrize("name", ["inventory.yml", f"{HOSTILE}.yml"], ids=["plain", "hostile"])
@pytest.mark.parametrize(
    "words",
    [
        "validate", "lint", "lint --pairs", "test", "test -o markdown", "test -o json",
        "policy explain web1 db1 tcp/22 -i", "policy matrix", "policy matrix --format csv",
        "policy matrix --format html",
        "policy graph", "policy diff base.yml", "policy diff base.yml -o markdown",
    ],
)  # fmt: skip
def test_no_command_repeats_what_could_drive_a_terminal_or_a_log(
    words: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "base.yml", "tcp/80")
    write(folder / name, "tcp/22")
    run([*words.split(), name])
    assert "Traceback" not in harmless(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["policy", "explain", HOSTILE, "db1", "tcp/22"], ["policy", "explain", "web1", "db1", HOSTILE],
        ["policy", "matrix", "--network", HOSTILE], ["policy", "diff", HOSTILE],
        ["policy", "diff", "base.yml", HOSTILE], ["test", HOSTILE],
        ["policy", "graph", "--format", HOSTILE], ["validate", "--report", HOSTILE],
        ["validate", "a", HOSTILE], [HOSTILE], [f"--{HOSTILE}"], ["lint", "--report", f"json=/dev/null/{HOSTILE}"],
        ["schema", HOSTILE], ["lint", "-i", f"{HOSTILE}/x.yml"],
    ],
)  # fmt: skip
def test_no_argument_is_repeated_so_either(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(folder, "init", "--quiet")
    write(folder / "inventory.yml", "tcp/22")
    write(folder / "base.yml", "tcp/80")
    assert run(words) in (1, 64, 65)
    harmless(capsys)


def test_no_name_in_a_commit_is_either(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(folder, "init", "--quiet")
    (folder / "net").mkdir()
    write(folder / "net" / "a.yml", "tcp/22")
    (folder / "net" / f"{HOSTILE}.yml").symlink_to("gone")
    commit(folder, "v1")
    assert run(["policy", "diff", "v1", "net", "-i", "net"]) == 1
    assert "link to nothing" in harmless(capsys)


def test_machines_get_every_text_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "inventory.yml", "tcp/22")
    assert run(["policy", "explain", "web1", "db1", "tcp/22", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["owner"] == HOSTILE
