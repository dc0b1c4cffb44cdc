"""JSON Schema: a fast yes or no, and on no an explanation that a person can act on.

jsonschema-rs answers for 1,000 nodes in under a millisecond. Only when it says no (or cannot be imported) does the
plain jsonschema look again, and its errors are turned into findings with a place, the text and a suggestion.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from meshctl.data_files import data_folder, read_data
from meshctl.inventory.document import Document
from meshctl.inventory.findings import Findings

_SUFFIX = ".schema.json"


def schema_names() -> tuple[str, ...]:
    """The published schemas by name, sorted: inventory, lock, ..."""
    names = (entry.name for entry in data_folder("schemas").iterdir())
    return tuple(sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX)))


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema `name`; FileNotFoundError when there is none."""
    schema: dict[str, Any] = json.loads(read_data("schemas", f"{name}{_SUFFIX}"))
    return schema


@cache
def _fast_validator(name: str) -> Any:
    """The compiled schema, or None where the package has no build for the platform."""
    try:
        import jsonschema_rs
    except ImportError:
        return None
    return jsonschema_rs.validator_for(load_schema(name))


def check(document: Document, name: str, findings: Findings) -> None:
    """Report where `document` breaks the schema `name`, and prune it to what is sound."""
    fast = _fast_validator(name)
    if fast is not None and fast.is_valid(document.data):
        return
    from meshctl.inventory.explain import Explainer

    Explainer(load_schema(name), document, findings).run()
