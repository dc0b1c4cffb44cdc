"""`meshctl policy diff`: what two versions of the inventory permit differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import INVENTORY_HELP, colour, findings_text, output_option, print_json
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.model.policy import Rule
    from meshctl.policy.diff import Change
    from meshctl.policy.naming import Party


@click.command("diff")
@click.argument("base")
@click.argument("head", required=False)
@click.option("-i", "--inventory", "inventory_option", metavar="PATH", help=INVENTORY_HELP)
@output_option
@click.option("--fail-on", type=click.Choice(["widened"]), help="Exit 1 when anything is gained.")
def diff_command(base: str, head: str | None, inventory_option: str | None, output: str, fail_on: str | None) -> int:
    """Show who gains and who loses which traffic to whom, and by which rule.

    BASE and HEAD are files, folders or Git revisions; of a revision, the inventory is read by its path in the
    repository, with its lock. HEAD is the inventory in the working tree when it is not given.

    \b
    Examples:
      meshctl policy diff origin/main
      meshctl policy diff v1.4 v1.5 -i inventory/fleet
      meshctl policy diff old.yml new.yml -o json
      meshctl policy diff origin/main --fail-on widened
    """
    from meshctl.cli.revisions import read_version, read_working_tree
    from meshctl.policy import compile_policies
    from meshctl.policy.diff import diff_policies

    before, shown_before = read_version(base, inventory_option)
    after, shown_after = read_version(head, inventory_option) if head else (read_working_tree(inventory_option), str)
    click.echo(findings_text(replace(d, file=shown_after(d.file)) for d in after.warnings), nl=False, err=True)
    found = [
        replace(change, base=_placed(change.base, shown_before), head=_placed(change.head, shown_after))
        for change in diff_policies(compile_policies(before.mesh), compile_policies(after.mesh))
    ]
    gained = sum(change.gained for change in found)
    if output == "json":
        versions = {"base": base, "head": head or str(after.path)}
        print_json({**versions, "widened": gained > 0, "changes": [_fields(change) for change in found]})
    else:
        for change in found:
            click.echo(_words(change))
        click.echo(f"{gained} gained, {len(found) - gained} lost" if found else "no change: the same is permitted")
    return EXIT_FAILED if fail_on and gained else EXIT_OK


def _placed(rule: Rule | None, shown: Callable[[str], str]) -> Rule | None:
    return rule and replace(rule, position=replace(rule.position, file=shown(rule.position.file)))


def _words(change: Change) -> str:
    """What changes, and the rules: `+ corp: web gains tcp/5432 to tag:db`."""
    from meshctl.cli.rulings import rule_words
    from meshctl.core.traffic import words

    sign, verb, tone = ("+", "gains", "green") if change.gained else ("-", "loses", "red")
    ends = {"common": "", "added": " (new nodes or prefixes)", "removed": " (nodes or prefixes that are gone)"}
    source, destination = (", ".join(party.names) for party in (change.source, change.destination))
    head = f"{sign} {change.network}: {source} {verb} {', '.join(words(change.traffic))} to {destination}"
    lines = [colour(head, tone) + ends[change.ends]]
    for label, rule in (("before", change.base), ("now", change.head)):
        verdict = f"{'denied' if rule.deny else 'allowed'} by {rule_words(rule)}" if rule else "nothing allows it"
        lines.append(f"    {label}: {verdict}")
    return "\n".join(lines)


def _fields(change: Change) -> dict[str, Any]:
    from meshctl.cli.rulings import rule_fields
    from meshctl.core.traffic import words

    return {
        "network": change.network,
        "change": "gained" if change.gained else "lost",
        "ends": change.ends,
        "source": _party(change.source),
        "destination": _party(change.destination),
        "traffic": list(words(change.traffic)),
        "base": rule_fields(change.base),
        "head": rule_fields(change.head),
    }


def _party(party: Party) -> dict[str, list[str]]:
    return {"names": list(party.names), "subjects": list(party.subjects)}
