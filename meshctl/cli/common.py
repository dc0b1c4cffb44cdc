"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from meshctl.errors import Diagnostic, UsageError

if TYPE_CHECKING:
    from meshctl.core.psk import PskRing
    from meshctl.deploy.door import Door
    from meshctl.deploy.options import RunOptions
    from meshctl.inventory import Inventory

F = TypeVar("F", bound=Callable[..., Any])

# A bare `--lab` means the lab of this name.
DEFAULT_LAB = "default"
# Under these names the context keeps the value of `-o`, and which command it was given to (`policy diff`).
OUTPUT = "meshctl.output"
COMMAND = "meshctl.command"
SUDO_PASSWORD_VARIABLE = "MESHCTL_SUDO_PASSWORD"  # noqa: S105 - the variable's name
INVENTORY_HELP = "Inventory file or folder. [default: $MESHCTL_INVENTORY, ./inventory.yml, ./inventory/]"


def inventory_options(function: F) -> F:
    """`[INVENTORY]` as argument or `-i PATH`; passes `inventory_argument` and `inventory_option`."""
    function = inventory_only_option(function)
    return click.argument("inventory_argument", metavar="[INVENTORY]", required=False)(function)


def inventory_only_option(function: F) -> F:
    """`-i PATH`, for commands whose arguments are something else; passes `inventory_option`."""
    return click.option("-i", "--inventory", "inventory_option", metavar="PATH", help=INVENTORY_HELP)(function)


def output_option(function: F) -> F:
    """`-o human|json`; passes `output`."""
    return click.option(
        "-o", "--output", type=click.Choice(["human", "json"]), default="human", show_default=True,
        help="Result format on standard output.", callback=remember_output,
    )(function)


def remember_output(ctx: click.Context, _: click.Parameter, value: str) -> str:
    """For whoever has to answer when the command itself does not come to it."""
    ctx.meta[OUTPUT], ctx.meta[COMMAND] = value, " ".join(ctx.command_path.split()[1:])
    return value


def lab_option(function: F) -> F:
    """`--lab [NAME]`; passes `lab` (None: production)."""
    return click.option(
        "--lab", metavar="[NAME]", is_flag=False, flag_value=DEFAULT_LAB, default=None,
        help="Talk to the lab of that name instead of the real hosts.",
    )(function)


def secret_option(function: F) -> F:
    """`--secret-file PATH`; passes `secret_file`."""
    return click.option(
        "--secret-file", metavar="PATH",
        help="File with the mesh secret. [default: $MESHCTL_SECRET, the inventory's `secret`]",
    )(function)


def host_options(function: F) -> F:
    """What every command takes that makes hosts what they should be; `Hosts(**…)` collects it."""
    return reach_options(secret_option(function))


def reach_options(function: F) -> F:
    """What every command that contacts hosts takes; `Hosts(**…)` collects it."""
    function = connection_options(function)
    function = click.option("--local", is_flag=True, help="This machine only, without SSH.")(function)
    return click.option(
        "--limit", metavar="PATTERN", multiple=True,
        help="Only these nodes: names, groups, networks, globs, !excluded; commas or repeated.",
    )(function)


