"""`meshctl history`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import Hosts, colour, inventory_only_option, output_option, print_json, reach_options
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.core.history import Entry
    from meshctl.errors import RemoteError

NOTHING = "nothing was applied that is known"
_COLOURS = {"applied": "green", "waiting": "yellow", "undone": "yellow", "failed": "red", "unfinished": "red",
            "damaged": "red"}  # fmt: skip


@click.command(name="history", short_help="Show what was applied to the nodes, by whom, from which commit.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@inventory_only_option
@reach_options
@click.option("--short", is_flag=True, help="A line each, without the changes.")
@output_option
def command(
    nodes: tuple[str, ...], inventory_option: str | None, short: bool, output: str, **host_values: Any
) -> int:
    """Show what was applied to the nodes, by whom, from which commit, and what became of it.

    NODE is as --limit takes it; all nodes without one. The newest comes first, `*` is what a node is in now, and `-` a
    state that `meshctl rollback --to ID` goes back to; the others have failed or were undone. All hosts of one apply
    have the same ID. Exits 1 when a node could not be read.

    \b
    Examples:
      meshctl history
      meshctl history web1 -i inventory.yml
      meshctl history 'web*' --short
      meshctl history -o json | jq '.nodes[].entries[0].revision'
    """
    hosts = Hosts(**{**host_values, "limit": (*nodes, *host_values["limit"])})
    inventory = hosts.read(None, inventory_option)
    from meshctl.cli import progress
    from meshctl.deploy import histories
    from meshctl.deploy.asking import Asking

    with Asking(inventory.mesh, hosts.options(), hosts.door()) as asking:
        found, errors = asking.each("history", histories.read, progress.for_terminal())
    if output == "json":
        print_json(document(found, errors))
    else:
        click.echo(history_text(found, errors, short))
    return EXIT_FAILED if errors else EXIT_OK


def document(found: Mapping[str, tuple[Entry, ...]], errors: Mapping[str, RemoteError]) -> dict[str, Any]:
    """The shape of schemas/history.schema.json."""
    nodes: dict[str, Any] = {name: {"entries": _entries(history), "error": None} for name, history in found.items()}
    for name, e in errors.items():
        nodes[name] = {"entries": [], "error": {"kind": e.kind, "message": e.message, "hint": e.hint}}
    return {"nodes": dict(sorted(nodes.items()))}


def _entries(history: tuple[Entry, ...]) -> list[dict[str, Any]]:
    from meshctl.core.history import standing, states
    from meshctl.deploy import histories

    here, ways = standing(history)[:1], states(history)
    return [
        {
            "id": entry.id, "time": entry.time, "who": entry.who, "revision": entry.revision,
            "rollback_to": entry.to or None, "became": entry.became, "why": entry.why, "present": entry in here,
            "reachable": entry in ways, "changes": [change.to_json() for change in histories.changes(entry)],
        } for entry in history
    ]  # fmt: skip


def history_text(found: Mapping[str, tuple[Entry, ...]], errors: Mapping[str, RemoteError], short: bool) -> str:
    """Every node with its entries, and who could not be read."""
    from meshctl.cli.show import error_text

    parts = []
    for name, history in found.items():
        parts.append(f"{name}:" if history else f"{name}: {NOTHING}")
        parts += [line for entry in history for line in _lines(entry, history, short)]
        parts.append("")
    return "\n".join([*parts, *(error_text(error) for error in errors.values())]).rstrip("\n")


def _lines(entry: Entry, history: tuple[Entry, ...], short: bool) -> Iterator[str]:
    from meshctl.cli.show import change_lines
    from meshctl.core.history import standing, states
    from meshctl.deploy import histories

    sign = "*" if entry in standing(history)[:1] else "-" if entry in states(history) else " "
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)) if entry.time else "?"
    became = colour(entry.became, _COLOURS[entry.became])
    became += f": {entry.why}" if entry.why else ""
    what = f"rollback to {entry.to}, {became}" if entry.to else became
    yield f"{sign} {entry.id}  {when}  {entry.who or '?'}  {entry.revision or '(no revision)'}  {what}"
    if not short:
        for change in histories.changes(entry):
            yield from (f"  {line}" for line in change_lines(change))
