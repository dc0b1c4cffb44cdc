"""How soon a pair is as good again as it was, after something happened to it alone, on links that lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simnode import Node
from simpairs import DIRECT_STATES, HEARD_S, Says, elsewhere, forgets_quickly, owed, places_of, possible
from simspec import Fault

from meshctl.core.reachability import DIRECT

if TYPE_CHECKING:
    from simworld import World

# Where a direct path has died packets are to pass in 2 s, by the relay, and it is to be direct 3 s after that.
DIRECT_AGAIN_S = 2.0 + 3.0
_BEFORE_S = 1.0
# What is noticed as nothing comes any more, under traffic alone; and what its own kernel tells one of the two.
_SILENT, _TOLD = ("rebind", "renumber"), ("roam", "unplug")


def is_alone(fault: Fault, faults: tuple[Fault, ...], mended_s: float) -> bool:
    """Whether what follows a fault is owed to it alone, until so long after its end: to no other that was heard of
    before it, or begins while it is mended."""
    return not any(
        other != fault and other.at <= fault.ends_at + mended_s and other.ends_at >= fault.at - HEARD_S
        for other in faults
    )


def schedule(world: World) -> None:
    """Look before each such fault which pairs it hits, and afterwards how they are."""
    spec = world.spec
    for fault in spec.faults if spec.link.clean and not spec.outsider else ():
        if fault.kind in _SILENT + _TOLD and is_alone(fault, spec.faults, DIRECT_AGAIN_S):
            world.clock.at(fault.at - _BEFORE_S, lambda fault=fault: _look(world, fault))


def _look(world: World, fault: Fault) -> None:
    hit = list(hit_by(world, fault))
    world.clock.at(fault.ends_at + DIRECT_AGAIN_S, lambda: _ask(world, hit, fault))


def hit_by(world: World, fault: Fault) -> Iterator[tuple[Node, Node]]:
    """The pairs that are direct and talk, and whose way leads by the fault's router, which opens no ports for them; of
    a fault that one of the two is told, all that are direct."""
    for one, other in owed(world):
        names = (one.name, other.name)
        felt = fault.target in names if fault.kind in _TOLD else _is_felt(world, fault, names)
        if not felt or forgets_quickly(world, names):
            continue
        if not list(elsewhere(one, other, DIRECT_STATES)):
            yield one, other


def _is_felt(world: World, fault: Fault, names: tuple[str, str]) -> bool:
    """Whether the two talk all the time, and who sends sees that nothing comes back."""
    flows = [run.flow for run in world.flows if {run.flow.a, run.flow.b} == set(names)]
    until = fault.ends_at + DIRECT_AGAIN_S
    flows = [f for f in flows if not f.one_way or fault.target in places_of(world, (f.a,))]  # others do not see it
    talks = any(f.starts_at < fault.at - 3 * f.every_s and f.ends_at > until for f in flows)
    return talks and fault.target in places_of(world, names)


def _ask(world: World, hit: list[tuple[Node, Node]], fault: Fault) -> None:
    for who, words in direct_again(world, hit):
        world.found("direct again soon", who, f"{words} {DIRECT_AGAIN_S} s after: {fault}")


def direct_again(world: World, hit: list[tuple[Node, Node]]) -> Says:
    """Under traffic a pair is direct again five seconds after its NAT has forgotten it; and so is, with none, one of
    which an end has had other addresses."""
    for pair in hit:
        if possible(world, *pair, mapping=False) == DIRECT:
            for node, peer, found in elsewhere(*pair, DIRECT_STATES):
                yield node.name, f"{peer.name} is {found}"
