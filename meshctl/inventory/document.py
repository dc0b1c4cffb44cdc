"""Plain data that remembers where every value stands.

The tree of nodes is turned into data here and not by PyYAML's constructor: it is as fast, and duplicate keys, foreign
tags and alias bombs are refused on the way. Positions cost nothing until somebody asks: they are found by path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from meshctl.errors import Diagnostic
from meshctl.inventory.yaml_source import (
    BOOL,
    FLOAT,
    FLOAT_TEXT,
    INT,
    INT_TEXT,
    MAP,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_VALUES,
    MERGE,
    NULL,
    SEQ,
    STR,
    WORDS,
    Refused,
)
from meshctl.model.position import Position

Path = tuple[Any, ...]  # of str (mapping keys) and int (list indices)


@dataclass
class Document:
    """Plain data with positions. `data` is a mapping (empty when the file holds none).

    Mutable on purpose: `prune` takes refused values out so that the checks after it see only sound ones.
    """

    root: yaml.Node | None
    file: str
    data: dict[str, Any] = field(default_factory=dict)
    _index: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict)

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Where the value at `path` starts, or its key. A path that leads nowhere gives its nearest parent."""
        mark = self._mark(path, key=key)
        return Position(mark.name, mark.line + 1, mark.column + 1) if mark else Position(self.file, 1, 1)

    def text(self, path: Path, *, key: bool = False) -> str:
        """The scalar at `path` as it was written (its key with `key=True`); "" for anything but a scalar."""
        found = self._find(path)
        if found is None:
            return ""
        node = found[0] if key else found[1]
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

    def prune(self, paths: Iterable[Path]) -> None:
        """Remove the values at `paths` from data and tree alike, so that positions of the rest stay true."""
        by_parent: dict[Path, set[Any]] = {}
        for path in paths:
            by_parent.setdefault(path[:-1], set()).add(path[-1])
        # Deepest first, so that no index in a path that is still to come has moved.
        for parent, keys in sorted(by_parent.items(), key=lambda item: len(item[0]), reverse=True):
            found, data = self._find(parent), _get(self.data, parent)
            if found is None:
                continue
            node = found[1]
            if isinstance(data, dict):
                for key in keys:
                    data.pop(key, None)
                node.value = [pair for pair in node.value if not _is_named(pair[0], keys)]
            elif isinstance(data, list):
                data[:] = [value for index, value in enumerate(data) if index not in keys]
                node.value = [value for index, value in enumerate(node.value) if index not in keys]
            self._index.pop(id(node), None)

    def _mark(self, path: Path, *, key: bool) -> Any:
        for length in range(len(path), -1, -1):
            found = self._find(path[:length])
            if found is not None:
                return (found[0] if key and length == len(path) else found[1]).start_mark
        return None

    def _find(self, path: Path) -> tuple[yaml.Node, yaml.Node] | None:
        """(key node, value node); for the root and list items both are the value."""
        if self.root is None:
            return None
        here = (self.root, self.root)
        for part in path:
            node = here[1]
            if isinstance(node, yaml.MappingNode):
                found = self._pairs(node).get(str(part))
                if found is None:
                    return None
                here = found
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                here = (node.value[part], node.value[part])
            else:
                return None
        return here

    def _pairs(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        index = self._index.get(id(node))
        if index is None:
            index = {k.value: (k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode)}
            self._index[id(node)] = index
        return index


def _is_named(key: yaml.Node, names: set[Any]) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value in names  # a list as key has been refused and has no hash


def _get(data: Any, path: Path) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


class Constructor:
    """Node trees to plain data. One object a document: it counts what aliases expand to, and keeps the findings."""

    def __init__(self) -> None:
        self.findings: list[Diagnostic] = []
        self._values = 0
        self._seen: set[tuple[str, str, int, int]] = set()

    def document(self, root: yaml.Node | None, file: str) -> Document:
        """The document of a composed (and perhaps merged) tree. Findings are in `findings` afterwards."""
        document = Document(root, file)
        if root is None:
            self.findings.append(
                Diagnostic("empty", "the file is empty", file, 1, 1, hint="an inventory starts with `version: 1`")
            )
        elif not isinstance(root, yaml.MappingNode):
            self._report("not-a-mapping", root, "the top level is not a mapping", "start with `version: 1`")
        else:
            try:
                document.data = self._mapping(root, 0)
            except Refused as refused:
                self.findings.append(Diagnostic(refused.code, refused.message, file, 1, 1, hint=refused.hint))
        return document

    def _report(self, code: str, node: yaml.Node, message: str, hint: str) -> None:
        mark = node.start_mark
        key = (code, mark.name, mark.line, mark.column)
        if key not in self._seen:  # an alias brings the same node here again
            self._seen.add(key)
            text = node.value if isinstance(node, yaml.ScalarNode) else ""
            self.findings.append(
                Diagnostic(code, message, mark.name, mark.line + 1, mark.column + 1, text=text, hint=hint)
            )

    def _value(self, node: yaml.Node, depth: int) -> Any:
        tag = node.tag
        if tag == STR and isinstance(node, yaml.ScalarNode):
            self._values += 1
            return node.value
        if tag == MAP and isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        self._count(1)
        if tag == SEQ and isinstance(node, yaml.SequenceNode):
            self._check_depth(depth)
            return [self._value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._report("yaml-tag", node, f"the tag {tag} is not allowed", "write plain data, without a tag")
        return None

    def _count(self, more: int) -> None:
        self._values += more
        if self._values > MAX_VALUES:
            raise Refused(
                "yaml-size", f"more than {MAX_VALUES:,} values after aliases are expanded", "use fewer aliases (*name)"
            )

    @staticmethod
    def _check_depth(depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused("yaml-depth", f"nested more than {MAX_DEPTH} levels deep", "an alias may hold itself")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        self._check_depth(depth)
        data: dict[str, Any] = {}
        keys: dict[str, yaml.Node] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag != STR or not isinstance(key, yaml.ScalarNode):
                if key.tag == MERGE:
                    merged.append(value)
                else:
                    self._report("key-type", key, _describe_key(key), "quote it to make it a name")
                continue
            name = key.value
            if name in keys:
                first = keys[name].start_mark
                self._report(
                    "duplicate-key",
                    key,
                    f"`{name}` is given twice",
                    f"the first is at {first.name}:{first.line + 1}:{first.column + 1}; keep one",
                )
                continue
            keys[name] = key
            data[name] = self._value(value, depth + 1)
        self._count(len(keys) + 1)
        if merged:
            self._merge(node, keys, merged)
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag == STR and key.value not in data:
                    data[key.value] = self._value(value, depth + 1)
        return data

    def _merge(self, node: yaml.MappingNode, keys: dict[str, yaml.Node], merged: list[yaml.Node]) -> None:
        """`<<: *base` (YAML 1.1's merge key, which Ansible users expect): explicit keys win, then earlier maps."""
        pairs = [(k, v) for k, v in node.value if k.tag != MERGE]
        have = set(keys)
        for source in _sources(merged):
            if not isinstance(source, yaml.MappingNode):
                self._report(
                    "yaml-merge", source, "`<<` takes a mapping or a list of mappings", "name an anchor (*base)"
                )
                continue
            self._count(len(source.value))
            for key, value in source.value:
                if isinstance(key, yaml.ScalarNode) and key.tag == STR and key.value not in have:
                    have.add(key.value)
                    pairs.append((key, value))
        node.value = pairs

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if tag == NULL:
            return None
        if tag == BOOL and WORDS.get(text) == BOOL:
            return text.lower() == "true"
        if tag == INT and INT_TEXT.match(text):
            if len(text) > MAX_DIGITS:
                self._report("bad-number", node, f"a number of {len(text)} digits", "shorten it, or quote it as text")
                return 0
            return int(text)
        if tag == FLOAT and FLOAT_TEXT.match(text):
            number = math.nan if "n" in text.lower() else float(text)  # .inf, .nan; 1e999 overflows to inf
            if math.isfinite(number):
                return number
            self._report(
                "bad-number", node, f"`{text}` is not a finite number", "give a finite number, or quote it as text"
            )
            return 0.0
        if tag == MERGE:
            return text
        self._report("yaml-tag", node, f"the tag {tag} is not allowed here", "write plain data, without a tag")
        return None


def _sources(merged: list[yaml.Node]) -> Iterator[yaml.Node]:
    for node in merged:
        if isinstance(node, yaml.SequenceNode):
            yield from node.value
        else:
            yield node


def _describe_key(key: yaml.Node) -> str:
    if isinstance(key, yaml.ScalarNode):
        kind = {INT: "a number", FLOAT: "a number", BOOL: "a boolean", NULL: "empty"}.get(key.tag, "not a text")
        return f"the key `{key.value}` is {kind}, not a name"
    return "a key must be a name, not a list or a mapping"
