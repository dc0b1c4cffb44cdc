"""The search for a direct path, at one end or at both. Hunted: a pair that is never tried or tried without an end, a
nomination of what does not work, and checks that leave faster than they may."""

from __future__ import annotations

import itertools
import random
from itertools import pairwise

import pytest
from agentcore_field import IPS, KEY, PORT, End, Field, address, credentials, found, offered

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import Offer, Offered
from meshctl.core.agent.candidates import PRFLX_LIFETIME_S
from meshctl.core.agent.check import ANSWER_S, PATH_ANSWER_MAX_S, PATH_ANSWER_S, PATH_SCHEDULE_S, SCHEDULE_S
from meshctl.core.agent.checklist import MAX_OF_HOST, MAX_PAIRS, STRANGERS_BURST, STRANGERS_RATE, CheckList, Pair
from meshctl.core.agent.interfacecontext import GAP_S, MISSED_S, Pace
from meshctl.core.agent.negotiation import SETTLE_S
from meshctl.core.agent.probes import Transactions, signed
from meshctl.core.agent.router import TokenBucket
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress


@pytest.mark.parametrize(("kind", "hairpins"), [("srflx", True), ("host", None)])
def test_a_check_from_the_outer_address_of_our_nat_has_been_hairpinned_unless_that_is_the_peers_own(
    kind: str, hairpins: bool | None
) -> None:
    field = offered()
    end = field.ends["a"]
    end.context.nat.observe(address("a"), Address("203.0.113.1", 3478), Address(IPS["b"][0], 4242), field.now)
    end.it.remote.offer(Offer(2, (Offered(kind, address("b"), "0", 1000),)))
    end.it.refresh(field.now)
    field.run(1.0)
    assert end.it.promising
    assert end.context.nat.hairpins(address("a"), field.now) is hairpins


def test_without_a_session_nothing_is_due_and_nothing_is_asked() -> None:
    field = Field()
    end = field.ends["a"]
    end.it.forget()
    end.offered(address("b"))
    end.it.restart(field.now)
    end.it.check(Pair(address("a"), address("b")), field.now)
    assert end.it.due is None
    assert end.it.failed(Pair(address("a"), address("b")))
    field.run(5.0)
    assert end.sent == []


def test_pairs_are_asked_as_soon_as_there_are_candidates_and_those_that_answer_are_valid() -> None:
    field = offered()
    field.run(0.1)
    pair = Pair(address("a"), address("b"))
    assert field.ends["a"].it.promising
    assert field.ends["a"].it.rtt_s(pair) is not None
    assert field.ends["a"].answers[0][1].pair == pair


def test_a_round_in_which_nothing_answers_ends_once() -> None:
    field = offered()
    field.lost = lambda _: True
    field.run(60.0)
    assert sorted(name for _, name in field.rounds) == ["a", "b"]
    assert all(SCHEDULE_S[-1] < at - 10.0 <= SCHEDULE_S[-1] + ANSWER_S + 0.1 for at, _ in field.rounds)
    assert [probe.remote for _, probe in field.ends["a"].sent] == [address("b")] * len(SCHEDULE_S)


def test_a_round_in_which_a_pair_answered_and_none_was_taken_ends_too() -> None:
    field = offered()
    field.run(60.0)
    assert sorted(name for _, name in field.rounds) == ["a", "b"]


def test_all_are_asked_again_after_a_restart() -> None:
    field = offered()
    field.lost = lambda _: True
    field.run(60.0)
    start = field.now
    field.ends["a"].it.restart(start)
    field.run(60.0)
    assert field.ends["a"].asked(start) == [address("b")] * len(SCHEDULE_S)
    assert len([at for at, name in field.rounds if name == "a"]) == 2


def test_a_candidate_that_comes_later_is_asked_and_those_that_failed_are_not_asked_again() -> None:
    field = offered()
    field.lost = lambda _: True
    field.run(60.0)
    start = field.now
    field.ends["a"].offered(address("b"), address("b", 1), generation=2)
    field.run(60.0)
    assert set(field.ends["a"].asked(start)) == {address("b", 1)}
    assert len([at for at, name in field.rounds if name == "a"]) == 2, "and that is a round of its own"


def test_a_pair_is_nominated_a_moment_after_it_answered() -> None:
    field = offered()
    field.run(0.1)
    field.ends["a"].it.settle(Pair(address("a"), address("b")), field.now)
    start = field.now
    field.run(1.0)
    [(at, pair), *_] = field.ends["a"].nominations()
    assert round(at - start, 6) >= SETTLE_S
    assert pair == Pair(address("a"), address("b"))
    assert [p for _, p, nominated in field.ends["b"].questions if nominated] == [Pair(address("b"), address("a"))]
    assert [a.nominated for _, a in field.ends["a"].answers][-1]


