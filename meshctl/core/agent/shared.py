"""What the networks of one node have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from meshctl.core.agent.events import Action
from meshctl.core.agent.handshakes import Handshakes
from meshctl.core.agent.here import Pace
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.turn import Turn


@dataclass(frozen=True)
class Shared:
    """One node's. `act` has an action done; `silence` is who tries out how long a NAT keeps mappings; `relay_ports` are
    those that an anchor has given out, in whichever network; `handshakes` says how old they are."""

    dice: random.Random
    act: Callable[[Action], None]
    slot: SpliceSlot
    pace: Pace = field(default_factory=Pace)
    silence: Turn = field(default_factory=Turn)
    relay_ports: set[int] = field(default_factory=set)
    handshakes: Handshakes = field(default_factory=Handshakes)
