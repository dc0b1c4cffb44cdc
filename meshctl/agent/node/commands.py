"""`meshctl-agent status` and its kin: what the agent of this host knows and does."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from meshctl.agent.node.ask import EXIT_NO_AGENT, ask
from meshctl.agent.node.options import MODES, add_files
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
EXIT_REFUSED = 64  # EX_USAGE of sysexits(3)


def main(command: str, arguments: Sequence[str]) -> int:
    """Ask, and print the answer; the exit status."""
    options = _parser(command).parse_args(arguments)
    request: dict[str, Any] = {"request": command}
    if command == "override":
        request |= {"peer": options.peer, "mode": options.mode}
    try:
        answer = ask(options.socket, request)
        if "error" in answer:
            sys.stderr.write(f"{answer['error']}\n")
            return EXIT_REFUSED
        as_json = options.output == "json"
        if command == "events" and options.follow:
            _follow(options.socket, answer, as_json=as_json)
        print(json.dumps(answer, indent=2) if as_json else TABLES[command](answer))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        sys.stderr.write(f"no agent answers at {options.socket}: {getattr(error, 'strerror', None) or error}\n")
        return EXIT_NO_AGENT
    return 0


def _follow(path: Path, answer: Any, *, as_json: bool) -> NoReturn:
    """Print these events and what comes; JSON as one event a line."""
    text = events(answer)
    while True:
        lines = [json.dumps(event) for event in answer["events"]] if as_json else [text] if text else []
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
        time.sleep(FOLLOW_S)
        answer = ask(path, {"request": "events", "after": answer["next"]})
        text = events(answer).partition("\n")[2]  # without the head


def _parser(command: str) -> argparse.ArgumentParser:
    what = HELPS[command]
    parser = argparse.ArgumentParser(prog=f"meshctl-agent {command}", description=f"Shows {what}.")
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
