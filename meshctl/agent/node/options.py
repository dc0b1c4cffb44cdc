"""Where the agent finds its files, and what else its command line says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from meshctl.agent.node.ask import SOCKET
from meshctl.core.agent.config import OVERRIDES

DOCUMENT = Path("/etc/meshctl/agent.json")
STATE = Path("/var/lib/meshctl/agent/state.json")
METRICS = Path("/run/meshctl/agent.prom")
# Signalling's port and one more.
METRICS_PORT = 51872
# Prometheus asks each target once in 15 to 60 s.
METRICS_EVERY_S = 15.0
# What an operator may say of a pair: the core's words, and one for none of them.
AUTO = "auto"
MODES = (AUTO, *(mode for mode in OVERRIDES if mode))
EXIT_USAGE = 64  # of sysexits(3)
_FILES = {
    "document": (DOCUMENT, "what the repository says"),
    "state": (STATE, "what outlives a restart"),
    "socket": (SOCKET, "where `meshctl-agent status` and its kin are answered"),
    "metrics_file": (METRICS, "metrics for Prometheus's textfile collector"),
}


class Parser(argparse.ArgumentParser):
    """One that ends the process with EXIT_USAGE where words make no sense, as all of this program does."""

    def error(self, message: str) -> NoReturn:
        """As argparse prints it."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


class Options(NamedTuple):
    """Of `meshctl-agent run`."""

    document: Path
    state: Path
    socket: Path
    metrics_file: Path
    metrics_port: int
    metrics_every_s: float


def add_files(parser: argparse.ArgumentParser, *names: str) -> None:
    """Options for these files."""
    for name in names:
        default, what = _FILES[name]
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=Path, default=default, metavar="FILE", help=f"{what} (default: %(default)s)")


def parse(arguments: Sequence[str]) -> Options:
    """The command line; ends the process where it makes no sense."""
    parser = Parser(prog="meshctl-agent run", description="Keep this node's paths alive.")
    add_files(parser, *_FILES)
    parser.add_argument(
        "--metrics-port", type=int, default=METRICS_PORT, metavar="PORT",
        help="TCP port of the mesh addresses where metrics are served (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics-every", type=float, default=METRICS_EVERY_S, metavar="SECONDS", dest="metrics_every_s",
        help="how often the file is written (default: %(default)g)",
    )  # fmt: skip
    return Options(**vars(parser.parse_args(arguments)))
