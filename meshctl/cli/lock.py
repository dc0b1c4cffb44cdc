"""`meshctl lock`: pin addresses and public keys in inventory.lock.yml."""

from __future__ import annotations

from typing import Any

import click

from meshctl.cli.common import Hosts, host_options, inventory_options, output_option, print_json
from meshctl.errors import EXIT_FAILED, EXIT_OK, UsageError
from meshctl.inventory import Inventory, write_lock


@click.command("lock")
@inventory_options
@host_options
@output_option
@click.option("--check", is_flag=True, help="Write nothing; exit 1 and say why when the lock is stale.")
@click.option("--offline", is_flag=True, help="Pin addresses only; contact no host for its public key.")
@click.option("--rekey", metavar="NODE", multiple=True,
              help="Forget this node's pinned key, learn its new one; let one in again that was revoked.")
def command(
    inventory_argument: str | None, inventory_option: str | None, output: str, check: bool, offline: bool,
    rekey: tuple[str, ...], **host_values: Any,
) -> int:  # fmt: skip
    """Pin addresses and public keys in inventory.lock.yml.

    Commit the file: addresses then stay with their nodes, and a node that shows another key is refused.

    \b
    Examples:
      meshctl lock
      meshctl lock --offline
      meshctl lock --check -i inventory.yml
      meshctl lock --rekey web1
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(inventory_argument, inventory_option)
    if rekey:
        inventory = _forget_keys(inventory, rekey)
    if check:
        reasons = [*inventory.lock_changes, *(() if offline else _missing(inventory))]
        _report(inventory, reasons, output, written=False)
        return EXIT_FAILED if reasons else EXIT_OK
    if not offline:
        inventory = _collect_keys(inventory, hosts)
    reasons = list(inventory.lock_changes)
    if reasons:
        write_lock(inventory)
    _report(inventory, reasons, output, written=bool(reasons))
    return EXIT_OK


def _forget_keys(inventory: Inventory, names: tuple[str, ...]) -> Inventory:
    managed = {node.name: node for node in inventory.mesh.nodes.values() if not node.client}
    for name in names:
        if name not in managed:
            raise UsageError(f"--rekey: {name!r} is not a node that meshctl contacts")
    pairs = [(name, a.network) for name in names for a in managed[name].attachments]
    return inventory.readmitting(names).without_keys(pairs)


def _missing(inventory: Inventory) -> list[str]:
    """Managed nodes that no apply has reached yet; a client's key is made by `meshctl client show`, when it is."""
    return [
        f"{node}: no public key in {network} yet; the first `meshctl apply` to it makes one"
        for node, network in inventory.missing_keys
        if not inventory.mesh.nodes[node].client
    ]


def _collect_keys(inventory: Inventory, hosts: Hosts) -> Inventory:
    """The inventory with the keys of managed nodes that had none; no host is contacted when all are known."""
    managed = {node.name for node in inventory.mesh.managed()}
    if not any(node in managed for node, _ in inventory.missing_keys):
        return inventory
    from meshctl.cli import progress
    from meshctl.deploy.enroll import collect_keys

    return collect_keys(inventory, hosts.options(), hosts.door(), progress.for_terminal())


def _report(inventory: Inventory, reasons: list[str], output: str, *, written: bool) -> None:
    if output == "json":
        print_json({"lock": str(inventory.lock_path), "stale": bool(reasons), "written": written, "changes": reasons})
        return
    for reason in reasons:
        click.echo(reason)
    state = "written" if written else "stale: run `meshctl lock` and commit it" if reasons else "up to date"
    click.echo(f"{inventory.lock_path}: {state}")
