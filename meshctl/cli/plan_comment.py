"""A plan as a comment on a pull request: one line for all, a section to open for each host."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import click

from meshctl.cli.show import NO_CHANGES, diff_text, error_text, fields, summary
from meshctl.reports.markdown import Entry, Section, comment, counted

if TYPE_CHECKING:
    from meshctl.core.change import Change
    from meshctl.deploy.outcome import PlanOutcome
    from meshctl.errors import RemoteError

# Signs that a Markdown `diff` block colours, in the first column.
_SIGNS = {"create": "+", "update": "!", "delete": "-", "run": "#"}


def plan_markdown(outcome: PlanOutcome, inventory: str) -> str:
    """The comment, small enough for GitHub. Hosts that were not reached come first, then those that change, by name."""
    sections = [*map(_unknown, outcome.errors), *_hosts(outcome)]
    return comment("plan", inventory, _headline(outcome), sections, f"meshctl plan -i {inventory} --diff")


def _headline(outcome: PlanOutcome) -> str:
    hosts = counted(len({change.node for change in outcome.changes}), "host")
    text = f"{summary(outcome.changes)[len('Plan: ') :]} ({hosts})" if outcome.changes else NO_CHANGES
    if not outcome.errors:
        return text
    missing = f"**{counted(len(outcome.errors), 'host')} could not be read.**"
    return f"{missing} {text}" if outcome.changes else f"{missing} No changes on the others."


def _hosts(outcome: PlanOutcome) -> Iterator[Section]:
    """Where room is short, the changes of all hosts come before the files' texts."""
    for node, group in groupby(outcome.changes, lambda change: change.node):
        changes = list(group)
        diffs = (click.unstyle(diff_text([diff])) for diff in outcome.diffs if diff.node == node)
        entries = [*(Entry(_words(change)) for change in changes), *(Entry(f"\n{d}".rstrip("\n"), 1) for d in diffs)]
        yield Section(node, counted(len(changes), "change"), tuple(entries))


def _words(change: Change) -> str:
    head = f"{_SIGNS[change.action]} {change.action} {change.kind} {change.name}"
    return "\n".join([head, *(f"      {line}" for line in fields(change))])


def _unknown(error: RemoteError) -> Section:
    return Section(error.node, "could not be read", (Entry(click.unstyle(error_text(error))),))
