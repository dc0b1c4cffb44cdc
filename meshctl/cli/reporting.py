"""What a command answers, in the format that was asked for, on standard output and in files beside it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshctl.cli.common import COMMAND, OUTPUT, F, remember_output
from meshctl.errors import Diagnostic, MeshctlError, UsageError

# meshctl.reports and meshctl.inventory are imported on use: `--help` needs none of them.
if TYPE_CHECKING:
    from meshctl.reports import Report

# Under this name the context keeps the values of `--report`.
REPORTS = "meshctl.reports"


@dataclass(frozen=True)
class Answer:
    """One result in every form. `human` and `markdown` are texts with a line break at the end, `document` is for JSON.

    They are made when they are asked for. Without `markdown`, the report's own is taken.
    """

    human: Callable[[], str]
    document: Callable[[], object]
    report: Report
    markdown: Callable[[], str] | None = None

    def text(self, style: str) -> str:
        """The answer in one format."""
        if style == "human":
            return self.human()
        if style == "json":
            return json.dumps(self.document(), indent=2) + "\n"
        if style == "markdown" and self.markdown:
            return self.markdown()
        from meshctl.reports import write

        return write(self.report, style)


def report_options(*styles: str) -> Callable[[F], F]:
    """`-o FORMAT` (or `--format`) and `--report FORMAT=PATH`, which `deliver` obeys; nothing is passed.

    `styles` are those of meshctl.reports.FORMATS that the command offers.
    """

    def remember_reports(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
        targets = [_target(value, ("json", *styles), ctx, param) for value in values]
        files = [os.path.realpath(path) for _, path in targets]
        for (_, path), file in zip(targets, files, strict=True):
            if files.count(file) > 1:
                raise click.BadParameter(f"`{path}` is the file of two reports", ctx, param)
        ctx.meta[REPORTS] = targets

    def add(function: F) -> F:
        function = click.option(
            "--report", metavar="FORMAT=PATH", multiple=True, expose_value=False, callback=remember_reports,
            help="Also write the result to a file, in any format but human; repeatable.",
        )(function)  # fmt: skip
        return click.option(
            "-o", "--output", "--format", type=click.Choice(["human", "json", *styles]), default="human",
            show_default=True, expose_value=False, callback=remember_output, help="Result format on standard output.",
        )(function)  # fmt: skip

    return add


def _target(value: str, styles: tuple[str, ...], ctx: click.Context, param: click.Parameter) -> tuple[str, str]:
    style, _, path = value.partition("=")
    if style not in styles or not path:
        raise click.BadParameter(f"`{value}` is not FORMAT=PATH with one of {', '.join(styles)}", ctx, param)
    return style, path


def deliver(answer: Answer, ctx: click.Context | None = None) -> None:
    """Standard output, then the files of `--report`. Raises OSError, and UsageError before anything is written."""
    ctx = ctx or click.get_current_context()
    reports = ctx.meta.get(REPORTS, ())
    _refuse_inputs([path for _, path in reports], answer.report.inventory, ctx)
    _print(answer.text(ctx.meta[OUTPUT]), ctx.meta[OUTPUT])
    for style, path in reports:
        _write(answer.text(style), path)


def deliver_failure(error: MeshctlError, inventory: str) -> None:
    """Why there is nothing to report, where a comment was asked for: whoever reviews must not miss it.

    Words for people are for standard error, and JSON has no form for it.
    """
    from meshctl.reports.markdown import Entry, Section, comment

    ctx = click.get_current_context()
    why = Section("meshctl", "error", (Entry(str(error)),))
    command = ctx.meta[COMMAND]
    text = comment(command, inventory, f"**No {command} could be made.**", [why], f"meshctl {command} -i {inventory}")
    paths = [path for style, path in ctx.meta.get(REPORTS, ()) if style == "markdown"]
    _refuse_inputs(paths, inventory, ctx)
    if ctx.meta[OUTPUT] == "markdown":
        _print(text, "markdown")
    for path in paths:
        _write(text, path)


def _refuse_inputs(paths: Sequence[str], inventory: str, ctx: click.Context) -> None:
    """A report is no file of the inventory, nor one that would become a part of it."""
    named = [value for name in ("base", "head") if (value := ctx.params.get(name))]
    for path in paths:
        if any(_is_part(Path(path), Path(whole)) for whole in (inventory, *named) if Path(whole).exists()):
            raise UsageError("is a file of the inventory, not one for a report", where=path, hint="choose another")


def _is_part(path: Path, inventory: Path) -> bool:
    from meshctl.inventory.files import base_dir_of, lock_path_of

    target, whole, base = path.resolve(), inventory.resolve(), base_dir_of(inventory).resolve()
    if target in (whole, lock_path_of(inventory).resolve()):
        return True
    is_yaml = target.suffix in (".yml", ".yaml")
    if target.parent == base:
        return is_yaml and (inventory.is_dir() or target.stem.endswith("_test"))
    return any(target.is_relative_to(base / folder) for folder in ("roles", "templates"))


def _print(text: str, style: str) -> None:
    """Words as the terminal takes them; what machines read is UTF-8 whatever the locale is."""
    if style == "human":
        encoding = sys.stdout.encoding
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
    else:
        click.echo(text.encode(errors="backslashreplace"), nl=False)


def _write(text: str, path: str) -> None:
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode(errors="backslashreplace"))
    except OSError as error:  # a full disk has no name
        raise OSError(error.errno, error.strerror, error.filename or path) from error


def deliver_findings(ctx: click.Context, findings: tuple[Diagnostic, ...]) -> None:
    """What makes the inventory invalid, in the formats that were asked for; words are for standard error."""
    from meshctl.inventory.report import to_json
    from meshctl.reports import Report, case_of

    report = Report(ctx.meta[COMMAND], findings[0].file, findings, tuple(map(case_of, findings)))
    deliver(Answer(lambda: "", lambda: to_json(findings), report), ctx)
