"""Two check lists find each other through simulated NATs, exactly where the oracle says that a direct path exists."""

from __future__ import annotations

import itertools
import random

import pytest
from simnet import Cable, Host, Packet
from test_sim_net import PORT, World, behaviour

from meshctl.core.agent.address import Address
from meshctl.core.agent.checklist import (
    MAX_PAIRS,
    PACE_S,
    STRANGERS_BURST,
    STRANGERS_RATE,
    CheckList,
    Credentials,
    Pair,
)
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.router import TokenBucket
from meshctl.core.reachability import DIRECT, KINDS, End, Helpers, predict
from meshctl.core.wire import stun

KEY = b"k" * 32


def check_list(
    username: str, dice: random.Random, *, controlling: bool, strangers: TokenBucket | None = None
) -> CheckList:
    allowance = strangers or TokenBucket(STRANGERS_RATE, STRANGERS_BURST)
    return CheckList(
        Credentials(username, KEY), controlling=controlling, dice=dice, strangers=allowance,
        transactions=Transactions(dice),
    )  # fmt: skip


class Asker:
    """One end: a check list on a simulated host, which notes the answers and nominations that it gets."""

    def __init__(self, world: World, host: Host, ip: str, *, controlling: bool, seed: int) -> None:
        username = "b:a" if controlling else "a:b"
        self.world, self.host, self.base = world, host, Address(ip, PORT)
        dice = random.Random(seed)  # noqa: S311
        self.list = check_list(username, dice, controlling=controlling)
        self.asked_at: list[float] = []
        self.valid_at: dict[Pair, float] = {}
        self.nominated: list[Pair] = []
        host.bind(PORT, self.receive)

    def turn(self) -> None:
        probe = self.list.poll(self.world.clock.now)
        if probe is not None:
            self.asked_at.append(self.world.clock.now)
            self.send(probe)
        due = self.list.due()
        if due is not None:
            self.world.clock.at(due, self.turn)

    def send(self, probe: SendProbe) -> None:
        self.host.send(probe.local, probe.remote, probe.data)

    def receive(self, packet: Packet) -> None:
        received = stun.decode(packet.data)
        assert received.is_authentic(KEY)
        pair, now = Pair(self.base, Address(*packet.source)), self.world.clock.now
        if received.message.message_class is stun.Class.REQUEST:
            reply, question = self.list.receive_request(received.message, pair)
            self.send(reply)
            self.nominated += [question.pair] if question.nominated else []
        else:
            answer = self.list.receive_response(received.message, pair, now)
            if answer is not None:
                self.valid_at.setdefault(answer.pair, now)
                self.nominated += [answer.pair] if answer.nominated else []
        self.turn()


def meet(one: str, other: str, *, seconds: float = 8.0, loss: float = 0.0) -> tuple[World, Asker, Asker]:
    """Two ends behind NATs of these kinds that know each other's mapping, as a server saw it, and check."""
    world = World(seed=3)
    ends, cables = [], (Cable(), Cable())
    for index, kind in enumerate((one, other)):
        if kind == "none":
            ip = f"203.0.113.{10 + index}"
            host = world.host("ab"[index], world.internet, ip, cables[index])
        else:
            ip = f"192.168.{index}.2"
            router = world.router(f"198.51.100.{index}", behaviour(kind))
            host = world.host("ab"[index], router.inside, ip, cables[index])
        mapped = Address("198.51.100.9", 9) if kind == "udp-blocked" else Address(*world.mapped(host, ip))
        ends.append((Asker(world, host, ip, controlling=index == 0, seed=index), mapped))
    for one_cable in cables:
        one_cable.loss = loss
    for (asker, _), (_, mapped) in (ends, ends[::-1]):
        asker.list.set_pairs([(Pair(asker.base, mapped), 100, 1)])
        asker.list.restart(world.clock.now)
        asker.turn()
    world.clock.run(world.clock.now + seconds)
    return world, ends[0][0], ends[1][0]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(sorted(KINDS), 2)))
def test_both_ends_find_a_valid_pair_where_the_oracle_says_direct_and_nowhere_else(one: str, other: str) -> None:
    _, a, b = meet(one, other)
    expected = predict(End(one), End(other), Helpers(introducer=True, relay=True, tls=False)).kind == DIRECT
    assert (bool(a.valid_at), bool(b.valid_at)) == (expected, expected)
    if not expected:
        assert a.list.exhausted
        assert b.list.exhausted


def test_a_hole_between_two_easy_nats_is_open_within_two_round_trips() -> None:
    _, a, b = meet("easy", "easy")
    started = min(a.asked_at)
    round_trip = 2 * (0.02 + 2 * 0.0105)
    assert max(min(end.valid_at.values()) for end in (a, b)) - started <= 2 * round_trip + 0.1


def test_a_pair_is_found_though_a_third_of_all_packets_is_lost_each_way() -> None:
    # Two lossy cables are on the way: 1 - 0.82 * 0.82 is a third.
    found = [bool(end.valid_at) for end in meet("easy", "easy", loss=0.18)[1:]]
    assert found == [True, True]


def test_both_hear_of_a_nomination_also_when_packets_are_lost() -> None:
    world, a, b = meet("easy", "easy", loss=0.2)
    pair = a.list.valid()[0][0]
    a.list.nominate(pair, world.clock.now)
    a.turn()
    world.clock.run(world.clock.now + 8)
    assert a.nominated == [pair]
    assert b.nominated
    assert {p.remote for p in b.nominated} == {Address("198.51.100.0", PORT)}


