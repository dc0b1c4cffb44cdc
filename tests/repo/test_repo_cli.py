"""The command line as a whole: what it imports, how it explains itself, which exit codes it has."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from cli_reference import commands, page

from meshctl import __version__
from meshctl.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("paramiko", "jinja2", "rich", "jsonschema", "jsonschema_rs", "yaml", "netaddr", "cryptography", "asyncio")


def meshctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshctl", *words], capture_output=True, text=True, check=False, cwd=ROOT,
    )


def test_help_imports_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys; from meshctl.cli import run; run(['--help'])\n"
        f"print(*[n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Commands:" in done.stdout
    assert done.stderr.strip() == ""


def loaded_by(*words: str) -> set[str]:
    """The modules that a command line has loaded by its end, in a Python of its own."""
    program = "import sys; from meshctl.cli import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, cwd=ROOT,
    )
    return set(done.stderr.split())


def test_help_imports_nothing_that_only_failures_need() -> None:
    assert not loaded_by("--help") & {"dataclasses", "meshctl.errors", "pathlib"}


@pytest.mark.parametrize(("what", "said"), [("KeyboardInterrupt", "Interrupted."), ("EOFError", "EOFError")])
def test_nothing_but_a_ctrl_c_is_said_to_be_one(what: str, said: str) -> None:
    program = (
        "from meshctl.cli import common, main\n"
        f"def fail(*_, **__): raise {what}\n"
        "common.Hosts.read = fail; main(['plan', 'x.yml'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, said)


def test_validating_a_sound_inventory_imports_nothing_that_only_errors_hosts_or_new_nodes_need(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    nodes = 'nodes: {a: {endpoint: "203.0.113.1:51820"}, b: {endpoint: "203.0.113.2:51820"}}'
    inventory.write_text(f"version: 1\nnetworks: {{corp: {{cidr: 10.42.0.0/16, policy: open}}}}\n{nodes}\n")
    assert meshctl("lock", "--offline", str(inventory)).returncode == 0
    unneeded = {
        "difflib", "hashlib", "jsonschema", "meshctl.deploy.options", "meshctl.inventory.explain",
        "meshctl.inventory.sensitive", "netaddr", "shutil", "tempfile",
    }  # fmt: skip
    assert not loaded_by("validate", str(inventory)) & unneeded


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_in_the_table_is_the_commands_own(name: str) -> None:
    module, help_ = COMMANDS[name]
    assert import_module(module).command.get_short_help_str(limit=1000) == help_


def test_the_table_lists_every_command_module() -> None:
    ours = {path.stem for path in (ROOT / "meshctl" / "cli").glob("*.py")}
    listed = {module.rpartition(".")[2] for module, _ in COMMANDS.values()}
    assert listed <= ours
    holders = {n for n in ours if n != "__init__" and hasattr(import_module(f"meshctl.cli.{n}"), "command")}
    assert holders == listed


@pytest.mark.parametrize("words", [words[1:] for words, _ in commands(cli, ("meshctl",))], ids=" ".join)
def test_every_command_explains_itself_with_examples(words: tuple[str, ...]) -> None:
    done = meshctl(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout
    assert " ".join(("meshctl", *words)) in done.stdout.partition("Examples:")[2]


WINDOWS = tuple(
    (*command, "--confirm-timeout", seconds)
    for command in (("apply",), ("rollback",), ("keys", "rotate"))
    for seconds in ("29", "1000000", "1e18", "inf", "nan", "-inf", "soon")
)


@pytest.mark.parametrize(
    "words",
    [("no-such-command",), ("--no-such-option",), *WINDOWS, *((name, "--no-such-option") for name in sorted(COMMANDS))],
    ids=" ".join,
)
def test_wrong_usage_ends_with_64_and_says_where_help_is(words: tuple[str, ...]) -> None:
    done = meshctl(*words)
    assert done.returncode == 64
    assert done.stdout == ""
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_reference_is_current() -> None:
    written = (ROOT / "docs" / "cli-reference.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs`"


@pytest.mark.parametrize("words", [("policy", "diff"), ("client", "show"), ("lint",)], ids=" ".join)
def test_the_command_reference_shows_the_usage_that_help_prints(words: tuple[str, ...]) -> None:
    usage = meshctl(*words, "--help").stdout.splitlines()[0]
    assert f"## meshctl {' '.join(words)}\n\n```text\n{usage}\n" in page()


def test_every_option_is_explained() -> None:
    silent = [
        f"{' '.join(words)} {parameter.name}"
        for words, command in commands(cli, ("meshctl",))
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert not silent


def test_the_version_has_one_source() -> None:
    assert meshctl("--version").stdout == f"meshctl {__version__}\n"
