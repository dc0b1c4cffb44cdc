"""`meshctl-agent follow`: while a peer switches from one key to another, its prefixes go to whichever it uses.

To WireGuard the peer under its old key and under its new one are two, and a prefix has one owner. A handshake says
which of the two the peer is now: so often as is looked, so much of what it sends is lost. One that goes back to its old
key is followed back.
"""

from __future__ import annotations

import json
import os
import sys
import syslog
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.agent.node.wgread import Line, read_device
from meshctl.agent.node.wgset import take_allowed_ips
from meshctl.model.keys import PublicKey

# Two packets of a hundred a second; a look takes a fraction of a millisecond of CPU with a few peers.
LOOK_S = 0.02
# Of one core at most, where a look takes longer; but so long at most is not looked. CPU time counts: on a busy host a
# look is long under way, and to look more seldom for that would lose more.
SHARE, SELDOM_S = 0.2, 0.1


@dataclass
class Switch:
    """One peer, on one interface. `seen` are the times of its handshakes, by key, as they were last seen."""

    interface: str
    old: PublicKey
    new: PublicKey
    allowed_ips: tuple[str, ...]
    seen: dict[PublicKey, int] = field(default_factory=dict)

    def uses(self, peers: Mapping[PublicKey, Line]) -> PublicKey | None:
        """With which key there was a handshake since the last look: the new one where both had one; None for neither.
        A time that is another one is a handshake, be it an earlier one: the clock may have been set back. Raises
        KeyError when one of the two is no peer any more."""
        now = {key: peers[key].handshake for key in (self.old, self.new)}
        heard = [key for key, when in now.items() if when not in (0, self.seen.get(key, 0))]
        self.seen = now
        return heard[-1] if heard else None

    def follow(self, peers: Mapping[PublicKey, Line]) -> None:
        """Give the prefixes to the key that was just used. Raises KeyError as `uses`, and OSError."""
        used = self.uses(peers)
        if used is not None:
            take_allowed_ips(self.interface, used, self.allowed_ips)


def follow() -> int:
    """Entry point. What to follow comes on standard input: `{"for_s": SECONDS, "peers": [{"interface", "old", "new",
    "allowed_ips"}…]}`. One JSON document on standard output, `{"missing": [KEY…]}`: which of these keys are no peers
    here; without any, a process of its own follows from now on, for so long or until one of the two keys is gone."""
    asked = json.loads(sys.stdin.read())
    switches = [
        Switch(peer["interface"], PublicKey(peer["old"]), PublicKey(peer["new"]), tuple(peer["allowed_ips"]))
        for peer in asked["peers"]
    ]
    missing = [str(key) for switch in switches for key in _begin(switch)]
    if not missing and os.fork() == 0:
        _follow_detached(switches, float(asked["for_s"]))
    sys.stdout.write(json.dumps({"missing": missing}) + "\n")
    return 0


def _follow_detached(switches: list[Switch], for_s: float) -> None:
    """Never returns: what comes after is the parent's. Nobody reads what it says but the system's log."""
    try:
        _detach()
        _run(switches, for_s)
        os._exit(0)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]  # no text of it, which may quote a secret
        name = type(error).__name__
        syslog.syslog(syslog.LOG_ERR, f"meshctl-agent follow has ended: {name} at {at.filename}:{at.lineno}")
    finally:
        os._exit(1)


def _begin(switch: Switch) -> list[PublicKey]:
    """Take note of what there is: a peer that has switched before this is followed now. Which keys are no peers."""
    peers = _peers(switch.interface, {})[1]
    missing = [key for key in (switch.old, switch.new) if key not in peers]
    if not missing:
        if peers[switch.new].handshake > peers[switch.old].handshake:
            switch.seen = {switch.old: peers[switch.old].handshake}
        else:
            switch.uses(peers)
    return missing


def _run(switches: list[Switch], for_s: float) -> None:
    until = time.monotonic() + for_s
    known: dict[str, Mapping[bytes | str, Line]] = {}
    while switches and time.monotonic() < until:
        began = time.process_time()
        for switch in tuple(switches):
            try:
                known[switch.interface], peers = _peers(switch.interface, known.get(switch.interface, {}))
                switch.follow(peers)
            except KeyError:
                switches.remove(switch)
            except (OSError, ValueError):
                continue  # it is being changed: again in a moment
        time.sleep(min(max(LOOK_S, (time.process_time() - began) / SHARE), SELDOM_S))


def _peers(
    interface: str, known: Mapping[bytes | str, Line]
) -> tuple[Mapping[bytes | str, Line], Mapping[PublicKey, Line]]:
    """The peers as `read_device` keeps them, and by key; none without the interface."""
    device = read_device(interface, known)
    lines = device.peers if device is not None else {}
    return lines, {line.public_key: line for line in lines.values()}


def _detach() -> None:
    """A process that outlives the connection, and holds nothing of it open."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
