"""What is bounded by the hour, in worlds that last for hours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from simpairs import (
    DIRECT_STATES,
    RELAY_STATES,
    Says,
    can_be_led_astray,
    forgets_quickly,
    may_have_caused,
    owed,
    state,
)

from meshctl.core.agent.choice import CHANGES_PER_HOUR
from meshctl.core.agent.lifetime import LATE
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S
from meshctl.core.agent.path import State, Trigger

if TYPE_CHECKING:
    from simworld import World

HOUR_S = 3600.0
LOOK_S = 300.0
# Doubts of a direct path. A handshake, which there is every two minutes or later, looks like content without an answer
# where the round trip is long and the counters are read once a second.
_DOUBTS_PER_HOUR = 30
# New places for a pair's ends at a relay: when it is allocated, and each time a NAT gives a bind another port.
_INSTALLED_PER_HOUR = 60
# Of a node towards each of its peers: keepalives of paths, binds, questions to anchors, and all pairs again after
# `peerwork.RETRY_LONGEST_S` at most, where they are in vain.
_PROBES_PER_HOUR = 2500


def most_in_an_hour(times: Sequence[float]) -> int:
    """Of ordered times, how many are at most within one hour."""
    first = most = 0
    for last, time in enumerate(times):
        while time - times[first] > HOUR_S:
            first += 1
        most = max(most, last - first + 1)
    return most


def _unprovoked(world: World) -> Iterator[tuple[float, str, str, State, State, Trigger]]:
    """Decisions that no fault of the pair, nor an anchor's, is the cause of."""
    for at, node, peer, decision in world.watch.decided:
        names = (node.rstrip("'"), peer)
        if not any(may_have_caused(world, f, names, at) for f in world.spec.faults):
            yield at, node, peer, decision.before, decision.after, decision.trigger


def changes_without_need_are_few(world: World) -> Says:
    """A direct path is left for a better one a few times an hour."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for at, node, peer, before, _, trigger in _unprovoked(world):
        if before is State.DIRECT and trigger is Trigger.NOMINATED:
            times[node, peer].append(at)
    for (node, peer), found in sorted(times.items()):
        if most_in_an_hour(found) > CHANGES_PER_HOUR and not can_be_led_astray(world, (node, peer)):
            yield node, f"{most_in_an_hour(found)} changes to a better pair of {peer} in an hour"


def doubts_are_few(world: World) -> Says:
    """A direct path to which nothing happens is seldom doubted, where nothing is lost."""
    if world.spec.link.loss or world.spec.seconds < HOUR_S:
        return
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for at, node, peer, before, after, _ in _unprovoked(world):
        if before is State.DIRECT and after is State.SUSPECT:
            times[node, peer].append(at)
    for names, found in sorted(times.items()):
        if most_in_an_hour(found) > _DOUBTS_PER_HOUR and not forgets_quickly(world, names):
            yield names[0], f"{names[1]} was in doubt {most_in_an_hour(found)} times in an hour"


def hours_cost_little(world: World) -> Says:
    """What is tried in vain is tried ever later, and what is held is held by few packets."""
    hours = world.spec.seconds / HOUR_S
    if hours < 1.0:
        return
    for name, node in world.nodes.items():
        peers, meter = len(node.peers()), world.watch.of_node.get(name)
        if meter is not None and meter.total > _PROBES_PER_HOUR * peers * hours:
            yield name, f"{meter.total} checks in {hours:.1f} hours, with {peers} peers"
        count = world.watch.installed[name]
        if count > _INSTALLED_PER_HOUR * hours * len(world.spec.pairs):
            yield name, f"{count} relays installed in {hours:.1f} hours"


def keys_are_renewed(world: World) -> Says:
    """A path that carries packets has a handshake that is not too old: keepalives see to that. Where packets are lost,
    it may be the one by which the end that answered knows that there are new keys: the next keepalive is another."""
    for pair in owed(world):
        for node, peer in (pair, pair[::-1]):
            here, there = node.tunnel(peer.name), peer.tunnel(node.name)
            if state(node, peer) not in DIRECT_STATES + RELAY_STATES or here is None or there is None:
                continue
            again_s = max(here.keepalive_s, there.keepalive_s) * LATE if world.spec.link.loss else 0.0
            age_s = world.clock.now - here.handshake_at if here.handshake_at is not None else 0.0
            if age_s > IDLE_HANDSHAKE_MAX_S + again_s:
                yield node.name, f"the last handshake with {peer.name} was {int(age_s)} s ago"
