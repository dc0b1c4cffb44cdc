"""`meshctl schema`: the JSON Schemas, for editors and other tools."""

from __future__ import annotations

import click

from meshctl.data_files import read_data
from meshctl.errors import UsageError
from meshctl.inventory.schema import schema_names
from meshctl.inventory.suggest import did_you_mean


@click.command("schema")
@click.argument("name", required=False)
def command(name: str | None) -> int:
    """Print a JSON Schema (inventory, lock, plan, ...).

    Without NAME, lists the schemas.

    \b
    Examples:
      meshctl schema
      meshctl schema inventory > inventory.schema.json
    """
    names = schema_names()
    if name is None:
        click.echo("\n".join(names))
    elif name in names:
        click.echo(read_data("schemas", f"{name}.schema.json"), nl=False)
    else:
        raise UsageError(f"there is no schema `{name}`", hint=did_you_mean(name, names))
    return 0
