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
CHECKS = [name for name in STEPS if name not in ("Inputs", "Install", "Plan", "Comment")]


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
        """The steps that check, as far as their conditions let them; the first exit code that is not 0."""
        outcomes, codes, output = {"install": "success"}, [], ""
        for name in CHECKS:
            if not self.wanted(name, outcomes, inputs):
                continue
            done = self.step(name, **inputs)
            codes.append(done.returncode)
            output += done.stdout + done.stderr
            outcomes[STEPS[name].get("id", name)] = "failure" if done.returncode else "success"
        return next(filter(None, codes), 0), output

    @staticmethod
    def wanted(name: str, outcomes: dict[str, str], inputs: dict[str, str]) -> bool:
        """A step's `if`, as GitHub evaluates it; strings are compared without their case."""
        values = {key: str(about.get("default", "")) for key, about in ACTION["inputs"].items()} | inputs
        (text,) = re.findall(r"^\$\{\{(.*)\}\}$", STEPS[name].get("if", "${{ True }}"))
        text = text.replace("!cancelled()", "True").replace("&&", "and")
        text = re.sub(r"steps\.(\w+)\.outcome", lambda found: repr(outcomes.get(found[1], "skipped")), text)
        text = re.sub(r"inputs\.([\w-]+)", lambda found: repr(values[found[1]].lower()), text)
        return bool(eval(text))  # noqa: S307 - of action.yml

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


def alarms(output: str) -> list[str]:
    """The annotations that are more than a note."""
    return [line for line in annotations(output) if not line.startswith("::notice")]


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
    assert alarms(output) == []
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
    (told,) = alarms(output)
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
    assert any("title=single-anchor" in line for line in alarms(output))


def test_a_wider_policy_is_shown_or_fails_against_a_branch_of_any_name(runner: Runner) -> None:
    branch = "rel/$(touch${IFS}pwned);`touch${IFS}pwned`"
    git(runner.workspace, "push", "--quiet", "origin", f"main:refs/heads/{branch}")
    (runner.workspace / "inventory.yml").write_text(WIDER)
    commit(runner.workspace, "Wider")
    code, output = runner.check(base=branch)
    assert code == 0, output
    assert [line.partition(" ")[0] for line in alarms(output)] == ["::warning"]
    code, output = runner.check(base=branch, **{"fail-on-widened": "true"})
    assert code == 1
    assert [line.partition(" ")[0] for line in alarms(output)] == ["::error"]
    assert "web1 gains udp/53 to hub" in runner.report("policy-diff.md")
    assert not list(runner.workspace.rglob("pwned"))


def test_each_check_is_a_step_and_what_the_change_opens_comes_first() -> None:
    assert CHECKS == ["Policy diff", "Validate", "Test", "Lint"]
    assert list(STEPS)[:2] == ["Inputs", "Install"]


@pytest.mark.parametrize("name", ["fail-on-widened", "plan"])
def test_what_is_neither_true_nor_false_is_refused(name: str, runner: Runner) -> None:
    for value in ("true", "True", "FALSE", "false"):
        assert runner.step("Inputs", **{name: value}).returncode == 0
    for value in ("yes", "1", "", "true false", "on"):
        done = runner.step("Inputs", **{name: value})
        assert done.returncode == 1
        assert done.stdout == f"::error::the input {name} is neither true nor false\n"


def test_true_is_true_in_any_case(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(WIDER)
    commit(runner.workspace, "Wider")
    assert runner.check(base="main", **{"fail-on-widened": "True"})[0] == 1
    assert runner.wanted("Plan", {"install": "success"}, {"plan": "TRUE"})


def test_an_inventory_that_is_not_valid_is_told_once(runner: Runner) -> None:
    (runner.workspace / "inventory.yml").write_text(INVALID)
    code, output = runner.check(base="main")
    assert code == 65
    assert len(annotations(output)) == 1


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
    without_secret = GOOD.replace("version: 1", "version: 1\ndefaults: {psk: false, agent: false}")
    (runner.workspace / "inventory.yml").write_text(without_secret)
    done = runner.step("Plan")
    assert done.returncode == 1, done.stderr
    assert "3 hosts could not be read" in runner.report("plan.md")
    assert runner.report("plan.md") in (runner.temp / "STEP_SUMMARY").read_text()


@pytest.mark.parametrize("login", ["", "mesh-bot"])
def test_the_comment_is_made_once_and_then_replaced(login: str, runner: Runner, tmp_path: Path) -> None:
    comments, hosts = tmp_path / "comments.json", tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost api.github.localhost\n")
    server = f"{sys.executable} {Path(__file__).with_name('github_api.py')} {comments} {TOKEN} {login}"
    before = (
        f"ip link set lo up && mount --bind {hosts} /etc/hosts && export GH_HOST=github.localhost"
        f" && {{ exec 3< <(exec {server}); trap 'kill $!' EXIT; read -r _ <&3; }}"
    )
    marker = "<!-- meshctl plan inventory.yml -->\n"
    me = {"login": login, "type": "User"} if login else {"login": "github-actions[bot]", "type": "Bot"}
    others = [{"id": 1, "user": {"login": "eve", "type": "User"}, "body": f"{marker}mine"}]
    if login:
        others += [{"id": 2, "user": {"login": "other[bot]", "type": "Bot"}, "body": f"{marker}mine"}]
    comments.write_text(json.dumps(others))
    for text in ("first", "x" * 60_000):
        (runner.temp / "meshctl-reports" / "plan.md").write_text(f"{marker}{text}\n")
        done = runner.step("Comment", before, comment="7", token=TOKEN)
        assert done.returncode == 0, done.stdout + done.stderr
        mine = {"id": len(others) + 1, "user": me, "body": f"{marker}{text}\n"}
        assert json.loads(comments.read_text()) == [*others, mine]


def test_a_comment_goes_to_a_pull_request_alone(runner: Runner) -> None:
    done = runner.step("Comment", comment="7/../../labels")
    assert done.returncode == 1
    assert "::error::comment is not the number" in done.stdout
