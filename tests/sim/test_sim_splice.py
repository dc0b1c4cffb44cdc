"""A splice finds a way between a hard and an easy NAT. Hunted: attempts that find nothing though they could, that cost
more packets than they may, and that leave something behind."""

from __future__ import annotations

import itertools
import random

import pytest
from simnat import RANDOM, SEQUENTIAL, Behaviour
from simnet import Cable, Host, Packet, Router
from test_sim_net import PORT, World

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import NatSummary, Splice
from meshctl.core.agent.candidate import Candidate, priority
from meshctl.core.agent.checklist import STRANGERS_BURST, STRANGERS_RATE, CheckList, Credentials, Pair
from meshctl.core.agent.events import InstallSplice, OpenPorts, RemoveSplice, SendProbe
from meshctl.core.agent.nat import Mapping
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.router import TokenBucket
from meshctl.core.agent.splice import BETWEEN_S, BURST, LISTEN_S, OPENED, PACE_S, Failed, Splicer
from meshctl.core.agent.splice_situation import MAX_GUESSES, Role, Situation
from meshctl.core.agent.splice_slot import SpliceSlot
from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT
from meshctl.core.wire import stun
from meshctl.model.keys import PublicKey

PEER, OTHER = PublicKey("A" * 43 + "="), PublicKey("B" * 42 + "A=")
KEY = b"k" * 32
SIGNAL_DELAY_S = 0.05
HARD = NatSummary(4, Mapping.ADDRESS_AND_PORT_DEPENDENT, 0)
EASY = NatSummary(4, Mapping.ENDPOINT_INDEPENDENT, 0)


class End:
    """One end: checks and a splicer on a simulated host, which does what they say and uses what is nominated."""

    def __init__(
        self, world: World, host: Host, ip: str, nats: tuple[NatSummary, NatSummary], seed: int, *, controlling: bool
    ) -> None:
        username = "b:a" if controlling else "a:b"
        self.world, self.host, self.base, self.nats = world, host, Address(ip, PORT), nats
        self.controlling = controlling
        self.credentials = Credentials(username, KEY)
        dice = random.Random(f"{ip} {seed}")  # noqa: S311 - not the NATs' dice, or the guesses would be their ports
        allowance = TokenBucket(STRANGERS_RATE, STRANGERS_BURST)
        transactions = Transactions(dice)
        self.list = CheckList(
            self.credentials, controlling=controlling, dice=dice, strangers=allowance, transactions=transactions
        )
        self.slot = SpliceSlot((PORT,))
        self.splicer = Splicer(PEER, self.slot, dice, transactions)
        self.peer: End | None = None
        self.candidates: tuple[Candidate, ...] = ()
        self.open: set[int] = set()
        self.installed: set[tuple[Address, int]] = set()
        self.shots: list[tuple[float, SendProbe]] = []
        self.said: list[float] = []
        self.failed = 0
        self.used: Pair | None = None
        self.signal_loss = 0.0
        host.bind(PORT, self.receive)

    @property
    def situation(self) -> Situation:
        return Situation(
            (self.base,), self.nats[:1], self.nats[1:], self.candidates, self.credentials, self.controlling
        )

    def start(self) -> str:
        why = self.splicer.start(self.situation, self.world.clock.now)
        self.turn()
        return why

    def turn(self) -> None:
        now = self.world.clock.now
        self.splicer.poll(now)
        self.drain()
        probe = self.list.poll(now)
        if probe is not None:
            self.host.send(probe.local, probe.remote, probe.data)
        for due in (self.splicer.due(), self.list.due()):
            if due is not None:
                assert due > now or due == self.list.due(), "the splicer spins"
                self.world.clock.at(due, self.turn)

    def drain(self) -> None:
        now = self.world.clock.now
        for output in self.splicer.outputs():
            if isinstance(output, SendProbe):
                self.shots.append((now, output))
                self.host.send(output.local, output.remote, output.data)
            elif isinstance(output, Splice):
                self.said.append(now)
                if self.world.dice.random() >= self.signal_loss:
                    self.world.clock.after(SIGNAL_DELAY_S, lambda said=output: self.peer.told(said))  # type: ignore
            elif isinstance(output, OpenPorts):
                self._open(set(output.ports))
            elif isinstance(output, InstallSplice):
                assert output.local_port in self.open
                self.installed.add((output.remote, output.local_port))
            elif isinstance(output, RemoveSplice):
                self.installed.remove((output.remote, output.local_port))
            else:
                assert isinstance(output, Failed)
                self.failed += 1

    def _open(self, ports: set[int]) -> None:
        for port in self.open - ports:
            self.host.unbind(port)
        for port in ports - self.open:
            self.host.bind(port, self.receive)
        self.open = ports

    def told(self, said: Splice) -> None:
        self.splicer.received(said, self.situation, self.world.clock.now)
        self.turn()

    def receive(self, packet: Packet) -> None:
        received, now = stun.decode(packet.data), self.world.clock.now
        assert received.is_authentic(KEY)
        pair = Pair(Address(self.base.ip, packet.destination[1]), Address(*packet.source))
        if received.message.message_class is stun.Class.REQUEST:
            reply, question = self.list.receive_request(received.message, pair)
            self.host.send(reply.local, reply.remote, reply.data)
            self.splicer.heard(pair, now)
            self.use(question.pair if question.nominated else None)
        else:
            answer = self.list.receive_response(received.message, pair, now)
            if answer is not None and answer.nominated:
                self.use(answer.pair)
            elif answer is not None and self.controlling and self.used is None:
                self.list.nominate(answer.pair, now)
        self.turn()

    def use(self, pair: Pair | None) -> None:
        if pair is not None and self.splicer.take(pair):
            self.used = pair
            self.drain()


