"""What a failure looks like from outside: words on standard error, findings for machines, an exit code."""

from __future__ import annotations

import sys

import click

from meshctl.errors import EXIT_FAILED, EXIT_INVENTORY, EXIT_USAGE, InventoryError, MeshctlError


def answer_in_json(ctx: click.Context, error: Exception) -> None:
    """What makes the inventory invalid, on standard output, for a machine that asked for `-o json`."""
    if isinstance(error, MeshctlError) and error.exit_code == EXIT_INVENTORY:
        from meshctl.cli.common import OUTPUT, print_findings

        if ctx.meta.get(OUTPUT) == "json":
            print_findings(error)


def explain(error: Exception) -> int:
    """Print why the run failed and return its exit code. What nobody foresaw is raised again, with its traceback."""
    if isinstance(error, click.ClickException):
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    if isinstance(error, click.Abort):
        click.echo("Interrupted.", err=True)
        return EXIT_FAILED
    if isinstance(error, InventoryError):
        from meshctl.cli.common import findings_text

        click.echo(findings_text(error.diagnostics) + f"Error: {error}", err=True)
        return error.exit_code
    if isinstance(error, MeshctlError):
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return EXIT_FAILED
    if isinstance(error, OSError):  # without a file name it is the output that cannot be written: a full disk
        click.echo(f"Error: {error.filename or 'standard output'}: {error.strerror}", err=True)
        return EXIT_FAILED
    raise error
