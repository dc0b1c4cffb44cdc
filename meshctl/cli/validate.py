"""`meshctl validate`: everything that is wrong with the inventory, in one run."""

from __future__ import annotations

import os
import sys

import click

from meshctl.cli.common import inventory_options, named_inventory, output_option, print_json
from meshctl.errors import EXIT_INVENTORY, EXIT_OK, Diagnostic, InventoryError
from meshctl.inventory import find_inventory, read
from meshctl.inventory.report import summary, to_github, to_human, to_json


@click.command("validate")
@inventory_options
@output_option
@click.option(
    "--format",
    "style",
    type=click.Choice(["human", "github"]),
    default="human",
    show_default=True,
    help="Style of the human output; github prints annotations for a pull request.",
)
def command(inventory_argument: str | None, inventory_option: str | None, output: str, style: str) -> int:
    """Check the inventory without contacting a host.

    Exits 0 when it is valid (warnings allowed) and 65 when it is not.

    \b
    Examples:
      meshctl validate
      meshctl validate inventory/fleet
      meshctl validate -i inventory.yml -o json
      meshctl validate inventory.yml --format github
    """
    path = find_inventory(named_inventory(inventory_argument, inventory_option))
    counts = ""
    diagnostics: tuple[Diagnostic, ...]
    try:
        inventory = read(path)
    except InventoryError as error:
        diagnostics, code = error.diagnostics, EXIT_INVENTORY
    else:
        diagnostics, code = inventory.warnings, EXIT_OK
        mesh = inventory.mesh
        counts = f": {len(mesh.nodes)} nodes, {len(mesh.networks)} networks, {len(mesh.rules)} policies"
    if output == "json":
        print_json(to_json(diagnostics))
    elif style == "github":
        click.echo(to_github(diagnostics), nl=False)
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        verdict = "valid" if code == EXIT_OK else "not valid"
        click.echo(to_human(diagnostics, colour=colour) + f"{path}: {verdict}{counts} ({summary(diagnostics)})")
    return code