def meet(
    allocation: str, seed: int, *, hard_mapping: str = ADDRESS_AND_PORT, loss: float = 0.0, drift: int = 0,
    controlling: Role = Role.HARD,
) -> tuple[World, End, End]:  # fmt: skip
    """The hard and the easy end, who have learned of each other from servers; since then the hard NAT has served
    `drift` others."""
    world = World(seed)
    hard_nat = NatSummary(4, HARD.mapping, 0, 1 if allocation == SEQUENTIAL else 0)
    ends = []
    for index, (mapping, mine) in enumerate(((hard_mapping, hard_nat), (INDEPENDENT, EASY))):
        router: Router = world.router(f"198.51.100.{index}", Behaviour(mapping, ADDRESS_AND_PORT, allocation))
        ip = f"192.168.{index}.2"
        host = world.host("ab"[index], router.inside, ip, cable := Cable())
        places = [Address(*world.mapped(host, ip, server)) for server in (0, 1)]
        nats = (mine, EASY if index == 0 else hard_nat)
        end = End(world, host, ip, nats, seed, controlling=index == (0 if controlling is Role.HARD else 1))
        cable.loss = loss
        ends.append((end, tuple(Candidate("srflx", p, p, "00000000", priority("srflx", 1)) for p in set(places))))
        for n in range(drift if index == 0 else 0):
            host.send((ip, PORT), ("203.0.113.9", 1 + n), b"?")
    (hard, of_hard), (easy, of_easy) = ends
    hard.peer, hard.candidates, easy.peer, easy.candidates = easy, of_easy, hard, of_hard
    world.settle()
    return world, hard, easy


def agreed(hard: End, easy: End) -> bool:
    """Whether both use one and the same way, and it is spliced at the hard end."""
    if hard.used is None or easy.used is None:
        return False
    assert hard.used.remote == easy.candidates[0].address._replace(ip="198.51.100.1", port=hard.used.remote.port)
    assert easy.used.remote.ip == "198.51.100.0"
    assert hard.installed == {(hard.used.remote, hard.used.local.port)}
    assert hard.open == {hard.used.local.port}
    assert not easy.installed
    assert not easy.open
    return True


def bounded(hard: End, easy: End, attempts: int = 1) -> None:
    """No more packets than an attempt may cost, and no faster."""
    assert len(hard.shots) <= attempts * OPENED
    assert len(easy.shots) <= attempts * MAX_GUESSES
    for end in (hard, easy):
        gaps = [later - earlier for (earlier, _), (later, _) in zip(end.shots, end.shots[BURST:], strict=False)]
        assert min(gaps, default=PACE_S) > 0.9 * PACE_S
    guessed = [probe.remote for _, probe in easy.shots[:MAX_GUESSES]]
    assert len(set(guessed)) == len(guessed)


def torn_down(end: End) -> bool:
    """Whether nothing is left of any attempt or splice."""
    free = end.slot.acquire(OTHER)
    end.slot.release(OTHER)
    return free and not end.open and not end.installed and end.splicer.due() is None


