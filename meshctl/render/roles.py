"""Roles from their folders: read, checked, and put into order with their dependencies.

A role of the user (`roles/NAME` beside the inventory) takes the place of the packaged one as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from meshctl.data_files import data_folder
from meshctl.errors import Diagnostic, InventoryError
from meshctl.inventory.document import Constructor, Document
from meshctl.inventory.yaml_source import MAP, STR, compose
from meshctl.render.engine import Engine, did_you_mean, user_folder
from meshctl.render.role_check import check

MODULES = ("package", "template", "copy", "file", "sysctl", "service", "wireguard", "nftables")


@dataclass(frozen=True)
class Task:
    """One entry of tasks/main.yml, unevaluated. `where` is file:line."""

    name: str
    module: str
    args: Mapping[str, Any]
    where: str
    when: tuple[str | bool, ...] = ()
    loop: list[Any] | str | None = None
    notify: tuple[str, ...] = ()
    no_log: bool = False


@dataclass(frozen=True)
class HandlerTask:
    """One entry of handlers/main.yml: a unit to restart or reload, unevaluated."""

    name: str
    service: str
    action: str
    where: str


@dataclass(frozen=True)
class Role:
    """A role as read. `label` is what messages call its folder."""

    name: str
    label: str
    folder: Traversable
    tasks: tuple[Task, ...]
    handlers: tuple[HandlerTask, ...]
    defaults: Mapping[str, Any]
    dependencies: tuple[str, ...]
    engine: Engine


class RoleLibrary:
    """Finds, reads and caches roles for one inventory (`base_dir` is its folder)."""

    def __init__(self, base_dir: str) -> None:
        self._user_roles = user_folder(base_dir, "roles")
        self._user_templates = user_folder(base_dir, "templates")
        self._packaged_roles = data_folder("roles")
        self._packaged_templates = data_folder("templates")
        self._roles: dict[str, Role] = {}

    def resolve(self, names: Iterable[str]) -> tuple[Role, ...]:
        """The roles in order, each after its dependencies and once. Raises InventoryError with all findings."""
        order: dict[str, Role] = {}
        findings: list[Diagnostic] = []
        for name in names:
            self._visit(name, (), order, findings)
        if findings:
            raise InventoryError(tuple(dict.fromkeys(findings)))
        return tuple(order.values())

    def names(self) -> tuple[str, ...]:
        """Every role that can be named, packaged and the user's."""
        folders = [f for f in (self._packaged_roles, self._user_roles) if f.is_dir()]
        found = {d.name for folder in folders for d in folder.iterdir() if d.is_dir() and not d.name.startswith("_")}
        return tuple(sorted(found))

    def _visit(self, name: str, above: tuple[str, ...], order: dict[str, Role], findings: list[Diagnostic]) -> None:
        if name in order:
            return
        if name in above:
            path = " -> ".join((*above[above.index(name):], name))
            findings.append(Diagnostic("role-cycle", f"roles depend on each other: {path}", hint="break the cycle"))
            return
        try:
            role = self.role(name)
        except InventoryError as error:
            findings.extend(error.diagnostics)
            return
        for dependency in role.dependencies:
            self._visit(dependency, (*above, name), order, findings)
        order[name] = role

    def role(self, name: str) -> Role:
        """One role, read once. Raises InventoryError with every finding in its files."""
        if name not in self._roles:
            self._roles[name] = self._read(name)
        return self._roles[name]

    def _read(self, name: str) -> Role:
        label, folder = f"{self._user_roles}/{name}", self._user_roles / name
        found: Traversable = folder
        if not folder.is_dir():
            label, found = f"roles/{name}", self._packaged_roles.joinpath(name)
        if name not in self.names() or not found.is_dir():
            hint = f"there are {', '.join(self.names())}{did_you_mean(name, self.names())}"
            raise InventoryError((Diagnostic("unknown-role", f"there is no role `{name}`", hint=hint),))
        findings: list[Diagnostic] = []
        tasks = _read_part(found, label, "tasks", findings)
        handlers = _read_part(found, label, "handlers", findings)
        meta = _read_part(found, label, "meta", findings)
        defaults = _read_part(found, label, "defaults", findings)
        if not findings:
            _check_notify(tasks, handlers, findings)
        if findings:
            raise InventoryError(tuple(findings))
        return Role(
            name=name,
            label=label,
            folder=found,
            tasks=tuple(_task(tasks, i) for i in range(len(tasks.data["tasks"]))),
            handlers=tuple(_handler(handlers, i) for i in range(len(handlers.data["handlers"]))),
            defaults=defaults.data["defaults"],
            dependencies=tuple(
                d if isinstance(d, str) else d["role"] for d in meta.data["meta"].get("dependencies") or ()
            ),
            engine=Engine(
                (
                    (f"{label}/templates", found.joinpath("templates")),
                    (str(self._user_templates), self._user_templates),
                    ("templates", self._packaged_templates),
                )
            ),
        )


def _read_part(folder: Traversable, label: str, part: str, findings: list[Diagnostic]) -> Document:
    """`PART/main.yml` as a document of one key, `part`; an absent or empty file is an empty list or mapping."""
    file = f"{label}/{part}/main.yml"
    empty: Any = [] if part in ("tasks", "handlers") else {}
    path = folder.joinpath(part, "main.yml")
    if not path.is_file():
        return Document(None, file, {part: empty})
    root, problems = compose(file, path.read_bytes())
    findings.extend(problems)
    if root is None:
        return Document(None, file, {part: empty})
    # The reader takes mappings at the top, as the inventory is one; a role's files hold lists as well.
    key = yaml.ScalarNode(STR, part, root.start_mark, root.start_mark)
    constructor = Constructor()
    document = constructor.document(yaml.MappingNode(MAP, [(key, root)], root.start_mark, root.end_mark), file)
    findings.extend(constructor.findings)
    if document.data.get(part) is None:
        document.data[part] = empty
    elif not constructor.findings:
        findings.extend(check(document, part, MODULES))
    return document


def _check_notify(tasks: Document, handlers: Document, findings: list[Diagnostic]) -> None:
    known = [h["name"] for h in handlers.data["handlers"]]
    for index, task in enumerate(tasks.data["tasks"]):
        for name in _names(task.get("notify", ())):
            if name not in known:
                at = tasks.position(("tasks", index, "notify"))
                message = f"there is no handler `{name}`{did_you_mean(name, known)}"
                place = (at.file, at.line, at.column, f"tasks.{index}.notify")
                hint = "define it in the role's handlers/main.yml"
                findings.append(Diagnostic("unknown-handler", message, *place, hint, name))


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _task(document: Document, index: int) -> Task:
    raw = document.data["tasks"][index]
    module = next(m for m in MODULES if m in raw)
    at = document.position(("tasks", index))
    when = raw.get("when", ())
    return Task(
        name=raw.get("name", module),
        module=module,
        args=raw[module],
        where=f"{at.file}:{at.line}",
        when=tuple(when) if isinstance(when, (list, tuple)) else (when,),
        loop=raw.get("loop"),
        notify=_names(raw.get("notify", ())),
        no_log=raw.get("no_log", False),
    )


def _handler(document: Document, index: int) -> HandlerTask:
    raw = document.data["handlers"][index]
    at = document.position(("handlers", index))
    return HandlerTask(raw["name"], raw["service"]["name"], raw["service"]["state"], f"{at.file}:{at.line}")
