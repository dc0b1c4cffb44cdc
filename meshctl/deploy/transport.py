"""How a command reaches a host: one protocol for SSH, this machine and the lab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meshctl.errors import RemoteError

# More than any facts output (1,000 peers are about 300 kB); less than what hurts the controller.
OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024


class NotSentError(RemoteError):
    """The connection had broken before: the command was not sent."""


@dataclass(frozen=True)
class Completed:
    """What a command left behind. `status` is its exit status, 128 + N where signal N ended it."""

    status: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout.decode(errors="replace")

    def last_line(self) -> str:
        """The last line of standard error, which is where programs say why they failed."""
        lines = self.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


class Transport(Protocol):
    """A host that runs commands as root. Several threads may do so at a time."""

    def run(self, command: str, stdin: bytes = b"", timeout_s: float | None = None) -> Completed:
        """Run a shell command line as root; None is the host's own command timeout.

        Raises RemoteError when the command could not be run to its end, NotSentError when not at all; a non-zero status
        is not an error here.
        """

    def close(self) -> None:
        """Give the connection back. Never raises."""
