"""Progress on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from meshctl.deploy.progress import Progress

_TITLES = {
    "reading": "Reading", "keys": "Making keys on", "applying": "Applying to", "diff": "Fetching files of",
    "counting": "Looking at the peers of", "checking": "Checking the mesh from", "confirming": "Confirming",
    "reaching": "Trying the way to", "asking": "Asking",
    "following": "Preparing a switch on", "revoking": "Cutting off on",
    "resuming": "Taking up an apply on", "undoing": "Undoing it on",
    "history": "Reading the history of",
}  # fmt: skip
_QUIET = frozenset({"as wanted", "ok"})


def for_terminal() -> Progress:
    """The right one for where standard error goes. CI systems set CI and often give a pseudo-terminal."""
    if sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb":
        return LiveProgress()
    return PlainProgress()


class PlainProgress:
    """One line a phase, and one for every node that has something to tell."""

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:
        """Title line."""
        click.echo(f"{_TITLES[phase]} {len(nodes)} host{'s' if len(nodes) != 1 else ''}", err=True)

    def done(self, phase: str, node: str, outcome: str) -> None:  # noqa: ARG002
        """The node's line."""
        if outcome not in _QUIET:
            click.echo(f"  {node}: {outcome}", err=True)

    def note(self, text: str) -> None:
        """As it is."""
        click.echo(text, err=True)

    def end(self) -> None:
        """Nothing to close."""


class LiveProgress:
    """A bar with the number of hosts that are done; what nodes tell scrolls above it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:
        """Start the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True, highlight=False, markup=False)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(f"{_TITLES[phase]} hosts", total=len(nodes))
        self._bar.start()

    def done(self, phase: str, node: str, outcome: str) -> None:  # noqa: ARG002
        """Advance the bar."""
        self._bar.advance(self._task)
        if outcome not in _QUIET:
            self._bar.console.print(f"  {node}: {outcome}")

    def note(self, text: str) -> None:
        """Above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            click.echo(text, err=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
