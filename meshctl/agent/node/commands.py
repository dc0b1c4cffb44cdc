"""`meshctl-agent status` and its kin: what the agent of this host knows and does."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from meshctl.agent.node.ask import EXIT_NO_AGENT, ask
from meshctl.agent.node.options import EXIT_USAGE, MODES, Parser, add_files
from meshctl.agent.node.tables import TABLES, events

HELPS = {
    "status": "the node in short: networks, how many peers are reached how, relays that it serves",
    "paths": "each peer: how it is reached, where, since when and why",
    "events": "the last decisions about each peer, with their reasons",
    "nat": "the NATs in front of this node, and what its routers map",
    "rebind": "find everything out anew, as after a change of network",
    "override": "keep one pair on the relay or off it, until the agent ends",
}
# Between two looks of --follow.
FOLLOW_S = 1.0
EXIT_UNPRINTED = 1


def main(command: str, arguments: Sequence[str]) -> int:
    """Ask, and print the answer; the exit status."""
    options = _parser(command).parse_args(arguments)
    request: dict[str, Any] = {"request": command}
    if command == "override":
        request |= {"peer": options.peer, "mode": options.mode}
    try:
        answer = _ask(options.socket, request)
        if "error" in answer:
            sys.stderr.write(f"{answer['error']}\n")
            return EXIT_USAGE
        as_json = options.output == "json"
        if command == "events" and options.follow:
            _follow(options.socket, answer, as_json=as_json)
        print(json.dumps(answer, indent=2) if as_json else TABLES[command](answer), flush=True)
    except KeyboardInterrupt:
        return 0
    except _NoAgentError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_AGENT
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # `head` has seen enough
            sys.stderr.write(f"standard output: {error.strerror}\n")
        # What is left in the buffer would be tried again at the end (https://docs.python.org/3/library/signal.html).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNPRINTED
    return 0


class _NoAgentError(Exception):
    """Says where."""


def _ask(path: Path, request: dict[str, Any]) -> Any:
    try:
        return ask(path, request)
    except PermissionError as error:
        raise _NoAgentError(f"the agent at {path} answers root alone: ask with sudo") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _NoAgentError(f"no agent answers at {path}: {why}") from error


def _follow(path: Path, answer: Any, *, as_json: bool) -> NoReturn:
    """Print these events and what comes; JSON as one event a line."""
    text = events(answer)
    while True:
        lines = [json.dumps(event) for event in answer["events"]] if as_json else [text] if text else []
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
        time.sleep(FOLLOW_S)
        answer = _ask(path, {"request": "events", "after": answer["next"]})
        text = events(answer).partition("\n")[2]  # without the head


def _parser(command: str) -> Parser:
    what = HELPS[command]
    parser = Parser(prog=f"meshctl-agent {command}", description=f"Shows {what}.")
    if command in ("rebind", "override"):
        parser.description = f"{what[0].upper()}{what[1:]}."
    if command == "override":
        parser.add_argument("peer", metavar="PEER", help="the peer's name in the inventory")
        parser.add_argument("mode", choices=MODES, help="auto: as the agent finds best")
    if command == "events":
        parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("-o", "--output", choices=("human", "json"), default="human", help="default: %(default)s")
    add_files(parser, "socket")
    return parser
