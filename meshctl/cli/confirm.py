"""`meshctl confirm`."""

from __future__ import annotations

from typing import Any

import click

from meshctl.cli.common import Hosts, inventory_options, output_option, reach_options
from meshctl.errors import EXIT_FAILED, EXIT_OK


@click.command(name="confirm", short_help="Keep what `apply --confirm manual` has done.")
@inventory_options
@reach_options
@click.option("--yes", is_flag=True, help="Keep what a run is still checking, too, whatever it finds.")
@output_option
def command(
    inventory_argument: str | None, inventory_option: str | None, yes: bool, output: str, **host_values: Any
) -> int:
    """Keep what `apply --confirm manual` has done: a host that is not told so in time undoes it.

    Whose it is does not count (a pipeline applies, a person confirms), but is shown for each host. A host where nothing
    waits is left alone, and one whose apply is still being checked by its own run is refused: that confirms or undoes
    it. Exits 1 when one was refused, was too late, or cannot be reached.

    \b
    Examples:
      meshctl apply inventory.yml --confirm manual --confirm-timeout 600
      meshctl confirm inventory.yml
      meshctl confirm inventory.yml --limit web1
      meshctl confirm inventory.yml --limit web1 --yes
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(inventory_argument, inventory_option)
    from meshctl.cli import progress, show
    from meshctl.deploy.run import confirm_pending

    outcome = confirm_pending(inventory, hosts.options(), hosts.door(), progress.for_terminal(), unchecked=yes)
    show.answer(outcome, output, show.confirm_text)
    return EXIT_OK if outcome.ok else EXIT_FAILED
