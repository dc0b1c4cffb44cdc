"""`meshctl keys`: rotate the nodes' keys, and show their state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import (
    Hosts,
    colour,
    confirm_timeout_option,
    connection_options,
    inventory_only_option,
    output_option,
    print_json,
    secret_option,
)
from meshctl.cli.show import error_text
from meshctl.errors import EXIT_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from meshctl.deploy.keystate import KeyState, KeyStatus
    from meshctl.deploy.rotation import Rotation


@click.group(short_help="Rotate the nodes' keys without losing packets, and show how old they are.")
def command() -> None:
    """Rotate the nodes' keys without losing packets, and show how old they are.

    \b
    Examples:
      meshctl keys rotate web1
      meshctl keys rotate
      meshctl keys status
    """


@command.command("rotate")
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@inventory_only_option
@connection_options
@secret_option
@click.option("--pending", is_flag=True, help="Go on with what is pending, and begin nothing.")
@click.option("--clients", is_flag=True, help="Even though stock clients need a new config then; they are listed.")
@confirm_timeout_option
@output_option
def rotate_keys(
    nodes: tuple[str, ...], inventory_option: str | None, pending: bool, clients: bool, confirm_timeout: float,
    output: str, **host_values: Any,
) -> int:  # fmt: skip
    """Give nodes new keys: each is made on its node, spread to its peers, switched to, and only then the old one goes.

    Without NODE, rotations that are pending are gone on with; when none is, every node gets a new key. A node with a
    peer that cannot be reached stays pending, with both keys valid; the exit code is 1 then. Hosts are applied to on
    the way. In a pipeline, `--pending` after each apply ends what is pending when who was away is back.

    \b
    Examples:
      meshctl keys rotate web1
      meshctl keys rotate
      meshctl keys rotate --pending
      meshctl keys rotate fra1 --clients
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(None, inventory_option)
    from meshctl.cli import origin, progress
    from meshctl.deploy.rotate import chosen, clients_of, rotate

    names = chosen(inventory.mesh, nodes, begun=pending)
    affected = clients_of(inventory, names)
    if affected and not clients:
        raise UsageError(
            f"{', '.join(affected)}: stock clients that have the key of one of these nodes in their configs",
            hint="with --clients it is rotated all the same, and they need a new config each; or name other nodes",
        )
    options = hosts.options(
        confirm_timeout_s=confirm_timeout, who=origin.author(), revision=origin.revision(inventory.path)
    )
    rotation = rotate(inventory, hosts.ring(inventory), options, names, hosts.door(), progress.for_terminal())
    for warning in rotation.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if output == "json":
        print_json(rotation.to_json())
    else:
        click.echo(_rotation_text(rotation))
    return EXIT_OK if rotation.ok else EXIT_FAILED


@command.command("status")
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@inventory_only_option
@connection_options
@output_option
def show_status(
    nodes: tuple[str, ...], inventory_option: str | None, output: str, **host_values: Any
) -> int:  # fmt: skip
    """Show how old each node's keys are, and how far its rotation is.

    Exits 1 when a host cannot be read.

    \b
    Examples:
      meshctl keys status
      meshctl keys status web1 -o json
    """
    hosts = Hosts(**host_values)
    inventory = hosts.read(None, inventory_option)
    from meshctl.cli import progress
    from meshctl.deploy.keystate import key_status

    status = key_status(inventory, hosts.options(), nodes, hosts.door(), progress.for_terminal())
    if output == "json":
        print_json(status.to_json())
    else:
        click.echo(_status_text(status))
    return EXIT_OK if status.ok else EXIT_FAILED


def _status_text(status: KeyStatus) -> str:
    """A table, one line an interface."""
    rows = [("NODE", "NETWORK", "AGE", "STATE", "")]
    for key in status.keys:
        age = "-" if key.age_s is None else _age(key.age_s)
        state = "due" if key.is_due and key.state == "current" else key.state
        rows.append((key.node, key.network, age, state, _more(key)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
             for row in rows]  # fmt: skip
    return "\n".join([*lines, *(error_text(error) for error in status.errors)])


def _age(age_s: int) -> str:
    days, hours, minutes = age_s // 86400, age_s // 3600, age_s // 60
    return f"{days} d" if days else f"{hours} h" if hours else f"{minutes} min"


def _more(key: KeyState) -> str:
    if key.state == "pending":
        waits = f", waiting for {', '.join(key.waits_for)}" if key.waits_for else ", ready to switch"
        return f"next key on {key.prepared} of {key.peers} peers{waits}"
    if key.state == "cleanup":
        return f"old keys still on {', '.join(key.waits_for)}; `meshctl apply` removes them"
    if key.state == "unconfirmed":
        return "it takes its old key again unless that is confirmed; `meshctl apply --resume` decides it"
    return "`meshctl keys rotate` brings it to an end" if key.state == "switched" else ""


def _rotation_text(rotation: Rotation) -> str:
    """One line a node, and what is left to do."""
    if not rotation.nodes:
        return "No rotation is pending."
    width = max(map(len, rotation.nodes))
    lines = []
    for name, node in rotation.nodes.items():
        reasons = "; ".join(f"{other}: {why}" if other != name else why for other, why in node.because)
        tint = {"rotated": "green", "pending": "yellow"}.get(node.status, "red")
        lines.append(f"{name:<{width}}  {colour(f'{node.status:<7}', tint)}  {reasons}".rstrip())
    lines += [f"{name} is not cleaned up: {why}" for name, why in (rotation.behind or {}).items()]
    if rotation.behind:
        lines.append("`meshctl apply` does that when they are back; `meshctl keys status` says who has old keys.")
    if any(node.status == "pending" for node in rotation.nodes.values()):
        lines.append("Both keys of what is pending are valid; `meshctl keys rotate` goes on when the others are back.")
    lines += [f"{name} needs a new config: meshctl client show {name} --rekey" for name in rotation.clients]
    return "\n".join(lines)
