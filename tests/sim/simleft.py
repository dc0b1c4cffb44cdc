"""Which paths may be left, and how often: a direct one, a relay, and an attempt at a splice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from simcarried import has_carried, mended_s
from simfaults import KINDS, Leaves
from simpairs import (
    DIRECT_STATES,
    HEARD_S,
    MUCH_LOSS,
    RELAY_STATES,
    Says,
    can_be_led_astray,
    forgets_quickly,
    healthy,
    is_anchor_fault,
    may_have_caused,
    owed,
    possible,
    state,
    touches,
)
from simspec import INTERNET, Fault
from simways import is_blocked_at

from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.splice import VAIN_BURST
from meshctl.core.reachability import INDEPENDENT, SPLICED

if TYPE_CHECKING:
    from simnode import Node
    from simworld import World


# So long an agent may need to see that WireGuard sends where it was told to.
_TAKEN_S = 1.0
# How a NAT maps is known when so many have told what they see.
_TELLING = 2


def no_live_path_is_abandoned(world: World) -> Says:
    """A direct path is given up only after something happened to one of its ends, or an operator wanted it."""
    spec, asked_for = world.spec, _asked_for(world)
    if spec.link.loss >= MUCH_LOSS:  # all checks of a path in doubt are lost, once in thousands of worlds
        return
    for at, node, peer, decision in world.watch.decided:
        if decision.before not in DIRECT_STATES or decision.after in DIRECT_STATES:
            continue
        if decision.trigger is Trigger.DEMOTED and {node, peer} & asked_for:
            continue
        names = (node.rstrip("'"), peer)
        if any(spec.node(n).kind != "node" for n in names if n != "?"):
            continue
        if forgets_quickly(world, names) or can_be_led_astray(world, names):
            continue
        if is_blocked_at(world, names, at):  # for good, so that the path is none: it is tried where there is no relay
            continue
        if not any(_has_ended_path(world, fault, (node, peer), at) for fault in spec.faults):
            yield node, f"{peer} at {int(at)} s: {decision.reason}"


def _has_ended_path(world: World, fault: Fault, ends: tuple[str, str], at: float) -> bool:
    """Whether the fault may be why this end has then given its direct path to the other up: while it lasts and is
    mended, and where something of it stays, later too, unless a direct path has worked since the fault was over: one
    that was taken then, or one that carried packets."""
    node, peer = ends
    names = (node.rstrip("'"), peer)
    leaves = KINDS[fault.kind].leaves
    if is_anchor_fault(world, fault) or leaves is Leaves.ALONE or not may_have_caused(world, fault, names, at):
        return False
    if fault.kind == "override" and {fault.target, fault.value.split()[0]} != {*names}:
        return False
    mended_at = fault.ends_at + mended_s(world)
    if at <= mended_at:
        return True
    since = (d for d in world.watch.decided if (d.node, d.peer) == ends and mended_at < d.at < at)
    worked = any(d.decision.after is State.DIRECT is not d.decision.before for d in since)
    return leaves is Leaves.CHANGED and not worked and not has_carried(world, names, mended_at, at)


def no_live_relay_is_abandoned(world: World) -> Says:
    """A relay is left for nothing only after something happened to one of the ends or to an anchor, or as an operator
    wants it."""
    if world.spec.link.loss:
        return
    asked_for = _asked_for(world)
    for at, node, peer, decision in world.watch.decided:
        names = (node.rstrip("'"), peer)
        left = decision.before in RELAY_STATES and decision.after not in (*RELAY_STATES, *DIRECT_STATES)
        if not left or asked_for & {*names} or any(world.spec.node(n).kind != "node" for n in names if n != "?"):
            continue
        if not any(may_have_caused(world, f, names, at) or _is_of_anchors(world, f, at) for f in world.spec.faults):
            yield node, f"{peer} at {int(at)} s: {decision.reason}"


def splices_are_torn_down(world: World) -> Says:
    """In the end packets leave by another port than WireGuard's own for direct paths alone."""
    for node in world.nodes.values():
        if not healthy(node) or node.core is None:
            continue
        used = {path.endpoint for path in node.core.paths() if path.state in DIRECT_STATES}
        if any(d.node == node.name and d.at > world.clock.now - _TAKEN_S for d in world.watch.decided):
            continue
        for remote in sorted(node.kernel.splices.keys() - used):
            yield node.name, f"by {node.kernel.splices[remote]} to {remote}"


