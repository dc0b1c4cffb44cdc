"""`meshctl client`: configs and QR codes for stock WireGuard clients."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.common import (
    INVENTORY_HELP,
    lab_option,
    output_option,
    print_json,
    psk_ring,
    read_inventory,
    secret_option,
)
from meshctl.errors import MeshctlError, UsageError

if TYPE_CHECKING:
    from meshctl.core.psk import PskRing
    from meshctl.inventory import Inventory
    from meshctl.model.keys import PublicKey, Secret
    from meshctl.model.mesh import Node


@click.group()
def command() -> None:
    """Show configs and QR codes for stock WireGuard clients.

    \b
    Examples:
      meshctl client list
      meshctl client show phone --qr
      meshctl client show laptop --conf > laptop.conf
      meshctl client show phone --png phone.png --rekey
    """


@command.command("list")
@click.option("-i", "--inventory", "inventory_option", metavar="PATH", help=INVENTORY_HELP)
@lab_option
@output_option
def list_clients(inventory_option: str | None, lab: str | None, output: str) -> None:
    """List the clients: addresses, listen port, profile, whether they have a key.

    \b
    Examples:
      meshctl client list
      meshctl client list -o json
    """
    from meshctl.core.anchors import client_profile
    from meshctl.render.client import listen_port

    mesh = read_inventory(inventory_option, lab).mesh
    rows: list[dict[str, Any]] = [
        {
            "client": node.name,
            "network": a.network,
            "addresses": list(a.addresses),
            "listen_port": listen_port(mesh, node.name, a.network),
            "profile": client_profile(node),
            "public_key": str(a.public_key) if a.public_key else None,
        }
        for node in mesh.nodes.values()
        if node.client
        for a in node.attachments
    ]
    if output == "json":
        print_json({"clients": rows})
        return
    for row in rows:
        key = "has a key" if row["public_key"] else "no key yet"
        where = f"{', '.join(row['addresses'])} port {row['listen_port']}"
        click.echo(f"{row['client']}  {row['network']}  {where}  {row['profile']}  {key}")
    if not rows:
        click.echo("The inventory has no client (a node with `client: true`).", err=True)


@command.command("show")
@click.argument("name")
@click.option("-i", "--inventory", "inventory_option", metavar="PATH", help=INVENTORY_HELP)
@click.option("--qr", is_flag=True, help="Print a QR code on the terminal, for the app's scanner.")
@click.option("--png", type=click.Path(dir_okay=False), metavar="FILE", help="Write the QR code as PNG, mode 0600.")
@click.option("--conf", is_flag=True, help="Print the config on standard output, private key included.")
@click.option("--network", metavar="NAME", help="Which network, for a client in several.")
@click.option(
    "--profile", type=click.Choice(["direct", "routed"]), default=None,
    help="Refuse unless the config is of that kind. [default: vars.client_profile, or direct]",
)
@click.option("--rekey", is_flag=True, help="Make a new key; the config shown before stops working at the next apply.")
@lab_option
@secret_option
@output_option
def show(
    name: str, inventory_option: str | None, qr: bool, png: str | None, conf: bool, network: str | None,
    profile: str | None, rekey: bool, lab: str | None, secret_file: str | None, output: str,
) -> None:
    """Make a client's key, show its config once, and pin the key's public half in the lock.

    The private key is stored nowhere. `meshctl apply` then tells the peers the public one.

    \b
    Examples:
      meshctl client show phone --qr
      meshctl client show laptop --conf > laptop.conf
      meshctl client show phone -o json
    """
    chosen = [kind for kind, given in (("qr", qr), ("png", png), ("conf", conf), ("json", output == "json")) if given]
    if len(chosen) != 1:
        raise UsageError("choose how to show the config", hint="give one of --qr, --png FILE, --conf, -o json")
    from meshctl.render.client import find_client, find_network, new_key_pair

    inventory = read_inventory(inventory_option, lab)
    node = find_client(inventory.mesh, name)
    network = find_network(node, network)
    _refuse_second(node, network, rekey)
    private, public = new_key_pair()
    inventory = inventory.readmitting([name]).with_keys({(name, network): public})
    config = _render(inventory, name, network, private, profile, psk_ring(inventory, secret_file, lab))
    # The key is pinned once its only copy has been shown: a full disk or a closed pipe then costs nothing.
    if png:
        _write_private(Path(png), _picture(config, name))
    elif qr:
        click.echo(_terminal(config, name))
    elif conf:
        click.echo(config.reveal(), nl=False)
    else:
        print_json(_document(inventory, name, network, public, config))
    _pin(inventory, name, Path(png) if png else None)
    click.echo(f"{name}'s public key is in {inventory.lock_path}; `meshctl apply` tells its peers.", err=True)
    if png:
        click.echo(f"{png} holds the private key: show it once, then delete it.", err=True)


def _pin(inventory: Inventory, name: str, picture: Path | None) -> None:
    """Write the lock. Raises MeshctlError; the config that was shown is worthless then."""
    from meshctl.inventory import write_lock

    try:
        written = write_lock(inventory)
        if written.lock.nodes[name] != inventory.lock.nodes[name]:
            raise MeshctlError("the client was revoked meanwhile", where=name, hint="let it in with --rekey")
    except MeshctlError as error:
        if picture:
            picture.unlink(missing_ok=True)
        raise MeshctlError(
            f"{error.message}; the config of {name} that was just shown will not work", where=error.where,
            hint=f"throw it away, {error.hint}, and show it again",
        ) from error


def _refuse_second(node: Node, network: str, rekey: bool) -> None:
    attachment = node.attachment(network)
    if attachment is not None and attachment.public_key and not rekey:
        raise MeshctlError(
            "the config was shown once, and its private key was not kept", where=node.name,
            hint="--rekey makes a new key; the config shown before stops working at the next apply",
        )
    if node.revoked and not rekey:
        raise MeshctlError(
            "it was revoked", where=node.name, hint="--rekey makes a new key, and lets the name in again"
        )


def _render(
    inventory: Inventory, name: str, network: str, private: Secret, profile: str | None, ring: PskRing | None
) -> Secret:
    from meshctl.policy import compile_mesh
    from meshctl.render import Renderer
    from meshctl.render.client import check_profile, render_client

    mesh = inventory.mesh
    compiled = compile_mesh(mesh)
    topology = compiled.topology
    link = next(x for x in topology.interfaces(name) if x.network == network)
    check_profile(mesh, mesh.nodes[name], link, profile)
    for warning in topology.warnings.get(name, ()):
        click.echo(f"Warning: {name}: {warning}", err=True)
    return render_client(Renderer(compiled, ring), name, network, private)


def _code(config: Secret, name: str) -> Any:
    import segno

    try:
        return segno.make_qr(config.reveal(), error="L")
    except segno.DataOverflowError:
        hint = "use --conf, or `vars: {client_profile: routed}`, which needs one peer only"
        raise MeshctlError("the config is too long for a QR code", where=name, hint=hint) from None


def _terminal(config: Secret, name: str) -> str:
    text = io.StringIO()
    _code(config, name).terminal(text, compact=True)
    return text.getvalue().rstrip("\n")


def _picture(config: Secret, name: str) -> bytes:
    data = io.BytesIO()
    _code(config, name).save(data, kind="png", scale=6)
    return data.getvalue()


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, atomically. Raises MeshctlError."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MeshctlError(f"cannot write: {error.strerror}", where=str(path), hint="choose another file") from None


def _document(inventory: Inventory, name: str, network: str, public: PublicKey, config: Secret) -> dict[str, Any]:
    from meshctl.core.anchors import client_profile

    node = inventory.mesh.nodes[name]
    attachment = node.attachment(network)
    return {
        "client": name,
        "network": network,
        "addresses": list(attachment.addresses) if attachment else [],
        "profile": client_profile(node),
        "public_key": str(public),
        "config": config.reveal(),
    }
