"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# A bare `--lab` means the lab of this name.
DEFAULT_LAB = "default"


def inventory_options(function: F) -> F:
    """`[INVENTORY]` as argument or `-i PATH`; passes `inventory_argument` and `inventory_option`."""
    function = click.option(
        "-i", "--inventory", "inventory_option", metavar="PATH",
        help="Inventory file or folder. [default: $MESHCTL_INVENTORY, ./inventory.yml, ./inventory/]",
    )(function)
    return click.argument("inventory_argument", metavar="[INVENTORY]", required=False)(function)


def output_option(function: F) -> F:
    """`-o human|json`; passes `output`."""
    return click.option(
        "-o", "--output", type=click.Choice(["human", "json"]), default="human", show_default=True,
        help="Result format on standard output.",
    )(function)


def lab_option(function: F) -> F:
    """`--lab [NAME]`; passes `lab` (None: production)."""
    return click.option(
        "--lab", metavar="[NAME]", is_flag=False, flag_value=DEFAULT_LAB, default=None,
        help="Talk to the lab of that name instead of the real hosts.",
    )(function)


def print_json(document: object) -> None:
    """One JSON document on standard output, two-space indent, keys in the order given."""
    click.echo(json.dumps(document, indent=2))
