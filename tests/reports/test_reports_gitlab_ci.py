"""The jobs for GitLab CI do what they say: their scripts are run as GitLab runs them, without a network or a secret."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import xmlschema
import yaml
from ci_checkout import FAILING, GOOD, INVALID, ROOT, WIDER, bare_environment, clone, commit, git, repository

pytestmark = pytest.mark.lab

TEMPLATE: dict[str, Any] = yaml.safe_load((ROOT / "templates" / "gitlab" / "meshctl.gitlab-ci.yml").read_text())
JUNIT = xmlschema.XMLSchema(Path(__file__).parent / "schemas" / "junit-10.xsd")
JOBS = [name for name in TEMPLATE if not name.startswith(".")]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As `extends` merges: mappings key by key, everything else replaced."""
    both = {k: merged(base[k], over[k]) if isinstance(base.get(k), dict) and isinstance(over[k], dict) else over[k]
            for k in over}  # fmt: skip
    return {**base, **both}


def job(name: str) -> dict[str, Any]:
    return merged(TEMPLATE[TEMPLATE[name]["extends"]], TEMPLATE[name])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the runner gives to a job besides its variables."""
    return bare_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def venv(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the `before_script`, which all jobs have in common, makes; run once for all."""
    folder = tmp_path_factory.mktemp("before")
    assert all("before_script" not in TEMPLATE[name] for name in JOBS)
    package = {"MESHCTL_PACKAGE": str(clone(tmp_path_factory.mktemp("project")))}
    done = script(folder, job(JOBS[0])["before_script"], environment | variables_of(JOBS[0], package))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob(".meshctl/lib/python*/site-packages/meshctl/reports/sarif.py"))
    return folder / ".meshctl"


@pytest.fixture
def project(tmp_path: Path, venv: Path) -> Path:
    folder = repository(tmp_path)
    (folder / ".git" / "info" / "exclude").write_text(".meshctl\nmeshctl-reports\n")
    (folder / ".meshctl").symlink_to(venv)
    return folder


def script(folder: Path, lines: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "--net", "bash", "-eo", "pipefail", "-c", "\n".join(lines)]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def variables_of(name: str, top_level: Mapping[str, str]) -> dict[str, str]:
    """What a job sees: its own variables beat those at the top level, where who includes a file beats that file."""
    return {**TEMPLATE.get("variables", {}), **top_level, **job(name).get("variables", {})}


def run(name: str, folder: Path, environment: dict[str, str], **top_level: str) -> tuple[int, dict[str, str]]:
    """A job's exit code, and its reports by kind."""
    about = job(name)
    done = script(folder, about["script"], {**environment, **variables_of(name, top_level)})
    assert about["artifacts"]["when"] == "always"
    reports = {kind: (folder / path).read_text() for kind, path in about["artifacts"]["reports"].items()}
    return done.returncode, reports


@pytest.mark.parametrize("variables", [{}, {"MESHCTL_PACKAGE": ""}])
def test_nothing_is_installed_unless_the_package_is_named(
    variables: dict[str, str], tmp_path: Path, environment: dict[str, str]
) -> None:
    for name in JOBS:
        done = script(tmp_path, job(name)["before_script"], environment | variables_of(name, variables))
        assert done.returncode == 1
        assert done.stderr == (
            "Error: the variable MESHCTL_PACKAGE is not set; set it to what pip installs: docs/gitops.md\n"
        )
    assert not list(tmp_path.iterdir())


def test_every_variable_that_the_file_names_is_the_user_s_to_set() -> None:
    text = (ROOT / "templates" / "gitlab" / "meshctl.gitlab-ci.yml").read_text()
    named = set(re.findall(r"MESHCTL_\w+", text))
    assert len(named) == 4
    for name in JOBS:
        assert variables_of(name, dict.fromkeys(named, "theirs")).items() >= dict.fromkeys(named, "theirs").items()


def test_every_job_runs_in_merge_requests() -> None:
    for name in JOBS:
        assert '$CI_PIPELINE_SOURCE == "merge_request_event"' in [rule["if"] for rule in job(name)["rules"]]


@pytest.mark.parametrize(
    ("name", "text", "code", "check"),
    [
        ("meshctl:validate", GOOD, 0, ""),
        ("meshctl:validate", INVALID, 65, "unknown-selector"),
        ("meshctl:test", GOOD, 0, ""),
        ("meshctl:test", FAILING, 1, "policy-test"),
        ("meshctl:lint", GOOD, 0, ""),
        ("meshctl:lint", INVALID, 65, "unknown-selector"),
    ],
)
def test_a_job_ends_as_its_command_does_and_leaves_the_reports_that_it_names(
    name: str, text: str, code: int, check: str, project: Path, environment: dict[str, str]
) -> None:
    (project / "inventory.yml").write_text(text)
    ended, reports = run(name, project, environment)
    assert ended == code
    JUNIT.validate(reports["junit"])
    assert ("<failure " in reports["junit"]) is bool(check)
    told = [entry["check_name"] for entry in json.loads(reports["codequality"]) if entry["severity"] != "info"]
    assert told == [check] * bool(check)


def test_a_merge_request_that_widens_is_shown_and_fails_when_it_is_to(
    project: Path, environment: dict[str, str]
) -> None:
    base = git(project, "rev-parse", "HEAD")
    (project / "inventory.yml").write_text(WIDER)
    commit(project, "Wider")
    variables = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base}
    code, reports = run("meshctl:policy-diff", project, environment, **variables)
    assert code == 0
    (entry,) = json.loads(reports["codequality"])
    assert (entry["check_name"], entry["severity"]) == ("policy-gained", "minor")
    fails = {**variables, "MESHCTL_DIFF_FAIL_ON": "widened"}
    code, reports = run("meshctl:policy-diff", project, environment, **fails)
    assert code == 1
    assert json.loads(reports["codequality"])[0]["severity"] == "major"
    assert "web1 gains udp/53 to hub" in (project / "meshctl-reports" / "policy-diff.md").read_text()


def test_warnings_fail_lint_when_they_are_to(project: Path, environment: dict[str, str]) -> None:
    idle = "  - {name: idle, from: web1, to: web1, allow: [any]}\ntests:"
    (project / "inventory.yml").write_text(GOOD.replace("tests:", idle))
    assert run("meshctl:lint", project, environment)[0] == 0
    assert run("meshctl:lint", project, environment, MESHCTL_LINT_FAIL_ON="warning")[0] == 1


def test_another_inventory_can_be_named(project: Path, environment: dict[str, str]) -> None:
    (project / "inventory.yml").rename(project / "mesh.yml")
    assert run("meshctl:validate", project, environment, MESHCTL_INVENTORY="mesh.yml")[0] == 0
