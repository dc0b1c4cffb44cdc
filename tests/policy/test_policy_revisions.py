"""What `meshctl policy diff` reads of a Git revision: what was committed, whatever else the commit says about it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_strategies import inventory, node

from meshctl.cli import run

SSH = {"name": "ssh", "from": "web1", "to": "db1", "allow": ["tcp/22"]}
SQL = {"name": "sql", "from": "web1", "to": "db1", "allow": ["tcp/5432"]}
GAIN = "+ corp: web1 gains tcp/5432 to db1"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.net", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, tag: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", tag)
    git(folder, "tag", tag)


def text(*rules: dict[str, Any], **more: Any) -> str:
    nodes = {name: node(n, ("corp",), endpoint=True, **more) for n, name in enumerate(("web1", "db1"), 1)}
    return yaml.safe_dump(inventory(nodes, groups={}, policies=list(rules)), sort_keys=False)


def folder_of(rules: tuple[dict[str, Any], ...], folder: Path) -> None:
    """An inventory of two files: the nodes, and the rules."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = yaml.safe_load(text(*rules))
    (folder / "policies.yml").write_text(yaml.safe_dump({"version": 1, "policies": whole.pop("policies")}))
    (folder / "nodes.yml").write_text(yaml.safe_dump(whole, sort_keys=False))


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, the current folder."""
    git(tmp_path, "init", "--quiet", "repository")
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


def test_a_folder_is_found_from_every_folder_of_the_repository(
    top: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = top / "inventory" / "fleet"
    folder_of((SSH,), fleet)
    commit(top, "v1")
    folder_of((SSH, SQL), fleet)
    for cwd, named in ((".", "inventory/fleet"), ("inventory", "../inventory/fleet"), ("inventory/fleet", ".")):
        monkeypatch.chdir(top / cwd)
        assert run(["policy", "diff", "v1", "-i", named]) == 0
        out, err = capsys.readouterr()
        assert (GAIN in out, err) == (True, "")


def test_the_repository_itself_may_be_the_inventory(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of((SSH,), top)
    commit(top, "v1")
    folder_of((SSH, SQL), top)
    assert run(["policy", "diff", "v1", "-i", "."]) == 0
    assert GAIN in capsys.readouterr().out
    (top / "nodes.yml").write_text("version: 1\nnodes: [\n")
    commit(top, "v2")
    assert run(["policy", "diff", "v1", "v2", "-i", "."]) == 65
    assert "v2:nodes.yml:3:1: error" in capsys.readouterr().err


def test_a_file_in_one_revision_may_be_a_folder_in_the_other(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "mesh").write_text(text(SSH))
    commit(top, "v1")
    (top / "mesh").unlink()
    folder_of((SSH, SQL), top / "mesh")
    commit(top, "v2")
    assert run(["policy", "diff", "v1", "v2", "-i", "mesh"]) == 0
    assert GAIN in capsys.readouterr().out


@pytest.mark.parametrize("attribute", ["export-ignore", "export-subst", "ident", "text eol=crlf", "filter=gone"])
def test_attributes_of_the_commit_hide_nothing(
    attribute: str, top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of((SSH,), top / "net")
    commit(top, "v1")
    folder_of((SSH,), top / "net")
    (top / "net" / "more.yml").write_text(yaml.safe_dump({"version": 1, "policies": [SQL]}) + "# $Format:%n%H$\n")
    (top / ".gitattributes").write_text(f"more.yml {attribute}\n")
    commit(top, "v2")
    assert run(["policy", "diff", "v1", "v2", "-i", "net", "--fail-on", "widened"]) == 1
    assert GAIN in capsys.readouterr().out


def test_a_placeholder_for_archives_is_a_text_like_any_other(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `git archive` fills it in, the exclusion would be of somebody else."""
    (top / "inventory.yml").write_text(text(SSH))
    commit(top, "v1")
    (top / "inventory.yml").write_text(text(SSH) + "# $Format:%n$\n$Format:%x23$ : 1\n")
    (top / ".gitattributes").write_text("inventory.yml export-subst\n")
    commit(top, "v2")
    assert run(["policy", "diff", "v1", "v2"]) == 65
    assert "$Format:%x23$" in capsys.readouterr().err


