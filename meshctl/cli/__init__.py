"""The command line: one module a command, imported only when that command runs.

`meshctl --help` must not import paramiko, jinja2 or rich, so the table below carries the one-line helps itself; a test
holds them to the commands' own. It is asked for most when nothing is wrong yet, so errors have a module of their own.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from meshctl import __version__

# name -> (module, one-line help). The module's `command` is the click command or group.
COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("meshctl.cli.agent", "Ask the agents on the nodes: status, paths, events, nat, rebind, override."),
    "apply": ("meshctl.cli.apply", "Converge the hosts to the inventory."),
    "client": ("meshctl.cli.client", "Show configs and QR codes for stock WireGuard clients."),
    "confirm": ("meshctl.cli.confirm", "Keep what `apply --confirm manual` has done."),
    "history": ("meshctl.cli.history", "Show what was applied to the nodes, by whom, from which commit."),
    "keys": ("meshctl.cli.keys", "Rotate the nodes' keys without losing packets, and show how old they are."),
    "lab": ("meshctl.cli.lab", "Build the inventory's twin on this machine: real hosts, real NATs."),
    "lint": ("meshctl.cli.lint", "Predict how every permitted pair will meet, and what will disappoint."),
    "lock": ("meshctl.cli.lock", "Pin addresses and public keys in inventory.lock.yml."),
    "plan": ("meshctl.cli.plan", "Show what apply would change on the live hosts."),
    "policy": ("meshctl.cli.policy", "Ask what the policies allow: diff, explain, matrix, graph."),
    "rollback": ("meshctl.cli.rollback", "Go back to a state that was applied before."),
    "revoke": ("meshctl.cli.revoke", "Cut a stolen node off from all others, at once."),
    "schema": ("meshctl.cli.schema", "Print a JSON Schema (inventory, lock, plan, ...)."),
    "status": ("meshctl.cli.status", "Show who reaches whom: directly or by which anchor, and why."),
    "test": ("meshctl.cli.test", "Run the policy tests without contacting a host."),
    "validate": ("meshctl.cli.validate", "Check the inventory without contacting a host."),
}


class LazyGroup(click.Group):
    """A click group whose commands are imported on use."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what makes the inventory invalid also goes into every format that was asked for."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from meshctl.cli.failures import answer_in_format

            answer_in_format(ctx, error)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="meshctl %(version)s")
def cli() -> None:
    """Keep a WireGuard mesh in the state that an inventory in Git says it should be in.

    \b
    Examples:
      meshctl validate inventory.yml
      meshctl plan inventory.yml
      meshctl apply inventory.yml
    """


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exits 0, 1, 2 (plan --detailed-exitcode), 64 (usage) or 65 (invalid inventory)."""
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; explained failures are printed, not raised."""
    try:
        outcome: Any = cli.main(args=argv, prog_name="meshctl", standalone_mode=False)
    except Exception as error:
        from meshctl.cli.failures import explain

        return explain(error)
    return outcome if isinstance(outcome, int) else 0
