"""`meshctl lab`: the inventory's twin on this machine."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from meshctl.cli.common import DEFAULT_LAB, inventory_options, named_inventory, output_option, print_json

name_option = click.option(
    "--name", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="Which lab; several may be up."
)
target_argument = click.argument("node", metavar="NODE")


@click.group(name="lab")
def command() -> None:
    """Build the inventory's twin on this machine: real hosts, real NATs.

    Needs root. The lab is closed: nothing in it reaches the machine's own network.

    \b
    Examples:
      meshctl lab up inventory.yml
      meshctl plan inventory.yml --lab
      meshctl lab exec home1 -- ping -c 3 fra1
      meshctl lab nat home1 symmetric
      meshctl lab down
    """


@command.command()
@inventory_options
@name_option
@click.option("--ssh-over-mesh", is_flag=True, help="Once a node has its mesh, reach it only by its jump host.")
def up(inventory_argument: str | None, inventory_option: str | None, name: str, ssh_over_mesh: bool) -> None:
    """Build the lab, or converge it to a changed inventory.

    The first time on a machine this makes a Debian image for each release in use, which takes a minute or two.

    \b
    Examples:
      meshctl lab up inventory.yml
      sudo meshctl lab up -i inventory/ --name rehearsal
    """
    from meshctl import inventory, lab
    from meshctl.lab.shell import require_root

    require_root()
    read = inventory.read(inventory.find_inventory(named_inventory(inventory_argument, inventory_option)))
    for suite in lab.images_to_make(read.mesh):
        click.echo(f"Making the image of Debian {suite} for lab hosts (once; a minute or two) ...", err=True)
    started = time.monotonic()
    lab.up(read.mesh, name, ssh_over_mesh=ssh_over_mesh)
    count = len(read.mesh.nodes)
    click.echo(f"Lab {name} is up: {count} hosts, {time.monotonic() - started:.1f} s.", err=True)


@command.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Every lab on this machine.")
def down(name: str, everything: bool) -> None:
    """Remove a lab with everything it made, after a crash too.

    \b
    Examples:
      meshctl lab down
      meshctl lab down --all
    """
    from meshctl import lab
    from meshctl.lab.shell import require_root
    from meshctl.lab.teardown import all_labs

    require_root()
    for each in all_labs() if everything else [name]:
        there = lab.down(each)
        click.echo(f"Lab {each} {'is gone' if there else 'was not up'}.", err=True)


@command.command()
@click.option("--name", default=None, metavar="NAME", help="One lab; without it, all that are up.")
@output_option
def status(name: str | None, output: str) -> None:
    """Show hosts and routers of the labs that are up.

    \b
    Examples:
      meshctl lab status
      meshctl lab status --name demo -o json
    """
    from meshctl import lab
    from meshctl.lab.names import LabError
    from meshctl.lab.teardown import all_labs

    found = [lab.status(name)] if name else []
    for one in all_labs() if not name else ():
        try:
            found.append(lab.status(one))
        except LabError:  # it is being built or taken down, or a crash has left it
            click.echo(f"lab {one}: not up, though something of it is there", err=True)
    if output == "json":
        print_json({"labs": found})
        return
    if not found:
        click.echo("No lab is up.", err=True)
    for each in found:
        _show(each)


def _show(lab_status: dict[str, Any]) -> None:
    click.echo(f"lab {lab_status['name']}")
    for name, host in lab_status["hosts"].items():
        place = f"behind {host['router']} ({host['nat']})" if host["router"] else "public"
        running = "" if host["running"] else "  not running"
        unplugged = "  link down" if host["link"] == "down" else ""
        click.echo(f"  {name:<20} {host['address']:<24} {place}{running}{unplugged}")
    for name, router in lab_status["routers"].items():
        upnp = "  upnp" if router["upnp"] else ""
        click.echo(f"  {name:<20} {router['address']:<24} router, {router['nat']}{upnp}")


@command.command(name="exec", context_settings={"ignore_unknown_options": True})
@name_option
@target_argument
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
def exec_(name: str, node: str, argv: tuple[str, ...]) -> None:
    """Run a command on a host, router (NODE-router) or LAN device (NODE-lan).

    Standard input and output, and the exit status, are the command's own.

    \b
    Examples:
      meshctl lab exec home1 -- wg show
      meshctl lab exec home1 -- tar -C /etc -c wireguard > wireguard.tar
      meshctl lab exec home1-router -- conntrack -L
    """
    from meshctl.lab import enter

    words = enter.command(name, node, argv)
    sys.stdout.flush()
    os.execvp(words[0], words)  # noqa: S606  # a list, no shell


@command.command()
@name_option
@target_argument
@click.argument("kind")
def nat(name: str, node: str, kind: str) -> None:
    """Make the router of NODE (or a router) another kind of NAT; its mappings are forgotten.

    KIND is none, easy, full-cone, address-dependent, symmetric, symmetric-sequential, cgnat or udp-blocked.

    \b
    Examples:
      meshctl lab nat home1 symmetric
      meshctl lab nat home1 udp-blocked
    """
    from meshctl.lab import build

    build.set_nat(name, node, kind)


@command.command()
@name_option
@target_argument
@click.argument("state", type=click.Choice(["up", "down"]))
def link(name: str, node: str, state: str) -> None:
    """Plug or unplug the network cable of NODE.

    \b
    Examples:
      meshctl lab link home1 down
      meshctl lab link home1 up
    """
    from meshctl.lab import build

    build.set_link(name, node, up=state == "up")


@command.command()
@name_option
@target_argument
@click.option("--power-cut", is_flag=True, help="Pull the plug instead of shutting down.")
def reboot(name: str, node: str, power_cut: bool) -> None:
    """Restart NODE over its own disk, and wait until it is up again.

    \b
    Examples:
      meshctl lab reboot home1
      meshctl lab reboot home1 --power-cut
    """
    from meshctl.lab import build

    build.reboot(name, node, power_cut=power_cut)
