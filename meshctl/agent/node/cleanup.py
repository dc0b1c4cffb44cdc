"""`meshctl-agent cleanup`: give back what agents of this node leave behind when they end, for no other one will come.

An agent that ends keeps everything as it is, for the next one goes on with it; that there will be none it cannot know.
Cleaning up is an agent of no network: its core wants nothing of what was kept, and has it undone.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from meshctl.agent.files import remove_quietly
from meshctl.agent.node.ask import answers
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.handler import Handler, Plain
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Loop, clock
from meshctl.agent.node.mappings import Mappings
from meshctl.agent.node.options import add_files
from meshctl.agent.node.relays import Relays
from meshctl.agent.node.ruletable import SWEEP_AFTER_S
from meshctl.agent.node.splices import Splices
from meshctl.agent.node.statefile import load_state
from meshctl.agent.node.watch import host_addresses
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument, DocumentError, load
from meshctl.core.agent.events import Action, Event, PollWg, SaveState
from meshctl.core.agentcore import AgentCore

# Routers have so long to say where their mappings lead, and to end them.
PATIENCE_S = 10.0
EXIT_RUNS = 75  # EX_TEMPFAIL of sysexits(3)


class _End(Plain):
    """Tells the core where this host is, and ends when the routers have answered, or have not in time."""

    actions: tuple[type[Action], ...] = (SaveState, PollWg)  # nothing is to be kept, and no peer matters

    def __init__(self, tunnels: frozenset[str], mappings: Mappings, stop: Callable[[], None], now: float) -> None:
        self._tunnels, self._mappings, self._stop = tunnels, mappings, stop
        self._ends_at = now + PATIENCE_S
        self._told = False

    def due(self) -> float | None:
        """See Handler."""
        return self._ends_at

    def poll(self, now: float) -> list[Event]:
        """See Handler. Raises OSError when the kernel does not say which addresses there are."""
        if not self._told:
            self._told = True
            return [host_addresses(self._tunnels)]
        if now >= self._ends_at or not self._mappings.busy:
            self._stop()
        return []


def clean_up(tunnels: frozenset[str], state: Path, log: Log) -> None:
    """Do it, for a host whose mesh interfaces are `tunnels`. What fails is logged."""
    nobody = AgentDocument(AgentConfig("", ()))
    # Tables of before are swept at once: no agent of after has said what it wants.
    now = clock()
    mappings = Mappings(nobody)
    end = _End(tunnels, mappings, lambda: loop.stop(), now)
    before = now - SWEEP_AFTER_S
    handlers: tuple[Handler, ...] = (Splices(nobody, before), Relays(before), mappings, end)
    core = AgentCore(nobody.config, random.SystemRandom(), now, load_state(state))
    loop = Loop(core, handlers, Decisions(nobody.config, log), log)
    loop.run()
    remove_quietly(state)


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="meshctl-agent cleanup",
        description="Give back what agents leave behind when they end: mappings at routers, splices, relays. For a host"
        " whose agent is gone for good; an agent that is restarted goes on with all of it.",
    )
    add_files(parser, "document", "state", "socket")
    options = parser.parse_args(arguments)
    if answers(options.socket):
        sys.stderr.write("the agent runs: stop it first (systemctl stop meshctl-agent)\n")
        return EXIT_RUNS
    tunnels: frozenset[str] = frozenset()
    with contextlib.suppress(OSError, DocumentError):
        config = load(options.document.read_bytes(), str(options.document)).config
        tunnels = frozenset(n.interface for n in config.networks)
    clean_up(tunnels, options.state, Log(clock))
    return 0
