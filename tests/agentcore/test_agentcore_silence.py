"""How long a NAT keeps unused mappings, tried out against NATs and what an anchor answers. Hunted: a keepalive that
lets a mapping die, a verdict from what says nothing, and packets without end."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from agentcore_values import SESSION, interface, key, peer
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.anchorduty import AnchorDuty
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.events import Action, OpenPorts, SendProbe
from meshctl.core.agent.interfacecontext import Answered, InterfaceContext, Pace
from meshctl.core.agent.lifetime import ANSWERED_S, LATE, LONGEST_S, SHORTEST_S, MappingLifetime
from meshctl.core.agent.mutex import Mutex
from meshctl.core.agent.nodecontext import NodeContext
from meshctl.core.agent.silence import LATER_S, NEXT_S, PACE_S, PORTS, Place, Silence
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.agent.stunclient import Server, anchor_server
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.stun_attributes import StunError

ANCHOR = Address("198.51.100.1", 51820)
OWN, OUTSIDE = "192.168.1.10", TransportAddress("203.0.113.7", 1)
DELAY_S = 0.02
CONFIGURED_S = 25


def context_of(
    name: str, seed: int, act: Callable[[Action], None], probe: Callable[[SendProbe, Answered], None]
) -> InterfaceContext:
    config = interface(name, 2, keepalive_s=CONFIGURED_S)
    return InterfaceContext(
        config, LocalCandidates(config.mesh_ranges), random.Random(seed), Pace(), act, probe,  # noqa: S311
        lambda *_: None, lambda _: None, lambda _: SESSION,
    )  # fmt: skip


class Verdicts(MappingLifetime):
    """Remembers the silences that were survived."""

    def __init__(self) -> None:
        super().__init__(CONFIGURED_S)
        self.told: list[float] = []

    def survived(self, silence_s: float) -> None:
        """A mapping was the same after this silence."""
        self.told.append(silence_s)
        super().survived(silence_s)


class World:
    """A node behind a NAT, and an anchor. `lost`: the shares of the packets that get lost, to the anchor and back."""

    def __init__(
        self, nat_s: float, *, preserving: bool = True, lost: float = 0.0, seed: int = 1, pool: int = 1
    ) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a simulation
        self.nat_s, self.preserving, self.lost, self.pool = nat_s, preserving, lost, pool
        self.now, self.anchor_up, self.knows_response_port = 50.0, True, True
        self.lifetime = Verdicts()
        hub, node = peer("node", "hub", 1, kind="anchor"), peer("hub", "node", 2)
        self.place: Place | None = Place(
            hub.public_key, anchor_server(ANCHOR, node.id, SESSION, hub.pair_key), OWN, frozenset({51820})
        )
        self.sent_back: list[SendProbe] = []
        shared = NodeContext(self.dice, self._anchor_sends, SpliceSlot())
        duty = AnchorDuty(interface("hub", 1, node, is_anchor=True), shared, lambda *_: None, lambda _: SESSION)
        duty.set_addresses((ANCHOR,))
        self.anchor = duty
        self.mappings: dict[int, tuple[Address, float]] = {}  # own port to outside and when it was last used
        self.actions: list[tuple[float, Action]] = []
        self.pending: list[Action] = []
        self.awaited: dict[bytes, Answered] = {}
        context = context_of("node", seed, self.pending.append, self._probe)
        context.lifetime = self.lifetime
        self.mutex = Mutex()
        self.silence = Silence(context, self.mutex, lambda: self.place, self.now)

    def _probe(self, probe: SendProbe, answered: Answered) -> None:
        self.pending.append(probe)
        self.awaited[stun.decode(probe.data).message.transaction] = answered

    def done(self) -> list[Action]:
        """What it wanted done since the last time."""
        done = self.pending[:]
        self.pending.clear()
        return done

    def answer(self, data: bytes, local: Address, sender: Address = ANCHOR) -> None:
        """A STUN message to one of its ports, which goes to who has asked."""
        received = stun.decode(data)
        self.awaited[received.message.transaction](received, local, sender, self.now)

    def _anchor_sends(self, action: Action) -> None:
        assert isinstance(action, SendProbe)
        self.sent_back.append(action)

    def outward(self, port: int) -> Address:
        """What the NAT makes of a packet from that port."""
        mapped, used_at = self.mappings.get(port, (ANCHOR, float("-inf")))
        if self.now - used_at >= self.nat_s:
            outer = port if self.preserving else self.dice.randrange(1024, 65536)
            mapped = Address(f"203.0.113.{7 + self.dice.randrange(self.pool)}", outer)
        self.mappings[port] = mapped, self.now
        return mapped

    def inward(self, to: Address) -> Address | None:
        """Whom a packet of the anchor's is for."""
        for port, (mapped, used_at) in self.mappings.items():
            if mapped == to and self.now - used_at < self.nat_s:
                return Address(OWN, port)
        return None

    def carry(self) -> None:
        """Take what was sent to the anchor, and its answers back."""
        while actions := self.done():
            for action in actions:
                self.actions.append((self.now, action))
                if isinstance(action, SendProbe):
                    self.ask(action)

    def ask(self, action: SendProbe) -> None:
        """One packet to the anchor, and what comes of it."""
        assert (action.local.ip, action.remote) == (OWN, ANCHOR)
        source = self.outward(action.local.port)
        if not self.anchor_up or self.dice.random() < self.lost:
            return
        received = stun.decode(action.data)
        if not self.knows_response_port:
            received = received._replace(message=received.message._replace(response_port=None))
        self.now += DELAY_S
        self.anchor.stun_request(received, ANCHOR, source, self.now)
        back, self.sent_back = self.sent_back, []
        for answer in back:
            local = self.inward(answer.remote)
            if local is not None and self.dice.random() >= self.lost:
                self.now += DELAY_S
                self.answer(answer.data, local)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (due := self.silence.due()) <= end:
            self.now = max(self.now, due)
            self.silence.poll(self.now)
            self.carry()
            assert self.silence.due() > self.now, "it spins"
        self.now = max(self.now, end)

    @property
    def probes(self) -> list[float]:
        """When packets left."""
        return [at for at, action in self.actions if isinstance(action, SendProbe)]


