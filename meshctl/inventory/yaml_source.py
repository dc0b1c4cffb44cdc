"""YAML text to a tree of nodes with positions, in bounded time and memory.

Plain scalars follow YAML 1.2's core schema, as editors do, not 1.1: `no`, `on`, `22:22`, `012` and `2026-12-31` are
text, so a node may be called `no`, and a key that is a number or a boolean is an error instead of a surprise.
"""

from __future__ import annotations

import io
import re
from typing import Any

import yaml

from meshctl.errors import Diagnostic

# The inventory's grammar is seven levels deep; free variables rarely need more than as many again. The C composer
# recurses on the C stack and dies of deeper documents (measured: a segmentation fault at 50,000 levels).
MAX_DEPTH = 64
# Values after alias expansion. A fleet of 10,000 nodes has about 250,000; each costs some 500 bytes as a tree.
MAX_VALUES = 500_000
# int() of more digits than this is slow, refused by Python itself from 4,300 on, and no inventory's number.
MAX_DIGITS = 40

_TAG = "tag:yaml.org,2002:"
STR, NULL, BOOL, INT, FLOAT, MERGE = (_TAG + t for t in ("str", "null", "bool", "int", "float", "merge"))
MAP, SEQ = _TAG + "map", _TAG + "seq"
INT_TEXT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
FLOAT_TEXT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
WORDS = {
    "": NULL,
    "~": NULL,
    "null": NULL,
    "Null": NULL,
    "NULL": NULL,
    "<<": MERGE,
    "true": BOOL,
    "True": BOOL,
    "TRUE": BOOL,
    "false": BOOL,
    "False": BOOL,
    "FALSE": BOOL,
}
# What the parser counts as the end of a line (YAML 1.1 section 5.4).
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# What git leaves in a file that it could not merge; no YAML line of an inventory starts so.
CONFLICT_MARKS = ("<<<<<<< ", "=======", ">>>>>>> ")
_NUMBER_STARTS = frozenset("+-.0123456789")


class Refused(Exception):  # noqa: N818 - it is an outcome that this package turns into a Diagnostic
    """A limit was hit; the rest of the file is not read."""

    def __init__(self, code: str, message: str, hint: str, parent: yaml.Node | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
        # Where the reading stopped, as near as it is known: the start of what holds the value that was too much.
        mark = parent.start_mark if parent is not None else None
        self.line, self.column = (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Composer(yaml.CSafeLoader):
    """The C parser with our scalar resolution and with limits; the two hooks run once for every node."""

    depth = 0
    values = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: ARG002
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise Refused("yaml-depth", message, "flatten the document", current_node)
        if self.values > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values"
            raise Refused("yaml-size", message, "split the mesh into several inventories", current_node)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            if not implicit[0]:
                return STR
            word = WORDS.get(value)
            if word is not None:
                return word
            if value[0] in _NUMBER_STARTS:
                if INT_TEXT.match(value):
                    return INT
                if FLOAT_TEXT.match(value):
                    return FLOAT
            return STR
        return SEQ if kind is yaml.SequenceNode else MAP


class _Named(io.BytesIO):
    """A stream with a name, which the parser copies into every position."""

    name = ""


def compose(name: str, text: bytes) -> tuple[yaml.Node | None, list[Diagnostic]]:
    """The node tree of one file (None when it cannot be had) and what is wrong with its text.

    `text` must be the file's bytes without a limit exceeded; `name` is what diagnostics call the file.
    """
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [_not_utf8(name, text, error.start)]
    if "\0" in decoded:
        return None, [_at_offset("yaml-syntax", name, decoded, decoded.index("\0"), "a NUL character", "remove it")]
    stream = _Named(decoded.encode())
    stream.name = name
    loader: _Composer | None = None
    try:
        loader = _Composer(stream)
        node = loader.get_single_node()
    except Refused as refused:
        return None, [Diagnostic(refused.code, refused.message, name, refused.line, refused.column, hint=refused.hint)]
    except yaml.reader.ReaderError as error:
        code = ord(error.character) if isinstance(error.character, str) else error.character
        message = f"character U+{code:04X} is not allowed"
        return None, [_at_offset("yaml-syntax", name, decoded, _reader_offset(decoded, error), message, "remove it")]
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_error(name, decoded, error)]
    finally:
        if loader is not None:
            loader.dispose()
    return node, []


def _not_utf8(name: str, text: bytes, offset: int) -> Diagnostic:
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Diagnostic("not-utf8", "the file is UTF-16, not UTF-8", name, 1, 1, hint="save it as UTF-8")
    before = text[:offset].decode()
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    return Diagnostic(
        "not-utf8", f"byte 0x{text[offset]:02x} is not UTF-8", name, line, column, hint="save the file as UTF-8"
    )


def _at_offset(code: str, name: str, text: str, offset: int, message: str, hint: str) -> Diagnostic:
    line = text.count("\n", 0, offset) + 1
    return Diagnostic(code, message, name, line, offset - (text.rfind("\n", 0, offset) + 1) + 1, hint=hint)


def _reader_offset(text: str, error: yaml.reader.ReaderError) -> int:
    """The parser counts bytes; positions count characters."""
    return len(text.encode()[: error.position].decode(errors="ignore"))


def _syntax_error(name: str, text: str, error: yaml.MarkedYAMLError) -> Diagnostic:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "not YAML"
    code, hint = "yaml-syntax", ""
    if "another document" in problem:
        code, problem, hint = (
            "yaml-documents",
            "a second document starts here",
            "keep one document a file: remove `---`",
        )
    elif "second occurrence" in problem:
        problem, hint = "this anchor is defined twice", "give each anchor (&name) a name of its own"
    elif "undefined alias" in problem:
        hint = "an alias (*name) needs its anchor (&name) earlier in the same file; quote a text that starts with *"
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    lines = LINE_BREAK.split(text)
    conflict = next((i for i, source in enumerate(lines, 1) if source.startswith(CONFLICT_MARKS)), 0)
    if conflict:
        message = "a merge conflict was left in the file"
        return Diagnostic(code, message, name, conflict, 1, text=lines[conflict - 1], hint="resolve it")
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in source[: len(source) - len(source.lstrip())] or "tab character" in problem:
        code, problem, hint = "yaml-tab", "a tab is used for indentation", "indent with spaces"
    elif problem == "mapping values are not allowed in this context":
        hint = "quote a text that holds `: `, or check the indentation"
    return Diagnostic(code, problem, name, line, column, text=source.strip(), hint=hint)
