"""The hooks of .pre-commit-hooks.yaml, installed and run by pre-commit itself, without a network or a secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ci_checkout import FAILING, GOOD, INVALID, ROOT, bare_environment, clone, commit, git

pytestmark = pytest.mark.lab

HOOKS = [hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's repository that uses all hooks of a clone of this one."""
    source, folder = clone(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("work")
    for each in (source, folder):
        git(each, "init", "--quiet", "--initial-branch=main")
    repos = [{"repo": str(source), "rev": commit(source, "This"), "hooks": [{"id": name} for name in HOOKS]}]
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": repos}))
    return folder


def pre_commit(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    home = folder.parent / "pre-commit"
    env = bare_environment(folder.parent) | {"PRE_COMMIT_HOME": str(home), "PRE_COMMIT_COLOR": "never"}
    command = ["unshare", "--net", sys.executable, "-m", "pre_commit", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def results(folder: Path, text: str) -> dict[str, str]:
    """`meshctl lint: Passed`, by name, of a commit that would add this inventory; all that was said under ``."""
    (folder / "inventory.yml").write_text(text)
    git(folder, "add", "--all")
    done = pre_commit(folder, "run")
    said = done.stdout + done.stderr
    ended = dict(line.split("...", 1) for line in said.splitlines() if "..." in line and line.startswith("meshctl "))
    found = {name: how.strip(".") for name, how in ended.items()}
    assert (done.returncode == 0) is ("Failed" not in found.values()), said
    return {"": said, **found}


def test_a_good_inventory_is_committed(project: Path) -> None:
    found = results(project, GOOD)
    assert {found[name.replace("-", " ", 1)] for name in HOOKS} == {"Passed"}, found[""]


def test_an_invalid_inventory_is_refused_with_its_place(project: Path) -> None:
    found = results(project, INVALID)
    assert found["meshctl validate"] == "Failed"
    assert "inventory.yml:8:" in found[""]


def test_a_failing_policy_test_is_refused_by_its_hook_alone(project: Path) -> None:
    found = results(project, FAILING)
    assert [found[f"meshctl {name}"] for name in ("validate", "test", "lint")] == ["Passed", "Failed", "Passed"]


def test_a_commit_that_only_deletes_is_checked(project: Path) -> None:
    results(project, GOOD)
    commit(project, "Good")
    git(project, "rm", "--quiet", "inventory.yml")
    said = pre_commit(project, "run").stdout
    assert said.count("Failed") == len(HOOKS), said
    assert "neither ./inventory.yml nor ./inventory/ exists" in said


@pytest.mark.parametrize("name", ["more_test.yml", "more_test.yaml"])
def test_a_commit_of_tests_alone_is_checked(name: str, project: Path) -> None:
    results(project, f"{GOOD}# beside {name}\n")
    commit(project, "Good")
    (project / name).write_text("tests: [{from: hub, to: web1, can: [tcp/80]}]\n")
    git(project, "add", "--all")
    said = pre_commit(project, "run").stdout
    git(project, "rm", "--quiet", "--force", name)
    assert said.count("Failed") == 1, said
    assert "meshctl test" in said.partition("Failed")[0].splitlines()[-1]
