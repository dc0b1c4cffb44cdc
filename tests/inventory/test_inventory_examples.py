"""The example inventories and the published schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from meshctl.inventory import read, schema_names
from meshctl.inventory.schema import load_schema

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ("demo", "small-office", "fleet")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_valid_without_a_warning(name: str) -> None:
    assert read(ROOT / "inventory" / name).warnings == ()


def test_every_example_folder_is_tested() -> None:
    assert sorted(EXAMPLES) == sorted(p.name for p in (ROOT / "inventory").iterdir() if p.is_dir() and p.name[0] != "_")


@pytest.mark.parametrize("file", sorted((ROOT / "inventory").glob("*/*.yml")), ids=str)
def test_every_example_file_tells_the_editor_its_schema(file: Path) -> None:
    if file.name.endswith(".lock.yml"):
        return
    modeline = file.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", modeline)
    assert found
    assert (file.parent / found[1]).resolve() == ROOT / "schemas" / "inventory.schema.json"


@pytest.mark.parametrize("name", schema_names())
def test_every_schema_is_valid_against_its_metaschema(name: str) -> None:
    Draft202012Validator.check_schema(load_schema(name))


def _undescribed(schema: Any, path: str) -> list[str]:
    found = []
    for key, value in schema.get("properties", {}).items():
        if "description" not in value and "$ref" not in value:
            found.append(f"{path}.{key}")
        found += _undescribed(value, f"{path}.{key}")
    for key, value in schema.get("$defs", {}).items():
        if "description" not in value:
            found.append(f"{path}#{key}")
        found += _undescribed(value, f"{path}#{key}")
    return found


@pytest.mark.parametrize("name", ["inventory", "lock", "validate"])
def test_every_key_has_a_description_for_the_editor(name: str) -> None:
    assert _undescribed(load_schema(name), name) == []


def _examples(schema: Any) -> list[tuple[Any, Any]]:
    if isinstance(schema, list):
        return [pair for item in schema for pair in _examples(item)]
    if not isinstance(schema, dict):
        return []
    found = [(schema, e) for e in schema.get("examples", []) if isinstance(schema.get("examples"), list)]
    return found + [pair for key, value in schema.items() if key != "examples" for pair in _examples(value)]


def test_the_examples_in_the_schema_fit_the_schema() -> None:
    schema = load_schema("inventory")
    for part, example in _examples(schema):
        assert Draft202012Validator({**part, "$defs": schema["$defs"]}).is_valid(example), json.dumps(example)


def _schema_keys(*names: str) -> set[str]:
    definitions = load_schema("inventory")["$defs"]
    return {key for name in names for key in definitions[name]["properties"]}


def _documented() -> set[str]:
    text = (ROOT / "docs" / "inventory.md").read_text()
    return {word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[a-z][a-z0-9_]*", code)}


def test_every_key_of_the_schema_is_in_the_documentation() -> None:
    keys = set(load_schema("inventory")["properties"]) | _schema_keys(
        "settings", "node", "network", "group", "policy", "test", "ssh", "lab_place"
    )
    assert keys - _documented() == set()


def test_every_node_setting_in_the_documentation_is_in_the_schema() -> None:
    text = (ROOT / "docs" / "inventory.md").read_text().split("## Node settings")[1].split("\n##")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    assert documented == _schema_keys("settings", "node")
