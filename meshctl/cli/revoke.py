"""`meshctl revoke`: cut a stolen node off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import (
    Hosts,
    colour,
    connection_options,
    inventory_only_option,
    output_option,
    print_json,
    secret_option,
)
from meshctl.cli.show import error_text
from meshctl.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from meshctl.deploy.revoke import Revocation


@click.command(name="revoke", short_help="Cut a stolen node off from all others, at once.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@inventory_only_option
@connection_options
@secret_option
@output_option
def command(nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any) -> int:
    """Cut a stolen node, or a stock client, off from all others, at once.

    All other nodes forget it, in parallel and anchors first; it is never contacted. The lock and the nodes remember
    its keys, which nobody may have any more, and its name gets no new key before `meshctl lock --rekey`. An apply that
    waits somewhere to be confirmed is undone for it. Exits 1 while some node has not heard of it: run it again until
    all have.

    \b
    Examples:
      meshctl revoke laptop7
      meshctl revoke laptop7 phone7 -o json
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(None, inventory_option)
    from meshctl.cli import origin, progress
    from meshctl.deploy.revoke import revoke

    options = hosts.options(who=origin.author(), revision=origin.revision(inventory.path))
    revocation = revoke(inventory, hosts.ring(inventory), options, nodes, hosts.door(), progress.for_terminal())
    for warning in revocation.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if output == "json":
        print_json(revocation.to_json())
    else:
        click.echo(_text(revocation, str(inventory.lock_path)))
    return EXIT_OK if revocation.ok else EXIT_FAILED


def _text(revocation: Revocation, lock: str) -> str:
    """What is done, where it is not, and what remains."""
    names = ", ".join(revocation.revoked)
    done = sum(1 for error in revocation.nodes.values() if error is None)
    lines = [error_text(error) for error in revocation.nodes.values() if error is not None]
    state = colour("cut off", "green") if revocation.ok else colour("not cut off everywhere", "red")
    lines.append(f"{names}: {state}, {done} of {len(revocation.nodes)} nodes have forgotten it.")
    if not revocation.ok:
        lines.append(f"Run it again until all have: meshctl revoke {' '.join(revocation.revoked)}")
    lines += [
        f"Commit {lock}: it has the keys as revoked.",
        "Then remove what does not come back from the inventory, and apply.",
        "Nodes have the pre-shared keys of their own pairs alone: the mesh secret may stay, unless it was there.",
        "What else was there is known to whoever has it: SSH keys, other services' passwords.",
    ]
    return "\n".join(lines)
