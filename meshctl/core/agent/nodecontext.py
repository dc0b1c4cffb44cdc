"""What the networks of one node have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshctl.core.agent.events import Action
from meshctl.core.agent.handshakes import Handshakes
from meshctl.core.agent.interfacecontext import Pace
from meshctl.core.agent.mutex import Mutex
from meshctl.core.agent.splice_slot import SpliceSlot


@dataclass(frozen=True)
class NodeContext:
    """What is the same for all networks of one node. `act` has an action done; `silence` is held by the network that
    tries out how long a NAT keeps mappings; `relay_ports` are those that an anchor has given out, in whichever network;
    `handshakes` says how old WireGuard's are."""

    dice: random.Random
    act: Callable[[Action], None]
    slot: SpliceSlot
    pace: Pace = field(default_factory=Pace)
    silence: Mutex = field(default_factory=Mutex)
    relay_ports: set[int] = field(default_factory=set)
    handshakes: Handshakes = field(default_factory=Handshakes)
