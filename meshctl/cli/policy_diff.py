"""`meshctl policy diff`: what two versions of the inventory permit differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import INVENTORY_HELP, colour, findings_text
from meshctl.cli.reporting import Answer, deliver, report_options
from meshctl.errors import EXIT_FAILED, EXIT_OK, Diagnostic
from meshctl.inventory.files import find_inventory
from meshctl.inventory.report import printable
from meshctl.model.position import Position
from meshctl.reports import FORMATS, Report, case_of
from meshctl.reports.markdown import Entry, Section, comment
from meshctl.reports.report import Texts

if TYPE_CHECKING:
    from meshctl.model.policy import Rule
    from meshctl.policy.diff import Change
    from meshctl.policy.naming import Party


@click.command("diff")
@click.argument("base")
@click.argument("head", required=False)
@click.option("-i", "--inventory", "inventory_option", metavar="PATH", help=INVENTORY_HELP)
@report_options(*FORMATS)
@click.option("--fail-on", type=click.Choice(["widened"]), help="Exit 1 when anything is gained.")
def diff_command(base: str, head: str | None, inventory_option: str | None, fail_on: str | None) -> int:
    """Show who gains and who loses which traffic to whom, and by which rule.

    BASE and HEAD are files, folders or Git revisions; of a revision, the inventory is read by its path in the
    repository, with its lock. HEAD is the inventory in the working tree when it is not given.

    \b
    Examples:
      meshctl policy diff origin/main
      meshctl policy diff v1.4 v1.5 -i inventory/fleet
      meshctl policy diff old.yml new.yml -o json
      meshctl policy diff origin/main --fail-on widened --report markdown=comment.md
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
    # A place in a revision is not one in the files that a reader has before him.
    in_files = head is None or Path(head).exists()
    inventory = str(after.path if in_files else find_inventory(inventory_option))
    gains_first = sorted(found, key=lambda change: not change.gained)  # a code host may show the first alone
    findings = tuple(_finding(change, in_files, "error" if fail_on else "warning") for change in gains_first)
    versions = {"base": base, "head": head or str(after.path), "widened": gained > 0}
    deliver(
        Answer(
            human=lambda: "".join(f"{line}\n" for line in (*map(_words, found), _total(found))),
            document=lambda: {**versions, "changes": [_fields(change) for change in found]},
            report=Report("policy diff", inventory, findings, tuple(map(case_of, findings))),
            markdown=lambda: _markdown(found, inventory, base),
        )
    )
    return EXIT_FAILED if fail_on and gained else EXIT_OK


def _total(changes: Sequence[Change]) -> str:
    gained = sum(change.gained for change in changes)
    return f"{gained} gained, {len(changes) - gained} lost" if changes else "no change: the same is permitted"


def _placed(rule: Rule | None, shown: Callable[[str], str]) -> Rule | None:
    return rule and replace(rule, position=replace(rule.position, file=shown(rule.position.file)))


def _words(change: Change) -> str:
    """What changes, and the rules: `+ corp: web gains tcp/5432 to tag:db`."""
    sign, tone = ("+", "green") if change.gained else ("-", "red")
    ends = {"common": "", "added": " (new nodes or prefixes)", "removed": " (nodes or prefixes that are gone)"}
    head = colour(f"{sign} {_sentence(change)}", tone) + ends[change.ends]
    return "\n".join([head, *(f"    {verdict}" for verdict in _verdicts(change))])


def _sentence(change: Change) -> str:
    from meshctl.core.traffic import words

    source, destination = (", ".join(party.names) for party in (change.source, change.destination))
    verb = "gains" if change.gained else "loses"
    return printable(f"{change.network}: {source} {verb} {', '.join(words(change.traffic))} to {destination}")


def _verdicts(change: Change) -> Iterator[str]:
    from meshctl.cli.rulings import rule_words

    for label, rule in (("before", change.base), ("now", change.head)):
        verdict = f"{'denied' if rule.deny else 'allowed'} by {rule_words(rule)}" if rule else "nothing allows it"
        yield f"{label}: {verdict}"


def _finding(change: Change, in_files: bool, gained: str) -> Diagnostic:
    """A change as a finding at the rule that decides now, or about the inventory where none does."""
    place = change.head.position if change.head and in_files else Position()
    code, severity, hint = (
        ("policy-gained", gained, "have it confirmed by whose hosts these are")
        if change.gained
        else ("policy-lost", "warning", "check that nobody needs it")
    )
    message = "; ".join((_sentence(change), *_verdicts(change)))
    return Diagnostic(code, message, place.file, place.line, place.column, hint=hint, severity=severity)


def _markdown(changes: Sequence[Change], inventory: str, base: str) -> str:
    """A section for each network; where room is short, what is gained comes first."""
    sections, texts = [], Texts(())
    for network, group in groupby(changes, lambda change: change.network):
        members = list(group)
        entries = (Entry(texts.placed(click.unstyle(_words(change))), 0 if change.gained else 1) for change in members)
        sections.append(Section(network, _total(members), tuple(entries)))
    return comment("policy diff", inventory, _total(changes), sections, f"meshctl policy diff {base} -i {inventory}")


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
