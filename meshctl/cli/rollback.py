"""`meshctl rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import Hosts, confirm_options, inventory_only_option, output_option, reach_options
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.deploy.rollback import RollbackOutcome


@click.command(name="rollback", short_help="Go back to a state that was applied before.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@inventory_only_option
@reach_options
@click.option("--to", default="", metavar="ID|N",
              help="The state after that run of `meshctl history` (its beginning will do), or so many runs back. "
                   "[default: 1]")  # fmt: skip
@confirm_options
@output_option
def command(
    nodes: tuple[str, ...], inventory_option: str | None, to: str, confirm: str, confirm_timeout: float, output: str,
    **host_values: Any,
) -> int:  # fmt: skip
    """Go back to a state that was applied before: by default, the one before the last run.

    NODE is as --limit takes it; all nodes without one. Each goes back to its own newest state of that run or before it;
    one that has not been changed since is left alone. Files, units and what was applied to the network go back; what
    others have changed since then stays, and so do private keys and packages. As with apply, a node goes back again
    unless it is told over a new connection, once its peers were heard, that all is well. A rollback is in the history
    itself, and can be taken back.

    The inventory is not changed, only asked for how to reach the nodes: revert the commit in Git, too.

    \b
    Examples:
      meshctl rollback web1
      meshctl rollback --to 2
      meshctl rollback --to 20260727T1011 -i inventory.yml
      meshctl rollback 'web*' --confirm manual
    """
    hosts = Hosts(**{**host_values, "limit": (*nodes, *host_values["limit"])})
    inventory = hosts.read(None, inventory_option)
    from meshctl.cli import origin, progress, show
    from meshctl.deploy.run import rollback

    options = hosts.options(confirm=confirm, confirm_timeout_s=confirm_timeout, who=origin.author())
    outcome = rollback(inventory, options, to, hosts.door(), progress.for_terminal())
    show.answer(outcome, output, rollback_text)
    return EXIT_OK if outcome.ok else EXIT_FAILED


def rollback_text(outcome: RollbackOutcome) -> str:
    """What was taken back, then one line a node, with the state that it is in."""
    from meshctl.cli.show import changes_text, error_text, node_line
    from meshctl.deploy.outcome import UNCHANGED
    from meshctl.deploy.rollback import about

    changes = [change for node in outcome.nodes.values() for change in node.changes]
    parts = [changes_text(changes)] if changes else []
    width = max(len(name) for name in outcome.nodes)
    for name, node in outcome.nodes.items():
        way = outcome.ways.get(name)
        state = f"  {'still as' if node.status == UNCHANGED else 'as'} after {about(way.state)}" if way else ""
        parts.append(node_line(name, width, node) + ("" if node.error else state))
    return "\n".join([*parts, *(error_text(node.error) for node in outcome.nodes.values() if node.error)])
