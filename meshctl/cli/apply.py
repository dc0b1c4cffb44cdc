"""`meshctl apply`."""

from __future__ import annotations

from typing import Any

import click

from meshctl.cli.common import Hosts, confirm_options, host_options, inventory_options, output_option
from meshctl.cli.plan import run_plan
from meshctl.errors import EXIT_FAILED, EXIT_OK, UsageError


@click.command(name="apply", short_help="Converge the hosts to the inventory.")
@inventory_options
@host_options
@click.option("--check", is_flag=True, help="Change nothing: the same as plan.")
@click.option("--diff", "show_diff", is_flag=True, help="Also show the changed files' text (sensitive ones never).")
@click.option("--locked", is_flag=True, help="Fail when the lock would have to change (for CI).")
@click.option("--allow-destructive", is_flag=True,
              help="Even leave a node without peers, remove over 30 % of the nodes or an anchor in use.")  # fmt: skip
@confirm_options
@output_option
def command(
    inventory_argument: str | None, inventory_option: str | None, check: bool, show_diff: bool, locked: bool,
    allow_destructive: bool, confirm: str, confirm_timeout: float, output: str, **host_values: Any,
) -> int:  # fmt: skip
    """Converge the hosts to the inventory.

    The argument may also be a plan that `meshctl plan -o json` wrote: it is applied only while it still is what
    would be done. A host that fails is named, and the others go on; the exit code is 1 then.

    No host is locked out: each goes back to what it was by itself unless it is told, over a new connection and after
    its peers were heard, that all is well.

    \b
    Examples:
      meshctl apply inventory.yml
      meshctl apply inventory.yml --limit web1 --diff
      meshctl apply plan.json -i inventory.yml
      meshctl apply inventory.yml --lab
    """
    hosts = Hosts(**host_values)
    from meshctl.deploy import planfile

    stored = planfile.read_plan(inventory_argument) if inventory_argument else None
    if check and stored:
        hint = "without --check a plan is applied only while it still is what would be done"
        raise UsageError("--check takes an inventory, not a plan", where=str(inventory_argument), hint=hint)
    if check:
        return run_plan(hosts, inventory_argument, inventory_option, show_diff, False)
    inventory = hosts.read(None if stored else inventory_argument, inventory_option)
    from meshctl.cli import origin, progress, show
    from meshctl.deploy.run import apply

    options = hosts.options(
        diff=show_diff, locked=locked, allow_destructive=allow_destructive, plan=stored, confirm=confirm,
        confirm_timeout_s=confirm_timeout, who=origin.author(), revision=origin.revision(inventory.path),
    )  # fmt: skip
    outcome = apply(inventory, hosts.ring(inventory), options, hosts.door(), progress.for_terminal())
    show.answer(outcome, output, show.apply_text)
    return EXIT_OK if outcome.ok else EXIT_FAILED
