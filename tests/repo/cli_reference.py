"""Write docs/cli-reference.md from the commands' own `--help`: `make docs` runs this, a test holds the page to it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from meshctl.cli import cli

HEAD = """# Commands

Made by `make docs` from `meshctl COMMAND --help`; do not edit. Exit codes: 0 success, 1 the run failed, 2 `plan
--detailed-exitcode` found changes, 64 wrong usage, 65 invalid inventory.
"""
# The page must not depend on the terminal of whoever makes it.
WIDTH = 100


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """`command` and all commands below it with the words that call them, in alphabetical order."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, (*words, name))


def help_text(words: tuple[str, ...]) -> str:
    """What `--help` prints, at a fixed width."""
    settings = cli.context_settings["help_option_names"]
    command: click.Command = cli
    context = click.Context(cli, info_name=words[0], help_option_names=settings)
    for word in words[1:]:
        assert isinstance(command, click.Group)
        below = command.get_command(context, word)
        assert below is not None
        # Each with its own command: the line `Usage:` names what every one of those above takes.
        command, context = below, click.Context(below, context, info_name=word, help_option_names=settings)
    context.terminal_width = context.max_content_width = WIDTH
    return command.get_help(context).rstrip()


def page() -> str:
    """The whole document."""
    sections = [HEAD]
    for words, _ in commands(cli, ("meshctl",)):
        sections.append(f"## {' '.join(words)}\n\n```text\n{help_text(words)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    print(page(), end="")
