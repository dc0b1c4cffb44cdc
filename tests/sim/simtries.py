"""No path waits for nothing: a splice that is tried ends, and who is not direct has a time for its next try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simnode import Node
from simpairs import Says, owed

from meshctl.core.agent.path import State
from meshctl.core.agent.peer import PeerPath
from meshctl.core.agent.peerwork import RETRY_LONGEST_S
from meshctl.core.agent.splice import BURST, LISTEN_S, MAX_SHOTS, PACE_S, SETTLE_S

if TYPE_CHECKING:
    from simworld import World

# All shots, what is awaited after the last one, and a little for a timer that rings late.
ATTEMPT_S = MAX_SHOTS / BURST * PACE_S + max(LISTEN_S, SETTLE_S) + 1.0
# What holds up a host's timers.
_HOLDING = ("sleep", "slow", "host off")
_SLOW_S = 3.0  # as late as a slow host may yet be, when it is quick again


def splices_end(world: World) -> Says:
    """An attempt at a splice hits or fails: no path is called splicing for longer than its shots and answers take, and
    than its host slept."""
    begun: dict[tuple[str, str], float] = {}
    for at, node, peer, decision in world.watch.decided:
        if decision.after is State.SPLICING:
            begun.setdefault((node, peer), at)
            continue
        since = begun.pop((node, peer), None)
        if since is not None and decision.before is State.SPLICING:
            yield from _too_long(world, node, peer, since, at)
    for (node, peer), since in sorted(begun.items()):
        path = world.nodes[node].path(peer) if node in world.nodes else None
        if path is not None and path.state is State.SPLICING:
            yield from _too_long(world, node, peer, since, world.clock.now)


def _too_long(world: World, node: str, peer: str, since: float, until: float) -> Says:
    held = sum(
        max(min(until, fault.ends_at) - max(since, fault.at) + _SLOW_S, 0.0)
        for fault in world.spec.faults
        if fault.kind in _HOLDING and fault.target == node.rstrip("'")
    )
    if until - since > ATTEMPT_S + held:
        yield node, f"to {peer} for {int(until - since)} s"


def what_failed_is_tried_again(world: World) -> Says:
    """An end that is not direct, and may be, tries all pairs or ports, or has a time to do so again."""
    for pair in owed(world):
        for node, peer in (pair, pair[::-1]):
            path = _path(node, peer)
            if path is None or not path.work.may_go_direct:
                continue
            if path.state not in (State.PROBING, State.RELAYED, State.SPLICING):
                continue
            work = path.work
            under_way = work.negotiation._round_ends is not None or work.splice.trying is not None
            if not under_way and (work.retry_at is None or work.retry_at > node.now + RETRY_LONGEST_S):
                yield node.name, f"{peer.name} stays {path.state.value}"


def _path(node: Node, peer: Node) -> PeerPath | None:
    """What its core has of the path: of the next try its status says nothing."""
    key = peer.spec.name
    networks = getattr(node.core, "_networks", {}).values()
    return next((path for n in networks for path in n.paths.values() if path.peer.name == key), None)
