"""What a failure looks like from outside: words on standard error, findings for machines, an exit code."""

from __future__ import annotations

import sys

import click

from meshctl.errors import EXIT_FAILED, EXIT_INVENTORY, EXIT_USAGE, Diagnostic, InventoryError, MeshctlError, UsageError


def answer_in_format(ctx: click.Context, error: Exception) -> None:
    """What makes the inventory invalid, for a machine that asked for `-o json` or for a report."""
    from meshctl.cli.common import OUTPUT

    if not isinstance(error, MeshctlError) or error.exit_code != EXIT_INVENTORY or OUTPUT not in ctx.meta:
        return
    from meshctl.cli.reporting import deliver_findings

    if isinstance(error, InventoryError):
        deliver_findings(ctx, error.diagnostics)
    else:  # a role or template
        message = f"{error.where}: {error.message}" if error.where else error.message
        deliver_findings(ctx, (Diagnostic("render", message, hint=error.hint),))


def explain(error: Exception) -> int:
    """Print why the run failed and return its exit code. What nobody foresaw is raised again, with its traceback."""
    from meshctl.inventory.report import printable

    if isinstance(error, click.ClickException):
        # It repeats arguments.
        error.message = printable(error.message)  # type: ignore[misc]
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    if isinstance(error, click.Abort):
        if isinstance(error.__cause__, EOFError):  # click takes one of anybody's for an operator's Ctrl-D
            raise error.__cause__
        click.echo("Interrupted.", err=True)
        return EXIT_FAILED
    if isinstance(error, InventoryError):
        from meshctl.cli.common import findings_text

        click.echo(findings_text(error.diagnostics) + f"Error: {error}", err=True)
        return error.exit_code
    if isinstance(error, UsageError):
        click.echo(f"Error: {printable(str(error))}", err=True)
        return error.exit_code
    if isinstance(error, MeshctlError):  # may have a line for each host
        click.echo("\n".join(map(printable, f"Error: {error}".split("\n"))), err=True)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return EXIT_FAILED
    if isinstance(error, OSError):  # without a file name it is the output that cannot be written: a full disk
        click.echo(printable(f"Error: {error.filename or 'standard output'}: {error.strerror}"), err=True)
        return EXIT_FAILED
    raise error
