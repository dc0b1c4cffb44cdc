"""Starting the wire process and telling it which cables there are."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import meshctl
from meshctl.lab import procs
from meshctl.lab.blueprint import Link
from meshctl.lab.names import LabError, netns_path, state_dir

ELEMENT = "wire"
ANSWER_TIMEOUT_S = 20.0


def impaired(links: Iterable[Link]) -> frozenset[Link]:
    """Links with delay, jitter or loss."""
    return frozenset(link for link in links if link.delay_ms or link.jitter_ms or link.loss_percent)


def lay(lab: str, links: Iterable[Link], unplugged: Iterable[str]) -> None:
    """Make the wire carry exactly these links. A node in `unplugged` has no carrier on its own link."""
    cables = [_cable(lab, link, link.child not in unplugged) for link in sorted(links, key=lambda k: k.parent_device)]
    request = json.dumps({"cables": cables}).encode() + b"\n"
    with contextlib.suppress(OSError):
        _ask(lab, request)
        return
    if cables:
        _start(lab)
        _ask(lab, request)


def _cable(lab: str, link: Link, up: bool) -> dict[str, object]:
    ends = {}
    for side, element, device in (("a", link.child, link.device), ("b", link.parent, link.parent_device)):
        ends[side] = [str(netns_path(lab, element)), device]
    times = {"delay_s": link.delay_ms / 1000, "jitter_s": link.jitter_ms / 1000}
    return {**ends, **times, "loss": link.loss_percent / 100, "up": up}


def _ask(lab: str, request: bytes) -> None:
    """Send one list of cables. Raises OSError when no wire listens, LabError when it cannot do it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect(str(_socket(lab)))
        connection.sendall(request)
        with connection.makefile() as stream:
            answer = stream.readline().strip()
    if answer != "ok":
        hint = f"look at {state_dir(lab) / 'wire.log'}"
        raise LabError(f"the wire says: {answer or 'nothing'}", where=lab, hint=hint)


def _start(lab: str) -> None:
    path = _socket(lab)
    path.unlink(missing_ok=True)
    home = str(Path(meshctl.__file__).parents[1])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        words = [sys.executable, "-m", "meshctl.lab.wire", str(listener.fileno())]
        log = state_dir(lab) / "wire.log"
        procs.spawn(lab, ELEMENT, words, log, {"PYTHONPATH": home}, kept=(listener.fileno(),))


def _socket(lab: str) -> Path:
    return state_dir(lab) / "wire.sock"