def test_a_file_that_is_kept_out_of_archives_is_read(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / ".gitattributes").write_text("inventory.yml export-ignore\n")
    (top / "inventory.yml").write_text(text(SSH))
    commit(top, "v1")
    (top / "inventory.yml").write_text(text(SSH, SQL))
    assert run(["policy", "diff", "v1"]) == 0
    assert GAIN in capsys.readouterr().out


def test_a_link_leads_to_what_the_commit_has_there(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "sites").mkdir()
    (top / "sites" / "main.yml").write_text(text(SSH))
    (top / "inventory.yml").symlink_to("sites/main.yml")
    folder_of((SSH,), top / "all" / "fleet")
    (top / "all" / "fleet" / "policies.yml").rename(top / "sites" / "policies.yml")
    (top / "all" / "fleet" / "policies.yml").symlink_to("../../sites/policies.yml")
    (top / "fleet").symlink_to("all/fleet")
    commit(top, "v1")
    (top / "sites" / "main.yml").write_text(text(SSH, SQL))
    (top / "sites" / "policies.yml").write_text(yaml.safe_dump({"version": 1, "policies": [SSH, SQL]}))
    for named in ("inventory.yml", "fleet", "all/fleet"):
        assert run(["policy", "diff", "v1", "-i", named]) == 0
        assert GAIN in capsys.readouterr().out


@pytest.mark.parametrize("target", ["/etc/hostname", "../../outside.yml", "inventory.yml", "gone.yml"])
def test_a_link_that_leads_nowhere_in_the_commit_is_refused(
    target: str, top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (top.parent / "outside.yml").write_text(text(SSH))
    folder_of((SSH,), top / "net")
    commit(top, "v1")
    (top / "net" / "inventory.yml").symlink_to(target)
    commit(top, "v2")
    assert run(["policy", "diff", "v2", "v1", "-i", "net"]) == 1
    out, err = capsys.readouterr()
    assert (out, "v2:net/inventory.yml" in err, "link" in err) == ("", True, True)


def test_an_inventory_in_a_submodule_is_refused(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(top.parent, "init", "--quiet", "other")
    (top.parent / "other" / "inventory.yml").write_text(text(SSH))
    commit(top.parent / "other", "v0")
    git(top, "submodule", "--quiet", "add", str(top.parent / "other"), "net")
    (top / "inventory.yml").symlink_to("net/inventory.yml")
    commit(top, "v1")
    assert run(["policy", "diff", "v1", "-i", "inventory.yml"]) == 1
    assert "submodule" in capsys.readouterr().err


def test_roles_of_the_commit_are_known_and_a_submodule_may_be_one(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (top / "inventory.yml").write_text(text(SSH, roles=["extra", "linked", "foreign"]))
    for path in ("roles/extra/tasks", "common/linked"):
        (top / path).mkdir(parents=True)
        (top / path / "main.yml").write_text("[]\n")
    (top / "roles" / "linked").symlink_to("../common/linked")
    git(top.parent, "init", "--quiet", "foreign")
    (top.parent / "foreign" / "main.yml").write_text("[]\n")
    commit(top.parent / "foreign", "v0")
    git(top, "submodule", "--quiet", "add", str(top.parent / "foreign"), "roles/foreign")
    commit(top, "v1")
    assert run(["policy", "diff", "v1"]) == 0
    assert capsys.readouterr().out == "no change: the same is permitted\n"


def test_a_file_larger_than_the_reader_takes_is_refused_unread(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "inventory.yml").write_text(text(SSH))
    os.truncate(top / "inventory.yml", 8 * 1024 * 1024 + 1)
    commit(top, "v1")
    assert run(["policy", "diff", "v1"]) == 65
    assert "v1:inventory.yml: error[too-large]" in capsys.readouterr().err
