"""`-o json` of the commands about policies when there is no answer: an invalid inventory, wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from meshctl.cli import run
from meshctl.inventory import load_schema

COMMANDS = {
    "test": ["test", "-i", "inventory.yml"],
    "lint": ["lint", "-i", "inventory.yml"],
    "explain": ["policy", "explain", "a", "b", "tcp/22", "-i", "inventory.yml"],
    "policy-diff": ["policy", "diff", "inventory.yml", "inventory.yml"],
}
GOOD = 'version: 1\nnetworks: {corp: {cidr: 10.42.0.0/16}}\nnodes: {a: {endpoint: "203.0.113.1:51820"}, b: {}}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_the_answer_fits_the_commands_schema_whether_the_inventory_is_valid_or_not(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validator = Draft202012Validator(load_schema(name))
    for text, code in ((GOOD, 0), (GOOD + "policys: []\n", 65)):
        (folder / "inventory.yml").write_text(text)
        assert run([*COMMANDS[name], "-o", "json"]) == code
        document = json.loads(capsys.readouterr().out)
        validator.validate(document)
        assert Draft202012Validator(load_schema("validate")).is_valid(document) is (code == 65)
    assert not validator.is_valid({**document, "valid": True})
    assert not validator.is_valid({})


@pytest.mark.parametrize("name", COMMANDS)
def test_findings_have_the_shape_that_validate_gives_them(name: str) -> None:
    """The copy in each schema, which so stands by itself in an editor or a pipeline."""
    theirs, ours = load_schema("validate"), load_schema(name)["$defs"]
    assert ours["finding"] == theirs["$defs"]["finding"]
    assert ours["invalid"]["required"] == theirs["required"]
    assert set(ours["invalid"]["properties"]) == set(theirs["properties"])


WRONG = [
    *(f"{' '.join(words)} one-more -i twice.yml" for words in (["validate"], ["plan"], *COMMANDS.values())),
    "plan --lab x --local", "policy explain nobody b tcp/22", "policy explain a b 22", "policy diff no-such-revision",
]  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage_is_told_on_standard_error_alone_by_every_command(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(GOOD)
    assert run([*words.split(), "-o", "json"]) == 64
    out, err = capsys.readouterr()
    assert (out, err != "") == ("", True)
