"""`*_test.yml`: files of policy tests that stand beside an inventory's file, or in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshctl.errors import Diagnostic, InventoryError
from meshctl.inventory import Inventory
from meshctl.inventory.document import Document
from meshctl.inventory.explain import Explainer
from meshctl.inventory.files import base_dir_of, load_document, load_inventory, unreadable
from meshctl.inventory.findings import Findings
from meshctl.inventory.names import Names
from meshctl.inventory.nodes import known_roles
from meshctl.inventory.policies import read_tests
from meshctl.inventory.rules_policies import check_test
from meshctl.inventory.schema import load_schema
from meshctl.inventory.selectors import Scope
from meshctl.model.policy import PolicyTest


def read_assertions(inventory: Inventory) -> tuple[PolicyTest, ...]:
    """The tests of the inventory, then those of each test file by name. Raises InventoryError with every finding."""
    files = _files(base_dir_of(inventory.path))
    if not files:
        return inventory.mesh.tests
    services = load_inventory(inventory.path)[0].data
    scope = _scope(inventory)
    tests = list(inventory.mesh.tests)
    found: list[Diagnostic] = []
    for file in files:
        document, problems = load_document(file)
        findings = Findings(document)
        findings.add(problems)
        if not findings.errors:
            tests.extend(_read(document, scope, findings, services))
        found.extend(findings.sorted())
    if any(d.severity == "error" for d in found):
        raise InventoryError(tuple(found))
    return tuple(tests)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(
            entry for entry in folder.iterdir()
            if entry.suffix in (".yml", ".yaml") and entry.stem.endswith("_test") and not entry.name.startswith(".")
        )  # fmt: skip
    except OSError as error:
        raise InventoryError((unreadable(folder, error),)) from error


def _read(
    document: Document, scope: Scope, findings: Findings, services: dict[str, Any]
) -> tuple[PolicyTest, ...]:
    Explainer(_schema(), document, findings).run()
    tests = read_tests(document.data, scope, findings, services)
    if not findings.errors:
        for index, test in enumerate(tests):
            check_test(test, ("tests", index), findings)
    return tests


def _schema() -> dict[str, Any]:
    """A test file has the inventory's `tests:` and nothing else but its version."""
    whole = load_schema("inventory")
    return {
        "$schema": whole["$schema"],
        "type": "object",
        "required": ["tests"],
        "additionalProperties": False,
        "properties": {key: whole["properties"][key] for key in ("version", "tests")},
        "$defs": whole["$defs"],
    }


def _scope(inventory: Inventory) -> Scope:
    mesh = inventory.mesh
    members = {n: frozenset(node.name for node in mesh.nodes.values() if node.attachment(n)) for n in mesh.networks}
    names = Names(frozenset(mesh.nodes), frozenset(mesh.groups), frozenset(mesh.networks))
    return Scope(mesh.nodes, mesh.groups, members, names, known_roles(mesh.base_dir))