DAY = 86400.0


@pytest.mark.parametrize("preserving", [True, False])
@settings(max_examples=examples(15), deadline=None)
@given(st.floats(12, 300), st.integers(0, 999))
def test_the_keepalive_that_is_found_is_below_the_nats_lifetime_and_not_far_below(
    preserving: bool, nat_s: float, seed: int
) -> None:
    world = World(nat_s, preserving=preserving, seed=seed)
    world.run(3600)
    assert world.lifetime.keepalive_s < nat_s
    survived = nat_s - 6
    enough = (survived - ANSWERED_S) / LATE
    assert world.lifetime.keepalive_s >= min(LONGEST_S, max(SHORTEST_S, enough - 1))


@settings(max_examples=examples(20), deadline=None)
@given(st.floats(12, 300), st.floats(0, 0.5), st.integers(0, 999))
def test_packets_are_ten_seconds_apart_and_no_silence_counts_as_survived_that_was_not_whatever_is_lost(
    nat_s: float, lost: float, seed: int
) -> None:
    world = World(nat_s, lost=lost, seed=seed)
    world.run(DAY / 12)
    gaps = [b - a for a, b in zip(world.probes, world.probes[1:], strict=False)]
    assert min(gaps, default=PACE_S) >= PACE_S - 1e-6
    assert all(silence < nat_s for silence in world.lifetime.told)


def test_the_ports_are_open_during_the_experiment_and_are_no_ports_of_wireguard() -> None:
    world = World(1000)
    world.run(NEXT_S + 1)
    (_, opened), (_, probe) = world.actions
    assert isinstance(opened, OpenPorts)
    assert isinstance(probe, SendProbe)
    first, second = opened.ports
    assert probe.local.port == first != second
    assert {first, second} <= set(PORTS) - {51820}
    world.run(CONFIGURED_S + 5)
    asked = world.actions[2][1]
    assert isinstance(asked, SendProbe)
    assert asked.local.port == second
    assert world.actions[3][1] == OpenPorts(key("hub"), ())


def test_no_port_that_is_taken_is_used() -> None:
    world = World(1000)
    assert world.place is not None
    free = {50000, 50001, 50002}
    world.place = world.place._replace(taken=frozenset(PORTS) - free)
    world.run(3600)
    opened = [action.ports for _, action in world.actions if isinstance(action, OpenPorts) and action.ports]
    assert opened
    assert {port for ports in opened for port in ports} <= free
    assert all(len(set(ports)) == 2 for ports in opened)


def test_the_first_silence_is_the_configured_keepalive_and_the_next_ones_are_longer() -> None:
    world = World(1000)
    world.run(3600)
    silences = [b - a for a, b in zip(world.probes[::2], world.probes[1::2], strict=True)]
    assert silences[0] == pytest.approx(CONFIGURED_S, abs=0.1)
    assert silences == sorted(silences)
    assert world.lifetime.keepalive_s == LONGEST_S
    before = len(world.probes)
    world.run(DAY)
    assert len(world.probes) == before


def test_a_mapping_that_has_gone_is_told_only_when_the_anchor_still_answers() -> None:
    world = World(15)
    world.run(NEXT_S + CONFIGURED_S + 2 * PACE_S + 1)
    assert world.lifetime.keepalive_s == CONFIGURED_S
    world.anchor_up = False
    world.run(600)
    assert world.lifetime.keepalive_s == CONFIGURED_S
    world.anchor_up = True
    world.run(1200)
    assert world.lifetime.keepalive_s < 15


