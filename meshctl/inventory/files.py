"""Which files make the inventory, read with limits and merged into one document."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from meshctl.errors import Diagnostic, UsageError
from meshctl.inventory.document import Constructor, Document
from meshctl.inventory.yaml_source import MAP, NULL, SEQ, compose

# All files of an inventory together. A fleet of 10,000 nodes with every setting spelt out is about 2 MB; the parser
# needs some 30 bytes of memory for each byte, so four times that is still a modest process.
MAX_BYTES = 8 * 1024 * 1024
# What a folder's files may each add to; anything else at the top level may stand in one file only.
MERGED = frozenset({"defaults", "networks", "groups", "nodes", "services", "policies", "tests", "stun", "turn", "lab"})


Pair = tuple[yaml.Node, yaml.Node]  # key, value


def find_inventory(argument: str | None) -> Path:
    """The inventory's path: the argument, else $MESHCTL_INVENTORY, ./inventory.yml, ./inventory/.

    A path that was named is returned whether or not it exists (`read` explains). Raises UsageError when none was
    named and neither default is there.
    """
    named = argument or os.environ.get("MESHCTL_INVENTORY")
    if named:
        return Path(named)
    for default in (Path("inventory.yml"), Path("inventory")):
        if default.exists():
            return default
    raise UsageError(
        "no inventory: neither ./inventory.yml nor ./inventory/ exists",
        hint="name one: meshctl COMMAND PATH, -i PATH, or $MESHCTL_INVENTORY",
    )


def lock_path_of(path: Path) -> Path:
    """`inventory.lock.yml` beside the file or in the folder; another file's lock is named after it."""
    if path.is_dir():
        return path / "inventory.lock.yml"
    return path.with_name(f"{path.stem}.lock.yml")


def base_dir_of(path: Path) -> Path:
    """The folder in which the user's `roles/` and `templates/` stand."""
    return path if path.is_dir() else path.parent


def load_inventory(path: Path) -> tuple[Document, list[Diagnostic]]:
    """The merged document of a file or folder, and everything that is wrong with the text of its files."""
    files, findings = _list_files(path)
    roots: list[yaml.Node] = []
    budget = MAX_BYTES
    for file in files:
        text, problem = read_bounded(file, budget)
        if problem is not None:
            findings.append(problem)
            continue
        budget -= len(text)
        root, problems = compose(str(file), text)
        findings.extend(problems)
        if root is not None:
            roots.append(root)
    if findings:
        return Document(None, str(path)), findings
    constructor = Constructor()
    if len(roots) > 1:
        roots = [root for root in roots if _is_mapping(root, constructor)]
        document = constructor.document(_merge(roots), str(path))
    else:
        document = constructor.document(roots[0] if roots else None, str(files[0]))
    return document, constructor.findings


def load_document(path: Path) -> tuple[Document, list[Diagnostic]]:
    """One YAML file with the same limits: a lock, a role's tasks."""
    text, problem = read_bounded(path, MAX_BYTES)
    if problem is not None:
        return Document(None, str(path)), [problem]
    root, findings = compose(str(path), text)
    if findings:
        return Document(None, str(path)), findings
    constructor = Constructor()
    return constructor.document(root, str(path)), constructor.findings


def read_bounded(file: Path, limit: int) -> tuple[bytes, Diagnostic | None]:
    """At most `limit` bytes of a file, or why it cannot be read."""
    try:
        with file.open("rb") as stream:
            text = stream.read(limit + 1)
    except OSError as error:
        return b"", unreadable(file, error)
    if len(text) > limit:
        return b"", Diagnostic(
            "too-large",
            f"the inventory is larger than {MAX_BYTES // 1024 // 1024} MiB",
            str(file),
            hint="is this the right file? Split a mesh of that size into several inventories",
        )
    return text, None


def unreadable(file: Path, error: OSError) -> Diagnostic:
    """A Diagnostic for a file that the operating system does not give us."""
    reason = (error.strerror or str(error)).lower()
    hint = "check the path" if isinstance(error, FileNotFoundError) else "check the file's type and permissions"
    return Diagnostic("unreadable", f"cannot be read: {reason}", str(file), hint=hint)


def _list_files(path: Path) -> tuple[list[Path], list[Diagnostic]]:
    try:
        if not path.is_dir():
            return [path], []
        files = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix in (".yml", ".yaml") and not _is_other(entry.stem) and not entry.name.startswith(".")
        )
    except OSError as error:
        return [], [unreadable(path, error)]
    if not files:
        return [], [Diagnostic("empty", "the folder holds no .yml file", str(path), hint="add inventory.yml")]
    return files, []


def _is_other(stem: str) -> bool:
    """Files that stand beside an inventory without being part of it: locks and policy tests."""
    return stem.endswith((".lock", "_test"))


def _is_mapping(root: yaml.Node, constructor: Constructor) -> bool:
    if isinstance(root, yaml.MappingNode):
        return True
    constructor.document(root, root.start_mark.name)  # reports it
    return False


def _merge(roots: list[yaml.Node]) -> yaml.Node | None:
    """One tree of several: sections are joined, so that a key in two files is an ordinary duplicate key."""
    if not roots:
        return None
    pairs: dict[str, Pair] = {}
    rest: list[Pair] = []
    for root in roots:
        for key, value in root.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                rest.append((key, value))
                continue
            joined = _join(pairs[name][1], value, deep=name == "lab") if name in MERGED and name in pairs else None
            if joined is not None:
                pairs[name] = (pairs[name][0], joined)
            elif name in pairs and not _same_version(name, pairs[name][1], value):
                rest.append((key, value))  # the constructor reports it
            else:
                pairs.setdefault(name, (key, value))
    first = roots[0]
    return yaml.MappingNode(MAP, [*pairs.values(), *rest], first.start_mark, first.end_mark)


def _same_version(name: str, one: yaml.Node, other: yaml.Node) -> bool:
    return name == "version" and bool(one.value == other.value)


def _join(one: yaml.Node, other: yaml.Node, *, deep: bool = False) -> yaml.Node | None:
    """Both mappings' pairs or both lists' items; an empty section gives way; None for unlike kinds."""
    if other.tag == NULL:
        return one
    if one.tag == NULL:
        return other
    if isinstance(one, yaml.SequenceNode) and isinstance(other, yaml.SequenceNode):
        return yaml.SequenceNode(SEQ, [*one.value, *other.value], one.start_mark, one.end_mark)
    if isinstance(one, yaml.MappingNode) and isinstance(other, yaml.MappingNode):
        pairs = _join_routers([*one.value, *other.value]) if deep else [*one.value, *other.value]
        return yaml.MappingNode(MAP, pairs, one.start_mark, one.end_mark)
    return None


def _join_routers(pairs: list[Pair]) -> list[Pair]:
    """Join the `routers` mappings of two `lab:` blocks; other keys stay as they are."""
    routers = [pair for pair in pairs if pair[0].value == "routers"]
    joined = _join(routers[0][1], routers[1][1]) if len(routers) == 2 else None
    if joined is None:
        return pairs
    return [pair for pair in pairs if pair[0].value != "routers"] + [(routers[0][0], joined)]