@pytest.mark.parametrize("controlling", Role)
@pytest.mark.parametrize("mapping", [ADDRESS, ADDRESS_AND_PORT])
def test_ports_in_sequence_are_hit_by_the_first_few_guesses(mapping: str, controlling: Role) -> None:
    for seed, drift in enumerate((0, 40, 300)):
        world, hard, easy = meet(SEQUENTIAL, seed, hard_mapping=mapping, drift=drift, controlling=controlling)
        assert hard.start() == ""
        world.clock.run(world.clock.now + 3.0)
        assert agreed(hard, easy)
        bounded(hard, easy)
        # A guess every 64 ports; and those that were on their way when the first one had hit.
        in_flight = 2 * 0.0205 * 2 * BURST / PACE_S
        assert len(easy.shots) <= drift / 64 + 3 + in_flight + 5


def test_ports_at_random_are_hit_in_nearly_all_attempts() -> None:
    guesses, found = [], 0
    for seed in range(12):
        world, hard, easy = meet(RANDOM, seed, controlling=(Role.HARD, Role.EASY)[seed % 2])
        hard.start()
        world.clock.run(world.clock.now + 8.0)
        bounded(hard, easy)
        found += agreed(hard, easy)
        guesses.append(len(easy.shots))
    assert found >= 11
    assert sorted(guesses)[6] < 500


def test_a_fifth_of_all_packets_lost_leaves_most_attempts_with_a_hit() -> None:
    found = 0
    for seed in range(8):
        world, hard, easy = meet(RANDOM, seed, loss=0.1)
        hard.signal_loss = 0.3
        hard.start()
        world.clock.run(world.clock.now + 14.0)
        bounded(hard, easy)
        found += agreed(hard, easy)
    assert found >= 6


def test_what_was_found_is_undone_when_the_path_leaves_it() -> None:
    world, hard, easy = meet(SEQUENTIAL, 1)
    hard.start()
    world.clock.run(world.clock.now + 20.0)
    assert agreed(hard, easy)
    assert (hard.failed, easy.failed) == (0, 0)
    assert len(hard.said) == 1
    assert hard.splicer.due() is None
    hard.splicer.leave()
    hard.drain()
    assert torn_down(hard)
    assert torn_down(easy)


def test_an_attempt_that_nobody_answers_is_over_after_its_time_and_leaves_nothing() -> None:
    world, hard, easy = meet(RANDOM, 1)
    hard.signal_loss = 1.0
    started = world.clock.now
    hard.start()
    world.clock.run(started + OPENED * PACE_S / BURST + LISTEN_S - 0.1)
    assert (len(hard.open), hard.failed) == (OPENED, 0)
    world.clock.run(world.clock.now + 0.2)
    assert hard.failed == 1
    assert torn_down(hard)
    assert [round(later - earlier, 3) for earlier, later in itertools.pairwise(hard.said)] == [1.0, 1.0]
    assert not easy.shots
    assert "less than 30 s" in hard.start()
    world.clock.run(started + BETWEEN_S)
    assert hard.start() == ""


def test_guesses_that_hit_nothing_end_and_leave_nothing() -> None:
    world, hard, easy = meet(RANDOM, 1)
    hard.host.leave(hard.base.ip)
    hard.start()
    world.clock.run(world.clock.now + 20.0)
    assert len(easy.shots) == MAX_GUESSES
    assert (hard.failed, easy.failed) == (1, 1)
    assert torn_down(hard)
    assert torn_down(easy)
    bounded(hard, easy)


def test_between_two_easy_nats_and_between_two_hard_ones_nothing_is_opened_and_nothing_guessed() -> None:
    for nats in ((EASY, EASY), (HARD, HARD)):
        world, hard, easy = meet(RANDOM, 1)
        hard.nats = easy.nats = nats
        assert "not hard here" in hard.start()
        easy.told(Splice(1, OPENED))
        world.clock.run(world.clock.now + 5.0)
        assert not hard.shots
        assert not easy.shots


def test_each_end_plays_its_own_part_alone() -> None:
    world, hard, easy = meet(RANDOM, 1)
    assert "not hard here" in easy.start()
    hard.told(Splice(1, OPENED))
    world.clock.run(world.clock.now + 5.0)
    assert not hard.shots
    assert not easy.shots
