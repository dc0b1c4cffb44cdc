"""validate, schema and lock on the command line."""

from __future__ import annotations

import json
import os
import resource
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from meshctl.cli import run
from meshctl.errors import Diagnostic
from meshctl.inventory.report import to_human
from meshctl.inventory.schema import load_schema

GOLDEN = Path(__file__).parent / "golden"
BAD = """\
version: 1
networks: {corp: {cidr: 10.42.0.1/16}}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.1:51820", listenport: 1}
  web1: {roles: [gatway], psk: no}
  phone: {client: true, peers: [hub], ssh: {port: 22}}
"""
GOOD = """\
version: 1
networks: {corp: {cidr: 10.42.0.0/16}}
nodes: {hub: {roles: [anchor], endpoint: "203.0.113.1:51820"}, web1: {}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESHCTL_INVENTORY", raising=False)
    return tmp_path


def golden(name: str, text: str) -> None:
    """Compare with a golden file; UPDATE_GOLDEN=1 writes it."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("validate.txt", []),
        ("validate.json", ["-o", "json"]),
        ("validate.github", ["--format", "github"]),
    ],
)
def test_an_invalid_inventory_is_printed_as_in_the_golden_file(
    name: str, options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(BAD)
    assert run(["validate", *options]) == 65
    golden(name, capsys.readouterr().out)


def test_every_other_command_shows_the_findings_as_validate_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(BAD)
    run(["validate"])
    findings, _, _ = capsys.readouterr().out.rpartition("inventory.yml: not valid")
    for words in (["plan"], ["apply"], ["lock", "--offline"], ["client", "list"]):
        assert run(words) == 65
        assert capsys.readouterr() == ("", f"{findings}Error: 4 errors in the inventory\n")


def test_every_command_that_was_asked_for_json_says_so_in_json(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "inventory.yml").write_text(BAD)
    run(["validate", "-o", "json"])
    findings = capsys.readouterr().out
    for words in (["plan"], ["apply"], ["apply", "--check"], ["lock", "--offline"], ["client", "list"]):
        assert run([*words, "-o", "json"]) == 65
        out, err = capsys.readouterr()
        assert out == findings
        assert "Error: 4 errors in the inventory" in err

    monkeypatch.setenv("MESHCTL_SECRET", secrets.token_urlsafe(48))
    (folder / "inventory.yml").write_text(GOOD)
    template = folder / "templates" / "wg-quick.conf.j2"
    template.parent.mkdir()
    template.write_text("{{ nodes }}\n")
    assert run(["plan", "-o", "json"]) == 65
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(load_schema("validate")).validate(document)
    assert document["errors"][0]["code"] == "render"
    assert "wg-quick.conf.j2:1" in document["errors"][0]["message"]


def test_an_empty_lock_is_told_how_to_get_it_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    (folder / "inventory.lock.yml").write_text("")
    assert run(["validate"]) == 65
    shown = capsys.readouterr().out
    assert "inventory.lock.yml:1:1: error[empty]: the file is empty" in shown
    assert "hint: take it from version control" in shown


def test_an_empty_mapping_is_told_what_it_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "inventory.yml").write_text("{}\n")
    assert run(["validate", "-o", "json"]) == 65
    document = json.loads(capsys.readouterr().out)
    assert {error["code"] for error in document["errors"]} == {"missing-key"}


def test_a_dry_run_of_a_plan_is_wrong_usage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    (folder / "plan.json").write_text(json.dumps({"digest": "0", "changes": [], "unreachable": [], "warnings": []}))
    assert run(["apply", "--check", "plan.json", "-i", "inventory.yml"]) == 64
    assert "--check takes an inventory, not a plan" in capsys.readouterr().err


def test_the_findings_in_roles_are_shown_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHCTL_SECRET", secrets.token_urlsafe(48))
    (folder / "inventory.yml").write_text(GOOD)
    tasks = folder / "roles" / "firewall" / "tasks" / "main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text("- templte: {src: a, dest: /b}\n")
    assert run(["plan"]) == 65
    shown = capsys.readouterr().err
    assert "firewall/tasks/main.yml:1:3: error[unknown-module]" in shown
    assert "    - templte: {src: a, dest: /b}\n      ^^^^^^^\n" in shown


@pytest.mark.parametrize("words", [["validate"], ["plan"], ["lock"]], ids=" ".join)
def test_an_inventory_that_is_named_twice_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "a.yml", "-i", "b.yml"]) == 64
    assert "named twice" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_line_and_not_a_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "meshctl", "schema", "inventory"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: standard output: No space left on device\n")


def test_a_client_without_a_key_does_not_make_the_lock_stale_and_a_node_without_one_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = GOOD.replace("web1: {}", "phone: {client: true, peers: [hub], relay: routed}")
    (folder / "inventory.yml").write_text(client)
    assert run(["lock", "--offline"]) == 0
    capsys.readouterr()
    assert run(["lock", "--check", "-o", "json"]) == 1
    result = json.loads(capsys.readouterr().out)
    Draft202012Validator(load_schema("lock-result")).validate(result)
    assert result["changes"] == ["hub: no public key in corp yet; the first `meshctl apply` to it makes one"]


