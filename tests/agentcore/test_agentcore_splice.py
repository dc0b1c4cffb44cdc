"""Splices, by the value. Hunted: parts that do not fit together, ports that stay open, rules that nobody removes, and
attempts beside each other."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from agentcore_values import key
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import NatSummary, Splice
from meshctl.core.agent.candidate import Candidate, priority
from meshctl.core.agent.checklist import Credentials, Pair
from meshctl.core.agent.events import InstallSplice, OpenPorts, RemoveSplice, SendProbe
from meshctl.core.agent.nat import Mapping
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.splice import (
    ACCEPTED_AGAIN_S,
    BETWEEN_S,
    LISTEN_S,
    MAX_SHOTS,
    OPENED,
    VAIN_AGAIN_S,
    VAIN_BURST,
    Failed,
    Splicer,
)
from meshctl.core.agent.splice_situation import (
    GUESSED_PORTS,
    MAX_GUESSES,
    MAX_OUTSIDE,
    Role,
    Situation,
    guesses,
    role,
)
from meshctl.core.agent.splice_slot import LOCAL_PORTS, SpliceSlot
from meshctl.core.wire import stun

PORT = 51820
BASE, BASE_V6 = Address("192.168.0.2", PORT), Address("2001:db8::2", PORT)
E, H = Address("198.51.100.1", 4000), Address("198.51.100.2", 5000)
HARD, EASY = (NatSummary(4, m, 0) for m in (Mapping.ADDRESS_AND_PORT_DEPENDENT, Mapping.ENDPOINT_INDEPENDENT))
CREDENTIALS = Credentials("b:a", b"k" * 32)
DAY_S = 86400.0


def seen(kind: str, address: Address, preference: int = 1) -> Candidate:
    return Candidate(kind, address, address, "00000000", priority(kind, preference))


def situation(ours: NatSummary, theirs: NatSummary, *candidates: Candidate) -> Situation:
    return Situation((BASE,), (ours,), (theirs,), candidates, CREDENTIALS, controlling=True)


AT_HARD = situation(HARD, EASY, seen("srflx", E))
AT_EASY = situation(EASY, HARD, seen("srflx", H))


def splicer(name: str = "peer", slot: SpliceSlot | None = None) -> Splicer:
    dice = random.Random(name)  # noqa: S311
    return Splicer(key(name), slot or SpliceSlot((PORT,)), dice, Transactions(dice))


def run(one: Splicer, until: float) -> list[object]:
    """Everything that it does until then; each turn must do something."""
    done: list[object] = list(one.outputs())
    while (due := one.due()) is not None and due <= until:
        one.poll(due)
        did = list(one.outputs())
        assert did
        done += did
    return done


@settings(max_examples=examples(25))
@given(st.integers(0, 255), st.integers(0, 255))
def test_two_ends_have_opposite_parts_or_none(ours: int, theirs: int) -> None:
    one, other = NatSummary(4, ours, 0), NatSummary(4, theirs, 0)
    parts = {role(one, other), role(other, one)}
    assert parts in ({None}, {Role.HARD, Role.EASY})
    assert role(one, replace(other, family=6)) is None


@pytest.mark.parametrize("mapping", Mapping)
def test_only_a_hard_nat_and_an_easy_one_are_spliced(mapping: Mapping) -> None:
    easy = mapping in (Mapping.NO_NAT, Mapping.ENDPOINT_INDEPENDENT)
    assert (role(HARD, NatSummary(4, mapping, 0)) is Role.HARD) is easy
    assert (role(NatSummary(4, mapping, 0), EASY) is Role.HARD) is mapping.is_hard


def test_the_part_is_that_of_a_family_in_which_this_node_has_an_address() -> None:
    six = [replace(nat, family=6) for nat in (HARD, EASY)]
    both = Situation((BASE, BASE_V6), (EASY, six[0]), (EASY, six[1]), (), CREDENTIALS, controlling=True)
    assert both.part() == (Role.HARD, BASE_V6, six[1])
    assert replace(both, bases=(BASE,)).part() is None


def test_ports_are_opened_towards_what_shows_the_easy_side_from_outside() -> None:
    inner, mapped = seen("host", Address("192.168.7.7", PORT)), seen("mapped", Address("198.51.100.9", 1))
    public, two = seen("host", Address("198.51.100.8", 1)), seen("srflx", Address("198.51.100.7", 1))
    found = situation(HARD, EASY, inner, mapped, public, two, seen("observed", E), seen("srflx", E, 9))
    assert found.outside_of_easy(4) == (E, two.address)
    assert situation(HARD, EASY, inner, mapped, public).outside_of_easy(4) == (public.address,)
    assert found.outside_of_easy(6) == ()
    assert MAX_OUTSIDE == 2


def test_guesses_go_to_the_outer_address_that_most_have_seen() -> None:
    lone = seen("srflx", Address("203.0.113.5", 65000))
    views = [seen(kind, Address(H.ip, port)) for kind, port in (("srflx", 5000), ("observed", 5007), ("srflx", 5003))]
    assert situation(EASY, HARD, lone, *views).outside_of_hard(4) == Address(H.ip, 5007)
    assert situation(EASY, HARD, seen("host", Address("10.0.0.1", 1))).outside_of_hard(4) is None


def test_nothing_is_sent_in_numbers_to_where_only_a_server_without_a_key_has_seen_the_other_end() -> None:
    lie = seen("told", Address("203.0.113.66", 65000))
    assert situation(EASY, HARD, lie, seen("observed", H)).outside_of_hard(4) == H
    assert situation(EASY, HARD, lie).outside_of_hard(4) is None
    assert situation(HARD, EASY, lie, seen("observed", E)).outside_of_easy(4) == (E,)
    assert situation(HARD, EASY, lie).outside_of_easy(4) == ()


@settings(max_examples=examples(25))
@given(st.sampled_from(GUESSED_PORTS), st.integers(0, 255), st.integers(0, 65535), st.integers())
def test_no_port_is_guessed_twice_and_none_below_the_well_known_ones(
    newest: int, step: int, opened: int, seed: int
) -> None:
    ports = guesses(newest, step, opened, random.Random(seed))  # noqa: S311
    assert len(ports) == MAX_GUESSES == len(set(ports))
    assert set(ports) <= set(GUESSED_PORTS)


@settings(max_examples=examples(25))
@given(st.sampled_from(GUESSED_PORTS), st.integers(1, 16), st.integers(0, 16000))
def test_what_a_sequential_nat_opened_is_guessed_after_few_ports_wherever_it_has_got_to(
    newest: int, step: int, others: int
) -> None:
    span = len(GUESSED_PORTS)
    opened = {1024 + (newest - 1024 + step * (others + n)) % span for n in range(1, OPENED + 1)}
    tried = guesses(newest, step, OPENED, random.Random(0))  # noqa: S311
    first = next(n for n, port in enumerate(tried) if port in opened)
    assert first <= others // 64 + 1


def test_the_hard_side_opens_its_ports_from_local_ports_that_nobody_has_and_then_says_so() -> None:
    slot = SpliceSlot(LOCAL_PORTS[: -OPENED - 1])
    slot.hold(key("other"), LOCAL_PORTS[-1])
    one = splicer(slot=slot)
    assert one.start(AT_HARD, 0.0) == ""
    opened, *rest = run(one, 0.5)
    *probes, said = rest
    assert isinstance(opened, OpenPorts)
    assert set(opened.ports) == set(LOCAL_PORTS[-OPENED - 1 : -1])
    assert one.ports == opened.ports
    assert isinstance(said, Splice)
    assert said.ports == OPENED
    assert {(p.local.ip, p.remote) for p in probes if isinstance(p, SendProbe)} == {(BASE.ip, E)}
    assert sorted(p.local.port for p in probes if isinstance(p, SendProbe)) == sorted(opened.ports)


def test_every_packet_is_an_ordinary_check_that_nominates_nothing() -> None:
    one = splicer()
    one.start(AT_HARD, 0.0)
    probes = [p for p in run(one, 0.2) if isinstance(p, SendProbe)]
    received = [stun.decode(p.data) for p in probes]
    assert all(r.is_authentic(CREDENTIALS.key) and r.message.username == CREDENTIALS.username for r in received)
    assert not any(r.message.use_candidate for r in received)
    assert len({r.message.transaction for r in received}) == len(received)
    assert all(r.message.ice_controlling is not None and r.message.ice_controlled is None for r in received)


def test_an_attempt_is_not_begun_without_an_address_to_send_to() -> None:
    assert "not known" in splicer().start(situation(HARD, EASY), 0.0)
    assert "not known" in splicer().received(Splice(1, OPENED), situation(EASY, HARD), 0.0)


def test_a_node_tries_with_one_peer_at_a_time() -> None:
    slot = SpliceSlot((PORT,))
    one, other = splicer("one", slot), splicer("other", slot)
    assert one.start(AT_HARD, 0.0) == ""
    assert "another peer" in other.start(AT_HARD, 1.0)
    assert "another peer" in other.received(Splice(1, OPENED), AT_EASY, 1.0)
    one.abort()
    assert other.received(Splice(1, OPENED), AT_EASY, 2.0) == ""


def test_the_easy_side_guesses_once_for_an_attempt_and_for_a_peer_that_asks_too_often() -> None:
    one = splicer()
    assert one.received(Splice(1, OPENED), AT_EASY, 0.0) == ""
    assert "less than" in one.received(Splice(1, OPENED), AT_EASY, 1.0)
    assert isinstance(run(one, 10.0)[-1], Failed)
    assert "less than" in one.received(Splice(2, OPENED), AT_EASY, ACCEPTED_AGAIN_S - 0.1)
    assert one.received(Splice(2, OPENED), AT_EASY, ACCEPTED_AGAIN_S) == ""


def test_who_has_opened_nothing_is_not_guessed_at() -> None:
    assert splicer().received(Splice(1, 0), AT_EASY, 0.0) != ""


def test_a_hit_ends_the_guesses_and_another_packet_does_not() -> None:
    one = splicer()
    one.received(Splice(1, OPENED), AT_EASY, 0.0)
    guessed = [p.remote for p in run(one, 0.1) if isinstance(p, SendProbe)]
    one.heard(Pair(BASE, E), 0.1)
    assert [p for p in run(one, 0.2) if isinstance(p, SendProbe)]
    one.heard(Pair(BASE, guessed[3]), 0.2)
    assert run(one, 20.0) == [Failed(key("peer"))]


def test_a_hit_ends_what_the_hard_side_says() -> None:
    one = splicer()
    one.start(AT_HARD, 0.0)
    run(one, 0.5)
    one.heard(Pair(Address(BASE.ip, one.ports[7]), E), 0.5)
    assert run(one, 20.0) == [OpenPorts(key("peer"), ()), Failed(key("peer"))]


def test_a_pair_that_was_hit_is_installed_and_no_other_port_stays_open() -> None:
    slot = SpliceSlot((PORT,))
    one = splicer(slot=slot)
    one.start(AT_HARD, 0.0)
    run(one, 0.5)
    first, second = (Pair(Address(BASE.ip, port), E) for port in one.ports[:2])
    assert one.take(first)
    port = first.local.port
    assert list(one.outputs()) == [OpenPorts(key("peer"), (port,)), InstallSplice(key("peer"), E, port)]
    assert one.take(first)
    assert not one.take(second), "its port is closed"
    assert list(one.outputs()) == []
    assert (one.standing, one.ports, one.due()) == (first, (port,), None)
    assert slot.acquire(key("other"))
    one.leave()
    assert list(one.outputs()) == [RemoveSplice(key("peer"), E, port), OpenPorts(key("peer"), ())]
    one.leave()
    assert list(one.outputs()) == []


def test_an_ordinary_pair_ends_the_attempt_and_installs_nothing() -> None:
    one = splicer()
    one.start(AT_HARD, 0.0)
    run(one, 0.5)
    assert one.take(Pair(BASE, E))
    assert run(one, DAY_S) == [OpenPorts(key("peer"), ())]


def test_a_splice_stands_while_the_path_moves_to_another_pair_and_is_then_left() -> None:
    one = splicer()
    one.restore(Pair(Address(BASE.ip, 20000), E))
    list(one.outputs())
    assert one.take(Pair(BASE, E))
    assert list(one.outputs()) == []
    one.leave()
    assert len(list(one.outputs())) == 2


def test_a_new_attempt_leaves_what_stood() -> None:
    one = splicer()
    one.restore(Pair(Address(BASE.ip, 20000), E))
    list(one.outputs())
    assert one.start(AT_HARD, 0.0) == ""
    removed, closed, opened = list(one.outputs())
    assert (removed, closed) == (RemoveSplice(key("peer"), E, 20000), OpenPorts(key("peer"), ()))
    assert isinstance(opened, OpenPorts)


@pytest.mark.parametrize("part", Role)
def test_a_victim_that_a_peer_names_again_and_again_is_shot_at_in_a_few_attempts_whatever_the_victims_address(
    part: Role,
) -> None:
    one, shots = splicer(), 0
    for now in range(0, int(DAY_S), int(BETWEEN_S)):
        victim = seen("srflx", Address(f"203.0.113.{now % 250}", 4444))
        if part is Role.HARD:
            one.start(situation(HARD, EASY, victim), float(now))
        else:
            one.received(Splice(now, OPENED), situation(EASY, HARD, victim), float(now))
        shots += sum(isinstance(o, SendProbe) for o in run(one, now + BETWEEN_S))
    each = OPENED if part is Role.HARD else MAX_GUESSES
    assert each <= MAX_SHOTS
    assert DAY_S / VAIN_AGAIN_S - 2 < shots / each <= DAY_S / VAIN_AGAIN_S + VAIN_BURST


def test_an_attempt_that_was_in_vain_too_often_leaves_the_turn_to_other_peers() -> None:
    slot = SpliceSlot((PORT,))
    one = splicer("one", slot)
    for attempt in range(int(VAIN_BURST)):
        assert one.start(AT_HARD, attempt * BETWEEN_S) == ""
        run(one, (attempt + 1) * BETWEEN_S)
    now = VAIN_BURST * BETWEEN_S
    assert one.start(AT_HARD, now) == "too many attempts were in vain"
    assert one.trying is None
    assert splicer("other", slot).start(AT_HARD, now) == ""


def test_a_peer_that_is_hit_is_tried_with_as_often_as_its_path_is_lost() -> None:
    hard, easy = splicer("hard"), splicer("easy")
    for attempt in range(20):
        now = attempt * BETWEEN_S
        assert hard.start(AT_HARD, now) == ""
        run(hard, now + 0.5)
        assert hard.take(Pair(Address(BASE.ip, hard.ports[0]), E))
        assert easy.received(Splice(attempt, OPENED), AT_EASY, now) == ""
        guessed = [p.remote for p in run(easy, now + 0.5) if isinstance(p, SendProbe)]
        assert easy.take(Pair(BASE, guessed[7]))


def test_a_peer_that_answers_and_names_a_victim_beside_itself_is_tried_with_as_if_in_vain() -> None:
    one, beside = splicer(), situation(HARD, EASY, seen("srflx", E), seen("host", Address("203.0.113.66", 4444)))
    starts = []
    for attempt in range(20):
        starts.append(one.start(beside, attempt * BETWEEN_S))
        run(one, attempt * BETWEEN_S + 0.5)
        one.take(Pair(Address(BASE.ip, one.ports[0]), E))
    assert starts.count("") <= VAIN_BURST + 20 * BETWEEN_S / VAIN_AGAIN_S


STEPS = st.one_of(
    st.tuples(st.sampled_from(["start", "told", "abort", "leave", "stop", "take base"]), st.just(0)),
    st.tuples(st.sampled_from(["hear", "take"]), st.integers(0, OPENED - 1)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 4.0, 12.0, 40.0])),
)


class Driver:
    """Does what a splicer says, and notes which ports are open and which rules there are."""

    def __init__(self, name: str, slot: SpliceSlot) -> None:
        self.splicer = splicer(name, slot)
        self.ports: set[int] = set()
        self.rules: set[tuple[Address, int]] = set()
        self.started: list[float] = []

    def do(self, what: str, value: float, now: float) -> None:
        one, ports = self.splicer, self.splicer.ports
        local = Address(BASE.ip, ports[int(value)]) if len(ports) == OPENED else BASE
        if what == "start" and one.start(AT_HARD, now) == "":
            self.started.append(now)
        elif what == "told":
            one.received(Splice(1, OPENED), AT_EASY, now)
        elif what == "hear":
            one.heard(Pair(local, H), now)
        elif what in ("take", "take base"):
            one.take(Pair(local if what == "take" else BASE, E))
        elif what in ("abort", "leave", "stop"):
            {"abort": one.abort, "leave": one.leave, "stop": one.stop}[what]()

    def settle(self, now: float) -> None:
        for output in run(self.splicer, now):
            if isinstance(output, OpenPorts):
                self.ports = set(output.ports)
            elif isinstance(output, InstallSplice):
                assert output.local_port in self.ports
                assert not self.rules
                self.rules.add((output.remote, output.local_port))
            elif isinstance(output, RemoveSplice):
                self.rules.remove((output.remote, output.local_port))
        assert set(self.splicer.ports) == self.ports


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=30))
def test_whatever_happens_at_most_one_tries_and_in_the_end_nothing_is_left(
    steps: list[tuple[int, tuple[str, float]]],
) -> None:
    slot, now = SpliceSlot((PORT,)), 0.0
    both = [Driver("one", slot), Driver("other", slot)]
    for who, (what, value) in steps:
        now += value if what == "wait" else 0.0
        both[who].do(what, value, now)
        for driver in both:
            driver.settle(now)
        assert sum(driver.splicer.trying is not None for driver in both) <= 1
    for driver in both:
        driver.splicer.stop()
        driver.settle(now)
        assert (driver.ports, driver.rules, driver.splicer.due()) == (set(), set(), None)
        assert all(later - earlier >= BETWEEN_S for earlier, later in itertools.pairwise(driver.started))
    assert slot.acquire(key("third"))


def test_an_attempt_of_the_hard_side_ends_when_its_ports_have_been_open_for_their_time() -> None:
    one = splicer()
    one.start(AT_HARD, 0.0)
    run(one, LISTEN_S + 0.2)
    assert len(one.ports) == OPENED
    assert one.trying is Role.HARD
    done = run(one, LISTEN_S + 0.3)
    assert done == [OpenPorts(key("peer"), ()), Failed(key("peer"))]
    assert one.trying is None
