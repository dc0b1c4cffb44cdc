"""A role's tasks, evaluated for one node: each becomes typed resources, or an error with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshctl.errors import RenderError
from meshctl.model.resources import File, Nftables, Package, Resource, Service, Sysctl
from meshctl.render.engine import did_you_mean
from meshctl.render.roles import Role, Task

# Makes the WireGuard resource of an interface; the renderer knows how.
WireGuardMaker = Callable[[str, tuple[str, ...], str], Resource]


class Evaluator:
    """Runs one role's tasks for one node. `context` is what its templates see."""

    def __init__(self, role: Role, context: Mapping[str, Any], node: str, wireguard: WireGuardMaker) -> None:
        self._role = role
        self._context = context
        self._node = node
        self._wireguard = wireguard

    def resources(self, *, files_only: bool = False) -> Iterator[Resource]:
        """The resources of all tasks that apply, in order; with `files_only`, of `template` and `copy` tasks alone.

        Raises RenderError.
        """
        for task in self._role.tasks:
            if files_only and task.module not in ("template", "copy"):
                continue
            for context in self._rounds(task):
                if self._applies(task, context):
                    yield self._resource(task, context)

    def _rounds(self, task: Task) -> list[Mapping[str, Any]]:
        if task.loop is None:
            return [self._context]
        items = self._role.engine.value(task.loop, self._context, node=self._node, where=task.where)
        if not isinstance(items, (list, tuple)):
            raise self._error(task, "`loop` does not give a list", "loop over a list, such as `{{ interfaces }}`")
        return [{**self._context, "item": item} for item in items]

    def _applies(self, task: Task, context: Mapping[str, Any]) -> bool:
        for condition in task.when:
            if isinstance(condition, str):
                condition = self._role.engine.expression(condition, context, node=self._node, where=task.where)
            if not condition:
                return False
        return True

    def _resource(self, task: Task, context: Mapping[str, Any]) -> Resource:
        engine, where = self._role.engine, task.where
        args = {key: self._argument(key, value, context, where) for key, value in task.args.items()}
        for key, value in args.items():
            if value is None:
                raise self._error(task, f"`{key}` is empty", "give it a value")
        if task.module == "package":
            return Package(self._texts(task, args["name"]), args.get("state", "present"), task.notify)
        if task.module == "template":
            text = engine.template(str(args["src"]), context, node=self._node, where=where)
            return self._file(task, args, text.encode())
        if task.module == "copy":
            return self._file(task, args, self._copied(task, args))
        if task.module == "file":
            return self._path(task, args)
        if task.module == "sysctl":
            return Sysctl(str(args["name"]), str(args["value"]), task.notify)
        if task.module == "service":
            return self._service(task, args)
        if task.module == "wireguard":
            return self._wireguard(str(args["interface"]), task.notify, where)
        return self._nftables(task, args, context)

    def _argument(self, key: str, value: Any, context: Mapping[str, Any], where: str) -> Any:
        """A file's content is text, to the last newline; any other argument of one expression keeps its type."""
        engine = self._role.engine
        if key == "content" and isinstance(value, str):
            return engine.text(value, context, node=self._node, where=where)
        return engine.value(value, context, node=self._node, where=where)

    def _file(self, task: Task, args: Mapping[str, Any], content: bytes) -> File:
        return File(
            path=self._absolute(task, str(args["dest"])),
            content=content,
            mode=str(args.get("mode", "0644")),
            owner=str(args.get("owner", "root")),
            group=str(args.get("group", "root")),
            sensitive=task.no_log,
            notify=task.notify,
        )

    def _copied(self, task: Task, args: Mapping[str, Any]) -> bytes:
        if "content" in args:
            return str(args["content"]).encode()
        name = str(args["src"])
        folder = self._role.folder.joinpath("files")
        source = folder.joinpath(*name.split("/"))
        if name.startswith("/") or ".." in name.split("/") or not source.is_file():
            known = [f.name for f in folder.iterdir()] if folder.is_dir() else []
            message = f"there is no file `{name}` in {self._role.label}/files{did_you_mean(name, known)}"
            raise self._error(task, message, "put it there, or give `content:`")
        return source.read_bytes()

    def _path(self, task: Task, args: Mapping[str, Any]) -> File:
        state = str(args["state"])
        return File(
            path=self._absolute(task, str(args["path"])),
            state=state,
            mode=str(args.get("mode", "0755" if state == "directory" else "0644")),
            owner=str(args.get("owner", "root")),
            group=str(args.get("group", "root")),
            target=str(args.get("src", "")),
            notify=task.notify,
        )

    def _service(self, task: Task, args: Mapping[str, Any]) -> Service:
        enabled = args.get("enabled")
        if enabled is not None and not isinstance(enabled, bool):
            raise self._error(task, f"`enabled` is `{enabled}`", "give true or false")
        return Service(
            name=str(args["name"]),
            state=args.get("state"),
            enabled=enabled,
            satisfied_by_interface=str(args.get("satisfied_by_interface", "")),
            notify=task.notify,
            cleanup=tuple(map(str, args.get("cleanup", ()))),
        )

    def _nftables(self, task: Task, args: Mapping[str, Any], context: Mapping[str, Any]) -> Nftables:
        family, table = str(args.get("family", "inet")), str(args["table"])
        if args.get("state") == "runtime":
            return Nftables(family, table, None, task.notify)
        text = self._role.engine.template(str(args["src"]), context, node=self._node, where=task.where)
        if not text.startswith(f"table {family} {table} {{"):
            hint = f"its text must be one block, from `table {family} {table} {{` to the closing brace"
            raise self._error(task, f"the template `{args['src']}` does not give the table {family} {table}", hint)
        return Nftables(family, table, text, task.notify)

    def _texts(self, task: Task, value: Any) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if not names or not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
            raise self._error(task, f"`name` is `{value}`", "give a name or a list of names")
        return tuple(names)

    def _absolute(self, task: Task, path: str) -> str:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise self._error(task, f"`{path}` is not an absolute path", "start it with / and leave out `..`")
        return path

    def _error(self, task: Task, message: str, hint: str) -> RenderError:
        return RenderError(f"task `{task.name}`: {message}", where=f"{task.where} (node {self._node})", hint=hint)
