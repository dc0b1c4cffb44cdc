"""Jinja as roles see it: strict, sandboxed, and with errors that name template and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meshctl.errors import RenderError
from meshctl.inventory.suggest import nearest

# `{{ expression }}` and nothing else: its value keeps its type, as in Ansible.
WHOLE_EXPRESSION = re.compile(r"\s*\{\{((?:(?!\}\}).)*)\}\}\s*", re.DOTALL)
_UNDEFINED_NAME = re.compile(r"'([^']+)' is undefined")


class _Undefined(jinja2.StrictUndefined):
    """StrictUndefined that knows what the name could have been."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        message = super()._undefined_message
        obj, name = self._undefined_obj, self._undefined_name
        if obj is jinja2.utils.missing or not isinstance(name, str):
            return message
        known = obj.keys() if isinstance(obj, Mapping) else dir(obj)
        kind = type(obj).__name__.lstrip("_").lower()
        return f"`{kind}` has no `{name}`{did_you_mean(name, (k for k in known if isinstance(k, str)))}"


class _Environment(ImmutableSandboxedEnvironment):
    """With a template's globals as a plain dict: jinja copies them for every rendering, and its ChainMap slowly."""

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        return {**self.globals, **(d or {})}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of `known`, or nothing."""
    near = nearest(word, (name for name in known if not name.startswith("_")))
    return f"; did you mean `{near}`?" if near else ""


class Engine:
    """Templates of one role: its own `templates/` first, then the user's, then the packaged ones."""

    def __init__(self, folders: Iterable[tuple[str, Traversable]]) -> None:
        self._folders = tuple(folders)
        self._env = _Environment(
            undefined=_Undefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # the output is configuration, not HTML
            loader=jinja2.FunctionLoader(self._source),
        )
        self._files: set[str] = set()
        self._expressions: dict[str, Any] = {}
        self._texts: dict[str, jinja2.Template] = {}

    def template(self, name: str, context: Mapping[str, Any], *, node: str, where: str) -> str:
        """The template's text. `where` is the place that asks for it. Raises RenderError."""
        try:
            return self._env.get_template(name).render(context)
        except jinja2.TemplateNotFound as error:
            searched = ", ".join(label for label, _ in self._folders)
            message = f"there is no template `{error.name}`{did_you_mean(str(error.name), self._names())}"
            raise RenderError(message, where=_place(where, node), hint=f"searched {searched}") from None
        except Exception as error:
            raise self._explained(error, context, node, where) from None

    def text(self, source: str, context: Mapping[str, Any], *, node: str, where: str) -> str:
        """A string of a task with its `{{ }}` filled in."""
        if "{" not in source:
            return source
        try:
            if source not in self._texts:
                self._texts[source] = self._env.from_string(source)
            return self._texts[source].render(context)
        except Exception as error:
            raise self._explained(error, context, node, where) from None

    def expression(self, source: str, context: Mapping[str, Any], *, node: str, where: str) -> Any:
        """The value of an expression written without braces."""
        try:
            if source not in self._expressions:
                self._expressions[source] = self._env.compile_expression(source, undefined_to_none=False)
            value = self._expressions[source](context)
            if isinstance(value, jinja2.Undefined):
                str(value)  # raises, with the message
            return value
        except Exception as error:
            raise self._explained(error, context, node, where) from None

    def value(self, source: Any, context: Mapping[str, Any], *, node: str, where: str) -> Any:
        """A task's argument: `{{ x }}` alone gives x itself, other strings are filled in, the rest stays as it is."""
        if isinstance(source, list):
            return [self.value(item, context, node=node, where=where) for item in source]
        if not isinstance(source, str) or "{" not in source:
            return source
        whole = WHOLE_EXPRESSION.fullmatch(source)
        if whole:
            return self.expression(whole[1], context, node=node, where=where)
        return self.text(source, context, node=node, where=where)

    def _source(self, name: str) -> tuple[str, str, None] | None:
        if name.startswith("/") or ".." in name.split("/"):
            return None
        for label, folder in self._folders:
            candidate = folder.joinpath(*name.split("/"))
            if candidate.is_file():
                self._files.add(f"{label}/{name}")
                return _text(candidate.read_bytes(), f"{label}/{name}"), f"{label}/{name}", None
        return None

    def _names(self) -> set[str]:
        return {f.name for _, folder in self._folders if folder.is_dir() for f in folder.iterdir()}

    def _explained(self, error: Exception, context: Mapping[str, Any], node: str, where: str) -> RenderError:
        if isinstance(error, RenderError):
            return error
        if isinstance(error, jinja2.TemplateSyntaxError):
            place = f"{error.filename}:{error.lineno}" if error.filename in self._files else where
            return RenderError(f"{error.message}", where=_place(place, node), hint="correct the template's syntax")
        place = self._line(error) or where
        if isinstance(error, jinja2.UndefinedError):
            found = _UNDEFINED_NAME.fullmatch(str(error.message))
            if found:
                message = f"`{found[1]}` is undefined{did_you_mean(found[1], context)}"
                hint = "give it a value in the role's defaults/main.yml or in the node's vars"
                return RenderError(message, where=_place(place, node), hint=hint)
            return RenderError(str(error.message), where=_place(place, node), hint="docs/roles.md lists what there is")
        if isinstance(error, jinja2.exceptions.SecurityError):
            message = f"templates may not do this: {error}"
            return RenderError(message, where=_place(place, node), hint="use the variables of docs/roles.md")
        message = f"{type(error).__name__}: {error}"
        return RenderError(message, where=_place(place, node), hint="the template fails for this node's values")

    def _line(self, error: Exception) -> str:
        """`template:line` of the innermost template in the traceback."""
        place, frame = "", error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename in self._files:
                place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
            frame = frame.tb_next
        return place


def _text(raw: bytes, file: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        raise jinja2.TemplateSyntaxError(message, raw.count(b"\n", 0, error.start) + 1, filename=file) from None


def _place(where: str, node: str) -> str:
    return f"{where} (node {node})"


def user_folder(base_dir: str, name: str) -> Path:
    """The user's `roles` or `templates` folder beside the inventory; it need not exist."""
    return Path(base_dir) / name
