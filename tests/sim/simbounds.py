"""What must be bounded in every world: changes of paths, checks, packets in silence, memory, what is left behind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from simcalm import insisting, shooting
from simconfig import KEEPALIVE_S
from simhours import HOUR_S
from simmemory import containers
from simnode import Node
from simpairs import (
    MUCH_LOSS,
    Says,
    can_be_led_astray,
    ends_pair,
    forgets_quickly,
    is_anchor_fault,
    met,
    owed,
    possible,
    touches,
    trying,
)
from simways import BLINK_S, BLINKS
from simwg import REKEY_TIMEOUT_S

from meshctl.core.agent.check import SCHEDULE_S as CHECKS_S
from meshctl.core.agent.checklist import MAX_PAIRS, STRANGERS_BURST, STRANGERS_RATE
from meshctl.core.agent.lifetime import SHORTEST_S
from meshctl.core.agent.liveness import BUSY_S, IDLE_SAMPLE_S, SAMPLE_S
from meshctl.core.agent.path import State
from meshctl.core.agent.relayclient import WANTED_ANCHORS
from meshctl.core.agent.splice import MAX_SHOTS, VAIN_AGAIN_S, VAIN_BURST
from meshctl.core.agent.state import load
from meshctl.core.agent.stunclient import SCHEDULE_S
from meshctl.core.reachability import DIRECT, RELAYED

if TYPE_CHECKING:
    from simworld import World

IDLE_S = 25.0
_MOVES, _MOVES_A_FAULT = 6, 8
_MOVES_A_BLINK = 1.5  # more, each time: to the relay; back, to the first way that answers, and then to the best
_DOUBTS, _RESTS_S = 3, 10.0
_PATH_PROBES, _PEER_PROBES, _NODE_PROBES, _SPLICE_PROBES, _HARM_PROBES = 30, 60, 40, 1100, 300
_STRUCK_A_SECOND = 55  # at checklist.PACE_S, and a little for what was under way
_LARGEST, _TOTAL, _TOTAL_A_PEER = 4200, 6000, 4000
# A second and peer, twice what 400 worlds need beside readings, endpoints that are set again, and shots; and where a
# peer means harm and is answered.
_WAKES, _HARM_WAKES = 3.5, 9
# A peer in all of the idle time, and where something is lost or late: it is said again, and asked again.
_IDLE_WAKES, _LOSSY_WAKES = 25, 50
# Wakes for each packet that tries a way: to send it, and when no answer has come.
_WAKES_A_TRY = 2
# Packets in silence beside those, to each peer with which all pairs are tried once more. Who splices is left out.
_TRIED, _MUCH_TRIED = {DIRECT: 0, RELAYED: 15}, 40
_OUTSIDE = 2  # addresses under which servers see one of the peer's, where its NAT is hard
# So long after its first handshake two agents may be busy with each other, and with what had waited for it.
_GREETED_S = 5.0
# In a second WireGuard's counters are read so often at most: at each start and each change of clock or document, too.
_READINGS = 2 / SAMPLE_S
_STATE_BYTES = 65536
_NOTED_S = IDLE_SAMPLE_S + 0.1
_LOOKED_AT = 10  # nodes of one world whose memory is walked through


def paths_change_seldom(world: World) -> Says:
    """A pair's endpoint moves a few times at its start, and a few times for each fault.

    A stock client that cannot be reached is tried wherever an anchor sees it: behind a hard NAT each sees it elsewhere,
    and behind one that forgets it is elsewhere each time. Where much is lost an anchor may seem dead for a moment, and
    its relay with it.
    """
    begun = _MOVES * (2 if world.spec.link.loss > MUCH_LOSS else 1)
    moves = Counter((m.node, m.peer) for m in world.watch.moved)
    harmful = {n.name for n in world.spec.nodes if n.kind == "malicious"}
    for (node, peer), count in sorted(moves.items()):
        names = (node.rstrip("'"), peer)
        faults = [f for f in world.spec.faults if touches(world, f, names) or is_anchor_fault(world, f)]
        blinked = sum(f.lasts_s / BLINK_S for f in faults if f.kind == BLINKS)
        if count > begun + _MOVES_A_FAULT * len(faults) + _MOVES_A_BLINK * blinked and peer not in harmful:
            one, other = world.nodes[node.rstrip("'")], world.nodes[peer]
            elsewhere = possible(world, one, other) != DIRECT or forgets_quickly(world, (one.spec.name, peer))
            if other.spec.kind == "client" and elsewhere:
                continue
            yield node, f"{peer} has moved {count} times"


def paths_rest(world: World) -> Says:
    """In the end nobody doubts a direct path again and again, where nothing is lost."""
    if world.spec.link.loss:
        return
    doubts = Counter(
        (d.node, d.peer)
        for d in world.watch.decided
        if d.at > world.clock.now - _RESTS_S and d.decision.before is State.DIRECT and d.decision.after is State.SUSPECT
    )
    for pair in owed(world):
        for node, peer in (pair, pair[::-1]):
            names = (node.name, peer.name)
            if trying(world, *names, lately_s=_RESTS_S):
                continue
            if doubts[names] > _DOUBTS and not forgets_quickly(world, names) and not can_be_led_astray(world, names):
                yield node.name, f"{peer.name} was in doubt {doubts[names]} times in {int(_RESTS_S)} s"


def probes_are_few(world: World) -> Says:
    """No node, and no path, sends more checks in a second than its bound, whatever happens, but for the shots of a
    splice while it tries one."""
    harm = _HARM_PROBES if _harmed(world) else 0
    for name, node in world.nodes.items():
        if node.spec.kind == "malicious":
            continue
        peers = len(node.peers())
        meter, shots = world.watch.unspliced.get(name), world.watch.of_node.get(name)
        bound = _NODE_PROBES + _PEER_PROBES * peers + harm
        most = meter.most if meter is not None else 0
        if shots is not None and shots.most > bound + _SPLICE_PROBES:
            most = shots.most
        if most > bound:
            yield name, f"{most} checks in a second, with {peers} peers"
        path = world.watch.of_path.get(name)
        if path is not None and path.most > _PATH_PROBES + harm:
            yield name, f"{path.most} checks in a second from and to {path.busiest}"


def victims_are_spared(world: World) -> Says:
    """Whom a peer names that it is not, or a STUN server has it name, gets few packets of each node that believes it,
    in a second and in all: of each of its agents, for what one has sent the next one after it does not know, nor the
    same one once the peer was none of its peers. Shots of a splice are quicker, and bounded by the attempts.
    """
    kinds = {n.name: n.kind for n in world.spec.nodes}
    ends = [end for a, b in world.spec.pairs for end in ((a, b), (b, a)) if "client" not in (kinds[a], kinds[b])]
    told = [(me, liar) for liar, me in ends if kinds[liar] == "malicious" or world.spec.stun == "victim"]
    tries = Counter(
        (d.node.rstrip("'"), d.peer)
        for d in world.watch.decided
        if d.decision.after is State.SPLICING is not d.decision.before
    )
    struck, seconds = world.victim.struck, world.clock.now
    shooting = {me for me, liar in told if tries[me, liar]}
    twins = {f.target for f in world.spec.faults if f.kind == "double"} & {me for me, _ in told}
    if struck.most > _STRUCK_A_SECOND * (len(told) + len(twins)) + _SPLICE_PROBES * len(shooting):
        yield "victim", f"{struck.most} packets in a second, of {len(told)} pairs"
    begun = {pair: max(1, world.watch.starts[pair[0]]) + _returns(world, pair) for pair in told}
    lived = {pair: seconds + world.nodes[pair[0]].offset for pair in told}  # its clock may have gone on in its sleep
    checks = sum(STRANGERS_BURST * begun[pair] + STRANGERS_RATE * lived[pair] for pair in told)
    vain = {pair: min(tries[pair], VAIN_BURST * begun[pair] + lived[pair] / VAIN_AGAIN_S) for pair in told}
    if struck.total > checks + MAX_SHOTS * sum(vain.values()):
        yield "victim", f"{struck.total} packets in {int(seconds)} s, of {len(told)} pairs"


def _returns(world: World, pair: tuple[str, str]) -> int:
    """How often at most the two were no pair, and are one again."""
    return sum(ends_pair(fault, {*pair}) for fault in world.spec.faults)


def silence_is_kept(world: World) -> Says:
    """Without traffic a node sends about one packet to each peer in a keepalive interval, and a few answers; an anchor
    no more than that.

    Each anchor is asked from each address how it sees it; one that was never met more often, and as with a stock client
    that no packet gets to, WireGuard's keepalive is a handshake each REKEY_TIMEOUT. Where a NAT forgets between two
    keepalives, each of them comes from elsewhere until that is known of the NAT. A peer that means harm is answered as
    often as it asks. The relays that a pair had before it was direct are given up in that time; where a pair stays
    relayed, all ways are tried once more in it. Left out is who splices in that time: the shots of an attempt are more
    than all the rest, and `probes_are_few` bounds them.
    """
    anchors = [anchor.name for anchor in world.spec.anchors]  # whose first messages to each other go by a third, too
    for name, before in sorted(world.before_idle.items()):
        node = world.nodes[name]
        peers = [world.nodes[p] for p in node.peers()]
        if not node.kernel.up or node.core is None or any(p.spec.kind == "malicious" for p in peers):
            continue
        if forgets_quickly(world, (name, *node.peers())) or _splices(world, name):
            continue
        meetings = [m for n in (name, *anchors) for p in node.peers() for m in world.nodes[n].meetings.get(p, ())]
        since = world.clock.now - IDLE_S - _GREETED_S
        if any(m.met_at > max(since, m.added_at + REKEY_TIMEOUT_S) for m in meetings):
            continue  # the first handshakes were lost, one after the other
        sent = packets(world, node) - before.packets
        unmet = [p for p in peers if p.spec.kind == "client" or not met(node, p.name)]
        rounds = sum(len(SCHEDULE_S) if p in unmet else 1 for p in peers if p.spec.kind == "anchor")
        retries = rounds * len(node.kernel.addresses) + len(unmet) * IDLE_S / REKEY_TIMEOUT_S
        learned_s = min(status.keepalive_s or KEEPALIVE_S for status in node.statuses())  # of the NAT
        each = 3 * IDLE_S / min(max(learned_s, SHORTEST_S), KEEPALIVE_S) + WANTED_ANCHORS
        about = each * len(peers) + 4 + _tried(world, node)
        if sent > (1 if world.spec.link.clean else 3) * about + retries:
            yield name, f"{sent} packets in {int(IDLE_S)} idle seconds, with {len(peers)} peers"


def _tried(world: World, node: Node) -> int:
    """How many packets it sends in that time to find better ways; of many addresses, all pairs once."""
    peers = [world.nodes[p] for p in node.peers()]
    ends = [p for p in peers if {p.spec.kind, node.spec.kind} == {"node"}]
    own, routers = len(node.kernel.addresses), [p for p in ends if p.spec.others or node.spec.others]
    pairs = sum(min(MAX_PAIRS, own * (len(p.kernel.addresses) + _OUTSIDE)) for p in routers)
    return len(CHECKS_S) * pairs + sum(_TRIED.get(possible(world, node, p), _MUCH_TRIED) for p in ends)


def _splices(world: World, name: str) -> bool:
    """Whether it, or another with it, tries ports for a splice in that time."""
    since = world.clock.now - IDLE_S
    steps = (d.decision for d in world.watch.decided if name in (d.node, d.peer) and d.at >= since)
    return any(State.SPLICING in (step.before, step.after) for step in steps)


def wakes_are_few(world: World) -> Says:
    """No agent is woken all the time: to read WireGuard's counters, to set an endpoint that has moved again and again,
    for the shots of a splice, and a few times a second and peer for all else. Who has nothing to do is woken for next
    to nothing but the first of these."""
    seconds = world.clock.now
    for name, count in sorted(world.watch.woken.items()):
        node = world.nodes[name.rstrip("'")]
        peers = node.peers()
        harm = any(world.nodes[peer].spec.kind == "malicious" for peer in peers)
        each = _HARM_WAKES if harm else _WAKES
        needed = seconds * (1 / SAMPLE_S + each * (len(peers) + 1)) + insisting(world, name) + shooting(world, name)
        if any(end.spec.others for end in (node, *map(world.nodes.__getitem__, peers))):
            needed += _WAKES_A_TRY * world.watch.asked[name]  # of many pairs, each has times of its own
        if count > needed and node.spec.kind != "malicious":
            yield name, f"woken {count} times in {int(seconds)} s, with {len(peers)} peers"
    yield from _idle_wakes_are_few(world)


def _idle_wakes_are_few(world: World) -> Says:
    if _harmed(world):
        return
    each = _IDLE_WAKES if world.spec.link.clean else _LOSSY_WAKES
    for name, before in sorted(world.before_idle.items()):
        count, peers = world.watch.woken[name] - before.wakes, len(world.nodes[name].peers())
        tried = _WAKES_A_TRY * _tried(world, world.nodes[name])
        if count > IDLE_S / IDLE_SAMPLE_S + each * (peers + 1) + tried and not _splices(world, name):
            yield name, f"woken {count} times in {int(IDLE_S)} idle seconds, with {peers} peers"


def readings_are_few(world: World) -> Says:
    """WireGuard's counters are read no more often than there is a need: each SAMPLE_S, and each IDLE_SAMPLE_S where no
    path is in use; a keepalive may look like it once."""
    for name, meter in sorted(world.watch.readings.items()):
        if meter.most > _READINGS and world.nodes[name.rstrip("'")].spec.kind != "malicious":
            yield name, f"WireGuard was read {meter.most} times in a second"
    yield from _idle_readings_are_few(world)


def _idle_readings_are_few(world: World) -> Says:
    if _harmed(world) or world.spec.link.loss:
        return
    for name, before in sorted(world.before_idle.items()):
        count = world.watch.readings[name].total - before.readings
        if count > (IDLE_S - BUSY_S) / IDLE_SAMPLE_S + BUSY_S / SAMPLE_S + 2:
            yield name, f"WireGuard was read {count} times in {int(IDLE_S)} idle seconds"


def memory_is_bounded(world: World) -> Says:
    """No container of a core grows beyond what its peers need, whatever it is sent, and however long it lives."""
    looked_at = _harmed(world) or world.spec.seconds >= HOUR_S or world.spec.seed % 20 == 0
    every = list(world.nodes.values()) if looked_at else []
    for node in every[:_LOOKED_AT]:
        if node.core is not None and node.spec.kind != "malicious":
            sizes = [(size, where) for where, size in containers(node.core)]
            size, where = max(sizes)
            if size > _LARGEST:
                yield node.name, f"{size} elements in {where}"
            total = sum(size for size, _ in sizes)
            if total > _TOTAL + _TOTAL_A_PEER * len(node.peers()):
                yield node.name, f"{total} elements in all"
        if len(node.saved) > _STATE_BYTES:
            yield node.name, f"a saved state of {len(node.saved)} bytes"


def leases_are_given_back(world: World) -> Says:
    """Where nothing went wrong or was lost, agents that stop leave neither open ports nor relays."""
    if world.spec.faults or world.spec.link.loss or _harmed(world):
        return
    for name, node in world.nodes.items():
        held = [] if node.gateway is None else [p for p, host in node.gateway.mappings if host in node.kernel.addresses]
        if held:
            yield name, f"its router still maps port {held[0]}"
        if node.kernel.relays:
            yield name, f"{len(node.kernel.relays)} relays are left"


def relays_are_known(world: World) -> Says:
    """What an anchor forwards, its agent has noted, so that the next one knows and ends it.

    Not what was installed right before the agent died or the world ended: it is noted with the next reading of the
    counters. And an agent that was robbed of its state knows of nothing.
    """
    for anchor in world.spec.anchors:
        node = world.nodes[anchor.name]
        deaths = [f for f in world.spec.faults if f.kind == "anchor's agent dies" and f.target == anchor.name]
        if node.core is None or any(fault.value for fault in deaths):
            continue
        noted = {relay.port for relay in load(node.saved).relays}
        ends = [world.clock.now, *(fault.at for fault in deaths)]
        for port in sorted(node.kernel.relays.keys() - noted):
            installed = world.watch.relayed[anchor.name, port]
            if not any(end - _NOTED_S <= installed <= end for end in ends):
                yield anchor.name, f"nobody knows of the relay at port {port}"


def packets(world: World, node: Node) -> int:
    """All that it has sent."""
    meter = world.watch.of_node.get(node.name)
    return node.kernel.tunnel_packets + (meter.total if meter else 0)


def _harmed(world: World) -> bool:
    """Whether somebody in it means harm."""
    return world.spec.outsider or any(n.kind == "malicious" for n in world.spec.nodes)


class BeforeIdle(NamedTuple):
    """What a node had sent, how often its agent was woken, and WireGuard read, when idleness began."""

    packets: int
    wakes: int
    readings: int


def begin_idleness(world: World) -> None:
    """Silence begins."""
    watch = world.watch
    world.before_idle = {
        name: BeforeIdle(packets(world, node), watch.woken[name], watch.readings[name].total)
        for name, node in world.nodes.items()
        if node.spec.kind in ("node", "anchor") and node.core is not None
    }
