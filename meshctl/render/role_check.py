"""A role's YAML against schemas/role.schema.json, with findings that say what to write instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema_rs

from meshctl.data_files import read_data
from meshctl.errors import Diagnostic
from meshctl.inventory.document import Document
from meshctl.render.engine import did_you_mean

_KINDS = {
    "string": "text", "object": "a mapping", "array": "a list", "boolean": "true or false", "integer": "a whole number",
}


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(read_data("schemas", "role.schema.json"))
    return schema


@lru_cache(maxsize=1)
def _fast() -> Any:
    return jsonschema_rs.validator_for(_schema())


def check(document: Document, part: str, modules: tuple[str, ...]) -> list[Diagnostic]:
    """Every finding in one file of a role; `document` has the file's content under the key `part`."""
    if _fast().is_valid(document.data):
        return []
    findings: list[Diagnostic] = []
    spoilt: set[int] = set()
    if part == "tasks" and isinstance(document.data[part], list):
        for index, task in enumerate(document.data[part]):
            if isinstance(task, dict) and sum(m in task for m in modules) != 1:
                findings.append(_one_module(document, index, task, modules))
                spoilt.add(index)
    findings.extend(_explained(document, part, spoilt))
    return findings


def _one_module(document: Document, index: int, task: dict[str, Any], modules: tuple[str, ...]) -> Diagnostic:
    listed = ", ".join(modules)
    known = set(_schema()["$defs"]["task"]["properties"])
    strange = [key for key in task if key not in known]
    if strange and not any(m in task for m in modules):
        at = document.position(("tasks", index, strange[0]), key=True)
        message = f"unknown module `{strange[0]}`{did_you_mean(strange[0], modules)}"
        place = (at.file, at.line, at.column, f"tasks.{index}")
        return Diagnostic("unknown-module", message, *place, f"the modules are {listed}", strange[0])
    at = document.position(("tasks", index))
    used = [m for m in modules if m in task]
    message = f"a task has one module, not {len(used)} ({', '.join(used)})" if used else "this task has no module"
    return Diagnostic(
        "one-module", message, at.file, at.line, at.column, f"tasks.{index}", f"use exactly one of {listed}"
    )


def _explained(document: Document, part: str, spoilt: set[int]) -> Iterator[Diagnostic]:
    import jsonschema  # 64 ms, for errors only

    for error in jsonschema.Draft202012Validator(_schema()).iter_errors(document.data):
        path = tuple(error.absolute_path)
        if part == "tasks" and len(path) == 2 and path[1] in spoilt:
            continue
        yield from _finding(document, path, error)


def _finding(document: Document, path: tuple[Any, ...], error: Any) -> Iterator[Diagnostic]:
    dotted = ".".join(str(p) for p in path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema["properties"]
        for key in error.instance:
            if key not in known:
                at = document.position((*path, key), key=True)
                message = f"unknown key `{key}`{did_you_mean(key, known)}"
                hint = f"known here: {', '.join(known)}"
                yield Diagnostic("unknown-key", message, at.file, at.line, at.column, f"{dotted}.{key}", hint, key)
        return
    at = document.position(path)
    text = document.text(path)
    yield Diagnostic("role-schema", _message(error), at.file, at.line, at.column, dotted, _hint(error), text)


def _message(error: Any) -> str:
    name = str(error.absolute_path[-1]) if error.absolute_path else "the file"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"`{name}` lacks {', '.join(f'`{key}`' for key in missing)}"
    if error.validator == "type":
        kinds: list[str] = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return f"`{name}` must be {' or '.join(_KINDS.get(k, k) for k in kinds)}"
    if error.validator == "enum":
        near = did_you_mean(str(error.instance), [str(v) for v in error.validator_value])
        return f"`{error.instance}` is not a value of `{name}`{near}"
    return f"`{name}` does not take `{error.instance}`"


def _hint(error: Any) -> str:
    if error.validator == "enum":
        return f"one of {', '.join(str(v) for v in error.validator_value)}"
    described = error.schema.get("description") if isinstance(error.schema, dict) else None
    return str(described or "docs/roles.md lists the arguments")
