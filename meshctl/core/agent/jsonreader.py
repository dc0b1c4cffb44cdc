"""Reading a JSON document of ours: every finding of a whole document at once, each with its place in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from meshctl.errors import Diagnostic

# Reads one value at a place; raises ValueError for what is wrong with it. Nested objects report their own findings.
Parser = Callable[["Reader", Any, str], Any]


class Field(NamedTuple):
    """How a member of an object is read; `required` when there is no default."""

    parse: Parser
    default: Any = None
    required: bool = False


class Bad:
    """Stands for a value about which a finding was made."""


BAD = Bad()


class Reader:
    """Collects what is wrong. Secrets are never quoted: a finding says what was expected, not what stood there."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.findings: list[Diagnostic] = []

    def wrong(self, path: str, message: str, code: str = "document-value", hint: str = "") -> Bad:
        """Note a finding at the dotted `path`."""
        place = f"{path}: {message}" if path else message
        self.findings.append(Diagnostic(code, place, file=self._file, path=path, hint=hint))
        return BAD

    def value(self, parse: Parser, value: Any, path: str) -> Any:
        """What `parse` makes of it, or BAD with the finding noted."""
        try:
            return parse(self, value, path)
        except ValueError as error:
            return self.wrong(path, str(error))

    def members(self, value: Any, path: str, fields: Mapping[str, Field]) -> dict[str, Any] | None:
        """An object's members by name, defaults filled in; None when anything in it is wrong."""
        if not isinstance(value, dict):
            self.wrong(path, "an object is expected")
            return None
        good = True
        for name in [name for name in value if name not in fields]:
            near = get_close_matches(name, fields, 1)
            hint = f"did you mean `{near[0]}`?" if near else ""
            self.wrong(path, f"unknown member `{name}`", "document-unknown", hint)
            good = False
        found = {}
        for name, field in fields.items():
            if name in value:
                found[name] = self.value(field.parse, value[name], f"{path}.{name}" if path else name)
                good = good and found[name] is not BAD
            elif field.required:
                self.wrong(path, f"`{name}` is missing", "document-missing")
                good = False
            else:
                found[name] = field.default
        return found if good else None


def text(_reader: Reader, value: Any, _path: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text is expected")
    return value


def flag(_reader: Reader, value: Any, _path: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


def number(lowest: int, highest: int) -> Parser:
    """A whole number within these."""

    def parse(_reader: Reader, value: Any, _path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest} is expected")
        return value

    return parse


def one_of(*allowed: str) -> Parser:
    """One of these texts."""

    def parse(_reader: Reader, value: Any, _path: str) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(map(repr, allowed))} is expected")
        return str(value)

    return parse


def listed(parse: Parser, least: int = 0) -> Parser:
    """A list of such values, as a tuple; each is read, whatever the others are."""

    def parse_all(reader: Reader, value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) < least:
            raise ValueError(f"a list{f' of {least} or more' if least else ''} is expected")
        found = tuple(reader.value(parse, each, f"{path}[{i}]") for i, each in enumerate(value))
        return BAD if BAD in found else found

    return parse_all
