"""`meshctl apply`."""

from __future__ import annotations

import sys
from typing import Any

import click

from meshctl.cli.common import Hosts, confirm_options, host_options, inventory_options, output_option
from meshctl.cli.plan import run_plan
from meshctl.errors import EXIT_FAILED, EXIT_OK, UsageError


@click.command(name="apply", short_help="Converge the hosts to the inventory.")
@inventory_options
@host_options
@click.option("--check", is_flag=True, help="Change nothing: the same as plan.")
@click.option("--diff", "show_diff", is_flag=True, help="Also show the changed files' text (sensitive ones never).")
@click.option("--locked", is_flag=True, help="Fail when the lock would have to change (for CI).")
@click.option("--allow-destructive", is_flag=True,
              help="Even leave a node without peers, remove over 30 % of the nodes or an anchor in use, or give one "
              "end of a pair alone another pre-shared key.")  # fmt: skip
@confirm_options
@click.option("--serial", metavar="SIZES",
              help="Sizes of the waves, the last one again and again: 1,10%,100%. [default: that of --forks]")
@click.option("--max-fail", metavar="N|N%", default="0", show_default=True,
              help="Begin no other wave once more of the hosts that change have failed.")  # fmt: skip
@click.option("--canary", metavar="PATTERN", multiple=True, help="These go first, alone; written as for --limit.")
@click.option("--pause", is_flag=True, help="Ask before each wave but the first.")
@click.option("--resume", is_flag=True, help="First take up what a killed apply of yours has left to be confirmed.")
@output_option
def command(
    inventory_argument: str | None, inventory_option: str | None, check: bool, show_diff: bool, locked: bool,
    allow_destructive: bool, confirm: str, confirm_timeout: float, serial: str | None, max_fail: str,
    canary: tuple[str, ...], pause: bool, resume: bool, output: str, **host_values: Any,
) -> int:  # fmt: skip
    """Converge the hosts to the inventory.

    The argument may also be a plan that `meshctl plan -o json` wrote: it is applied only while it still is what
    would be done. A host that fails is named, the others of its wave go on, and no other wave begins; the exit code is
    1 then. A jump host is never in one wave with the hosts behind it, and comes after them.

    No host is locked out: each goes back to what it was by itself unless it is told, over a new connection and after
    its peers were heard, that all is well.

    \b
    Examples:
      meshctl apply inventory.yml
      meshctl apply inventory.yml --limit web1 --diff
      meshctl apply inventory.yml --canary web --serial 1,10%,100%
      meshctl apply plan.json -i inventory.yml
      meshctl apply inventory.yml --lab
    """
    hosts = Hosts(**host_values)
    if pause and not sys.stdin.isatty():
        raise UsageError("--pause asks at a terminal, and there is none", hint="leave it out, or use --serial")
    from meshctl.deploy import planfile, waves

    sizes, allowed = waves.serial(serial) if serial else (), waves.share(max_fail, "--max-fail")

    stored = planfile.read_plan(inventory_argument) if inventory_argument else None
    if check and stored:
        hint = "without --check a plan is applied only while it still is what would be done"
        raise UsageError("--check takes an inventory, not a plan", where=str(inventory_argument), hint=hint)
    if check:
        return run_plan(hosts, inventory_argument, inventory_option, show_diff, False)
    inventory = hosts.read(None if stored else inventory_argument, inventory_option)
    from meshctl.cli import origin, progress, show
    from meshctl.deploy.run import apply

    options = hosts.options(
        diff=show_diff, locked=locked, allow_destructive=allow_destructive, plan=stored, confirm=confirm,
        confirm_timeout_s=confirm_timeout, who=origin.author(), revision=origin.revision(inventory.path), serial=sizes,
        max_fail=allowed, canary=canary, pause=pause, resume=resume,
    )  # fmt: skip
    outcome = apply(inventory, hosts.ring(inventory), options, hosts.door(), progress.for_terminal())
    show.answer(outcome, output, show.apply_text)
    return EXIT_OK if outcome.ok else EXIT_FAILED
