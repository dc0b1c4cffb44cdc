"""The formats on the command line: what each command reports, to the screen and to files, with owner and reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ci_checkout import git

from meshctl.cli import run
from meshctl.reports import FORMATS

HEAD = """\
version: 1
networks: {corp: {cidr: 10.42.0.0/16}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}
  web1: {}
  pg1: {nat: udp-blocked}
policies:
"""
SSH = "  - {name: ssh, from: hub, to: '*', allow: [tcp/22], owner: ops, reason: logins}\n"
SQL = "  - {name: sql, from: web1, to: pg1, allow: [tcp/5432], owner: data team, reason: reports}\n"
TESTS = """\
tests:
  - {from: web1, to: pg1, can: [tcp/5432]}
  - {from: hub, to: pg1, cannot: [tcp/22]}
"""
BROKEN = SSH.replace("to: '*'", "to: nobody")
ABOUT = re.compile(r"\\*\[ops; logins\\*\]")  # SARIF escapes brackets


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `inventory.yml`, of which one test passes and one fails, and one warning is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yml").write_text(HEAD + SSH + SQL + TESTS)
    return tmp_path


def line_of(text: str, folder: Path) -> int:
    lines = (folder / "inventory.yml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_failing_test_names_rule_owner_and_reason_in_every_format(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for style in ("human", "json", *FORMATS):
        assert run(["test", "-o", style]) == 1
        text = capsys.readouterr().out
        for word in ("ssh", "ops", "logins", "tcp/22"):
            assert word in text, style
        assert f"inventory.yml:{line_of('name: ssh', folder)}" in text or style == "json"


def test_junit_of_test_has_a_case_for_each_test_and_says_where_the_failing_one_stands(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["test", "-o", "junit"]) == 1
    good, bad = ElementTree.fromstring(capsys.readouterr().out).findall("testsuite/testcase")  # noqa: S314
    assert (good.get("name"), good.find("failure")) == ("web1 -> pg1", None)
    failure = bad.find("failure")
    assert failure is not None
    where = f"inventory.yml:{line_of('cannot', folder)}"
    assert failure.get("message", "").startswith(f"{where}: cannot tcp/22: hub -> pg1")


def test_sarif_of_test_points_at_the_failing_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["test", "-o", "sarif"]) == 1
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "inventory.yml", "uriBaseId": "%SRCROOT%"}
    assert place["region"]["startLine"] == line_of("cannot", folder)


def test_reports_go_to_files_beside_what_is_on_the_screen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint"]) == 0
    shown = capsys.readouterr().out
    words = ["lint", *(word for style in ("json", *FORMATS) for word in ("--report", f"{style}=out/{style}"))]
    assert run(words) == 0
    assert capsys.readouterr().out == shown
    for style in ("json", *FORMATS):
        run(["lint", "--format", style])
        assert (folder / "out" / style).read_text() == capsys.readouterr().out


@pytest.mark.parametrize("command", [["validate"], ["lint"], ["test"], ["policy", "diff", "inventory.yml"], ["plan"]])
def test_an_invalid_inventory_is_in_every_report_with_its_owner(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(HEAD + BROKEN)
    styles = ("json", "markdown") if command == ["plan"] else ("json", *FORMATS)
    for style in styles:
        assert run([*command, "-o", style, "--report", f"{style}={style}"]) == 65
        text = capsys.readouterr().out
        assert "nobody" in text
        assert ABOUT.search(text)
        assert (folder / style).read_text() == text


@pytest.mark.parametrize("value", ["sarif", "sarif=", "human=x", "=x", "xml=x"])
def test_a_report_that_is_no_format_and_path_is_wrong_usage(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "--report", value]) == 64
    assert "FORMAT=PATH with one of json, junit, sarif" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "--report", "sarif=inventory.yml/x"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: inventory.yml")


def test_warnings_about_policies_name_owner_and_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = SSH.replace("name: ssh", "name: again")
    (folder / "inventory.yml").write_text(HEAD + SSH + idle.replace("from: hub", "from: web1").replace("'*'", "web1"))
    for command in ("validate", "lint"):
        for style in ("human", *FORMATS):
            assert run([command, "-o", style]) == 0
            assert ABOUT.search(capsys.readouterr().out)


def test_a_widened_policy_is_a_warning_at_its_rule_and_an_error_when_it_must_not_be(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.yml").write_text(HEAD + SSH)
    line = line_of("name: sql", folder)
    assert run(["policy", "diff", "old.yml", "-o", "github"]) == 0
    warning = capsys.readouterr().out
    assert warning.startswith(f"::warning file=inventory.yml,line={line},col=5,title=policy-gained::")
    assert "corp: web1 gains tcp/5432 to pg1" in warning
    assert "[data team; reports]" in warning
    assert run(["policy", "diff", "old.yml", "-o", "github", "--fail-on", "widened"]) == 1
    assert capsys.readouterr().out == warning.replace("::warning", "::error")


def test_what_is_lost_is_told_about_the_inventory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "new.yml").write_text(HEAD + SSH)
    assert run(["policy", "diff", "inventory.yml", "new.yml", "-o", "gitlab"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["check_name"] == "policy-lost"
    assert entry["location"] == {"path": "new.yml", "lines": {"begin": 1}}


def test_the_diff_as_a_comment_has_a_section_for_each_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "old.yml").write_text(HEAD + SSH)
    assert run(["policy", "diff", "old.yml", "-o", "markdown"]) == 0
    line = line_of("name: sql", folder)
    assert capsys.readouterr().out == (
        "<!-- meshctl policy diff inventory.yml -->\n"
        "**meshctl policy diff** <code>inventory&#46;yml</code>: 1 gained, 0 lost\n"
        "\n<details><summary><code>corp</code>: 1 gained, 0 lost</summary>\n\n```diff\n"
        "+ corp: web1 gains tcp/5432 to pg1\n    before: nothing allows it\n"
        f"    now: allowed by policy `sql` (inventory.yml:{line}) [data team; reports]\n```\n\n</details>\n"
    )


def test_what_two_revisions_differ_in_is_told_about_the_file_that_a_reader_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(folder, "init", "-q")
    for text in (HEAD + SSH, HEAD + SSH + SQL):
        (folder / "inventory.yml").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "One more")
    assert run(["policy", "diff", "HEAD~1", "HEAD", "-o", "gitlab"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["location"] == {"path": "inventory.yml", "lines": {"begin": 1}}
    assert f"(HEAD:inventory.yml:{line_of('name: sql', folder)})" in entry["description"]


def test_what_could_be_a_path_or_a_revision_is_refused_as_git_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "One")
    git(folder, "branch", "-m", "main")
    assert run(["policy", "diff", "main"]) == 0
    (folder / "main").write_text(HEAD + SSH)
    capsys.readouterr()
    assert run(["policy", "diff", "main"]) == 64
    assert "`main` is both a path and a Git revision; write ./main for the path" in capsys.readouterr().err
    assert run(["policy", "diff", "./main"]) == 0


@pytest.mark.lab
def test_all_of_it_works_without_a_network_and_without_an_environment(folder: Path) -> None:
    reports = [word for style in ("json", *FORMATS) for word in ("--report", f"{style}=out/{style}")]
    for words in (["validate"], ["lint"], ["test"], ["policy", "diff", "inventory.yml"]):
        done = subprocess.run(
            ["unshare", "--net", "env", "-i", sys.executable, "-m", "meshctl", *words, *reports],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == (1 if words == ["test"] else 0), done.stderr
        assert {file.name for file in (folder / "out").iterdir()} == {"json", *FORMATS}
