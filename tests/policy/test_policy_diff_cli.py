"""`meshctl policy diff` on files, folders and real Git revisions."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from test_policy_revisions import SSH, git, text

from meshctl.cli import run
from meshctl.inventory import load_schema

SQL = {"name": "sql", "from": "web1", "to": "db1", "allow": ["tcp/5432"], "owner": "data team", "reason": "reports"}


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["policy", "diff", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`net/inventory.yml` with its lock: one rule in the first commit (tag v1), two in the working tree."""
    folder = tmp_path / "repository"
    (folder / "net").mkdir(parents=True)
    path = folder / "net" / "inventory.yml"
    path.write_text(text(SSH))
    git(folder.parent, "init", "--quiet", str(folder))
    assert run(["lock", "--offline", str(path)]) == 0
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "One rule")
    git(folder, "tag", "v1")
    path.write_text(text(SSH, SQL))
    monkeypatch.chdir(folder / "net")
    return folder


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    old, new = tmp_path / "old.yml", tmp_path / "new.yml"
    old.write_text(text(SSH))
    new.write_text(text(SSH, SQL))
    return str(old), str(new)


def test_two_files_are_told_in_words_with_the_rule_its_place_and_its_owner(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = diff(capsys, *files)
    line = Path(files[1]).read_text().splitlines().index("- name: sql") + 1
    assert code == 0
    assert out.splitlines() == [
        "+ corp: web1 gains tcp/5432 to db1",
        "    before: nothing allows it",
        f"    now: allowed by policy `sql` ({files[1]}:{line}) [data team; reports]",
        "1 gained, 0 lost",
    ]


def test_the_answer_to_a_machine_keeps_to_its_schema(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for base, head in (files, files[::-1], (files[0], files[0])):
        _, out, _ = diff(capsys, base, head, "-o", "json")
        answer = json.loads(out)
        jsonschema.validate(answer, load_schema("policy-diff"))
        assert answer["widened"] == ((base, head) == files)
        assert [c["change"] for c in answer["changes"]] == {files: ["gained"], files[::-1]: ["lost"]}.get(
            (base, head), []
        )


def test_a_pipeline_fails_on_what_is_widened_and_on_nothing_else(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = files
    codes = [diff(capsys, *pair, "--fail-on", "widened")[0] for pair in ((old, new), (new, old), (old, old))]
    assert codes == [1, 0, 0]


@pytest.mark.usefixtures("repository")
def test_a_revision_is_compared_with_the_working_tree(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = diff(capsys, "v1", "--fail-on", "widened")
    assert code == 1
    assert "+ corp: web1 gains tcp/5432 to db1" in out


def test_two_revisions_are_compared_and_their_rules_are_placed_in_them(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(repository, "commit", "--quiet", "-am", "Two rules")
    (repository / "net" / "inventory.yml").unlink()  # neither is the working tree
    code, out, _ = diff(capsys, "HEAD", "v1", "-i", "inventory.yml")
    assert code == 0
    assert "- corp: web1 loses tcp/5432 to db1" in out
    assert "policy `sql` (HEAD:net/inventory.yml:" in out


def test_the_lock_of_the_revision_is_read_with_it(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "net" / "inventory.lock.yml").write_text("version: 2\n")
    git(repository, "commit", "--quiet", "-am", "A broken lock")
    git(repository, "checkout", "--quiet", "v1", "--", "net/inventory.lock.yml")
    code, _, err = diff(capsys, "HEAD")
    assert code == 65
    assert "HEAD:net/inventory.lock.yml" in err


def test_a_policy_that_expired_does_not_hide_what_its_removal_takes_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yml", tmp_path / "new.yml"
    old.write_text(text(SSH, {**SQL, "expires": "2001-01-01"}))
    new.write_text(text(SSH))
    code, out, _ = diff(capsys, str(old), str(new))
    assert code == 0
    assert "- corp: web1 loses tcp/5432 to db1" in out


@pytest.mark.parametrize("version", ["no-such-branch", "HEAD:net", "--all"])
@pytest.mark.usefixtures("repository")
def test_what_is_no_version_is_refused_with_a_remedy(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = diff(capsys, "--", version)
    assert (code, out) == (64, "")
    assert version in err
    assert "Traceback" not in err


def test_an_inventory_that_the_revision_has_not_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "net" / "other.yml").write_text(text(SSH))
    code, _, err = diff(capsys, "v1", "-i", "other.yml")
    assert code == 64
    assert "revision `v1` has no net/other.yml" in err


def test_outside_a_repository_a_revision_is_refused(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = diff(capsys, "main", "-i", files[0])
    assert code == 64
    assert "no Git repository" in err