def connection_options(function: F) -> F:
    """The same, where arguments name the nodes."""
    from meshctl.deploy.options import DEFAULT_FORKS  # here, for `validate` needs nothing of a run

    options = (
        click.option("--forks", type=click.IntRange(min=1), default=DEFAULT_FORKS, show_default=True,
                     help="Hosts to contact at the same time."),
        lab_option,
        click.option("--accept-new-host-keys", is_flag=True,
                     help="Learn unknown SSH host keys; a changed one is refused always."),
        click.option("--ask-sudo-pass", is_flag=True,
                     help=f"Ask for the password that sudo wants. [else: ${SUDO_PASSWORD_VARIABLE}]"),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def confirm_options(function: F) -> F:
    """`--confirm` and `--confirm-timeout`, for commands that change hosts; passes `confirm` and `confirm_timeout`."""
    from meshctl.deploy.options import AUTO, MANUAL, OFF

    return click.option(
        "--confirm", type=click.Choice([AUTO, MANUAL, OFF]), default=AUTO, show_default=True,
        help="Who says that it may stay: this run, `meshctl confirm`, or nobody (nothing is undone then).",
    )(confirm_timeout_option(function))


def confirm_timeout_option(function: F) -> F:
    """`--confirm-timeout`; passes `confirm_timeout`."""
    from meshctl.deploy.options import CONFIRM_TIMEOUT_MAX_S, CONFIRM_TIMEOUT_MIN_S, CONFIRM_TIMEOUT_S

    return click.option(
        "--confirm-timeout", type=click.FloatRange(CONFIRM_TIMEOUT_MIN_S, CONFIRM_TIMEOUT_MAX_S), callback=number,
        default=CONFIRM_TIMEOUT_S, show_default=True, metavar="SECONDS",
        help="A host that is not told so in time undoes what was applied.",
    )(function)  # fmt: skip


def number(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    """What an option of seconds says, if that is a number."""
    if math.isnan(value):  # which is below no limit, and above none
        raise click.BadParameter("nan is no number.")
    return value


@dataclass(frozen=True)
class Hosts:
    """The values of `host_options`, `reach_options` or `connection_options`."""

    forks: int
    lab: str | None
    accept_new_host_keys: bool
    ask_sudo_pass: bool
    limit: tuple[str, ...] = ()
    local: bool = False
    secret_file: str | None = None

    def read(self, argument: str | None, option: str | None) -> Inventory:
        """The inventory, with the lab's own lock under --lab. Prints its warnings; raises InventoryError."""
        path = named_inventory(argument, option)
        if self.lab is not None and self.local:
            raise UsageError("--lab and --local exclude each other")
        return read_inventory(path, self.lab)

    def ring(self, inventory: Inventory) -> PskRing | None:
        """The pre-shared keys' ring; the lab has a secret of its own."""
        return psk_ring(inventory, self.secret_file, self.lab)

    def door(self) -> Door | None:
        """The lab's door, or None for the network."""
        if self.lab is None:
            return None
        from meshctl.lab.door import LabDoor

        return LabDoor(self.lab)

    def options(self, **more: Any) -> RunOptions:
        """RunOptions with these values and `more`."""
        from meshctl.deploy.options import RunOptions
        from meshctl.model.keys import Secret

        password = os.environ.get(SUDO_PASSWORD_VARIABLE)
        if self.ask_sudo_pass:
            password = click.prompt("sudo password", hide_input=True, err=True)
        return RunOptions(
            limit=self.limit, forks=self.forks, local=self.local, accept_new_host_keys=self.accept_new_host_keys,
            sudo_password=None if password is None else Secret(password), **more,
        )  # fmt: skip


def read_inventory(argument: str | None, lab_name: str | None = None) -> Inventory:
    """The inventory at `argument` (None: the default places), with the lab's own lock when `lab_name` is given.

    Prints its warnings. Raises InventoryError with every finding.
    """
    from meshctl import inventory

    path = inventory.find_inventory(argument)
    lock_path = None
    if lab_name is not None:
        from meshctl import lab

        lock_path = lab.lock_path(lab_name)
    found = inventory.read(path, lock_path=lock_path)
    click.echo(findings_text(found.warnings), nl=False, err=True)
    return found


def findings_text(diagnostics: Iterable[Diagnostic], *, err: bool = True) -> str:
    """Findings for standard error, or output, as `validate` shows them: place, source line, hint."""
    from meshctl.inventory.report import to_human

    return to_human(diagnostics, colour=_takes_colour(err=err))


def named_inventory(argument: str | None, option: str | None) -> str | None:
    """The one that was given of `[INVENTORY]` and `-i`. Raises UsageError when both were."""
    if argument and option:
        raise UsageError("the inventory is named twice", hint="use the argument or -i, not both")
    return argument or option


def psk_ring(inventory: Inventory, secret_file: str | None = None, lab_name: str | None = None) -> PskRing | None:
    """The ring that makes the pre-shared keys; a lab has a mesh secret of its own."""
    from meshctl.render.secret import ring_for

    if lab_name is not None and secret_file is None:
        from meshctl import lab

        secret_file = str(lab.secret_file(lab_name))
    return ring_for(inventory.mesh, secret_file)


def print_json(document: object) -> None:
    """One JSON document on standard output, two-space indent, keys in the order given."""
    click.echo(json.dumps(document, indent=2))


def colour(text: str, name: str, *, err: bool = False) -> str:
    """`text` in a colour where a person looks: a terminal, and NO_COLOR (no-color.org) unset."""
    return click.style(text, fg=name) if _takes_colour(err=err) else text


def _takes_colour(*, err: bool) -> bool:
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR")
