"""`meshctl validate`: everything that is wrong with the inventory, in one run."""

from __future__ import annotations

import click

from meshctl.cli.common import findings_text, inventory_options, named_inventory
from meshctl.cli.reporting import Answer, deliver, report_options
from meshctl.errors import EXIT_INVENTORY, EXIT_OK, Diagnostic, InventoryError
from meshctl.inventory import find_inventory, read
from meshctl.inventory.report import printable, summary, to_json
from meshctl.reports import FORMATS, Report, case_of


@click.command("validate")
@inventory_options
@report_options(*FORMATS)
def command(inventory_argument: str | None, inventory_option: str | None) -> int:
    """Check the inventory without contacting a host.

    Exits 0 when it is valid (warnings allowed) and 65 when it is not.

    \b
    Examples:
      meshctl validate
      meshctl validate inventory/fleet
      meshctl validate -i inventory.yml -o json
      meshctl validate inventory.yml -o github --report sarif=validate.sarif
    """
    path = find_inventory(named_inventory(inventory_argument, inventory_option))
    counts = ""
    findings: tuple[Diagnostic, ...]
    try:
        inventory = read(path)
    except InventoryError as error:
        findings, code = error.diagnostics, EXIT_INVENTORY
    else:
        findings, code = inventory.warnings, EXIT_OK
        mesh = inventory.mesh
        counts = f": {len(mesh.nodes)} nodes, {len(mesh.networks)} networks, {len(mesh.rules)} policies"

    def human() -> str:
        verdict = "valid" if code == EXIT_OK else "not valid"
        return findings_text(findings, err=False) + f"{printable(str(path))}: {verdict}{counts} ({summary(findings)})\n"

    report = Report("validate", str(path), findings, tuple(map(case_of, findings)))
    deliver(Answer(human, lambda: to_json(findings), report))
    return code
