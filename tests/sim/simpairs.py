"""Questions about the pairs of a world that invariants ask: whom something is owed, what was done to them, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from simconfig import KEEPALIVE_S, public_ips, wg_key
from simnat import INDEPENDENT, Behaviour
from simnode import Node
from simspec import INTERNET, Fault, SiteSpec
from simwg import REKEY_TIMEOUT_S

from meshctl.core.agent.blockage import BLOCKED_S, BLOCKED_WORDS
from meshctl.core.agent.damping import BLOCKED_FAILURES
from meshctl.core.agent.history import Decision
from meshctl.core.agent.path import State, Trigger
from meshctl.core.reachability import DIRECT, RELAYED, SPLICED

if TYPE_CHECKING:
    from simworld import World

# What an invariant yields: at whom it does not hold, and in which way.
Says = Iterator[tuple[str, str]]

# So long after a fault what happens may be owed to it: who has nothing to send notices silence after two and a half
# keepalives (`liveness.MISSED_KEEPALIVES`), and then has to find another way.
HEARD_S = 3.0 * KEEPALIVE_S
DIRECT_STATES = (State.DIRECT, State.SUSPECT)
RELAY_STATES = (State.RELAYED, State.SPLICING)
# Links that lose a larger share lose whole handshakes and conversations.
MUCH_LOSS = 0.05
# And half of all round trips, so that five questions in a row go unanswered now and then.
HALF_LOST = 0.07
# So long a path is in doubt at the most, under traffic.
DOUBT_S = 2.0
# A host that sleeps forgets WireGuard's keys.
SUSPENDING = ("clock", "sleep")
# Until it is sure that WireGuards do not hear each other, at both ends one after the other.
KNOWN_BLOCKED_S = BLOCKED_S + 3.0


def healthy(node: Node) -> bool:
    """Whether it runs an honest agent."""
    return node.spec.kind == "node" and node.kernel.up and node.core is not None


def owed(world: World) -> Iterator[tuple[Node, Node]]:
    """The permitted pairs of healthy nodes for which no operator wants anything special."""
    special = {frozenset(override[:2]) for override in world.spec.overrides}
    for a, b in world.spec.pairs:
        one, other = world.nodes[a], world.nodes[b]
        if healthy(one) and healthy(other) and frozenset((a, b)) not in special:
            yield one, other


def possible(world: World, one: Node, other: Node, *, mapping: bool = True, lies: bool = True) -> str:
    """What the oracle says of them as everything is now; without `mapping` as if no router opened ports, without `lies`
    as if those that do told where."""
    situation = world.situation()
    if not mapping:
        situation = replace(situation, sites=tuple(replace(s, speaks=()) for s in situation.sites))
    if not lies:
        situation = replace(situation, sites=tuple(map(_truthful, situation.sites)))
    outcome = world.oracle.outcome(situation, one.name, other.name)
    return RELAYED if outcome in (DIRECT, SPLICED) and blocked(world, one.name, other.name) else outcome


def _truthful(site: SiteSpec) -> SiteSpec:
    """The site if its router did not lie. Behind a carrier's NAT, the port that it has opened says nothing of where the
    host is seen, and lets all in nevertheless."""
    opened = site.lie and site.speaks and site.carrier
    nat = Behaviour(INDEPENDENT, INDEPENDENT) if opened else site.nat
    return replace(site, lie="", nat=nat)


def may_be_direct(world: World, one: Node, other: Node) -> bool:
    """Whether a direct path is one that the two can have, if only by a port that a router has opened and lies about: an
    anchor may see it all the same; or one that their NATs go on letting in since before one of them became harder."""
    if any(possible(world, one, other, lies=lies) in (DIRECT, SPLICED) for lies in (True, False)):
        return True
    names = (one.name, other.name)
    since = max(taken(world, names), default=inf)
    became = any(f.kind == "nat becomes" and f.at > since and touches(world, f, names) for f in world.spec.faults)
    return became and not blocked(world, *names) and _both_direct(one, other)


def _both_direct(one: Node, other: Node) -> bool:
    return state(one, other) in DIRECT_STATES and state(other, one) in DIRECT_STATES


def blocked(world: World, one: str, other: str) -> bool:
    """Whether something drops WireGuard's packets between the two, except by an anchor (`simways.block`)."""
    return _blocked_since(world, one, other) is not None


def _blocked_since(world: World, one: str, other: str) -> float | None:
    sieve = world.sieves.get(one)
    return sieve.blocked.get(wg_key(other)) if sieve is not None else None


def begins_to_doubt(world: World, one: Node, other: Node) -> bool:
    """Whether one of the two has doubted its path for less than the two seconds in which it says what it is."""
    if State.SUSPECT not in (state(one, other), state(other, one)):
        return False
    since, names = world.clock.now - DOUBT_S, {one.name, other.name}
    return any(d.at > since and {d.node, d.peer} == names for d in world.watch.decided)


def trying(world: World, one: str, other: str, *, lately_s: float = 0.0) -> bool:
    """Whether the two use a direct way of which they cannot know yet that it is none, or did so within the last so many
    seconds: another address that they have just taken, or one by which they had nothing to send. Whom its NAT has
    forgotten, so that nobody can tell it, hears of it when WireGuard has sent a keepalive."""
    since = _blocked_since(world, one, other)
    if since is None:
        return False
    used_since = max([since, *taken(world, (one, other))])
    flows = [run.flow for run in world.flows if {run.flow.a, run.flow.b} == {one, other}]
    sent_since = min((max(f.starts_at, used_since) for f in flows if f.ends_at > used_since), default=used_since)
    told_s = KEEPALIVE_S if forgets_quickly(world, (one, other)) else 0.0
    return sent_since > world.clock.now - known_blocked_s(world, (one, other)) - told_s - lately_s


