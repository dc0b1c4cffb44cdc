"""Plans and outcomes as the command line answers them: as JSON, or as text in Terraform's way."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol, TypeVar

import click

from meshctl.cli.common import colour, print_json
from meshctl.core.change import Change
from meshctl.deploy.outcome import CHANGED, CONFIRMED, UNCHANGED, ApplyOutcome, FileDiff, NodeOutcome, PlanOutcome
from meshctl.errors import RemoteError

_SIGNS = {
    "create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red"), "run": (">", "cyan"),
}  # fmt: skip
_STATUS_COLOURS = {CHANGED: "yellow", CONFIRMED: "green", UNCHANGED: "green"}
# Fields that are hashes, and how much of one a person compares; `-o json` has them whole.
_HASHES = ("sha256", "source")
HASH_DIGITS = 12
NO_CHANGES = "No changes. Every host is as the inventory says."


class Document(Protocol):
    """What a run found or did."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """For standard error."""

    def to_json(self) -> dict[str, Any]:
        """For standard output."""


Outcome = TypeVar("Outcome", bound=Document)


def answer(outcome: Outcome, output: str, text: Callable[[Outcome], str]) -> None:
    """The outcome on standard output, as its JSON document or its `text`; warnings on standard error in any case."""
    print_warnings(outcome)
    if output == "json":
        print_json(outcome.to_json())
    else:
        click.echo(text(outcome))


def print_warnings(outcome: Document) -> None:
    """The run's warnings on standard error."""
    for warning in outcome.warnings:
        click.echo(f"Warning: {warning}", err=True)


def changes_text(changes: Sequence[Change]) -> str:
    """All changes under their nodes, before -> after."""
    lines: list[str] = []
    for node, group in groupby(changes, key=lambda c: c.node):
        lines.append(f"{node}:")
        lines.extend(line for change in group for line in change_lines(change))
        lines.append("")
    return "\n".join(lines)


def change_lines(change: Change) -> Iterator[str]:
    """One change with its fields, indented."""
    sign, tint = _SIGNS[change.action]
    yield "  " + colour(f"{sign} {change.action} {change.kind} {change.name}", tint)
    yield from (f"      {line}" for line in fields(change))


def fields(change: Change) -> Iterator[str]:
    """`name: before -> after` of each field; hashes are shortened."""
    before, after = change.before or {}, change.after or {}
    for name in dict.fromkeys([*before, *after]):
        old, new = _shown(name, before.get(name)), _shown(name, after.get(name))
        if change.action == "update":
            yield f"{name}: {old} -> {new}"
        else:
            yield f"{name}: {old if change.action == 'delete' else new}"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "(none)"
    if name in _HASHES:
        return str(value)[:HASH_DIGITS]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


def summary(changes: Sequence[Change]) -> str:
    """`Plan: 3 to add, 1 to change, 0 to destroy.`"""
    count = {action: sum(1 for c in changes if c.action == action) for action in _SIGNS}
    handlers = f" {count['run']} handler{'s' if count['run'] != 1 else ''} to run." if count["run"] else ""
    return f"Plan: {count['create']} to add, {count['update']} to change, {count['delete']} to destroy.{handlers}"


def plan_text(outcome: PlanOutcome) -> str:
    """What `plan` prints."""
    parts = [changes_text(outcome.changes)] if outcome.changes else []
    parts += [diff_text(outcome.diffs)] if outcome.diffs else []
    if outcome.changes:
        parts.append(summary(outcome.changes))
    elif not outcome.errors:
        parts.append(NO_CHANGES)
    else:
        parts.append("No changes on the hosts that answered.")
    return "\n".join([*parts, *(error_text(error) for error in outcome.errors)])


def apply_text(outcome: ApplyOutcome) -> str:
    """What `apply` prints: what was done, then one line a node."""
    parts = [diff_text(outcome.diffs)] if outcome.diffs else []
    changes = [change for node in outcome.nodes.values() for change in node.changes]
    parts += [changes_text(changes)] if changes else []
    width = max(len(name) for name in outcome.nodes)
    for name, node in outcome.nodes.items():
        parts.append(node_line(name, width, node))
    parts += [error_text(node.error) for node in outcome.nodes.values() if node.error]
    if outcome.ok and not changes and not any(node.waiting for node in outcome.nodes.values()):
        parts.append(NO_CHANGES)
    return "\n".join(parts)


def node_line(name: str, width: int, node: NodeOutcome) -> str:
    """What became of one node, its name padded to `width`."""
    status = colour(f"{node.status:<11}", _STATUS_COLOURS.get(node.status, "red"))
    counted = f"{len(node.changes)} change{'s' if len(node.changes) != 1 else ''}"
    return f"{name:<{width}}  {status}  {counted:>11}  {node.duration_s:6.1f} s"


def confirm_text(outcome: ApplyOutcome) -> str:
    """What `confirm` prints: one line a node."""
    width = max(len(name) for name in outcome.nodes)
    words = {UNCHANGED: "nothing to confirm"}
    parts = [
        f"{name:<{width}}  " + colour(words.get(node.status, node.status), _STATUS_COLOURS.get(node.status, "red"))
        for name, node in outcome.nodes.items()
    ]
    return "\n".join([*parts, *(error_text(node.error) for node in outcome.nodes.values() if node.error)])


def error_text(error: RemoteError) -> str:
    """One line: node, reason, next step."""
    step = f" ({error.step})" if error.step else ""
    hint = f"; {error.hint}" if error.hint else ""
    return colour(f"{error.node}: {error.kind}{step}: {error.message}{hint}", "red")


def diff_text(diffs: Sequence[FileDiff]) -> str:
    """Unified diffs."""
    lines: list[str] = []
    for diff in diffs:
        name = f"{diff.node}:{diff.path}"
        for line in difflib.unified_diff(diff.before.splitlines(), diff.after.splitlines(), name, name, lineterm=""):
            tint = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            lines.append(colour(line, tint) if tint else line)
    return "\n".join([*lines, ""])
