"""What must hold in every world. Each invariant is a function whose first line says it; it yields (who, in which way).

`schedule` asks some while the world runs, `at_the_end` the others when all has settled, `afterwards` once agents have
wound up; `simbounds` has those that bound something. What is wrong in a single act is seen by `simwatch`, what is wrong
in a core's manners by `simdriver`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import simcalm
import simcarried
import simrecovery
from simbounds import (
    IDLE_S,
    begin_idleness,
    leases_are_given_back,
    memory_is_bounded,
    paths_change_seldom,
    paths_rest,
    probes_are_few,
    readings_are_few,
    relays_are_known,
    silence_is_kept,
    victims_are_spared,
    wakes_are_few,
)
from simfaults import KEYS_S
from simflow import FlowRun
from simhours import LOOK_S, changes_without_need_are_few, doubts_are_few, hours_cost_little, keys_are_renewed
from simleft import (
    no_live_path_is_abandoned,
    no_live_relay_is_abandoned,
    paths_die_seldom,
    splices_are_torn_down,
    splices_are_tried,
    splices_hit,
)
from simnode import Node
from simoutages import HANDSHAKE_AGAIN_S, again_after_crossing_s, crossings, every_outage_has_a_cause
from simpairs import (
    DIRECT_STATES,
    HALF_LOST,
    MUCH_LOSS,
    RELAY_STATES,
    Says,
    anchor_ips,
    begins_to_doubt,
    elsewhere,
    falls,
    may_be_direct,
    met,
    owed,
    places_of,
    possible,
    state,
    trying,
)
from simspec import Flow, Link
from simtries import splices_end, what_failed_is_tried_again
from simwishes import overrides_are_obeyed, overrides_hold, watch_clients, watch_wishes

from meshctl.core.agent.damping import FREE_FAILURES
from meshctl.core.agent.gatherer import MAX_BASES
from meshctl.core.agent.liveness import has_session
from meshctl.core.agent.path import State
from meshctl.core.agent.relayserver import PORTS as RELAY_PORTS
from meshctl.core.reachability import DIRECT, RELAYED, SPLICED, UNREACHABLE

if TYPE_CHECKING:
    from simworld import World

Invariant = Callable[["World"], Says]

# Who starts is promised a way in one second, by a relay if need be, and the direct one in two. And a little for the
# world's own round trips and clocks.
CARRIES_S, DIRECT_S, MARGIN_S = 1.0, 2.0, 0.3
# All have started, and the first fault is to come (`simdraw`).
_BEFORE_FAULTS_S = 11.5
# Everybody is awake again, so that what broke in silence is noticed.
_LAST_PINGS_S = 1.0
# What fits an interface's MTU of 1,420, in bytes with IP's and ICMP's or UDP's headers.
LARGEST_PING = 1420
# And all that is said of a pair that one of the two has taken: seven nominations in 5 s, and the next round's.
_HALF_LOST_S = 9.5
# So long no answer comes in the end at most: where nothing is lost, and where handshakes are.
_SILENCE_S, _LOSSY_SILENCE_S = 5.0, 15.0
# A handshake, its last message and a ping with its answer, by a relay: three round trips.
_BY_RELAY_LINKS = 3 * 8
# A ping and its answer, by a relay, cross so many cables, and the anchor's own so often.
_BY_RELAY_CABLES, _ROUND_TRIP = 8, 4
# Such a share of the round trip is more than measuring may get wrong, and more than what anybody stays for.
_MUCH_FARTHER = 0.25
# How many handshakes by the relay, once that is taken, may be lost one after the other: of two messages each, and where
# much is lost one in two may come through.
_LOSSY_HANDSHAKES, _VERY_LOSSY_HANDSHAKES = 2, 6
# Two ends that change at the same time, where messages are lost.
_AGREE_S = 3.0
# A handshake that is late is tried again each 5 s.
_RENEWS_S = 20.0


def schedule(world: World) -> None:
    """Ask what is asked on the way."""
    watch_clients(world)
    watch_wishes(world)
    simrecovery.schedule(world)
    simcarried.schedule(world)
    simcalm.schedule(world)
    early = min((f.at for f in world.spec.faults), default=_BEFORE_FAULTS_S) < _BEFORE_FAULTS_S
    if world.spec.link.clean and not early:
        for a, b in world.spec.pairs:
            start = max(world.spec.node(a).starts_at, world.spec.node(b).starts_at)
            world.clock.at(start + CARRIES_S + MARGIN_S, lambda a=a, b=b: _ask_early(world, a, b, carries_soon))
            world.clock.at(start + DIRECT_S + MARGIN_S, lambda a=a, b=b: _ask_early(world, a, b, direct_soon))
    if not early:
        lossy_s = 1.0 if world.spec.link.loss <= HALF_LOST else _HALF_LOST_S
        _ask_twice(world, the_kernel_does_what_the_agent_says, _BEFORE_FAULTS_S, lossy_s)
    if not early and not world.spec.link.loss:  # all checks that nominate may be lost, and the next try is too late
        _ask_twice(world, both_ends_agree, _BEFORE_FAULTS_S, 1.0)
    _ask_twice(world, both_ends_agree, world.spec.seconds, _AGREE_S)
    for at in (_BEFORE_FAULTS_S, world.spec.quiet_at + 1.0, world.spec.seconds):
        _ask_twice(world, what_failed_is_tried_again, at, 1.0)
    for look in range(1, int(world.spec.seconds / LOOK_S) + 1):
        _ask_twice(world, keys_are_renewed, look * LOOK_S, _RENEWS_S)
    if world.spec.faults:
        for a, b in world.spec.pairs:
            large = LARGEST_PING if world.spec.link.mtu >= Link.mtu else 0
            world.add_flow(Flow(a, b, world.spec.quiet_at + 1.0, _LAST_PINGS_S, world.spec.seconds, large))
    elif not world.spec.flows and not world.spec.outsider and world.spec.seconds > IDLE_S:
        world.clock.at(world.spec.seconds - IDLE_S, lambda: begin_idleness(world))


def at_the_end(world: World) -> None:
    """Ask what holds when all has settled."""
    for invariant in AT_THE_END:
        _ask(world, invariant)


def afterwards(world: World) -> None:
    """Ask what holds when agents have gone."""
    _ask(world, leases_are_given_back)


def _ask(world: World, invariant: Invariant) -> None:
    for who, words in invariant(world):
        _found(world, invariant, who, words)


def _found(world: World, invariant: Callable[..., Says], who: str, words: str) -> None:
    world.found(invariant.__name__.replace("_", " "), who, words)


def _ask_early(world: World, a: str, b: str, invariant: Callable[[World, Node, Node], Says]) -> None:
    pair = world.nodes[a], world.nodes[b]
    if pair in list(owed(world)) and not any(_looks_for_the_way_out(node) for node in pair):
        for who, words in invariant(world, *pair):
            _found(world, invariant, who, words)


def _looks_for_the_way_out(node: Node) -> bool:
    """Whether it has so many addresses that all look alike that it cannot ask from each at once."""
    return node.spec.gateless and node.spec.others + node.spec.second >= MAX_BASES


def _ask_twice(world: World, invariant: Invariant, at: float, after_s: float) -> None:
    """So long before that time, and then: what is being mended, or changes in this moment, is no finding."""
    before: set[str] = set()

    def again() -> None:
        for who, words in invariant(world):
            if who in before:
                _found(world, invariant, who, words)

    world.clock.at(at - after_s, lambda: before.update(who for who, _ in invariant(world)))
    world.clock.at(at, again)


# While it runs


def carries_soon(world: World, one: Node, other: Node) -> Says:
    """A second after both agents run, packets have a way, where any is possible."""
    if possible(world, one, other) != UNREACHABLE and not _port_changed(one) and not _port_changed(other):
        for node, peer, found in elsewhere(one, other, DIRECT_STATES + RELAY_STATES):
            yield node.name, f"{peer.name} is {found} {CARRIES_S} s after both agents run"


def direct_soon(world: World, one: Node, other: Node) -> Says:
    """Two seconds after both agents run, the path is direct where the NATs allow it without a port being mapped."""
    if possible(world, one, other, mapping=False) == DIRECT and not _port_changed(one) and not _port_changed(other):
        for node, peer, found in elsewhere(one, other, DIRECT_STATES):
            yield node.name, f"{peer.name} is {found} {DIRECT_S} s after both agents run"


def _port_changed(node: Node) -> bool:
    """Whether its first handshakes are lost, because its router opened another port while they were under way, or took
    one back that its agent did not want after all."""
    return node.gateway is not None and not any(met(node, peer) for peer in node.peers())


# When all has settled


def direct_when_possible(world: World) -> Says:
    """In the end every pair is direct whose NATs allow it, and ports that no router has forgotten.

    One that has failed often is left alone for a while.
    """
    for one, other in owed(world):
        names = (one.name, other.name)
        if falls(world, names) > FREE_FAILURES:
            continue
        places = places_of(world, names)
        mapping = not any(f.kind == "router reboot" and f.target in places for f in world.spec.faults)
        if possible(world, one, other, mapping=mapping) == DIRECT:
            for node, peer, found in elsewhere(one, other, DIRECT_STATES):
                yield node.name, f"{peer.name} is {found}, and could be direct"


def direct_only_when_possible(world: World) -> Says:
    """No pair believes that it is direct when its NATs make that impossible."""
    for one, other in owed(world):
        if may_be_direct(world, one, other):
            continue
        if trying(world, one.name, other.name) or begins_to_doubt(world, one, other):
            continue
        for node, peer in ((one, other), (other, one)):
            if state(node, peer) in DIRECT_STATES:
                allowed = possible(world, one, other)
                yield node.name, f"{peer.name} is {state(node, peer).value}, the oracle says {allowed}"


def relayed_otherwise(world: World) -> Says:
    """In the end every pair that cannot be direct is relayed, for there are anchors."""
    for one, other in owed(world):
        allowed = possible(world, one, other)
        wanted = RELAY_STATES + (DIRECT_STATES if may_be_direct(world, one, other) else ())
        if allowed in (RELAYED, SPLICED) and not trying(world, one.name, other.name):
            for node, peer, found in elsewhere(one, other, wanted):
                yield node.name, f"{peer.name} is {found}, and could be relayed"


def both_ends_agree(world: World) -> Says:
    """Before the first fault, and in the end, both ends take their path for the same: direct, or one relay."""
    for one, other in owed(world):
        mine, theirs = one.path(other.name), other.path(one.name)
        if mine is None or theirs is None or trying(world, one.name, other.name):
            continue
        if not may_be_direct(world, one, other) and begins_to_doubt(world, one, other):
            continue
        if (mine.state in DIRECT_STATES) != (theirs.state in DIRECT_STATES):
            yield one.name, f"{mine.state.value} towards {other.name}, which says {theirs.state.value}"
        elif mine.state in RELAY_STATES and theirs.state in RELAY_STATES and mine.relay != theirs.relay:
            yield one.name, f"relayed by {mine.relay} towards {other.name}, which is relayed by {theirs.relay}"


def relays_are_near(world: World) -> Says:
    """In the end nobody goes by an anchor that is far away while there is one that is nearer, and by much."""
    round_trip_s = _BY_RELAY_CABLES * (world.spec.link.delay_s + world.spec.link.jitter_s)
    up = [a for a in world.spec.anchors if world.nodes[a.name].core is not None and world.nodes[a.name].kernel.up]
    nearest_s = min((anchor.far_s for anchor in up), default=0.0)
    for pair in () if world.spec.link.loss else owed(world):
        for node, peer in (pair, pair[::-1]):
            path = node.path(peer.name)
            used = path.relay if path is not None and path.state in RELAY_STATES else None
            more_s = sum(_ROUND_TRIP * (a.far_s - nearest_s) for a in world.spec.anchors if a.name == used)
            if more_s > _MUCH_FARTHER * (round_trip_s + more_s):
                yield node.name, f"{peer.name} by {used}, which is {more_s:.2f} s farther away than another one"


def the_kernel_does_what_the_agent_says(world: World) -> Says:
    """Before the first fault, and in the end, WireGuard sends by a relay when the agent says so, and only then."""
    for pair in owed(world):
        for node, peer in (pair, pair[::-1]):
            path = node.path(peer.name)
            if path is None or path.state not in (State.DIRECT, State.RELAYED):
                continue
            status = next(s for s in node.statuses() if s.public_key == path.public_key)
            if not has_session(status) and (world.spec.link.loss or trying(world, node.name, peer.name)):
                continue  # the handshake that the other end is to begin was lost, or goes by what drops it
            there = status.endpoint
            by_relay = there is not None and there.port in RELAY_PORTS and there.ip in anchor_ips(world)
            if by_relay != (path.state is State.RELAYED):
                yield node.name, f"{peer.name} is {path.state.value}, and WireGuard sends to {there}"


def the_last_pings_are_answered(world: World) -> Says:
    """In the end packets pass between all pairs that can have a way."""
    loss = world.spec.link.loss
    longest = _LOSSY_SILENCE_S if loss else _SILENCE_S
    handshakes = 1 if not loss else _LOSSY_HANDSHAKES if loss <= MUCH_LOSS else _VERY_LOSSY_HANDSHAKES
    again_s = HANDSHAKE_AGAIN_S * handshakes + _BY_RELAY_LINKS * world.spec.link.delay_s
    for flow in world.flows:
        one, other = world.nodes[flow.flow.a], world.nodes[flow.flow.b]
        ends_last = flow.flow.ends_at == world.spec.seconds
        if not ends_last or (one, other) not in list(owed(world)) or possible(world, one, other) == UNREACHABLE:
            continue
        silence = world.clock.now - flow.answered_at
        if silence <= longest or trying(world, one.name, other.name, lately_s=again_s):
            continue
        if not _handshakes_were_lost(world, flow) and not _have_crossed(world, flow):
            yield one.name, f"no answer from {other.name} for the last {int(silence)} s"


def _handshakes_were_lost(world: World, flow: FlowRun) -> bool:
    """Whether links have lost handshakes of the two ever since the last answer. After one that was complete for one end
    alone, the next comes when what was sent since then is not answered."""
    longest = KEYS_S + 2 * flow.flow.every_s
    tunnel = world.nodes[flow.flow.a].tunnel(flow.flow.b)
    times = world.watch.lost[tunnel.secret] if tunnel is not None else []
    since, now = flow.answered_at, world.clock.now
    lost = [at for at in times if at > since]
    return bool(lost) and all(b - a <= longest for a, b in zip([since, *lost], [*lost, now], strict=True))


def _have_crossed(world: World, flow: FlowRun) -> bool:
    """Whether handshakes of the two had met on their way, and those after them are to come."""
    now, names = world.clock.now, (flow.flow.a, flow.flow.b)
    again_s = again_after_crossing_s(world, names)
    return any(now - at < again_s for at in crossings(world, names, flow.answered_at, now))


AT_THE_END: tuple[Invariant, ...] = (
    direct_when_possible, direct_only_when_possible, relayed_otherwise, relays_are_near,
    the_kernel_does_what_the_agent_says, the_last_pings_are_answered, no_live_path_is_abandoned,
    no_live_relay_is_abandoned, paths_die_seldom, paths_change_seldom,
    overrides_are_obeyed, overrides_hold, changes_without_need_are_few, doubts_are_few, hours_cost_little,
    paths_rest, wakes_are_few, readings_are_few, probes_are_few, victims_are_spared, silence_is_kept, memory_is_bounded,
    relays_are_known, every_outage_has_a_cause, splices_are_torn_down, splices_hit,
    splices_are_tried, splices_end, simcalm.calm_is_kept,
)  # fmt: skip
