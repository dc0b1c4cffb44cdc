"""What an operator wants of a pair, and what he has written down, is so."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from simconfig import public_key
from siminventory import APPLY_S
from simlong import LEAVES_S
from simpairs import (
    DIRECT_STATES,
    RELAY_STATES,
    Says,
    elsewhere,
    ends_pair,
    forgets_quickly,
    healthy,
    possible,
)

from meshctl.core.agent.clients import SILENT_S
from meshctl.core.agent.liveness import IDLE_SAMPLE_S
from meshctl.core.agent.path import Trigger
from meshctl.core.agent.peerwork import RELAY_LINGER_S
from meshctl.core.reachability import DIRECT, UNREACHABLE

if TYPE_CHECKING:
    from simnode import Node
    from simspec import Fault, WorldSpec
    from simworld import World

# An anchor says how many whole seconds ago it has heard a client, and its word takes a moment.
_TOLD_S = 2.0
# So long it may take until both ends have done what one of them was told, and when that is looked at.
_OBEYED_S, _BEFORE_S = 5.0, 0.1
# And so long a pair may be busy with a fault that is over.
_MENDED_S = 20.0


class _Wish(NamedTuple):
    """That `node` wants `mode` of its pair with `peer`, in that time."""

    node: str
    peer: str
    mode: str
    begins: float
    ends: float


def _wishes(world: World) -> Iterator[_Wish]:
    """Those of the configuration and those said to a running agent, where only one is ever had of a pair."""
    spec = world.spec
    said = [(f, f.value.partition(" ")) for f in spec.faults if f.kind == "override"]
    found = [_Wish(*override, 0.0, inf) for override in spec.overrides]
    # What the agent is told does not outlive it, and a slow one hears of it later.
    restless = {f.target for f in spec.faults if f.kind in ("agent dies", "host off", "slow", "sleep", "double")}
    found += [
        _Wish(f.target, peer, mode, f.at, _forgotten_at(spec, f, peer))
        for f, (peer, _, mode) in said
        if mode and f.target not in restless and f.at > spec.node(f.target).starts_at and _is_peer(spec, f, peer)
    ]
    of_pair = [frozenset((w.node, w.peer)) for w in found] + [frozenset((f.target, v[0])) for f, v in said]
    for wish in found:
        pair = frozenset((wish.node, wish.peer))
        if of_pair.count(pair) == (1 if wish.ends == inf else 2):
            yield wish


def _is_peer(spec: WorldSpec, said: Fault, peer: str) -> bool:
    """Whether the agent that is told so has the other for a peer then. One that has not says so."""
    pair = {said.target, peer}
    return not any(ends_pair(f, pair) and f.at < said.at < f.ends_at + APPLY_S for f in spec.faults)


def _forgotten_at(spec: WorldSpec, said: Fault, peer: str) -> float:
    """When what was said to an agent ends: it is taken back, or the inventory has the pair no more."""
    pair = {said.target, peer}
    ends = (f.at for f in spec.faults if ends_pair(f, pair) and f.ends_at > said.at)
    return min([said.ends_at, *ends])


def overrides_are_obeyed(world: World) -> Says:
    """While an operator wants the relay nobody moves to a direct path, and while he wants that none is relayed."""
    for node, peer, mode, begins, ends in _wishes(world):
        for at, who, other, decision in world.watch.decided:
            if (who, other) != (node, peer) or not begins < at < ends:
                continue
            if mode == "relay" and decision.trigger is Trigger.NOMINATED:
                yield node, f"{peer} went direct at {int(at)} s, and was to be relayed"
            elif mode == "direct" and decision.after in RELAY_STATES and decision.before not in RELAY_STATES:
                yield node, f"{peer} was relayed at {int(at)} s, and was to be direct"


def overrides_hold(world: World) -> Says:
    """In the end both ends of a pair are where its configuration wants them, if that is possible at all."""
    for name, other, mode, begins, ends in _wishes(world):
        node, peer = world.nodes[name], world.nodes[other]
        if ends < inf or not (healthy(node) and healthy(peer)):
            continue
        allowed = possible(world, node, peer)
        if mode == "direct" and world.clock.now > begins + RELAY_LINGER_S + _TOLD_S and _is_relayed(world, node, peer):
            yield node.name, f"packets to {peer.name} go by a relay, and direct is wanted"
        wanted = DIRECT_STATES if mode == "direct" else RELAY_STATES
        if allowed == UNREACHABLE or (mode == "direct" and allowed != DIRECT):
            continue
        for one, two, found in elsewhere(node, peer, wanted):
            yield one.name, f"{two.name} is {found}, and {mode} is wanted"


def _is_relayed(world: World, node: Node, peer: Node) -> bool:
    """Whether an anchor forwards what WireGuard sends there. Where a release of it may have been lost, one does so for
    a lease's lifetime."""
    if world.spec.link.loss or any(fault.kind != "override" for fault in world.spec.faults):
        return False
    there = next(s.endpoint for s in node.statuses() if s.public_key == public_key(peer.name))
    anchors = (world.nodes[a.name] for a in world.spec.anchors)
    return there is not None and any(there.ip in a.kernel.addresses and there.port in a.kernel.relays for a in anchors)


