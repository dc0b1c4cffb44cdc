"""action.yml does what it says: its scripts are run as GitHub runs them, without a network and without a secret."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from ci_checkout import FAILING, GOOD, INVALID, ROOT, WIDER, bare_environment, clone, commit, git, repository

pytestmark = pytest.mark.lab

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
TOKEN = secrets.token_hex(8)
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


@dataclass
class Runner:
    """What GitHub's runner gives to a composite action: a workspace, files for its outputs, and `shell: bash`."""

    workspace: Path
    temp: Path
    action: Path

    def step(self, name: str, before: str = "", **inputs: str) -> subprocess.CompletedProcess[str]:
        """One step, its `env` filled from the inputs and their defaults; in a network namespace with nothing in it.

        `before` prepares the namespace, in bash.
        """
        values = {key: str(about.get("default", "")) for key, about in ACTION["inputs"].items()} | inputs
        env = bare_environment(self.temp) | {
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_REPOSITORY": "somebody/mesh",
            **{f"GITHUB_{what}": str(self.temp / what) for what in ("OUTPUT", "PATH", "STEP_SUMMARY")},
        }
        added = self.temp / "PATH"
        if added.exists():
            env["PATH"] = ":".join([*added.read_text().split("\n")[:-1], env["PATH"]])
        for key, value in STEPS[name].get("env", {}).items():
            env[key] = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: values[found[1]], value)
        assert STEPS[name]["shell"] == "bash"
        script = self.temp / "script.sh"
        script.write_text(STEPS[name]["run"])
        shell = "bash --noprofile --norc -eo pipefail"
        words = ["unshare", "--net", "--mount", "bash", "-c", f"{before or ':'} && {shell} {script}"]
        return subprocess.run(words, cwd=self.workspace, env=env, capture_output=True, text=True, check=False)

    def check(self, **inputs: str) -> tuple[int, str]:
        done = self.step("Check", **inputs)
        return done.returncode, done.stdout + done.stderr

    def report(self, name: str) -> str:
        return (self.temp / "meshctl-reports" / name).read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNNER_TEMP after the step that installs."""
    runner = Runner(*(tmp_path_factory.mktemp(name) for name in ("w", "temp", "action")))
    clone(runner.action)
    done = runner.step("Install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(runner.temp.glob("meshctl/lib/python*/site-packages/meshctl/reports/sarif.py"))
    reports = runner.temp / "meshctl-reports"
    assert (runner.temp / "OUTPUT").read_text() == f"reports={reports}\n"
    assert list(reports.iterdir()) == []
    return runner.temp


@pytest.fixture
def runner(installed: Path, tmp_path: Path) -> Runner:
    for file in (installed / "meshctl-reports").iterdir():
        file.unlink()
    (installed / "STEP_SUMMARY").write_text("")
    return Runner(repository(tmp_path), installed, ROOT)


def annotations(output: str) -> list[str]:
    """What the runner would obey: commands that stand outside of the stretches where commands are stopped."""
    found, stopped = [], ""
    for line in map(str.strip, output.splitlines()):
        if stopped:
            stopped = "" if line == f"::{stopped}::" else stopped
        elif line.startswith("::stop-commands::"):
            stopped = line.removeprefix("::stop-commands::")
        elif re.match(r"::(?!group|endgroup)|.*##\[", line):
            found.append(line)
    assert not stopped
    return found


def test_no_expression_stands_in_a_script() -> None:
    for step in STEPS.values():
        assert "${{" not in step["run"]


def test_the_document_uses_inputs_and_outputs_that_exist() -> None:
    shown = (ROOT / "docs" / "gitops.md").read_text()
    (workflow,) = [block for block in re.findall(r"```yaml\n(.*?)```", shown, re.DOTALL) if "uses: OWNER" in block]
    (step,) = [s for s in yaml.safe_load(workflow)["jobs"]["mesh"]["steps"] if s["uses"].startswith("OWNER/")]
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert set(re.findall(rf"steps\.{step['id']}\.outputs\.(\w+)", workflow)) <= set(ACTION["outputs"])


def test_a_good_inventory_passes_and_leaves_its_reports(runner: Runner) -> None:
    code, output = runner.check()
    assert code == 0, output
    assert annotations(output) == []
    for name in ("validate", "test", "lint"):
        assert json.loads(runner.report(f"{name}.sarif"))["version"] == "2.1.0"
        assert ElementTree.fromstring(runner.report(f"{name}.xml")).get("failures") == "0"  # noqa: S314
        assert runner.report(f"{name}.md") in (runner.temp / "STEP_SUMMARY").read_text()


def test_an_invalid_inventory_fails_with_an_annotation_on_its_line(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(INVALID)
    code, output = runner.check()
    assert code == 65
    (told,) = annotations(output)
    assert told.startswith("::error file=inventory.yml,line=8,")
    assert "[ops; logins]" in told
    assert not (runner.temp / "meshctl-reports" / "test.sarif").exists()


def test_a_failing_policy_test_fails_and_lint_is_run_all_the_same(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(FAILING)
    code, output = runner.check()
    assert code == 1
    (told,) = annotations(output)
    assert told.startswith("::error file=inventory.yml,line=10,col=5,title=policy-test::")
    assert runner.report("lint.sarif")


def test_warnings_of_lint_fail_when_they_are_to(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(GOOD.replace(", cannot: [tcp/23]", "").replace(
        '  hub2: {roles: [anchor], endpoint: "203.0.113.2:51820"}\n', "  web2: {}\n"
    ).replace("to: web1, allow", "to: [web1, web2], allow").replace("tests:", (
        "  - {name: w, from: web1, to: web2, allow: [any]}\ntests:"
    )))  # fmt: skip
    assert runner.check()[0] == 0
    code, output = runner.check(**{"fail-on": "warning"})
    assert code == 1
    assert any("title=single-anchor" in line for line in annotations(output))


def test_a_wider_policy_is_shown_or_fails_against_a_branch_of_any_name(runner: Runner) -> None:
    branch = "rel/$(touch${IFS}pwned);`touch${IFS}pwned`"
    git(runner.workspace, "push", "--quiet", "origin", f"main:refs/heads/{branch}")
    (runner.workspace / "inventory.yml").write_text(WIDER)
    commit(runner.workspace, "Wider")
    code, output = runner.check(base=branch)
    assert code == 0, output
    assert [line.partition(" ")[0] for line in annotations(output)] == ["::warning"]
    code, output = runner.check(base=branch, **{"fail-on-widened": "true"})
    assert code == 1
    assert [line.partition(" ")[0] for line in annotations(output)] == ["::error"]
    assert "web1 gains udp/53 to hub" in runner.report("policy-diff.md")
    assert not list(runner.workspace.rglob("pwned"))


def test_a_file_that_is_called_as_the_base_does_not_pass_for_it(runner: Runner) -> None:
    trap = runner.workspace / "refs" / "remotes" / "origin" / "main"
    trap.parent.mkdir(parents=True)
    trap.write_text(WIDER)
    (runner.workspace / "inventory.yml").write_text(WIDER)
    commit(runner.workspace, "Wider, with a trap")
    code, output = runner.check(base="main", **{"fail-on-widened": "true"})
    assert code == 64
    assert "is both a path and a Git revision" in output


def test_an_inventory_cannot_command_the_runner(runner: Runner) -> None:
    evil = INVALID.replace("reason: logins}", 'reason: "x"}  # y\n    ::add-mask::1\n##[add-path]/tmp')
    (runner.workspace / "inventory.yml").write_text(evil)
    code, output = runner.check()
    assert code == 65
    assert "::add-mask::" in output  # shown, where no command is obeyed
    assert all(line.startswith("::error file=inventory.yml") for line in annotations(output))


def test_another_inventory_can_be_named(runner: Runner) -> None:
    (runner.workspace / "net dir").mkdir()
    (runner.workspace / "inventory.yml").rename(runner.workspace / "net dir" / "mesh.yml")
    assert runner.check()[0] == 64
    code, output = runner.check(inventory="net dir/mesh.yml")
    assert code == 0, output


def test_a_plan_without_a_network_names_the_hosts_that_could_not_be_read(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(GOOD.replace("version: 1", "version: 1\ndefaults: {psk: false}"))
    done = runner.step("Plan")
    assert done.returncode == 1, done.stderr
    assert "3 hosts could not be read" in runner.report("plan.md")
    assert runner.report("plan.md") in (runner.temp / "STEP_SUMMARY").read_text()


@pytest.fixture
def github(tmp_path: Path) -> tuple[Path, str]:
    """A file of comments behind GitHub's API, and the commands that bring that API up in a namespace."""
    comments, hosts = tmp_path / "comments.json", tmp_path / "hosts"
    comments.write_text("[]")
    hosts.write_text("127.0.0.1 localhost api.github.localhost\n")
    server = f"{sys.executable} {Path(__file__).with_name('github_api.py')} {comments} {TOKEN}"
    return comments, (
        f"ip link set lo up && mount --bind {hosts} /etc/hosts && export GH_HOST=github.localhost"
        f" && {{ exec 3< <(exec {server}); trap 'kill $!' EXIT; read -r _ <&3; }}"
    )


def test_the_comment_is_made_once_and_then_replaced(runner: Runner, github: tuple[Path, str]) -> None:
    comments, before = github
    marker = "<!-- meshctl plan inventory.yml -->\n"
    strangers = {"id": 1, "user": {"type": "User"}, "body": f"{marker}mine"}
    comments.write_text(json.dumps([strangers]))
    for text in ("first", "x" * 60_000):
        (runner.temp / "meshctl-reports" / "plan.md").write_text(f"{marker}{text}\n")
        done = runner.step("Comment", before, comment="7", token=TOKEN)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(comments.read_text()) == [
            strangers, {"id": 2, "user": {"type": "Bot"}, "body": f"{marker}{text}\n"},
        ]  # fmt: skip


def test_a_comment_goes_to_a_pull_request_alone(runner: Runner) -> None:
    done = runner.step("Comment", comment="7/../../labels")
    assert done.returncode == 1
    assert "::error::comment is not the number" in done.stdout
