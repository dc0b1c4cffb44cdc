"""What nodes send, and how often their agents are woken, when all faults are over: little more than the pings need.

Worlds with faults end with pings, and many others with flows, so there is no silence to ask `silence_is_kept` in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from simnode import Node
from simpairs import DIRECT_STATES, Says, trying

from meshctl.core.agent.history import Decision
from meshctl.core.agent.liveness import SAMPLE_S
from meshctl.core.agent.path import State, Trigger
from meshctl.core.agent.splice import BURST, MAX_SHOTS
from meshctl.core.agent.tunnel import INSIST_BUSY_S, INSIST_RTTS, INSIST_S

if TYPE_CHECKING:
    from simworld import World

# The end of a world, and so long before that the last fault was over: what is tried then is tried ever later.
CALM_S, SETTLED_S = 20.0, 10.0
# Checks, and packets in the tunnel beside the pings and their answers, to each peer in that time: twice what 400 worlds
# need, where nothing is lost or late, and elsewhere. In the first few tries of all pairs there are most. Of who has a
# second address beside, each pair is two.
_CHECKS, _UNCLEAN_CHECKS = 40, 60
_PACKETS, _UNCLEAN_PACKETS = 30, 40
# Wakes for each peer, and one more.
_WAKES, _UNCLEAN_WAKES = 30, 40
# A round trip by a relay crosses so many cables; what one is taken to be where nobody has measured it.
_CABLES, _UNMEASURED_S = 8, 2.0


class BeforeCalm(NamedTuple):
    """What a node had sent, and how often its agent was woken but to set an endpoint again, when all was calm; `agent`:
    which run of it."""

    checks: int
    packets: int
    wakes: int
    agent: object


def schedule(world: World) -> None:
    """Look when it begins, if it does."""
    over = max((fault.ends_at for fault in world.spec.faults), default=0.0)
    begins = world.spec.seconds - CALM_S
    if begins >= over + SETTLED_S:
        world.clock.at(begins, lambda: _begin(world))


def _begin(world: World) -> None:
    world.before_calm = {
        name: _count(world, node) for name, node in world.nodes.items() if node.spec.kind in ("node", "anchor")
    }


def _count(world: World, node: Node) -> BeforeCalm:
    meter = world.watch.of_node.get(node.name)
    checks = meter.total if meter else 0
    wakes = world.watch.woken[node.name] - world.watch.insisted[node.name]
    return BeforeCalm(checks, node.kernel.tunnel_packets, wakes, node.driver)


def calm_is_kept(world: World) -> Says:
    """Some time after the last fault a node sends a few checks and messages, beside pings, and its agent is woken
    seldom, beside to read what WireGuard counts, and to set an endpoint again and again, which `wakes_are_few` bounds.

    Left out are the peers of who means harm, which answer as often as it asks, who splices in that time, who found out
    in it that a way drops WireGuard's packets, and ends with many addresses, of which a single round has many pairs.
    """
    clean, begun = world.spec.link.clean, world.clock.now - CALM_S
    for name, before in sorted(world.before_calm.items()):
        node = world.nodes[name]
        if not node.kernel.up or node.core is None or node.driver is not before.agent or _is_busy(world, node, begun):
            continue
        now, peers = _count(world, node), len(node.peers())
        checks, bases = now.checks - before.checks, 1 + node.spec.second
        if checks > (_CHECKS if clean else _UNCLEAN_CHECKS) * peers * bases:
            yield name, f"{checks} checks in {int(CALM_S)} calm seconds, with {peers} peers"
        packets = now.packets - before.packets - _pings(world, name, begun)
        if packets > (_PACKETS if clean else _UNCLEAN_PACKETS) * peers and not _met_late(node, begun):
            yield name, f"{int(packets)} packets beside pings in {int(CALM_S)} calm seconds, with {peers} peers"
        wakes = now.wakes - before.wakes - CALM_S / SAMPLE_S
        if wakes > (_WAKES if clean else _UNCLEAN_WAKES) * (peers + 1) * bases:
            yield name, f"woken {int(wakes)} times for nothing in {int(CALM_S)} calm seconds, with {peers} peers"


def _is_busy(world: World, node: Node, since: float) -> bool:
    peers = [world.nodes[peer] for peer in node.peers()]
    if any(peer.spec.kind == "malicious" for peer in peers) or any(end.spec.others for end in (node, *peers)):
        return True
    if any(trying(world, node.name, peer, lately_s=CALM_S) for peer in node.peers()):
        return True
    who = {node.name} if node.spec.kind == "node" else world.nodes.keys()  # an anchor hands on what they say meanwhile
    steps = [d.decision for d in world.watch.decided if who & {d.node, d.peer} and d.at >= since - 1.0]
    return any(State.SPLICING in (step.before, step.after) for step in steps)


def _met_late(node: Node, since: float) -> bool:
    """Whether a first handshake came so late that all that WireGuard had kept for it (128 packets) is sent then."""
    return any(m.met_at > since for peer in node.peers() for m in node.meetings.get(peer, ()))


def _pings(world: World, name: str, since: float) -> float:
    """How many pings, or answers to them, it sends at most."""
    flows = (run.flow for run in world.flows if name in (run.flow.a, run.flow.b))
    return sum(max(min(f.ends_at, world.clock.now) - max(f.starts_at, since), 0.0) / f.every_s + 1 for f in flows)


def insisting(world: World, name: str) -> float:
    """For how many wakes endpoints that were taken, or have moved, are set again and again."""
    link = world.spec.link
    far_s = max((anchor.far_s for anchor in world.spec.anchors), default=0.0)
    # A new agent relays before it has measured how far the anchor is, and one whose questions are lost.
    unmeasured = world.watch.starts[name] > 1 or link.loss
    slow_s = max((float(fault.value) for fault in world.spec.faults if fault.kind == "slow"), default=0.0)  # it answers
    rtt_s = max(_CABLES * (link.delay_s + link.jitter_s) + 4 * far_s, _UNMEASURED_S if unmeasured else 0.0, slow_s)
    lasts_s = max(INSIST_S, INSIST_RTTS * rtt_s)
    moved = sum(m.node == name for m in world.watch.moved)
    taken = sum(d.node == name and _takes(d.decision) for d in world.watch.decided)
    return max(moved, taken) * lasts_s / INSIST_BUSY_S[0]


def _takes(decision: Decision) -> bool:
    """Whether the endpoint is set with it, be it the one that it has already."""
    if decision.trigger is Trigger.RELAY_READY:
        return decision.before not in DIRECT_STATES
    return decision.trigger in (Trigger.NOMINATED, Trigger.DEMOTED)


def shooting(world: World, name: str) -> float:
    """For how many wakes an agent shoots for splices."""
    tries = sum(d.node == name and d.decision.after is State.SPLICING is not d.decision.before
                for d in world.watch.decided)  # fmt: skip
    return tries * MAX_SHOTS / BURST