def watch_wishes(world: World) -> None:
    """Ask, right before an operator takes back what he has said to a running agent, whether both ends have done it."""
    for wish in _wishes(world):
        if wish.begins + _OBEYED_S < wish.ends < inf and not world.spec.link.loss:
            world.clock.at(wish.ends - _BEFORE_S, lambda wish=wish: _ask_wish(world, wish))


def _ask_wish(world: World, wish: _Wish) -> None:
    node, peer = world.nodes[wish.node], world.nodes[wish.peer]
    others = (f for f in world.spec.faults if f.kind != "override" and f.ends_at > wish.begins - _MENDED_S)
    starts = max(node.spec.starts_at, peer.spec.starts_at)
    if any(f.at < wish.ends for f in others) or world.clock.now < starts + 2 * _OBEYED_S:
        return
    if not (healthy(node) and healthy(peer)) or forgets_quickly(world, (wish.node, wish.peer)):
        return
    allowed = possible(world, node, peer)
    if allowed == UNREACHABLE or (wish.mode == "direct" and allowed != DIRECT):
        return
    for one, two, found in elsewhere(node, peer, DIRECT_STATES if wish.mode == "direct" else RELAY_STATES):
        world.found("wishes are done", one.name, f"{two.name} is {found}, and {wish.mode} is wanted")


def watch_clients(world: World) -> None:
    """Ask, when a client leaves for long, whether it was kept alive, and later whether it still is."""
    for fault in world.spec.faults:
        if fault.kind == "unplug" and fault.lasts_s >= LEAVES_S and world.spec.node(fault.target).kind == "client":
            gone_at = fault.at + SILENT_S + 2 * IDLE_SAMPLE_S + _TOLD_S
            world.clock.at(fault.at - 1.0, lambda client=fault.target: _ask(world, client, kept=True))
            world.clock.at(gone_at, lambda client=fault.target: _ask(world, client, kept=False))


def _ask(world: World, client: str, *, kept: bool) -> None:
    for who, words in clients_are_kept_alive(world, client, kept=kept):
        world.found("clients are kept alive", who, words)


def clients_are_kept_alive(world: World, client: str, *, kept: bool) -> Says:
    """Who can reach a client, as policy permits, has a keepalive set while it lives, and none two minutes after it was
    last heard."""
    for node in world.nodes.values():
        if not world.spec.permits(node.name, client) or not healthy(node):
            continue
        if kept and possible(world, node, world.nodes[client]) == UNREACHABLE:
            continue
        status = next(s for s in node.statuses() if s.public_key == public_key(client))
        if bool(status.keepalive_s) is not kept:
            yield node.name, f"a keepalive of {status.keepalive_s} s to {client}, which is {'here' if kept else 'gone'}"
