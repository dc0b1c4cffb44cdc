"""What is wrong where a JSON Schema says no: errors of the plain jsonschema as findings that a person can act on.

Imported only then: jsonschema costs 64 ms to import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from meshctl.inventory.document import Document, Path
from meshctl.inventory.findings import Findings
from meshctl.inventory.sensitive import is_sensitive
from meshctl.inventory.suggest import did_you_mean, nearest
from meshctl.model.keys import REDACTED

# A value is as deep as this below what its loss makes unsound, at most (nodes → web1 → ssh → jump → 0, and some more).
_MAX_PASSES = 8
# One value's text in a message; a longer one is cut.
_SHOWN = 60
_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
# YAML 1.1's words for booleans, which people still write; here they are text (see yaml_source).
_OLD_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
# The code of a finding by the schema keyword that failed.
_CODES = {
    "type": "wrong-type",
    "enum": "bad-value",
    "const": "bad-value",
    "pattern": "bad-format",
    "minimum": "out-of-range",
    "maximum": "out-of-range",
    "exclusiveMinimum": "out-of-range",
    "uniqueItems": "duplicate-item",
    "minItems": "empty-list",
    "minProperties": "empty-mapping",
    "maxItems": "too-many-items",
    "maxProperties": "too-many-keys",
    "minLength": "bad-format",
}


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """`pattern` as JSON Schema means it (ECMA 262): there `$` is the end, and not also before a last line break."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


class Explainer:
    """Explains one document against one schema."""

    def __init__(self, schema: dict[str, Any], document: Document, findings: Findings) -> None:
        self._schema = schema
        self._document = document
        self._findings = findings
        self._mistyped: set[Path] = set()

    def run(self) -> None:
        """Report every error, then prune the document to what is sound, so that later checks still can run."""
        bad = self._report_all()
        for _ in range(_MAX_PASSES):
            if not bad or self._findings.full:
                return
            self._document.prune(bad)
            # What lost a required part is unsound as a whole; that is no news, so a second pass keeps quiet.
            bad = Explainer(self._schema, self._document, Findings(self._document))._report_all()

    def _report_all(self) -> set[Path]:
        """Report every error. Returns the paths to prune."""
        bad: set[Path] = set()
        for error in _Validator(self._schema).iter_errors(self._document.data):
            for leaf in _leaves(error):
                if self._findings.full:
                    return bad
                bad.update(path for path in self._report(leaf) if path)
        return bad

    def _report(self, error: ValidationError) -> list[Path]:
        """One error as findings. Returns the paths to prune."""
        path: Path = tuple(error.absolute_path)
        report = self._findings.error
        if error.validator in ("additionalProperties", "unevaluatedProperties"):
            return self._report_unknown_keys(error, path)
        if "propertyNames" in error.absolute_schema_path:
            name = str(error.instance)
            report("bad-name", (*path, name), f"`{_cut(name)}` is not a name", self._about(error), key=True)
            return [(*path, name)]
        if error.validator == "required":
            properties = _schema_of(error).get("properties", {})
            have: Any = error.instance
            for missing in _wanted(error):
                if missing not in have:
                    hint = _sentence(properties.get(missing, {}).get("description", ""))
                    report("missing-key", path, f"`{missing}` is missing{_inside(path)}", hint, key=True)
            return _unsound_item(path)
        words = _required_alternatives(error)
        if words:
            instance: Any = error.instance
            if not isinstance(instance, dict):
                return []  # its type is wrong, which is an error of its own
            given = [word for word in words if word in instance]
            listed = " or ".join(f"`{word}`" for word in words)
            report("missing-key", path, f"takes one of {listed}, not both" if given else f"needs {listed}", key=True)
            return _unsound_item(path)
        if error.validator == "type":
            if path in self._mistyped:  # said by a schema and again by the one that it builds on
                return []
            self._mistyped.add(path)
        message, hint = self._explain(error)
        report(_CODES.get(str(error.validator), "bad-value"), path, message, hint)
        return [path]

    def _report_unknown_keys(self, error: ValidationError, path: Path) -> list[Path]:
        known = self._known_keys(_schema_of(error))
        bad: list[Path] = []
        for key in _instance_keys(error):
            if key not in known and not self._findings.full:
                near = nearest(key, known)
                hint = f"did you mean `{near}`?" if near else f"allowed here: {', '.join(sorted(known))}"
                message = f"unknown key `{_cut(key)}`{_inside(path)}"
                self._findings.error("unknown-key", (*path, key), message, hint, key=True)
                bad.append((*path, key))
        return bad

    def _known_keys(self, schema: dict[str, Any]) -> set[str]:
        """The keys that a schema allows, through its references."""
        known = set(schema.get("properties", {}))
        for part in schema.get("allOf", ()):
            known |= self._known_keys(part)
        if "$ref" in schema:
            known |= self._known_keys(self._schema["$defs"][schema["$ref"].rsplit("/", 1)[1]])
        return known

    def _about(self, error: ValidationError) -> str:
        """The failing schema's own words, which editors show too."""
        return _sentence(_schema_of(error).get("description", ""))

    def _explain(self, error: ValidationError) -> tuple[str, str]:
        """(message, hint) for a value that is not what the schema wants."""
        value: Any = error.instance
        keyword, wanted = error.validator, _wanted(error)
        shown = REDACTED if is_sensitive(tuple(error.absolute_path), value) else _show(value)
        about = self._about(error)
        if keyword == "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return f"{shown} is not {_either(kinds)}", _type_hint(value, kinds) or about
        if keyword in ("anyOf", "oneOf"):
            kinds = _alternative_kinds(error)
            return f"{shown} is not {_either(kinds)}", _type_hint(value, kinds) or about
        if keyword in ("enum", "const"):
            allowed = wanted if keyword == "enum" else [wanted]
            texts = ["true" if w is True else "false" if w is False else str(w) for w in allowed]
            hint = did_you_mean(str(value), texts) if isinstance(value, str) else ""
            return f"{shown} is not one of: {', '.join(texts)}", hint or about
        if keyword in ("minimum", "maximum", "exclusiveMinimum"):
            return f"{shown} is out of range ({_LIMITS[keyword]} {wanted})", about
        if keyword == "uniqueItems":
            return f"{_show(_first_repeated(value))} is listed twice", "list it once"
        if keyword in ("minItems", "minProperties"):
            return f"must not be empty{_inside(tuple(error.absolute_path))}", about
        if keyword in ("maxItems", "maxProperties"):
            return f"has more than {wanted} entr{'y' if wanted == 1 else 'ies'}", about
        examples = _schema_of(error).get("examples", [])
        example = f"for example: {', '.join(map(str, examples[:3]))}" if examples else about
        return f"{shown} is not well-formed", example