def test_a_nomination_that_comes_before_the_pair_was_answered_counts_when_it_is() -> None:
    dice = random.Random(0)  # noqa: S311
    b = check_list("a:b", dice, controlling=False)
    pair = Pair(Address("192.0.2.2", PORT), Address("192.0.2.1", PORT))
    request = stun.Message(stun.Class.REQUEST, bytes(12), username="b:a", priority=1, use_candidate=True)
    assert not b.receive_request(request, pair)[1].nominated
    probe = b.poll(0.0)
    assert probe is not None
    asked = stun.decode(probe.data).message
    answer = b.receive_response(stun.success_response(asked, stun.TransportAddress("192.0.2.2", PORT)), pair, 0.05)
    assert answer is not None
    assert answer.nominated


def test_an_answer_that_took_another_way_back_or_comes_twice_counts_for_nothing() -> None:
    dice = random.Random(0)  # noqa: S311
    a = check_list("b:a", dice, controlling=True)
    pair = Pair(Address("192.0.2.1", PORT), Address("192.0.2.2", PORT))
    a.set_pairs([(pair, 1, 1)])
    a.restart(0.0)
    probe = a.poll(0.0)
    assert probe is not None
    answer = stun.success_response(stun.decode(probe.data).message, stun.TransportAddress("192.0.2.1", PORT))
    assert a.receive_response(answer, Pair(pair.local, Address("192.0.2.66", PORT)), 0.1) is None
    assert a.valid() == ()
    assert a.receive_response(answer, pair, 0.1) is not None
    assert a.receive_response(answer, pair, 0.2) is None
    assert a.valid() == ((pair, 1, 0.1),)


def test_a_path_that_does_not_answer_quick_questions_has_failed_within_a_second() -> None:
    world, a, _ = meet("none", "easy")
    (pair,) = a.valid_at
    world.internet.detach("203.0.113.10")
    a.list.check_quickly(pair, world.clock.now)
    started = world.clock.now
    a.turn()
    while not a.list.failed(pair):
        world.clock.run(world.clock.now + 0.01)
    assert 0.6 <= world.clock.now - started <= 1.0


def test_checks_of_one_peer_are_never_faster_than_their_pace() -> None:
    dice, plenty = random.Random(0), TokenBucket(0.0, MAX_PAIRS * 6.0)  # noqa: S311
    a = check_list("b:a", dice, controlling=True, strangers=plenty)
    local = Address("192.0.2.1", PORT)
    a.set_pairs([(Pair(local, Address(f"198.51.100.{i}", PORT)), i, 1) for i in range(200)])
    a.restart(0.0)
    sent, now = [], 0.0
    while (due := a.due()) is not None and now < 60:
        now = max(due, now)
        if a.poll(now) is not None:
            sent.append(now)
    assert len(sent) == MAX_PAIRS * 6
    assert min(later - earlier for earlier, later in itertools.pairwise(sent)) > 0.019
    assert a.exhausted


def test_the_one_pair_that_works_is_found_and_agreed_on_at_once_behind_sixty_that_lead_nowhere() -> None:
    dice, plenty = random.Random(0), TokenBucket(0.0, MAX_PAIRS * 6.0)  # noqa: S311
    a = check_list("b:a", dice, controlling=True, strangers=plenty)
    local = Address("192.0.2.1", PORT)
    works, vain = Pair(local, Address("203.0.113.1", PORT)), 60
    dead = [(Pair(local, Address(f"198.51.100.{i}", PORT)), 1 + i, 1) for i in range(vain)]
    a.set_pairs([*dead, (works, 0, 1)])
    a.restart(0.0)
    under_way: list[tuple[float, stun.Message]] = []
    answered_at, agreed_at, now = [], [], 0.0
    while not agreed_at and now < 10.0:
        now += 0.005
        probe = a.poll(now)
        if probe is not None and probe.remote == works.remote:
            under_way.append((now + 0.2, stun.decode(probe.data).message))
        if under_way and under_way[0][0] <= now:
            _, asked = under_way.pop(0)
            answer = a.receive_response(stun.success_response(asked, stun.TransportAddress(*local)), works, now)
            assert answer is not None
            (agreed_at if answer.nominated else answered_at).append(now)
            if len(answered_at) == 1:
                a.nominate(works, now)
    assert answered_at[0] < vain * PACE_S + 0.3
    assert agreed_at[0] - answered_at[0] < 0.3


def test_pairs_that_stay_keep_what_is_known_of_them() -> None:
    _, a, _ = meet("none", "none")
    ((pair, _, rtt),) = a.list.valid()
    other = Pair(a.base, Address("203.0.113.99", PORT))
    a.list.set_pairs([(pair, 7, 1), (other, 3, 1)])
    assert a.list.valid() == ((pair, 7, rtt),)
    a.list.set_pairs([(other, 3, 1)])
    assert a.list.failed(pair)


def test_a_flood_of_questions_from_many_addresses_takes_no_more_room_than_a_hundred_pairs() -> None:
    dice = random.Random(0)  # noqa: S311
    b = check_list("a:b", dice, controlling=False)
    for i in range(1000):
        request = stun.Message(stun.Class.REQUEST, i.to_bytes(12, "big"), username="b:a", priority=1)
        pair = Pair(Address("192.0.2.2", PORT), Address(f"198.51.{i // 250}.{i % 250}", PORT))
        assert b.receive_request(request, pair)[0].remote == pair.remote
    polled = 0
    while (due := b.due()) is not None and b.poll(due) is not None:
        polled += 1
    assert polled <= MAX_PAIRS * 7


