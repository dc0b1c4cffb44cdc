"""What goes wrong in a world: each kind of fault, how it begins and how it ends."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import simchanges as do
import simways
from simconfig import KEEPALIVE_S
from siminventory import APPLY_S
from simspec import Fault

from meshctl.core.agent.liveness import MISSED_KEEPALIVES
from meshctl.core.agent.resolver import DEAD_S

if TYPE_CHECKING:
    from simworld import World

# WireGuard's KEEPALIVE_TIMEOUT and REKEY_TIMEOUT: nothing comes back, so there is a new handshake.
KEYS_S = 16.0
# And an idle node has sent nothing until it doubts the silence of an anchor (`liveness.MISSED_KEEPALIVES`).
_IDLE_KEYS_S = MISSED_KEEPALIVES * KEEPALIVE_S + KEYS_S + 2.0
# Names that nobody has a reason to doubt are resolved again when their TTL is over, which may be an hour, others after
# `resolver.DEAD_S`, and a little for the answer.
_NAMES_S = DEAD_S + 10.0


class Leaves(Enum):
    """What a fault makes of direct paths, as far as they may be given up for it."""

    ALONE = "they work on"
    MENDED = "they work as before when it is over: no NAT has forgotten anything, and no end"
    CHANGED = "they may be none any more, and show it much later"


class Kind(NamedTuple):
    """`target`: node, agent (one that runs the core and is no anchor), anchor, site, or nothing. `longest_s`: 0 for
    what happens at once. `keys_s`: WireGuard may need so long to notice that the other end has no keys any more."""

    target: str
    longest_s: float
    leaves: Leaves
    begin: do.Change
    end: do.Change | None = None
    keys_s: float = 0.0


_ALONE, _MENDED, _CHANGED = Leaves.ALONE, Leaves.MENDED, Leaves.CHANGED

KINDS: dict[str, Kind] = {
    "rebind": Kind("site", 0, _CHANGED, do.rebind),
    "router reboot": Kind("site", 8, _CHANGED, do.router_off, do.router_on),
    "renumber": Kind("site", 0, _CHANGED, do.renumber),
    "nat becomes": Kind("site", 10, _CHANGED, do.become, do.become_again),
    "roam": Kind("node", 0, _CHANGED, do.roam),
    "unplug": Kind("node", 10, _MENDED, do.unplug, do.plug),
    "host off": Kind("node", 10, _CHANGED, do.host_off, do.host_on, KEYS_S),
    "anchor off": Kind("anchor", 12, _CHANGED, do.host_off, do.host_on, _IDLE_KEYS_S),
    "anchors off": Kind("", 10, _CHANGED, do.all_anchors(do.host_off), do.all_anchors(do.host_on), _IDLE_KEYS_S),
    "anchor's agent dies": Kind("anchor", 10, _CHANGED, do.agent_dies, do.agent_back),
    "agent dies": Kind("agent", 10, _CHANGED, do.agent_dies, do.agent_back),
    "partition": Kind("end", 10, _MENDED, do.set_cable("side", 1), do.set_cable("side", 0)),
    "mute": Kind("end", 8, _MENDED, do.set_cable("loss_out", 1.0), do.set_cable("loss_out", 0.0)),
    "deaf": Kind("end", 8, _MENDED, do.set_cable("loss_in", 1.0), do.set_cable("loss_in", 0.0)),
    "lossy": Kind("end", 10, _MENDED, do.lossy, do.lossless),
    "clock": Kind("agent", 0, _ALONE, do.step_clock),
    "wall clock": Kind("agent", 0, _ALONE, do.set_wall_clock),
    "sleep": Kind("agent", 12, _MENDED, do.sleep, do.wake),
    "slow": Kind("agent", 10, _MENDED, do.slow, do.quick),
    "double": Kind("agent", 10, _CHANGED, do.clone, do.unclone, KEYS_S),
    "name server fails": Kind("name", 12, _CHANGED, do.mute_dns, do.mend_dns),
    "anchor moves": Kind("name", 3, _CHANGED, do.move, do.moved, _NAMES_S),
    # A suppression that stood when it ended (`damping.FIRST_S`) may last a while longer.
    simways.BLINKS: Kind("node", 40, _MENDED, simways.blink, simways.steady, 12.0),
    simways.BLOCKS: Kind("agent", 0, _CHANGED, simways.block),
    "override": Kind("agent", 10, _MENDED, do.override, do.no_override),
    "anchor leaves": Kind("anchor", 12, _CHANGED, do.leave, do.come_back, APPLY_S + KEYS_S),
    "node leaves": Kind("agent", 12, _CHANGED, do.leave, do.come_back, APPLY_S + _IDLE_KEYS_S),
    "pair ends": Kind("agent", 12, _CHANGED, do.end_pair, do.permit_pair, APPLY_S),
}


def schedule(world: World) -> None:
    """Let all faults of the world happen."""
    for fault in world.spec.faults:
        world.clock.at(fault.at, lambda fault=fault: _begin(world, fault))


def _begin(world: World, fault: Fault) -> None:
    kind = KINDS[fault.kind]
    world.trace.add(world.clock.now, "FAULT", str(fault))
    kind.begin(world, fault)
    if kind.end is not None:
        world.clock.after(fault.lasts_s, lambda: _end(world, fault))


def _end(world: World, fault: Fault) -> None:
    end = KINDS[fault.kind].end
    world.trace.add(world.clock.now, "FAULT", f"over: {fault}")
    if end is not None:
        end(world, fault)
