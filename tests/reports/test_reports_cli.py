"""The formats on the command line: what each command reports, to the screen and to files, with owner and reason."""

from __future__ import annotations

import json
import os
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


def test_a_report_on_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "--report", "sarif=/dev/full"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "Error: /dev/full: No space left on device"


def test_two_reports_to_one_file_are_wrong_usage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link").symlink_to("out")
    assert run(["validate", "--report", "sarif=out/x", "--report", f"junit={folder}/link/../out/x"]) == 64
    assert "out/x` is the file of two reports" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "target",
    ["inventory.yml", "./link.yml", "old.yml", "inventory.lock.yml", "a_test.yml", "roles/x/y.yml", "fleet/new.yaml"],
)
def test_a_report_never_goes_onto_what_the_inventory_is_made_of(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "link.yml").symlink_to("inventory.yml")
    (folder / "old.yml").write_text(HEAD + SSH)
    (folder / "fleet").mkdir()
    (folder / "fleet" / "main.yml").write_text(HEAD + SSH)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    inventory = "fleet" if target.startswith("fleet") else "inventory.yml"
    assert run(["policy", "diff", "old.yml", "-i", inventory, "-o", "json", "--report", f"sarif={target}"]) == 64
    told = capsys.readouterr()
    assert f"Error: {target}: is a file of the inventory" in told.err
    assert told.out == ""
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_any_file_name_can_be_reported_in_any_encoding(folder: Path) -> None:
    name = b"\xff\x01\xc3\xa9.yml"
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text(HEAD + SSH.replace("logins", "é→") + SQL + TESTS)
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    for style in ("human", "json", *FORMATS):
        words = [sys.executable, "-m", "meshctl", "test", os.fsdecode(name), "-o", style, "--report", f"gitlab={style}"]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, check=False)
        assert done.returncode == 1, done.stderr
        if style == "human":
            assert r"ops; é\u2192" in done.stdout.decode("latin-1")
        elif style not in ("json", "sarif", "gitlab"):  # those escape what is not ASCII
            assert "ops; é→" in done.stdout.decode()
        assert json.loads((folder / style).read_bytes().decode())[0]["location"]["path"] == "??é.yml"


def test_one_long_reason_hides_no_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "old.yml").write_text(HEAD + SSH)
    dns = SQL.replace("sql", "dns").replace("tcp/5432", "udp/53").replace("reports", "r" * 70_000)
    (folder / "inventory.yml").write_text(HEAD + SSH + SQL + dns)
    assert run(["policy", "diff", "old.yml", "-o", "markdown"]) == 0
    told = capsys.readouterr().out
    for word in ("web1 gains tcp/5432 to pg1", "web1 gains udp/53 to pg1", "[data team; reports]", "[data team; rrr"):
        assert word in told


def test_what_is_gained_is_reported_before_what_is_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "version: 1\nnetworks: {corp: {cidr: 10.42.0.0/16}, prod: {cidr: 10.43.0.0/16}}\nnodes:\n"
    for name, network in (("c1", "corp"), ("c2", "corp"), ("p1", "prod"), ("p2", "prod")):
        text += f"  {name}: {{networks: [{network}], roles: [anchor], endpoint: {name}.example.net:51820}}\n"
    for file, letter in (("old.yml", "c"), ("inventory.yml", "p")):
        policy = f"policies: [{{name: x, from: {letter}1, to: {letter}2, allow: [any]}}]\n"
        (folder / file).write_text(text + policy)
    assert run(["policy", "diff", "old.yml", "-o", "github"]) == 0
    assert re.findall(r"title=([\w-]+)", capsys.readouterr().out) == ["policy-gained", "policy-lost"]


def test_a_plan_that_cannot_be_made_is_a_comment_that_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHCTL_SECRET", raising=False)
    assert run(["plan", "-o", "markdown", "--report", "markdown=plan.md"]) == 1
    told = capsys.readouterr()
    first, second = told.out.splitlines()[:2]
    assert first == "<!-- meshctl plan inventory.yml -->"
    assert "**No plan could be made.**" in second
    assert told.err.removeprefix("Error: ").splitlines()[0].partition(";")[0] in told.out
    assert (folder / "plan.md").read_text() == told.out


def test_warnings_about_policies_name_owner_and_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = SSH.replace("name: ssh", "name: again")
    (folder / "inventory.yml").write_text(HEAD + SSH + idle.replace("from: hub", "from: web1").replace("'*'", "web1"))
    for command, styles in (("validate", ("human", *FORMATS)), ("lint", ("human", "json"))):
        for style in styles:
            assert run([command, "-o", style]) == 0
            assert ABOUT.search(capsys.readouterr().out)


def test_what_validate_reports_is_not_reported_by_lint_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = SSH.replace("name: ssh", "name: again").replace("from: hub", "from: web1").replace("'*'", "web1")
    (folder / "inventory.yml").write_text(HEAD + SSH + idle)
    for style in FORMATS:
        assert run(["lint", "-o", style]) == 0
        told = capsys.readouterr().out
        assert "single-anchor" in told
        assert "matches-nothing" not in told
        assert run(["validate", "-o", style]) == 0
        assert "matches-nothing" in capsys.readouterr().out
    assert run(["lint", "--fail-on", "warning"]) == 1


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


def test_a_fingerprint_is_the_same_from_any_folder_against_any_spelling_of_the_base(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    git(folder, "init", "-q")
    for text in (HEAD + SSH + SQL, HEAD + SQL.replace("tcp/5432", "udp/53") + SSH):
        (folder / "inventory.yml").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "One more")
    git(folder, "tag", "old", "HEAD~1")
    (folder / "sub").mkdir()
    told, full, oid = [], f"{folder}/inventory.yml", git(folder, "rev-parse", "old")
    ways = ((".", "HEAD~1", "inventory.yml"), ("sub", "old", "../inventory.yml"), ("sub", oid, full))
    for place, base, inventory in ways:
        monkeypatch.chdir(folder / place)
        assert run(["policy", "diff", base, "-i", inventory, "-o", "gitlab"]) == 0
        told.append([entry["fingerprint"] for entry in json.loads(capsys.readouterr().out)])
    assert len(set(told[0])) == 2
    assert told[0] == told[1] == told[2]


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