def _unsound_item(path: Path) -> list[Path]:
    """What to prune when something is missing: policies and tests stay, so that the rest of them is judged too."""
    return [path] if len(path) > 1 and path[0] not in ("policies", "tests") else []


_LIMITS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}


def _leaves(error: ValidationError) -> list[ValidationError]:
    """The errors that say what to correct: of alternatives, those of the branch that the value was meant for."""
    if error.validator not in ("anyOf", "oneOf") or not error.context or _required_alternatives(error):
        return [error]
    branches: dict[int, list[ValidationError]] = {}
    for inner in error.context:
        branches.setdefault(int(inner.schema_path[0]), []).append(inner)
    # A branch that takes the value's type but not its content is the one that was meant.
    meant = [b for b in branches.values() if not any(e.validator in ("type", "const") and not e.path for e in b)]
    if not meant:
        return [error]
    return [leaf for inner in min(meant, key=len) for leaf in _leaves(inner)]


def _alternative_kinds(error: ValidationError) -> list[str]:
    """The types (and constants) that the alternatives would have taken."""
    kinds: list[str] = []
    for inner in error.context or ():
        if inner.validator in ("type", "const") and not inner.path:
            wanted = _wanted(inner)
            kinds.extend(k for k in (wanted if isinstance(wanted, list) else [str(wanted)]) if k not in kinds)
    return kinds


def _required_alternatives(error: ValidationError) -> list[str]:
    """`allow` and `deny` of `oneOf: [{required: [allow]}, {required: [deny]}]`; [] for anything else."""
    if error.validator not in ("anyOf", "oneOf"):
        return []
    return [b["required"][0] for b in _wanted(error) if isinstance(b, dict) and set(b) == {"required"}]


def _wanted(error: ValidationError) -> Any:
    """The schema keyword's value; jsonschema types it as maybe unset, which it never is after validation."""
    return error.validator_value


def _schema_of(error: ValidationError) -> dict[str, Any]:
    return error.schema if isinstance(error.schema, dict) else {}


def _instance_keys(error: ValidationError) -> list[str]:
    return list(error.instance) if isinstance(error.instance, dict) else []


def _inside(path: Path) -> str:
    if not path:
        return ""
    if path[0] in ("nodes", "groups", "networks") and len(path) > 1:
        rest = "".join(f".{p}" for p in path[2:] if isinstance(p, str))
        return f" in {path[0][:-1]} `{path[1]}`" + (f" ({rest[1:]})" if rest else "")
    if path[0] in ("policies", "tests") and len(path) > 1:
        return f" in {'policy' if path[0] == 'policies' else 'test'} {path[1] + 1}"
    return f" in `{path[0]}`"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"`{_cut(str(value))}`"


def _either(kinds: Iterable[str]) -> str:
    return " or ".join(_KINDS.get(kind, f"`{kind}`") for kind in kinds if kind != "null")


def _type_hint(value: Any, kinds: list[str]) -> str:
    if isinstance(value, str):
        if "boolean" in kinds and value.lower() in _OLD_BOOLEANS:
            return f"write {_OLD_BOOLEANS[value.lower()]}"
        if {"integer", "number"} & set(kinds) and value.strip().isdigit():
            return f"write {int(value)}" + ("" if value.startswith("0") else " without quotes")
    if kinds == ["string"] and isinstance(value, (int, float)):
        return "put it in quotes"
    if kinds == ["array"] and isinstance(value, str):
        return f"write [{value}]"
    return ""


def _sentence(text: str) -> str:
    return text.rstrip(".")


def _first_repeated(items: list[Any]) -> Any:
    seen: list[Any] = []
    for item in items:
        if item in seen:
            return item
        seen.append(item)
    return None
