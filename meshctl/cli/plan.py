"""`meshctl plan`."""

from __future__ import annotations

from typing import Any

import click

from meshctl.cli.common import Hosts, host_options, inventory_options
from meshctl.cli.reporting import Answer, deliver, deliver_failure, report_options
from meshctl.errors import EXIT_CHANGES, EXIT_FAILED, EXIT_OK, MeshctlError


@click.command(name="plan", short_help="Show what apply would change on the live hosts.")
@inventory_options
@host_options
@click.option("--diff", "show_diff", is_flag=True, help="Also show the changed files' text (sensitive ones never).")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 0 without changes, 2 with changes, 1 on errors.")
@report_options("markdown")
def command(
    inventory_argument: str | None, inventory_option: str | None, show_diff: bool, detailed_exitcode: bool,
    **host_values: Any,
) -> int:  # fmt: skip
    """Show what apply would change on the live hosts.

    Nothing is changed anywhere. Hosts that cannot be read are named, and the exit code is 1 then.

    \b
    Examples:
      meshctl plan inventory.yml
      meshctl plan inventory.yml --limit 'web*,!web3' --diff
      meshctl plan inventory.yml -o json > plan.json && meshctl apply plan.json -i inventory.yml
      meshctl plan inventory.yml --diff --format markdown > comment.md
    """
    return run_plan(Hosts(**host_values), inventory_argument, inventory_option, show_diff, detailed_exitcode)


def run_plan(
    hosts: Hosts, argument: str | None, option: str | None, show_diff: bool, detailed_exitcode: bool
) -> int:
    """The command's body, which `apply --check` shares. Answers in the format that the context keeps."""
    inventory = hosts.read(argument, option)
    # After the inventory was found to be right: these imports cost more than all else.
    from meshctl.cli import progress, show
    from meshctl.cli.plan_comment import plan_markdown
    from meshctl.deploy.run import plan
    from meshctl.reports import Report

    path = str(inventory.path)
    try:
        ring = hosts.ring(inventory)
        outcome = plan(inventory, ring, hosts.options(diff=show_diff), hosts.door(), progress.for_terminal())
    except MeshctlError as error:
        if error.exit_code == EXIT_FAILED:  # no secret, perhaps
            deliver_failure(error, path)
        raise
    show.print_warnings(outcome)
    deliver(
        Answer(
            human=lambda: show.plan_text(outcome) + "\n",
            document=outcome.to_json,
            report=Report("plan", path, (), ()),
            markdown=lambda: plan_markdown(outcome, path),
        )
    )
    if outcome.errors:
        return EXIT_FAILED
    return EXIT_CHANGES if detailed_exitcode and outcome.changes else EXIT_OK
