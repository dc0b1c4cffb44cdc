"""What is played on the model and between real WireGuards. Standard library alone, as `wgstage`.

Commands keep half a second away from what timers do, so that the order of both is never in doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import wghandshakes
import wgplaces
import wgsessions
from wgstage import Stage


@dataclass(frozen=True)
class Scenario:
    """`go_differs` says what wireguard-go does that the kernel and the model do not, where there is something."""

    name: str
    play: Callable[[Stage], None]
    long: bool = False
    endpoint: bool = True  # whether `a` begins with the endpoint of `b`
    go_differs: str = ""


_KEEPS_SOURCE = "until it has heard nothing for 15 s, it sends from the address that is gone"
_SEND_COUNTS = "it starts the 15 s even when sending failed"
_WAITS = "it keeps the packet, and tries a handshake each 5 s"
_QUEUE = "its queue holds 128 packets, the kernel's 129"
SCENARIOS = (
    Scenario("handshake", wghandshakes.handshake),
    Scenario("crossing", wghandshakes.crossing),
    Scenario("no-answer", wghandshakes.no_answer),
    Scenario("staged-overflow", wghandshakes.staged_overflow, go_differs=_QUEUE),
    Scenario("unconfirmed", wghandshakes.unconfirmed),
    Scenario("roaming", wgplaces.roaming),
    Scenario("set-endpoint", wgplaces.set_endpoint),
    Scenario("deaf", wgsessions.deaf),
    Scenario("persistent", wgsessions.persistent),
    Scenario("late-endpoint", wghandshakes.late_endpoint, endpoint=False),
    Scenario("sent-before-endpoint", wghandshakes.sent_before_endpoint, endpoint=False, go_differs=_WAITS),
    Scenario("not-allowed", wgplaces.not_allowed, go_differs="it counts what it drops as received"),
    Scenario("replayed", wgplaces.replayed),
    Scenario("renumbered", wgplaces.renumbered, go_differs=_KEEPS_SOURCE),
    Scenario("two-addresses", wgplaces.two_addresses),
    Scenario("no-way", wgplaces.no_way),
    Scenario("no-way-and-deaf", wgplaces.no_way_and_deaf, go_differs=_SEND_COUNTS),
    Scenario("rekey", wgsessions.rekey, long=True),
    Scenario("reject", wgsessions.reject, long=True),
    Scenario("last-minute", wgsessions.last_minute, long=True),
    Scenario("given-up", wghandshakes.given_up, long=True),
    Scenario("persistent-25", wgsessions.persistent_25, long=True),
)