def splices_hit(world: World) -> Says:
    """Where the NATs let a splice through, and nothing is lost, VAIN_BURST attempts in a row are not in vain since the
    last fault: by chance they are once in 100,000 times."""
    if world.spec.link.loss:
        return
    since = max((f.ends_at for f in world.spec.faults), default=0.0)
    for one, other in owed(world):
        names = (one.name, other.name)
        vain = min(_in_vain(world, *names, since), _in_vain(world, *names[::-1], since))  # both have taken part
        if vain >= VAIN_BURST and possible(world, one, other) == SPLICED:
            yield one.name, f"{vain} attempts in vain in a row to {other.name}"


def splices_are_tried(world: World) -> Says:
    """In the end the two have tried a splice where the NATs let one through, unless they have a direct path.

    Left out is where one anchor alone can say what a NAT does, or something is lost; and of two hard NATs, which the
    oracle has spliced where one of them can be foreseen, nobody tries."""
    if world.spec.link.loss or len(world.spec.anchors) < _TELLING:
        return
    for one, other in owed(world):
        if state(one, other) in DIRECT_STATES or possible(world, one, other) != SPLICED:
            continue
        if _is_behind_hard_nat(world, one) and _is_behind_hard_nat(world, other):
            continue
        of_pair = (d for d in world.watch.decided if {d.node, d.peer} == {one.name, other.name})
        if not any(d.decision.trigger is Trigger.SPLICE_BEGUN for d in of_pair):
            yield one.name, f"no splice with {other.name} was tried"


def _is_behind_hard_nat(world: World, node: Node) -> bool:
    place = node.place
    while place != INTERNET:
        site = world.sites[place]
        if site.router.nat.behaviour.mapping != INDEPENDENT:
            return True
        place = site.spec.carrier
    return False


def _in_vain(world: World, node: str, peer: str, since: float) -> int:
    """How many attempts of its last ones in a row have hit nothing."""
    begun, vain = False, 0
    for at, who, whom, decision in world.watch.decided:
        if (who, whom) != (node, peer) or at < since:
            continue
        if decision.trigger is Trigger.SPLICE_BEGUN:
            begun = True
        elif decision.trigger is Trigger.NOMINATED:
            begun, vain = False, 0
        elif decision.trigger is Trigger.SPLICE_FAILED and begun:
            begun, vain = False, vain + 1
    return vain


def _asked_for(world: World) -> set[str]:
    """Of whose pairs an operator has said something."""
    said = [f for f in world.spec.faults if f.kind == "override"]
    return {n for o in world.spec.overrides for n in o[:2]} | {n for f in said for n in (f.target, f.value.split()[0])}


def _is_of_anchors(world: World, fault: Fault, at: float) -> bool:
    return is_anchor_fault(world, fault) and fault.at <= at <= fault.ends_at + HEARD_S


def paths_die_seldom(world: World) -> Says:
    """So often does an end give its direct path up as something happened to the two, or to the anchors, and once more:
    that it may be owed to a fault does not mean that it may be each time."""
    if world.spec.link.loss or world.sieves:
        return
    died = Counter(
        (d.node.rstrip("'"), d.peer)
        for d in world.watch.decided
        if d.decision.before in DIRECT_STATES and d.decision.after not in DIRECT_STATES
    )
    for names, count in sorted(died.items()):
        faults = sum(touches(world, f, names) or is_anchor_fault(world, f) for f in world.spec.faults)
        if any(world.spec.node(n).kind != "node" for n in names if n != "?") or count <= faults + 1:
            continue
        if not forgets_quickly(world, names) and not can_be_led_astray(world, names):
            yield names[0], f"the path to {names[1]} has died {count} times, of {faults} faults"
