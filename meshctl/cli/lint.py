"""`meshctl lint`: what is allowed but will disappoint, foretold from the inventory alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import findings_text, inventory_options, named_inventory
from meshctl.cli.reporting import Answer, deliver, report_options
from meshctl.errors import EXIT_FAILED, EXIT_OK, Diagnostic
from meshctl.inventory import find_inventory, read
from meshctl.inventory.report import by_severity, printable, summary
from meshctl.reports import FORMATS, Report, case_of

if TYPE_CHECKING:
    from meshctl.policy.paths import Prediction

# So many pairs of one outcome are named without --pairs; the rest is counted.
_EXAMPLES = 3


@click.command("lint")
@inventory_options
@report_options(*FORMATS)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="The least severity at which the exit code is 1.",
)
@click.option("--pairs", "every_pair", is_flag=True, help="List every pair, not a few of each outcome.")
def command(
    inventory_argument: str | None, inventory_option: str | None, fail_on: str, every_pair: bool
) -> int:
    """Predict how every permitted pair will meet, and what will disappoint.

    Contacts no host. From declared NATs and endpoints, each pair is direct, spliced, relayed, unreachable or
    unknown. Exits 0, 1 when a finding has the severity of --fail-on, and 65 when the inventory is not valid.

    \b
    Examples:
      meshctl lint
      meshctl lint inventory/fleet --fail-on warning
      meshctl lint -i inventory.yml -o json
      meshctl lint inventory.yml -o github --report junit=lint.xml
    """
    path = find_inventory(named_inventory(inventory_argument, inventory_option))
    inventory = read(path)
    from meshctl.policy import compile_mesh  # here, for an inventory that is not valid needs none of it
    from meshctl.policy.lint import lint

    found = lint(compile_mesh(inventory.mesh))
    findings = (*inventory.warnings, *found.findings)

    def human() -> str:
        lines = _all_lines(found.pairs) if every_pair else _grouped_lines(found.pairs)
        total = f"{path}: {_counts_text(found.pairs)} ({summary(findings)})"
        return findings_text(findings, err=False) + "".join(f"{printable(line)}\n" for line in (*lines, total))

    # What `validate` finds is in its own reports: a code host would show it twice.
    report = Report("lint", str(path), found.findings, tuple(case_of(d, fail_on) for d in found.findings))
    deliver(Answer(human, lambda: _document(findings, found.pairs), report))
    failing = any(d.severity in ("error", fail_on) for d in findings)
    return EXIT_FAILED if failing else EXIT_OK


def _document(findings: Iterable[Diagnostic], pairs: Iterable[Prediction]) -> dict[str, Any]:
    """The shape of schemas/lint.schema.json."""
    found = by_severity(findings)
    pairs = tuple(pairs)
    return {
        "errors": found["error"],
        "warnings": found["warning"],
        "notes": found["note"],
        "counts": _counts(pairs),
        "pairs": [
            {
                "network": p.network,
                "nodes": [p.one, p.other],
                "outcome": p.outcome,
                "reason": p.reason,
                "via": p.via,
                "mtu": p.mtu,
                "wire_mtu": p.wire_mtu,
            }
            for p in pairs
        ],
    }


def _counts(pairs: Iterable[Prediction]) -> dict[str, int]:
    from meshctl.core.reachability import OUTCOMES

    counted = Counter(p.outcome for p in pairs)
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def _counts_text(pairs: Iterable[Prediction]) -> str:
    return ", ".join(f"{n} {outcome}" for outcome, n in _counts(pairs).items() if n) or "no permitted pairs"


def _all_lines(pairs: Iterable[Prediction]) -> Iterator[str]:
    for p in pairs:
        yield f"{p.network}: {p.one} - {p.other}: {p.outcome}, MTU {p.mtu}: {p.reason}"


def _grouped_lines(pairs: Iterable[Prediction]) -> Iterator[str]:
    """One line for each network, outcome, MTU and reason."""
    groups: dict[tuple[str, str, int, str], list[str]] = {}
    for p in pairs:
        groups.setdefault((p.network, p.outcome, p.mtu, p.reason), []).append(f"{p.one} - {p.other}")
    for (network, outcome, mtu, reason), names in groups.items():
        more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
        yield f"{network}: {outcome}, MTU {mtu}: {reason}: {', '.join(names[:_EXAMPLES])}{more}"