def test_of_those_that_answer_in_that_moment_the_quickest_is_nominated() -> None:
    field = Field()
    field.ends["b"].stand(*IPS["b"])
    field.delays = {IPS["b"][0]: 0.045, IPS["b"][1]: 0.005}
    field.ends["a"].offered(address("b"), address("b", 1))
    while not field.ends["a"].answers:
        field.run(0.005)
    field.ends["a"].it.settle(field.ends["a"].answers[0][1].pair, field.now)
    field.run(1.0)
    assert {pair.remote for _, pair in field.ends["a"].nominations()} == {address("b", 1)}


def test_a_pair_on_the_same_lan_is_nominated_without_waiting() -> None:
    field = Field()
    for name, ip in (("a", "192.168.1.5"), ("b", "192.168.1.6")):
        field.ends[name].stand(ip)
    field.ends["a"].offered(Address("192.168.1.6", PORT))
    field.run(0.1)
    field.ends["a"].it.settle(Pair(Address("192.168.1.5", PORT), Address("192.168.1.6", PORT)), field.now)
    assert field.ends["a"].it.due == field.now


def test_while_a_nomination_may_be_answered_there_is_no_other() -> None:
    field = offered()
    field.run(0.1)
    pair = Pair(address("a"), address("b"))
    field.lost = lambda probe: stun.decode(probe.data).message.message_class is stun.Class.SUCCESS
    field.ends["a"].it.settle(pair, field.now)
    field.run(SETTLE_S + 0.01)
    due = field.ends["a"].it.due
    field.ends["a"].it.settle(pair, field.now)
    assert field.ends["a"].it.due == due
    field.run(20.0)
    assert field.ends["a"].it.failed(pair)
    field.ends["a"].it.settle(pair, field.now)
    assert field.ends["a"].it.due is not None, "that one is over"


def test_not_sooner_than_at_the_earliest_a_pair_is_nominated() -> None:
    field = offered()
    field.run(0.1)
    earliest = field.now + 2.0
    field.ends["a"].it.settle(Pair(address("a"), address("b")), field.now, earliest)
    field.run(5.0)
    assert min(at for at, _ in field.ends["a"].nominations()) == earliest


def test_who_is_not_willing_to_use_a_pair_answers_no_nomination_of_it_and_other_checks_as_ever() -> None:
    field = offered()
    field.ends["b"].willing = False
    field.run(0.1)
    answered = len(field.ends["a"].answers)
    assert answered
    field.ends["a"].it.settle(Pair(address("a"), address("b")), field.now)
    field.run(1.0)
    assert field.ends["a"].nominations()
    assert len(field.ends["a"].answers) == answered
    assert not any(nominated for _, _, nominated in field.ends["b"].questions)
    field.ends["b"].willing = True
    field.run(2.0)
    assert field.ends["a"].answers[-1][1].nominated, "the nomination was said again"


def test_where_no_path_is_wanted_nothing_is_nominated() -> None:
    field = offered()
    field.nominate = False
    field.run(0.1)
    field.ends["a"].it.settle(Pair(address("a"), address("b")), field.now)
    field.run(5.0)
    assert field.ends["a"].nominations() == []


def test_the_pair_in_use_stays_askable_when_nobody_offers_it_any_more() -> None:
    field = found()
    field.ends["a"].it.selected = pair = Pair(address("a"), address("b"))
    field.ends["a"].offered(address("b", 1), generation=2)
    assert not field.ends["a"].it.failed(pair)
    field.ends["a"].it.selected = None
    field.ends["a"].it.remote.forget("prflx")
    field.ends["a"].it.refresh(field.now)
    assert field.ends["a"].it.failed(pair)


def test_the_pair_in_use_is_asked_quickly_and_has_failed_when_it_is_silent() -> None:
    field = found()
    end = field.ends["a"]
    end.it.selected = pair = Pair(address("a"), address("b"))
    field.lost = lambda _: True
    start = field.now
    end.it.check_path(start)
    field.run(1.0)
    assert end.it.failed(pair)
    assert len(end.asked(start)) >= 3