def known_blocked_s(world: World, names: tuple[str, str]) -> float:
    """After how long two that have something to send know at the latest that a way drops WireGuard's packets. Two that
    are a pair anew, or of which one has slept, have no session, and send a handshake in each REKEY_TIMEOUT alone: by
    that way, and by the relay."""
    keyless = any(
        ends_pair(fault, {*names}) or (fault.kind in SUSPENDING and fault.target in names)
        for fault in world.spec.faults
    )
    return KNOWN_BLOCKED_S + (2 * REKEY_TIMEOUT_S if keyless else 0.0)


def taken(world: World, names: tuple[str, str]) -> list[float]:
    """When one of the two took a direct path to the other, or that of an agent before it."""
    return [d.at for d in world.watch.decided if {d.node, d.peer} == {*names} and _is_taking(d.decision)]


def _is_taking(decision: Decision) -> bool:
    begins = decision.trigger in (Trigger.NOMINATED, Trigger.ADOPTED)
    return begins and decision.before not in DIRECT_STATES


def falls(world: World, names: tuple[str, str]) -> int:
    """How often one of the two, the one that did so more often, has given a direct path to the other up, as `damping`
    counts. Whether it was right to take one for a path that drops WireGuard's packets alone is asked elsewhere."""
    dead: Counter[tuple[str, str]] = Counter()
    for decided in world.watch.decided:
        if decided.decision.trigger is Trigger.DEAD:
            blocked = decided.decision.reason.startswith(BLOCKED_WORDS)
            dead[decided.node, decided.peer] += BLOCKED_FAILURES if blocked else 1
    return max(dead[names], dead[names[::-1]])


def met(node: Node, peer: str) -> bool:
    """Whether its WireGuard has shaken hands with the peer's."""
    tunnel = node.tunnel(peer)
    return tunnel is not None and tunnel.handshake_at is not None


def state(node: Node, peer: Node) -> State:
    """What the agent takes the path for; UNKNOWN too when it says nothing."""
    path = node.path(peer.name)
    return path.state if path else State.UNKNOWN


def elsewhere(one: Node, other: Node, states: tuple[State, ...]) -> Iterator[tuple[Node, Node, str]]:
    """The ends of a pair that take their path for something else: who, to whom, and for what."""
    for node, peer in ((one, other), (other, one)):
        if state(node, peer) not in states:
            yield node, peer, state(node, peer).value


def state_at(world: World, node: str, peer: str, at: float) -> State:
    """What it took it for then."""
    found = [d.decision.after for d in world.watch.decided if (d.node, d.peer) == (node, peer) and d.at <= at]
    return found[-1] if found else State.UNKNOWN


def touches(world: World, fault: Fault, names: tuple[str, ...]) -> bool:
    """Whether the fault is one of these nodes, or of a site that one of them is ever at; or of all anchors."""
    if fault.kind == "pair ends":
        return {fault.target, fault.value} <= {*names}
    if fault.target in names or not fault.target:
        return True
    return fault.target in places_of(world, names)


def ends_pair(fault: Fault, pair: set[str]) -> bool:
    """Whether the two are no pair any more from then on, for a while."""
    if fault.kind == "pair ends":
        return {fault.target, fault.value} == pair
    return fault.kind == "node leaves" and fault.target in pair


def places_of(world: World, names: tuple[str, ...]) -> set[str]:
    """The sites where nodes of these names ever are, and those in front of them."""
    spec = world.spec
    places = {spec.node(n).site for n in names if n in world.nodes}
    places |= {f.value for f in spec.faults if f.kind in ("roam", "double") and f.target in names}
    return places | {spec.site(p).carrier for p in places if p != INTERNET}


def is_anchor_fault(world: World, fault: Fault) -> bool:
    """Whether only anchors have it."""
    return not fault.target or fault.target in {a.name for a in world.spec.anchors}


def anchor_ips(world: World) -> set[str]:
    """The addresses of all anchors."""
    return {ip for anchor in world.spec.anchors for ip in public_ips(world.nodes[anchor.name].numbered)}


def may_have_caused(world: World, fault: Fault, names: tuple[str, str], at: float) -> bool:
    """Whether what happened to the two then may be owed to this fault of theirs: for HEARD_S, and longer where the
    keepalives that they have learned are longer."""
    ends = [(me, peer) for me, peer in (names, names[::-1]) if me in world.nodes]
    tunnels = [world.nodes[me].tunnel(peer) for me, peer in ends]
    longer = max([1.0, *(tunnel.keepalive_s / KEEPALIVE_S for tunnel in tunnels if tunnel is not None)])
    return fault.at <= at <= fault.ends_at + HEARD_S * longer and touches(world, fault, names)


def forgets_quickly(world: World, names: tuple[str, ...]) -> bool:
    """Whether a NAT of theirs may expire between two keepalives, or when one is lost: then the path was dead."""
    longest = KEEPALIVE_S * (3 if world.spec.link.loss else 1)
    return any(s.nat.expiry_s <= longest for s in world.spec.sites if s.name in places_of(world, names))


def can_be_led_astray(world: World, names: tuple[str, ...]) -> bool:
    """Whether an outsider can have a NAT of theirs send a flow's packets from another port for a moment: who sends to
    a port that a router has opened, in the name of the other end, begins a flow of that port."""
    return world.spec.outsider and any(s.speaks for s in world.spec.sites if s.name in places_of(world, names))
