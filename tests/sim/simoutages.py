"""Which outages of a flow are owed to what was done to the world, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from simconfig import KEEPALIVE_S
from simdriver import SWEEP_AFTER_S
from simfaults import KEYS_S
from simflow import FlowRun, Outage
from siminventory import APPLY_S
from simpairs import (
    DIRECT_STATES,
    MUCH_LOSS,
    SUSPENDING,
    can_be_led_astray,
    forgets_quickly,
    is_anchor_fault,
    known_blocked_s,
    owed,
    places_of,
    possible,
    state_at,
    taken,
    touches,
)
from simrecovery import is_alone
from simspec import Fault, Flow
from simways import is_blocked_at
from simwg import KEEPALIVE_TIMEOUT_S, REKEY_TIMEOUT_S

from meshctl.core.agent.backoff import LONGEST_S as HELLO_LONGEST_S
from meshctl.core.agent.conversation import AGAIN_FIRST_S
from meshctl.core.agent.liveness import PAUSES, SAMPLE_S, STOPPED_S, STREAM
from meshctl.core.agent.path import State
from meshctl.core.agent.peer import RELAY_DOUBT_S
from meshctl.core.reachability import UNREACHABLE

if TYPE_CHECKING:
    from simnode import Node
    from simworld import World

# How long it may take, in a world whose links are clean, until packets pass again: after the fault itself, or its end.
# Two seconds are promised, under traffic, for what happens at once; nothing for an agent that dies: its tunnels stay.
RECOVERY_S = {
    "rebind": 2.0, "renumber": 2.0, "roam": 1.1, "nat becomes": 3.0, "agent dies": 0.0,
    "anchor's agent dies": 0.0, "override": 1.0, "wall clock": 0.0,
    # A suspend has cost the keys.
    "clock": 6.0,
    # WireGuard has lost the session's keys at one end, and sees it 15 s after there is something to send.
    "host off": 50.0, "anchor off": 50.0, "anchors off": 50.0, "double": 50.0, "anchor moves": 90.0,
    "name server fails": 0.0,
    # The last host has the inventory. Who had left has WireGuard's keys of before, and others have none. A handshake
    # with who does not have it yet is begun anew REKEY_TIMEOUT later.
    "node leaves": APPLY_S + 50.0, "pair ends": APPLY_S + 6.0, "anchor leaves": APPLY_S + 6.0,
}  # fmt: skip
_ANY_RECOVERY_S = 5.0
# When links lose and delay, or when several things happen together.
_PATIENCE_S, _MUCH_PATIENCE_S = 12.0, 30.0
_STARTS_S = 2.0
HANDSHAKE_AGAIN_S = REKEY_TIMEOUT_S + 0.5  # and a jitter of up to a third of a second (timers.c), and the way
_ANCHOR_GONE_S = 3.0  # with another anchor to go to
_ROUNDING_S = 0.6
# A NAT that forgets between two keepalives is noticed when there is traffic again. If an anchor has lost its keys,
# WireGuard has to notice that too (KEEPALIVE_TIMEOUT and REKEY_TIMEOUT) before the other end can be asked for.
_FORGOTTEN_S = 9.0
_ASTRAY_S = 2.0  # so long after a path has died, under traffic, packets are to pass again
_CROSSINGS = 2
_KEYLESS = ("anchor off", "anchors off", "anchor moves")
# After these a NAT knows nobody whom it lets in.
_FORGETTING = ("rebind", "renumber", "router reboot", "nat becomes")
_NO_WAY = (State.UNKNOWN, State.PROBING)


def every_outage_has_a_cause(world: World) -> Iterator[tuple[str, str]]:
    """Packets stop passing only after a fault of their path, and no longer than its repair may take."""
    pairs = [{one.name, other.name} for one, other in owed(world)]
    for flow in world.flows:
        one, other = world.nodes[flow.flow.a], world.nodes[flow.flow.b]
        if {one.name, other.name} not in pairs or possible(world, one, other) == UNREACHABLE:
            continue
        places = places_of(world, (one.name, other.name))
        if any(site.nat.blocked for site in world.spec.sites if site.name in places):  # it was not possible at first
            continue
        for outage in flow.outages:
            if not _is_excused(world, flow, outage):
                began, ended = (int(t * 1000) for t in (outage.began_at, outage.ended_at))
                yield one.name, f"no answer from {other.name} from {began / 1000} to {ended / 1000} s"


def _is_excused(world: World, flow: FlowRun, outage: Outage) -> bool:
    if can_be_led_astray(world, (flow.flow.a, flow.flow.b)) and outage.ended_at - outage.began_at <= _ASTRAY_S:
        return True
    outages = [outage]
    if world.spec.link.loss:  # the last answers before the fault may have been lost as any may
        outages.append(Outage(outage.began_at + flow.longest_s / 3, outage.ended_at))
    rounding = _ROUNDING_S + flow.flow.every_s
    return any(_covered(o, _windows_of(world, flow.flow, o), rounding) for o in outages)


def _windows_of(world: World, flow: Flow, outage: Outage) -> list[tuple[float, float]]:
    """From when to when the flow may have no answers."""
    names, link = (flow.a, flow.b), world.spec.link
    patience = 0.0 if link.clean else _MUCH_PATIENCE_S if link.loss > MUCH_LOSS else _PATIENCE_S
    if forgets_quickly(world, names):
        keyless = any(fault.kind in _KEYLESS and fault.at < outage.ended_at for fault in world.spec.faults)
        patience += _FORGOTTEN_S + (KEYS_S if keyless else 0.0)
    windows = [(0.0, _begun(world, flow, patience))]
    direct = _stayed_direct(world, names, outage)  # else it came to need the anchors
    for fault in world.spec.faults:
        anchors = is_anchor_fault(world, fault)
        if (anchors and not direct) or (not anchors and touches(world, fault, names)):
            windows += [*_windows(world, fault, names, patience), *_unmet(world, fault, names, patience)]
            windows += _swept(world, fault, names)
            windows += _unheard(world, fault, flow)
            windows += _rarely_heard(world, fault, flow)
            windows += _blocked(world, fault, flow, patience)
            windows += _keyless(fault, flow)
            windows += [] if direct else _unanswered(fault, flow)
        if anchors or touches(world, fault, names):
            windows += _unfinished(world, fault, names)
    return windows + _crossed(world, names, outage)


def _crossed(world: World, names: tuple[str, str], outage: Outage) -> list[tuple[float, float]]:
    """Two handshakes that meet on their way both fail (noise.c). Both ends try again 5 s later, which the kernel's
    timers round to a quarter of a second: once in two times they meet again. But not for ever."""
    times = crossings(world, names, outage.began_at, outage.ended_at)
    return [(at - world.spec.link.delay_s, at + again_after_crossing_s(world, names)) for at in times]


def again_after_crossing_s(world: World, names: tuple[str, str]) -> float:
    """When the two try once more, after that. Who has keys that may be good, and the other's copy had been the last to
    agree on them, goes on with those instead, until WireGuard sees that nobody answers."""
    copied = any(fault.kind == "double" and fault.target in names for fault in world.spec.faults)
    return HANDSHAKE_AGAIN_S + (KEEPALIVE_TIMEOUT_S if copied else 0.0)


def crossings(world: World, names: tuple[str, str], since: float, until: float) -> list[float]:
    """When handshakes of the two had met on their way, as each end has seen it: the first ones in that time."""
    tunnels = [world.nodes[me].tunnel(peer) for me, peer in (names, names[::-1])]
    times = sorted(at for tunnel in tunnels if tunnel is not None for at in tunnel.crossed)
    return [at for at in times if since <= at <= until][: 2 * _CROSSINGS]


def _stayed_direct(world: World, names: tuple[str, str], outage: Outage) -> bool:
    ends = [(*both, at) for both in (names, names[::-1]) for at in (outage.began_at, outage.ended_at)]
    meanwhile = [
        d.decision.after
        for d in world.watch.decided
        if {d.node, d.peer} == {*names} and outage.began_at <= d.at <= outage.ended_at
    ]
    return all(state in DIRECT_STATES for state in (*meanwhile, *(state_at(world, *end) for end in ends)))


def _begun(world: World, flow: Flow, patience: float) -> float:
    """From when on the pair must have a way.

    Where links lose, WireGuard's first handshake with an anchor may be lost again and again, 5 s each time, and nobody
    can be told of anything before; and so may the first one between the two, once both agents have given it a way. A
    userspace WireGuard that has tried one with nowhere to send to tries no other for REKEY_TIMEOUT. Nor does one whose
    first one went by a port that the router had opened for the agent, and was answered when that was given back.
    """
    names = (flow.a, flow.b)
    starts = max(flow.starts_at, *(world.spec.node(n).starts_at for n in names))
    if any(world.spec.node(n).userspace or _gave_port_back(world.nodes[n]) for n in names):
        starts += HANDSHAKE_AGAIN_S
    if not world.spec.link.loss:
        return starts + _STARTS_S + patience
    anchors = (max(_first_met(world, n, a.name) for n in names) for a in world.spec.anchors)
    owed_at = max(starts, min(anchors, default=inf)) + _STARTS_S + patience
    if any(state_at(world, *ends, owed_at) in _NO_WAY for ends in (names, names[::-1])):
        return owed_at
    return max(owed_at, *(_first_met(world, *ends) + _STARTS_S for ends in (names, names[::-1])))


def _gave_port_back(node: Node) -> bool:
    """Whether its router closed a port of its while its first handshakes were under way."""
    soon, own = node.spec.starts_at + _STARTS_S, node.kernel.addresses
    closed = node.gateway.closed if node.gateway is not None else []
    return any(node.spec.starts_at <= at <= soon and host in own for at, host in closed)


def _first_met(world: World, node: str, peer: str) -> float:
    meetings = world.nodes[node].meetings.get(peer)
    return meetings[0].met_at if meetings else inf


def _windows(world: World, fault: Fault, names: tuple[str, str], patience: float) -> list[tuple[float, float]]:
    recovery = RECOVERY_S.get(fault.kind, _ANY_RECOVERY_S) + patience
    if fault.kind in SUSPENDING and world.spec.link.loss:
        # The other end goes on with the old keys until a packet with the new ones has come: two of these may be lost.
        recovery += 2 * KEYS_S
    near = tuple(f for f in world.spec.faults if touches(world, f, names) or is_anchor_fault(world, f))
    if recovery and not is_alone(fault, near, recovery):
        recovery += _PATIENCE_S
    if recovery == 0.0:
        return []
    if fault.kind in ("anchor leaves", "anchor off") and len(world.spec.anchors) > 1:
        back = _other_anchor(world, fault)
        if back > fault.at:
            return [(fault.at, min(back, fault.ends_at) + recovery)]
        noticed_s = APPLY_S if fault.kind == "anchor leaves" else 0.0
        return [(fault.at, fault.at + noticed_s + _ANCHOR_GONE_S + patience)]
    return [(fault.at, fault.ends_at + recovery)]


def _other_anchor(world: World, fault: Fault) -> float:
    """When there is another anchor than the one that has the fault: at once, but for faults of all the others."""
    others = [a.name for a in world.spec.anchors if a.name != fault.target]
    meanwhile = [f for f in world.spec.faults if f.at <= fault.at + _ANCHOR_GONE_S and f.ends_at > fault.at]
    return min(max((f.ends_at for f in meanwhile if f.target == name), default=fault.at) for name in others)


def _keyless(fault: Fault, flow: Flow) -> list[tuple[float, float]]:
    """Who began or answered a handshake within the last 5 s, sleep included, may begin none: it is left to the other
    end, once that has something to send; or to the next keepalive."""
    if fault.kind not in SUSPENDING or max(fault.lasts_s, float(fault.value or 0.0)) >= REKEY_TIMEOUT_S:
        return []
    recovery = RECOVERY_S.get(fault.kind, _ANY_RECOVERY_S)
    begins = max(fault.ends_at, min(flow.starts_at, fault.ends_at + KEEPALIVE_S))
    return [(fault.at, begins + recovery + KEYS_S)]


def _unmet(world: World, fault: Fault, names: tuple[str, str], patience: float) -> list[tuple[float, float]]:
    """A pair without any way yet is given none while the agent of one end is dead or cannot be heard, nor before it is
    asked for again; one that has a way keeps it."""
    if any(state_at(world, *e, fault.at) in _NO_WAY for e in (names, names[::-1])):
        return [(fault.at, fault.ends_at + AGAIN_FIRST_S + HELLO_LONGEST_S + _STARTS_S + patience)]
    return []


def _swept(world: World, fault: Fault, names: tuple[str, str]) -> list[tuple[float, float]]:
    """An agent that has forgotten its splice does not ask for it again, so that the driver takes it away: the other
    end then has a direct path that dies."""
    forgot = fault.kind == "agent dies" and fault.value in ("lost", "damaged")
    spliced = any(
        decided.decision.after is State.SPLICING and {decided.node, decided.peer} == {*names}
        for decided in world.watch.decided
        if decided.at < fault.at
    )
    return [(fault.ends_at, fault.ends_at + SWEEP_AFTER_S + _ASTRAY_S)] if forgot and spliced else []


def _unheard(world: World, fault: Fault, flow: Flow) -> list[tuple[float, float]]:
    """Behind a NAT that has forgotten all, nobody reaches who has nothing to send, directly or by an anchor, until
    its next keepalive. For pings that began later, or only just, or that it does not answer: those that it answers it
    would have missed, and others too, unless who sends them asked it a moment before."""
    known_s = (STREAM + 1) * max(SAMPLE_S, flow.every_s)
    if fault.kind not in _FORGETTING or (flow.starts_at + known_s < fault.at and not flow.one_way):
        return []
    if fault.target not in places_of(world, (flow.b,)):
        return []
    keepalive_s = max((p.keepalive_s for p in world.nodes[flow.b].kernel.wg.peers()), default=0.0)
    return [(fault.at, fault.ends_at + keepalive_s + RECOVERY_S.get(fault.kind, _ANY_RECOVERY_S))]


def _rarely_heard(world: World, fault: Fault, flow: Flow) -> list[tuple[float, float]]:
    """Behind such a NAT, who only answers notices after twice the longest pause between what comes all the time: a
    ping beside a message of an agent's is not seen, and lengthens one."""
    if fault.kind not in _FORGETTING or fault.target not in places_of(world, (flow.b,)):
        return []
    noticed_s = PAUSES * (2 * flow.every_s + SAMPLE_S)
    return [(fault.at, fault.ends_at + RECOVERY_S.get(fault.kind, _ANY_RECOVERY_S) + max(0.0, noticed_s - STOPPED_S))]