@pytest.mark.parametrize(("rtt_s", "last_answer_s"), [(0.0, PATH_ANSWER_S), (0.8, 1.2), (60.0, PATH_ANSWER_MAX_S)])
def test_a_slow_pair_in_use_has_longer_to_answer_but_no_longer_than_that(rtt_s: float, last_answer_s: float) -> None:
    field = found()
    end = field.ends["a"]
    end.it.selected = pair = Pair(address("a"), address("b"))
    field.lost = lambda _: True
    end.it.check_path(field.now, rtt_s)
    field.run(PATH_SCHEDULE_S[-1] + last_answer_s - 0.01)
    assert not end.it.failed(pair)
    field.run(0.02)
    assert end.it.failed(pair)


def test_an_address_from_which_the_peer_asks_is_learned_asked_back_and_forgotten_in_its_time() -> None:
    field = Field()
    field.ends["b"].stand(IPS["b"][1])
    field.ends["b"].offered(address("a"))
    field.run(0.2)
    end, unheard = field.ends["a"], address("b", 1)
    assert unheard in end.asked()
    assert unheard in {c.address for c in end.it.remote.all()}
    field.lost = lambda _: True
    field.run(PRFLX_LIFETIME_S + 10.0)
    assert end.it.remote.all() == ()
    assert end.it.failed(Pair(address("a"), unheard))


def test_a_check_that_somebody_sends_again_from_elsewhere_teaches_nothing_of_the_nat() -> None:
    field = Field()
    field.ends["a"].offered(address("b"))
    field.run(0.2)
    end, (_, probe) = field.ends["b"], field.ends["a"].sent[0]
    known = end.context.nat.version, end.it.remote.all()
    end.receive(probe.data, Pair(address("b"), Address("203.0.113.66", 4444)))
    assert (end.context.nat.version, end.it.remote.all()) == known
    assert {pair.remote for _, pair, _ in end.questions} == {address("a")}


def test_where_the_peer_does_not_answer_makes_room_in_the_next_round_for_where_it_asks_from_then() -> None:
    field = Field()
    a, b = field.ends["a"], field.ends["b"]
    port = itertools.count(1024)
    # What b sends comes each time from another port, as from a NAT of the hardest kind, where nothing gets in.
    field.seen = lambda probe: Address(probe.local.ip, next(port)) if probe.local == address("b") else probe.local
    field.lost = lambda probe: probe.remote.ip == IPS["b"][0]
    b.offered(address("a"))
    field.run(SCHEDULE_S[-1] + ANSWER_S + 1.0)
    for end in (a, b):
        end.it.restart(field.now)
    field.run(SCHEDULE_S[-1] + ANSWER_S + 1.0)
    assert len({pair.remote for _, pair, _ in a.questions}) > MAX_OF_HOST
    field.seen, field.lost = lambda probe: probe.local, lambda _: False
    for end in (a, b):
        end.it.restart(field.now)
    field.run(1.0)
    assert address("b") in {answer.pair.remote for _, answer in a.answers}


def crowded(hosts: int, ports: int) -> Field:
    """ "b" has heard "a" from so many ports of so many hosts, none of which answers, before "a" begins to ask."""
    field = Field()
    field.lost = lambda probe: probe.remote.port < 1024 + ports
    a = field.ends["a"]
    for n in range(hosts * ports):
        transaction, username = a.context.transactions.new(), credentials("a").username
        request = stun.Message(stun.Class.REQUEST, transaction, username=username, ice_controlling=1)
        ip = IPS["a"][0] if hosts == 1 else f"203.0.113.{n // ports}"
        field.ends["b"].receive(signed(request, KEY), Pair(address("b"), Address(ip, 1024 + n % ports)))
    a.offered(address("b"))
    field.run(0.1)
    a.it.settle(Pair(address("a"), address("b")), field.now)
    field.run(SCHEDULE_S[-1] + ANSWER_S)
    assert a.nominations()
    return field