@pytest.mark.parametrize("options", [[], ["-o", "json"], ["--format", "github"]], ids=" ".join)
def test_a_secret_that_was_typed_into_the_inventory_is_not_repeated(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [secrets.token_urlsafe(length) for length in (32, 32, 4, 32)]  # people have short passwords too
    nodes = f"hub: {{psk: '{typed[1]}', ssh: {{password: {typed[2]}}}, mtu: 9}}, web1: {{private_key: {typed[3]}}}"
    text = f"version: 1\nsecret: {typed[0]}\nnetworks: {{corp: {{cidr: 10.42.0.0/16}}}}\nnodes: {{{nodes}}}\n"
    (folder / "inventory.yml").write_text(text)
    assert run(["validate", *options]) == 65
    out, err = capsys.readouterr()
    assert "wrong-type" in out
    assert not [secret for secret in typed if secret in out + err]


def test_the_json_of_validate_fits_its_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, valid in ((BAD, False), (GOOD, True)):
        (folder / "inventory.yml").write_text(text)
        run(["validate", "-o", "json"])
        document = json.loads(capsys.readouterr().out)
        Draft202012Validator(load_schema("validate")).validate(document)
        assert document["valid"] is valid


def test_a_valid_inventory_exits_with_zero_however_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    (folder / "other").mkdir()
    (folder / "other" / "x.yml").write_text(GOOD)
    for arguments in ([], ["inventory.yml"], ["-i", "inventory.yml"], ["other"]):
        assert run(["validate", *arguments]) == 0
        assert "valid: 2 nodes, 1 networks" in capsys.readouterr().out


def test_a_file_without_an_end_is_refused_in_little_memory() -> None:
    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    words = [sys.executable, "-m", "meshctl", "validate", "/dev/zero"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=little_memory)
    assert (done.returncode, done.stderr) == (65, "")
    assert "/dev/zero: error[too-large]" in done.stdout


def test_a_missing_inventory_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "none.yml", "-o", "json"]) == 65
    assert json.loads(capsys.readouterr().out)["errors"][0]["code"] == "unreadable"


def test_control_characters_of_a_file_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "x.yml").write_text("a: \x1b[31mred\n")
    text = to_human([Diagnostic("x", "bad \x1b[2J", "x.yml", 1, 4, text="\x1b[31mred")])
    assert "\x1b" not in text


def test_colour_is_used_only_when_asked_for() -> None:
    finding = Diagnostic("x", "bad", "x.yml", 1, 1, hint="h")
    assert "\x1b" not in to_human([finding])
    assert "\x1b[31m" in to_human([finding], colour=True)


def test_a_long_line_is_shown_around_the_fault(folder: Path) -> None:
    (folder / "x.yml").write_text("a" * 5000 + "FAULT" + "b" * 5000)
    lines = to_human([Diagnostic("x", "bad", "x.yml", 1, 5001, text="FAULT")]).splitlines()
    assert len(lines[1]) < 140
    assert lines[1][lines[2].index("^") :].startswith("FAULT")


def test_schema_lists_and_prints_and_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert {"inventory", "lock", "validate"} <= set(capsys.readouterr().out.split())
    assert run(["schema", "lock"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "meshctl lock"
    assert run(["schema", "lokc"]) == 64
    assert "did you mean `lock`?" in capsys.readouterr().err


def test_lock_is_written_once_and_check_says_why_it_is_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    assert run(["lock", "--check", "--offline"]) == 1
    assert "there is no lock yet" in capsys.readouterr().out
    assert not (folder / "inventory.lock.yml").exists()
    assert run(["lock", "--offline"]) == 0
    written = (folder / "inventory.lock.yml").read_text()
    assert run(["lock", "--offline"]) == 0
    assert (folder / "inventory.lock.yml").read_text() == written
    assert run(["lock", "--check", "--offline"]) == 0
    capsys.readouterr()
    assert run(["lock", "--check", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["changes"] == [
        "hub: no public key in corp yet; the first `meshctl apply` to it makes one",
        "web1: no public key in corp yet; the first `meshctl apply` to it makes one",
    ]
    (folder / "inventory.yml").write_text(GOOD.replace("web1", "web2"))
    assert run(["lock", "--check", "--offline"]) == 1
    assert "web1: not in the inventory any more\nweb2: new\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["validate", "schema", "lock"])
def test_help_has_examples_and_the_tables_first_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from meshctl.cli import COMMANDS

    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"meshctl {name}" in text.split("Examples:")[1]
    assert COMMANDS[name][1] in text


def test_validate_imports_nothing_that_is_slow_when_all_is_well(folder: Path) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    script = (
        "import sys; from meshctl.cli import run; run(['validate'])\n"
        "print([m for m in ('paramiko', 'jinja2', 'rich', 'jsonschema', 'netaddr', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
