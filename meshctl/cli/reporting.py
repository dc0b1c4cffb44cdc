"""What a command answers, in the format that was asked for, on standard output and in files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshctl.cli.common import COMMAND, OUTPUT, F, remember_output
from meshctl.errors import Diagnostic

# meshctl.reports is imported on use: `--help` needs none of it.
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
        ctx.meta[REPORTS] = [_target(value, ("json", *styles), ctx, param) for value in values]

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
    """Standard output, then the files of `--report`. Raises OSError."""
    meta = (ctx or click.get_current_context()).meta
    click.echo(answer.text(meta[OUTPUT]), nl=False)
    for style, path in meta.get(REPORTS, ()):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(answer.text(style), encoding="utf-8")


def deliver_findings(ctx: click.Context, findings: tuple[Diagnostic, ...]) -> None:
    """What makes the inventory invalid, in the formats that were asked for; words are for standard error."""
    from meshctl.inventory.report import to_json
    from meshctl.reports import Report, case_of

    report = Report(ctx.meta[COMMAND], findings[0].file, findings, tuple(map(case_of, findings)))
    deliver(Answer(lambda: "", lambda: to_json(findings), report), ctx)