def _unanswered(fault: Fault, flow: Flow) -> list[tuple[float, float]]:
    """The relay of a flow that nobody answers is asked now and then only; a direct path is asked all the time."""
    if fault.kind not in _FORGETTING or not flow.one_way:
        return []
    return [(fault.at, fault.ends_at + RELAY_DOUBT_S + _ASTRAY_S)]


def _blocked(world: World, fault: Fault, flow: Flow, patience: float) -> list[tuple[float, float]]:
    """Until it is seen that WireGuard's packets do not come through: each time that a direct path is taken, after
    other faults too, and not before there is something to send."""
    names = (flow.a, flow.b)
    tries = [at for at in (fault.at, *taken(world, names)) if is_blocked_at(world, names, at)]
    known_s = known_blocked_s(world, names) + _STARTS_S  # and the two may have had no session yet
    return [(at, max(at, flow.starts_at) + known_s + patience) for at in tries]


def _unfinished(world: World, fault: Fault, names: tuple[str, str]) -> list[tuple[float, float]]:
    """The first handshake of a pair may be under way by the anchor, the NAT or the host that a fault befalls: neither
    end may begin another one for REKEY_TIMEOUT, whatever its agent does."""
    meetings = [m for n, peer in (names, names[::-1]) for m in world.nodes[n].meetings.get(peer, ())]
    under_way = any(m.added_at <= fault.at < m.met_at for m in meetings)
    return [(fault.at, fault.at + HANDSHAKE_AGAIN_S)] if under_way else []


def _covered(outage: Outage, windows: list[tuple[float, float]], rounding: float) -> bool:
    """Whether one window, or several that overlap, hold the outage, give or take."""
    began = outage.began_at + rounding
    reached = began
    for begin, end in sorted(windows):
        if begin <= reached:
            reached = max(reached, end)
    begun = any(begin - rounding <= began <= end + rounding for begin, end in windows)
    return begun and outage.ended_at <= reached + rounding