def test_an_anchor_that_never_answers_is_asked_three_times_in_ten_minutes() -> None:
    world = World(100)
    world.anchor_up = False
    world.run(DAY)
    assert len(world.probes) <= 3 * DAY / LATER_S
    assert len(world.probes) > 100
    assert world.lifetime.keepalive_s == CONFIGURED_S
    closed = [action for _, action in world.actions if isinstance(action, OpenPorts)]
    assert [bool(action.ports) for action in closed[:4]] == [True, False, True, False]


def test_an_anchor_that_cannot_answer_elsewhere_teaches_nothing() -> None:
    world = World(15)
    world.knows_response_port = False
    world.run(DAY)
    assert world.lifetime.keepalive_s == CONFIGURED_S
    assert len(world.probes) <= 2 * DAY / LATER_S


@pytest.mark.parametrize("seed", range(6))
def test_behind_several_outside_addresses_silence_is_no_proof(seed: int) -> None:
    world = World(15, pool=200, seed=seed)
    world.run(NEXT_S + CONFIGURED_S + 4 * PACE_S)
    assert world.silence.due() > world.now + NEXT_S
    assert world.lifetime.keepalive_s == CONFIGURED_S


def test_without_a_place_nothing_is_sent_until_there_is_one() -> None:
    world = World(100)
    place, world.place = world.place, None
    world.run(DAY)
    assert world.actions == []
    world.place = place
    world.run(LATER_S + 60)
    assert world.probes


def test_stopping_closes_the_ports_and_what_comes_later_counts_for_nothing() -> None:
    world = World(1000)
    world.run(NEXT_S + 1)
    sent = world.actions[1][1]
    assert isinstance(sent, SendProbe)
    world.silence.stop(world.now)
    assert world.done() == [OpenPorts(key("hub"), ())]
    answer = stun.encode(stun.success_response(stun.decode(sent.data).message, OUTSIDE))
    due = world.silence.due()
    world.answer(answer, sent.local)
    assert world.silence.due() == due
    world.silence.stop(world.now)
    assert world.done() == []
    world.run(NEXT_S + 1)
    assert len(world.probes) == 2


def test_polling_before_the_time_does_nothing_and_after_it_is_not_too_late() -> None:
    world = World(1000)
    for early in (1.0, 15.0, NEXT_S - 0.1):
        world.silence.poll(50.0 + early)
    assert world.done() == []
    world.silence.poll(50.0 + NEXT_S + 7)
    assert len(world.done()) == 2


@pytest.mark.parametrize("forged", ["key", "transaction", "198.51.100.66", "198.51.100.0"])
def test_only_the_anchors_own_answer_counts(forged: str) -> None:
    world = World(1000)
    world.anchor_up = False
    world.run(NEXT_S + 1)
    sent = world.actions[1][1]
    assert isinstance(sent, SendProbe)
    assert world.place is not None
    request = stun.decode(sent.data).message
    if forged == "transaction":
        request = request._replace(transaction=bytes(12))
    signing = b"x" * 32 if forged == "key" else world.place.server.key
    answer = stun.encode(stun.success_response(request, OUTSIDE), signing)
    sender = Address(forged, 51820) if "." in forged else ANCHOR
    due = world.silence.due()
    world.awaited[bytes(12)] = next(iter(world.awaited.values()))
    world.answer(answer, sent.local, sender)
    assert world.silence.due() == due


def test_a_refusal_ends_it_for_ten_minutes() -> None:
    world = World(1000)
    assert world.place is not None
    world.place = world.place._replace(server=Server(ANCHOR))
    world.anchor_up = False
    world.run(NEXT_S + 1)
    sent = world.actions[1][1]
    assert isinstance(sent, SendProbe)
    transaction = stun.decode(sent.data).message.transaction
    refusal = stun.Message(stun.Class.ERROR, transaction, error=StunError(420, "Unknown Attribute"))
    world.answer(stun.encode(refusal), sent.local)
    assert world.silence.due() == world.now + LATER_S


def test_two_networks_take_turns_and_neither_is_left_out() -> None:
    world = World(1000)
    place = world.place
    assert place is not None
    now, running = 50.0, dict.fromkeys(("corp", "lab"), False)
    begun = dict.fromkeys(running, 0)

    def opens(name: str, action: Action) -> None:
        if isinstance(action, OpenPorts):
            running[name] = bool(action.ports)
            begun[name] += running[name]
            assert not all(running.values())

    context = {name: context_of(name, 1, partial(opens, name), lambda *_: None) for name in running}
    silences = {name: Silence(context[name], world.mutex, lambda: place, now) for name in running}
    while now < 50.0 + DAY:
        now = min(silence.due() for silence in silences.values())
        for silence in silences.values():
            silence.poll(now)
    assert min(begun.values()) > DAY / LATER_S / 2


def test_a_network_that_stops_leaves_its_turn_to_another() -> None:
    world = World(1000)
    world.run(NEXT_S + 1)
    assert not world.mutex.acquire("another")
    world.silence.stop(world.now)
    assert world.mutex.acquire("another")
    world.run(DAY)
    assert len(world.probes) == 1
