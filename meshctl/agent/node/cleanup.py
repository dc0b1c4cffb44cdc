"""`meshctl-agent cleanup`: give back what agents of this node leave behind when they end, for no other one will come.

An agent that ends keeps everything as it is, for the next one goes on with it; that there will be none it cannot know.
Cleaning up is an agent of no network: its core wants nothing of what was kept, and has it undone. Routers are asked
apart from it, until they have said that their mappings are gone.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from meshctl.agent.node import runlock
from meshctl.agent.node.ask import answers
from meshctl.agent.node.decisions import Decisions
from meshctl.agent.node.documentfile import read_document
from meshctl.agent.node.giveback import GiveBack
from meshctl.agent.node.handler import Handler, Plain
from meshctl.agent.node.log import Log
from meshctl.agent.node.loop import Loop, clock
from meshctl.agent.node.mappings import Mappings
from meshctl.agent.node.nfnetlink import Nfnetlink
from meshctl.agent.node.options import Parser, add_files
from meshctl.agent.node.relays import Relays
from meshctl.agent.node.ruletable import SWEEP_AFTER_S
from meshctl.agent.node.splices import Splices
from meshctl.agent.node.statefile import load_state, remove_state, save_state
from meshctl.core.agent import portmap_state, state
from meshctl.core.agent.config import AgentConfig
from meshctl.core.agent.document import AgentDocument, DocumentError
from meshctl.core.agent.events import Action, PollWg, SaveState
from meshctl.core.agent.portmap_values import Held
from meshctl.core.agentcore import AgentCore
from meshctl.model.places import RELAYS_TABLE, SPLICES_TABLE


class _Unasked(Plain):
    """Nothing is to be kept, and no peer matters."""

    actions: tuple[type[Action], ...] = (SaveState, PollWg)


def clean_up(document: AgentDocument, path: Path, log: Log) -> list[str]:
    """Do it, for a host that had this document and has its state at `path`; what is left all the same, in words.

    The state then has these mappings, and nothing else, for the next try; it goes when there are none.
    """
    nobody = AgentDocument(AgentConfig("", ()))
    kept = state.load(load_state(path))
    # Tables of before are swept at once: no agent of after has said what it wants.
    now = clock()
    before = now - SWEEP_AFTER_S
    back = GiveBack(portmap_state.load(kept.ports), Mappings(document), lambda: loop.stop(), now)
    handlers: tuple[Handler, ...] = (Splices(nobody, before), Relays(before), _Unasked(), back)
    core = AgentCore(nobody.config, random.SystemRandom(), now, state.dump(replace(kept, ports=b"")))
    loop = Loop(core, handlers, Decisions(nobody.config, log), log)
    loop.run()
    unsaved = _keep(back.left, path)
    return [*map(_left, back.left), *_tables(), *unsaved]


def _keep(left: list[Held], path: Path) -> list[str]:
    """Leave these in the state, for the next try, or no state at all; why that could not be, in words."""
    if not left:
        remove_state(path)
        return []
    try:
        save_state(path, state.dump(state.Kept(ports=portmap_state.dump(left))))
    except OSError as error:  # a full disk, say: what is there has these mappings, too
        return [f"{path}: {error.strerror}: it stays as it was"]
    return []


def _runs(path: Path, control: Path) -> bool:
    """Whether an agent does; from now on none begins. One of before there was a lock has the socket alone."""
    try:
        runlock.take(path)
    except BlockingIOError:
        return True
    except OSError as error:  # a folder that cannot be written to is no reason to leave the rest
        sys.stderr.write(f"{error}\n")
    return answers(control)


def _left(held: Held) -> str:
    until = "until somebody deletes that there, or it restarts" if held.permanent else "for two hours at most"
    return (
        f"the router {held.gateway} has not said that it is done ({held.protocol}): it may forward port"
        f" {held.external.port} to {held.internal.ip} {until}"
    )


def _tables() -> Iterator[str]:
    """A kernel without nftables has none."""
    with contextlib.suppress(OSError):
        netlink = Nfnetlink()
        try:
            for name in (SPLICES_TABLE, RELAYS_TABLE):
                if netlink.has_table(name):
                    yield f"the table inet {name} is still there: nft delete table inet {name}"
        finally:
            netlink.close()


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = Parser(
        prog="meshctl-agent cleanup",
        description="Give back what agents leave behind when they end: mappings at routers, splices, relays. For a host"
        " whose agent is gone for good; an agent that is restarted goes on with all of it. Exit status 1: something is"
        " left, and can be tried again; 75: an agent runs.",
    )
    add_files(parser, "document", "state", "socket")
    options = parser.parse_args(arguments)
    if _runs(options.state, options.socket):
        sys.stderr.write("the agent runs: stop it first (systemctl stop meshctl-agent)\n")
        return runlock.EXIT_RUNS
    document = AgentDocument(AgentConfig("", ()))
    with contextlib.suppress(OSError, DocumentError):
        document = read_document(options.document)
    left = clean_up(document, options.state, Log(clock))
    for words in left:
        sys.stderr.write(f"{words}\n")
    runlock.remove(options.state)
    if options.state.exists():
        sys.stderr.write(f"{options.state} stays, for the next try: meshctl-agent cleanup, or the next agent here\n")
    return 1 if left else 0
