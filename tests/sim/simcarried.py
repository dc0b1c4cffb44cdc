"""Which direct paths have carried packets in both directions after a fault: whatever ends one later, it is no more
that fault."""

from __future__ import annotations

from operator import gt
from typing import TYPE_CHECKING

from simfaults import KINDS, Leaves
from simpairs import HEARD_S, is_anchor_fault, state_at

from meshctl.core.agent.path import State

if TYPE_CHECKING:
    from simworld import World

# So long after its end both ends may yet take the path for what it was during the fault.
_MENDED_S, _SLOWLY_MENDED_S = 5.0, 15.0
# Within so long packets come in at both ends of a path that carries them.
_LOOKS_S = 2.0
# Between two looks.
_EACH_S = 5.0


def mended_s(world: World) -> float:
    """How long after a fault's end what it did may show for the first time."""
    return _MENDED_S if world.spec.link.clean else _SLOWLY_MENDED_S


def schedule(world: World) -> None:
    """Look after each fault of which something stays."""
    faults = [f for f in world.spec.faults if KINDS[f.kind].leaves is Leaves.CHANGED and not is_anchor_fault(world, f)]
    first = [fault.ends_at + mended_s(world) for fault in faults]
    times = {at + n * _EACH_S for at in first for n in range(int(HEARD_S / _EACH_S))}
    for at in sorted(times):
        if at < world.spec.seconds:
            world.clock.at(at - _LOOKS_S, lambda at=at: _look(world, at))


def _look(world: World, at: float) -> None:
    before = {pair: _received(world, pair) for pair in world.spec.pairs}

    def again() -> None:
        for pair, counts in before.items():
            if all(map(gt, _received(world, pair), counts)):
                world.carried.setdefault(pair, []).append(at)

    world.clock.at(at, again)


def _received(world: World, pair: tuple[str, str]) -> tuple[int, int]:
    """What WireGuard has received at both ends, one from the other."""
    counts = []
    for me, peer in (pair, pair[::-1]):
        tunnel = world.nodes[me].tunnel(peer)
        counts.append(tunnel.rx_bytes if tunnel is not None else 0)
    return counts[0], counts[1]


def has_carried(world: World, names: tuple[str, str], since: float, until: float) -> bool:
    """Whether packets have come in at both ends of their direct path at one of the looks between these times."""
    one, other = sorted(names)
    looks = [at for at in world.carried.get((one, other), ()) if since <= at < until]
    return any(_is_direct(world, one, other, at) and _is_direct(world, other, one, at) for at in looks)


def _is_direct(world: World, node: str, peer: str, at: float) -> bool:
    """Whether it has taken its path for direct, in no doubt, all the time that such a look takes."""
    steps = (d for d in world.watch.decided if (d.node, d.peer) == (node, peer) and at - _LOOKS_S <= d.at <= at)
    if any(step.decision.before is not step.decision.after for step in steps):
        return False
    return state_at(world, node, peer, at) is State.DIRECT
