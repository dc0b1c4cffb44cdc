"""What a run tells about itself while it goes on; the command line draws it, tests may listen."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from the run's main thread alone."""

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:
        """A phase starts for these nodes: `reading`, `keys`, `diff`, `reaching`, `applying`, `counting`,
        `checking`, `confirming`, `asking`, `history`, `resuming`, `undoing`, `following`, `revoking`."""

    def done(self, phase: str, node: str, outcome: str) -> None:
        """One node is through the phase; `outcome` is a word or two, or an error's line."""

    def note(self, text: str) -> None:
        """Something that the operator should know now."""

    def end(self) -> None:
        """The phase is over."""


class Silent:
    """Nobody listens."""

    def begin(self, phase: str, nodes: tuple[str, ...]) -> None:
        """Nothing."""

    def done(self, phase: str, node: str, outcome: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