@pytest.mark.parametrize("hosts", [1, 1 + MAX_PAIRS // MAX_OF_HOST])
def test_a_pair_that_there_was_no_room_for_is_taken_at_both_ends_when_it_is_nominated(hosts: int) -> None:
    field = crowded(hosts, MAX_OF_HOST)
    assert [a.pair for _, a in field.ends["a"].answers if a.nominated] == [Pair(address("a"), address("b"))]
    assert [a.pair for _, a in field.ends["b"].answers if a.nominated] == [Pair(address("b"), address("a"))]


def test_an_answer_that_has_waited_for_a_host_that_slept_is_no_round_trip() -> None:
    known = Transactions(random.Random(1))  # noqa: S311
    checks = CheckList(
        credentials("b"), controlling=False, dice=random.Random(2), strangers=TokenBucket(1e9, 1e9),  # noqa: S311
        transactions=known,
    )  # fmt: skip
    pair = Pair(address("b"), address("a"))
    checks.set_pairs([(pair, 1, 1)])
    checks.restart(0.0)
    for asked_at, after_s, rtt_s in ((0.0, 3600.0, None), (3600.0, 0.1, 0.1)):
        probe = checks.poll(asked_at)
        assert probe is not None
        answer = stun.success_response(stun.decode(probe.data).message, TransportAddress(*address("b")))
        got = checks.receive_response(answer, pair, asked_at + after_s)
        assert (got and got.rtt_s) == (rtt_s and pytest.approx(rtt_s))


def test_an_answer_that_a_host_got_on_waking_shows_that_a_pair_lives_and_not_how_long_it_is() -> None:
    checks = CheckList(
        credentials("b"), controlling=False, dice=random.Random(2), strangers=TokenBucket(1e9, 1e9),  # noqa: S311
        transactions=Transactions(random.Random(1)),  # noqa: S311
    )  # fmt: skip
    pair = Pair(address("b"), address("a"))
    checks.set_pairs([(pair, 1, 1)])
    checks.restart(0.0)
    now, found = 0.0, []
    for slept_s in (5.0, 0.0, 5.0):
        probe = checks.poll(now)
        assert probe is not None
        if slept_s:
            now += slept_s
            checks.slept()
        now += 0.02
        answer = stun.success_response(stun.decode(probe.data).message, TransportAddress(*address("b")))
        got = checks.receive_response(answer, pair, now)
        found.append(got and got.rtt_s)
        checks.check_quickly(pair, now)
    assert found == [None, pytest.approx(0.02), pytest.approx(0.02)]


def test_a_nomination_takes_the_place_of_no_pair_that_has_answered_and_is_not_answered_without_one() -> None:
    known = Transactions(random.Random(1))  # noqa: S311
    checks = CheckList(
        credentials("b"), controlling=False, dice=random.Random(2), strangers=TokenBucket(1e9, 1e9),  # noqa: S311
        transactions=known,
    )  # fmt: skip
    pairs = [Pair(address("b"), Address("203.0.113.1", 1024 + n)) for n in range(MAX_PAIRS)]
    checks.set_pairs((pair, n, 1) for n, pair in enumerate(pairs))
    checks.restart(0.0)
    for n in range(MAX_PAIRS):
        probe = checks.poll(float(n))
        assert probe is not None
        answer = stun.success_response(stun.decode(probe.data).message, TransportAddress(*address("b")))
        assert checks.receive_response(answer, Pair(probe.local, probe.remote), n + 0.01)
    request = stun.Message(stun.Class.REQUEST, bytes(12), username="", use_candidate=True, ice_controlling=1)
    new = Pair(address("b"), address("a"))
    assert checks.receive_request(request, new) is None
    assert checks.receive_request(request._replace(use_candidate=False), new) is not None
    assert len(checks.valid()) == MAX_PAIRS


def test_a_place_that_nobody_offered_can_be_asked() -> None:
    field = Field()
    pair = Pair(address("a"), address("b"))
    field.ends["a"].it.check(pair, field.now)
    field.run(0.1)
    assert field.ends["a"].it.rtt_s(pair) is not None


def test_an_answer_without_the_key_of_the_session_counts_for_nothing() -> None:
    field = offered()
    field.ends["b"].it.renew(credentials("b", b"guessed"))
    field.run(5.0)
    assert field.ends["a"].answers == []
    assert not field.ends["a"].it.promising


def test_an_error_is_no_answer() -> None:
    field = offered()
    field.lost = lambda probe: probe.local == address("b")
    field.run(0.01)
    end = field.ends["a"]
    request = stun.decode(end.sent[0][1].data).message
    error = stun.Message(stun.Class.ERROR, request.transaction, error=None)
    end.receive(stun.encode(error, KEY), Pair(address("a"), address("b")))
    assert not end.it.promising


def test_in_a_new_session_nothing_of_the_old_one_is_known_and_all_is_asked_again() -> None:
    field = found()
    end, pair = field.ends["a"], Pair(address("a"), address("b"))
    for name in "ab":
        field.ends[name].it.renew(credentials(name, b"another session's key, of 32 byt"))
    assert not end.it.promising
    assert end.it.key == b"another session's key, of 32 byt"
    start = field.now
    end.it.restart(start)
    field.run(1.0)
    assert address("b") in end.asked(start)
    assert end.it.rtt_s(pair) is not None


def test_what_is_forgotten_can_begin_again_with_the_same_session() -> None:
    field = found()
    end = field.ends["a"]
    end.it.selected = Pair(address("a"), address("b"))
    end.it.forget()
    assert (end.it.key, end.it.selected, end.it.due) == (b"", None, None)
    end.it.renew(credentials("a"))
    end.it.restart(field.now)
    field.run(1.0)
    assert end.it.promising


def test_all_checks_of_a_node_leave_a_gap_apart_however_many_peers_it_has() -> None:
    field = Field()
    pace = Pace()
    ends = [End(field, "a", pace) for _ in range(20)]
    for end in ends:
        end.offered(address("b"))
    field.lost = lambda _: True
    times = []
    while len(times) < 40:
        field.now = min(due for end in ends if (due := end.it.due) is not None)
        for end in ends:
            before = len(end.sent)
            end.it.poll(field.now, nominate=False)
            times += [field.now] * (len(end.sent) - before)
    assert min(later - earlier for earlier, later in pairwise(times)) >= GAP_S * 0.999


def test_of_many_peers_whose_checks_are_due_each_is_woken_for_its_own_and_not_for_each_of_the_others() -> None:
    field = Field()
    pace = Pace()
    ends = [End(field, "a", pace) for _ in range(20)]
    for end in ends:
        end.offered(address("b"))
    for end in ends:
        end.it.poll(field.now, nominate=False)
    dues = sorted(due for end in ends if (due := end.it.due) is not None)
    waiting = [due for due in dues if due < field.now + len(ends) * GAP_S]
    assert len(waiting) == len(ends) - 1  # one has sent, and has a while until the next
    assert min(later - earlier for earlier, later in pairwise(waiting)) >= GAP_S * 0.999


@pytest.mark.parametrize(("held_up_s", "most"), [(MISSED_S, MISSED_S / GAP_S), (MISSED_S + 40 * GAP_S, 1)])
def test_after_a_standstill_the_checks_of_many_peers_do_not_leave_all_at_once(held_up_s: float, most: float) -> None:
    field = Field()
    pace = Pace()
    ends = [End(field, "a", pace) for _ in range(40)]
    for end in ends:
        end.offered(address("b"))
    for end in ends:
        end.it.poll(field.now, nominate=False)
    before = sum(len(end.sent) for end in ends)
    field.now += held_up_s
    for end in ends:
        end.it.poll(field.now, nominate=False)
    assert 1 <= sum(len(end.sent) for end in ends) - before <= most


def test_the_pair_in_use_is_kept_where_there_are_more_pairs_than_can_be_asked() -> None:
    field = found()
    it = field.ends["a"].it
    it.selected = pair = Pair(address("a"), address("b", 1))  # which nobody offers
    field.ends["a"].stand(*(f"198.51.100.{n}" for n in range(10, 20)), IPS["a"][0])
    others = [Address(f"203.0.113.{n}", PORT) for n in range(10, 10 + MAX_PAIRS // 2)]
    field.ends["a"].offered(*others, generation=2)
    assert not it.failed(pair)


# Whom a peer names that it is not


def test_a_victim_that_a_peer_names_again_and_again_is_asked_a_bounded_number_of_times_and_the_peer_itself_on() -> None:
    field = found()
    end, start = field.ends["a"], field.now
    for generation in range(2, 302):
        ports = range(1024 + generation * 32, 1024 + generation * 32 + 31)
        end.offered(address("b"), *(Address("203.0.113.66", port) for port in ports), generation=generation)
        end.it.restart(field.now)
        field.run(0.2)
    asked = end.asked(start)
    victim = [a for a in asked if a != address("b")]
    assert STRANGERS_BURST / 2 < len(victim) <= STRANGERS_BURST + STRANGERS_RATE * (field.now - start) + 1
    assert asked.count(address("b")) > 200
    end.it.renew(credentials("a"))
    end.it.restart(field.now)
    before = field.now
    field.run(2.0)
    assert len([a for a in end.asked(before) if a != address("b")]) < 20, "a new session is no new allowance"


def test_what_was_not_asked_for_want_of_an_allowance_is_in_vain_like_what_was() -> None:
    field = offered()
    field.lost = lambda _: True
    end = field.ends["a"]
    for _ in range(200):
        end.it.restart(field.now)
        field.run(0.3)
    field.run(10.0)
    assert end.it.failed(Pair(address("a"), address("b")))
    field.lost = lambda _: False
    field.run(60.0)
    end.it.restart(field.now)
    field.run(2.0)
    assert not end.it.failed(Pair(address("a"), address("b")))
