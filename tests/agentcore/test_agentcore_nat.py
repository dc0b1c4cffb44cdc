"""Knowledge of NATs, against a model of them. Hunted: a hard NAT that is taken for an easy one, knowledge that outlives
its NAT, a lying server that is believed, and memory that grows with what others send."""

from __future__ import annotations

import random

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import NatSummary
from meshctl.core.agent.nat import (
    BEHAVIOUR_S,
    MAX_PORT_STEP,
    MAX_REMOTES,
    MAX_SERVERS,
    OBSERVATION_S,
    Filtering,
    Mapping,
    NatKnowledge,
    predict_ports,
    same_nat,
)

BASE = Address("192.168.1.10", 51820)
BASE6 = Address("2001:db8:1::10", 51820)
OUTSIDE = "203.0.113.7"
A, A2, B, B2, C = (
    Address("198.51.100.1", 3478), Address("198.51.100.1", 3479),
    Address("198.51.100.2", 3478), Address("198.51.100.2", 3479), Address("198.51.100.3", 3478),
)  # fmt: skip


class Nat:
    """Maps one base; a mapping hangs on what the behaviour says it hangs on, and gets a port that no other has."""

    def __init__(self, behaviour: Mapping, *, step: int = 0, preserving: bool = False, seed: int = 0) -> None:
        self._behaviour, self._step, self._preserving = behaviour, step, preserving
        self._dice = random.Random(seed)  # noqa: S311
        self._port = 40000
        self._mapped: dict[object, Address] = {}

    def see(self, base: Address, server: Address) -> Address:
        if self._behaviour is Mapping.NO_NAT:
            return base
        hangs_on: dict[Mapping, object] = {
            Mapping.ENDPOINT_INDEPENDENT: None,
            Mapping.ADDRESS_DEPENDENT: server.ip,
            Mapping.ADDRESS_AND_PORT_DEPENDENT: server,
        }
        key = base, hangs_on[self._behaviour]
        if key not in self._mapped:
            self._mapped[key] = Address(OUTSIDE, self._next_port(base))
        return self._mapped[key]

    def _next_port(self, base: Address) -> int:
        taken = {mapped.port for mapped in self._mapped.values()}
        if self._preserving and base.port not in taken:
            return base.port
        if self._step:
            self._port += self._step
            return self._port
        return self._dice.choice([port for port in range(1024, 2048) if port not in taken])

    def rebind(self) -> None:
        """Restart: whatever is mapped next gets another port."""
        self._port += 1000
        self._mapped = {("old", n): mapped for n, mapped in enumerate(self._mapped.values())}


def learned(nat: Nat, *servers: Address, base: Address = BASE, now: float = 0.0) -> NatKnowledge:
    knowledge = NatKnowledge(BASE.port)
    for n, server in enumerate(servers):
        knowledge.observe(base, server, nat.see(base, server), now + n / 100)
    return knowledge


@pytest.mark.parametrize(
    ("behaviour", "servers", "told"),
    [
        (Mapping.NO_NAT, (A,), Mapping.UNKNOWN),  # a private base that is seen as it is: the server is inside
        (Mapping.ENDPOINT_INDEPENDENT, (A,), Mapping.UNKNOWN),
        (Mapping.ENDPOINT_INDEPENDENT, (A, A2), Mapping.UNKNOWN),
        (Mapping.ENDPOINT_INDEPENDENT, (A, B), Mapping.ENDPOINT_INDEPENDENT),
        (Mapping.ADDRESS_DEPENDENT, (A, A2), Mapping.UNKNOWN),
        (Mapping.ADDRESS_DEPENDENT, (A, B), Mapping.ADDRESS_AND_PORT_DEPENDENT),  # for want of a second port
        (Mapping.ADDRESS_DEPENDENT, (A, A2, B), Mapping.ADDRESS_DEPENDENT),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, (A, A2), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, (A, B), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, (A, A2, B, B2), Mapping.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_two_servers_tell_how_a_nat_maps(behaviour: Mapping, servers: tuple[Address, ...], told: Mapping) -> None:
    knowledge = learned(Nat(behaviour), *servers)
    assert knowledge.mapping(BASE, 1.0) is told
    assert not knowledge.contradicted(BASE, 1.0)


def test_a_public_address_that_is_seen_as_it_is_has_no_nat() -> None:
    assert learned(Nat(Mapping.NO_NAT), A, base=BASE6).mapping(BASE6, 1.0) is Mapping.NO_NAT
    assert learned(Nat(Mapping.NO_NAT), A, base=BASE6).preserves_port(BASE6, 1.0) is None


def test_a_server_in_the_same_private_network_says_nothing_of_the_nat() -> None:
    knowledge = learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B)
    knowledge.observe(BASE, Address("192.168.1.1", 3478), BASE, 0.5)
    assert knowledge.mapping(BASE, 1.0) is Mapping.ENDPOINT_INDEPENDENT
    assert not knowledge.contradicted(BASE, 1.0)


servers = st.builds(Address, st.sampled_from([f"198.51.100.{n}" for n in range(1, 6)]), st.sampled_from([3478, 3479]))


@settings(max_examples=examples(40))
@given(
    st.sampled_from([m for m in Mapping if m > Mapping.NO_NAT]),
    st.lists(servers, min_size=1, max_size=12),
    st.integers(0, 99),
    st.lists(st.integers(0, 12), max_size=2),
)
def test_no_nat_is_taken_for_an_easier_one_and_with_two_servers_easy_is_told_from_hard(
    behaviour: Mapping, asked: list[Address], seed: int, rebindings: list[int]
) -> None:
    nat, knowledge, now = Nat(behaviour, seed=seed), NatKnowledge(BASE.port), 0.0
    for n, server in enumerate([*asked, *asked]):
        if n in rebindings:
            nat.rebind()
        knowledge.observe(BASE, server, nat.see(BASE, server), now)
        now += 1.0
    told = knowledge.mapping(BASE, now)
    assert told is Mapping.UNKNOWN or told >= behaviour
    if len({server.ip for server in asked}) > 1 and not [n for n in rebindings if n >= len(asked)]:
        assert told.is_hard == behaviour.is_hard
        assert told is not Mapping.UNKNOWN


def test_one_liar_among_three_is_outvoted_and_noted() -> None:
    knowledge = learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B)
    knowledge.observe(BASE, C, Address("198.51.100.99", 9), 0.5)
    assert knowledge.mapping(BASE, 1.0) is Mapping.ENDPOINT_INDEPENDENT
    assert knowledge.contradicted(BASE, 1.0)


def test_a_liar_that_lies_anew_each_time_is_outvoted_as_soon_as_the_others_are_asked_again() -> None:
    nat, knowledge = Nat(Mapping.ENDPOINT_INDEPENDENT), NatKnowledge(BASE.port)
    for n in range(20):
        knowledge.observe(BASE, C, Address("198.51.100.99", 1000 + n), float(n))
        for server in (A, B):
            knowledge.observe(BASE, server, nat.see(BASE, server), n + 0.1)
        assert knowledge.mapping(BASE, n + 0.2) is Mapping.ENDPOINT_INDEPENDENT


def test_two_servers_that_disagree_make_a_nat_hard_for_the_harm_of_a_mistake_is_less_so() -> None:
    knowledge = NatKnowledge(BASE.port)
    knowledge.observe(BASE, A, Address(OUTSIDE, 1), 0.0)
    knowledge.observe(BASE, B, Address(OUTSIDE, 2), 0.0)
    assert knowledge.mapping(BASE, 1.0).is_hard


def test_two_against_two_is_no_majority() -> None:
    knowledge = NatKnowledge(BASE.port)
    for n, port in enumerate((1, 1, 2, 2)):
        knowledge.observe(BASE, Address(f"198.51.100.{n}", 1), Address(OUTSIDE, port), 0.0)
    assert knowledge.mapping(BASE, 1.0).is_hard


def test_a_rebinding_is_told_and_voids_what_was_seen_before_it() -> None:
    nat = Nat(Mapping.ENDPOINT_INDEPENDENT)
    knowledge = learned(nat, A, B)
    assert not knowledge.observe(BASE, A, nat.see(BASE, A), 5.0)
    nat.rebind()
    assert knowledge.observe(BASE, A, nat.see(BASE, A), 10.0)
    assert knowledge.mapping(BASE, 10.0) is Mapping.UNKNOWN  # and not hard, though A and B last saw different ports
    assert knowledge.observe(BASE, B, nat.see(BASE, B), 11.0)
    assert knowledge.mapping(BASE, 12.0) is Mapping.ENDPOINT_INDEPENDENT


def test_knowledge_ages_out() -> None:
    knowledge = learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B)
    knowledge.received(BASE, C, 0.0)
    assert knowledge.mapping(BASE, OBSERVATION_S - 1) is Mapping.ENDPOINT_INDEPENDENT
    assert knowledge.mapping(BASE, OBSERVATION_S + 1) is Mapping.UNKNOWN
    assert knowledge.preserves_port(BASE, OBSERVATION_S + 1) is None
    assert knowledge.filtering(BASE, BEHAVIOUR_S - 1) is Filtering.ENDPOINT_INDEPENDENT
    assert knowledge.filtering(BASE, BEHAVIOUR_S + 1) is Filtering.UNKNOWN


def test_bases_and_families_are_apart_and_can_be_forgotten() -> None:
    knowledge = learned(Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT), A, B)
    knowledge.observe(BASE6, A, BASE6, 0.0)
    assert knowledge.summary([BASE, BASE6], 1.0) == (
        NatSummary(4, Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.UNKNOWN, 0),
        NatSummary(6, Mapping.NO_NAT, Filtering.UNKNOWN, 0),
    )
    knowledge.forget(keep=[BASE6])
    assert knowledge.mapping(BASE, 1.0) is Mapping.UNKNOWN
    assert knowledge.mapping(BASE6, 1.0) is Mapping.NO_NAT
    assert knowledge.summary([], 1.0) == ()


def test_port_preservation_is_seen() -> None:
    assert learned(Nat(Mapping.ENDPOINT_INDEPENDENT, preserving=True), A, B).preserves_port(BASE, 1.0) is True
    assert learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B).preserves_port(BASE, 1.0) is False
    assert learned(Nat(Mapping.ADDRESS_DEPENDENT, preserving=True), A, B).preserves_port(BASE, 1.0) is False
    assert NatKnowledge(BASE.port).preserves_port(BASE, 1.0) is None


@settings(max_examples=examples(40))
@given(st.integers(1, MAX_PORT_STEP), st.sampled_from([Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT]))
def test_a_sequential_nat_is_seen_through_and_its_next_ports_foretold(step: int, behaviour: Mapping) -> None:
    nat = Nat(behaviour, step=step)
    knowledge = learned(nat, A, B, C)
    assert knowledge.port_step(BASE, 1.0) == step
    last = nat.see(BASE, C).port
    fresh = [nat.see(BASE, Address(f"198.51.100.{n}", 1)).port for n in range(10, 13)]
    assert predict_ports(last, step, 3) == tuple(fresh)


def test_the_order_in_which_mappings_were_made_counts_and_not_that_of_the_last_look() -> None:
    nat = Nat(Mapping.ADDRESS_DEPENDENT, step=2)
    knowledge = learned(nat, A, B, C)
    knowledge.observe(BASE, A, nat.see(BASE, A), 0.5)
    assert knowledge.port_step(BASE, 1.0) == 2


def test_other_hosts_in_between_do_not_hide_the_step_and_two_ports_are_too_few_to_tell() -> None:
    knowledge = NatKnowledge(BASE.port)
    for n, port in enumerate((40000, 40001, 40005, 40006)):
        knowledge.observe(BASE, Address(f"198.51.100.{n}", 1), Address(OUTSIDE, port), float(n))
    assert knowledge.port_step(BASE, 4.0) == 1
    assert learned(Nat(Mapping.ADDRESS_DEPENDENT, step=1), A, B).port_step(BASE, 1.0) == 0


def test_random_ports_and_easy_nats_have_no_step() -> None:
    assert learned(Nat(Mapping.ADDRESS_DEPENDENT, seed=3), A, B, C).port_step(BASE, 1.0) == 0
    assert learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B, C).port_step(BASE, 1.0) == 0


@settings(max_examples=examples(40))
@given(st.integers(1024, 65535), st.integers(0, MAX_PORT_STEP), st.integers(0, 300))
def test_foretold_ports_are_ports_that_a_nat_gives(port: int, step: int, count: int) -> None:
    ports = predict_ports(port, step, count)
    assert len(ports) == (count if step else 0)
    assert all(1024 <= p <= 65535 for p in ports)
    assert len(set(ports)) == len(ports)


def test_who_came_in_uninvited_tells_the_filtering() -> None:
    knowledge = NatKnowledge(BASE.port)
    knowledge.sent(BASE, A, 0.0)
    knowledge.received(BASE, A, 1.0)
    assert knowledge.filtering(BASE, 1.0) is Filtering.UNKNOWN
    knowledge.received(BASE, A2, 1.0)
    assert knowledge.filtering(BASE, 1.0) is Filtering.ADDRESS_DEPENDENT
    knowledge.received(BASE, B, 2.0)
    assert knowledge.filtering(BASE, 2.0) is Filtering.ENDPOINT_INDEPENDENT
    knowledge.received(BASE, A2, 3.0)
    assert knowledge.filtering(BASE, 3.0) is Filtering.ENDPOINT_INDEPENDENT


def test_whether_a_nat_hairpins_is_known_when_it_was_tried_and_success_counts_for_more() -> None:
    knowledge = learned(Nat(Mapping.ENDPOINT_INDEPENDENT), A, B)
    assert knowledge.outside(BASE, 0.0) == {OUTSIDE}
    assert knowledge.hairpins(BASE, 0.0) is None
    knowledge.hairpinned(BASE, 1.0, worked=False)
    assert knowledge.hairpins(BASE, 1.0) is False
    knowledge.hairpinned(BASE, 2.0, worked=True)
    knowledge.hairpinned(BASE, 3.0, worked=False)
    assert knowledge.hairpins(BASE, 3.0) is True
    assert knowledge.hairpins(BASE, 2.0 + BEHAVIOUR_S) is None
    knowledge.hairpinned(BASE, 2.0 + BEHAVIOUR_S, worked=False)
    assert knowledge.hairpins(BASE, 2.0 + BEHAVIOUR_S) is False


def test_without_a_nat_nobody_is_behind_it() -> None:
    assert learned(Nat(Mapping.NO_NAT), A, B).outside(BASE, 0.0) == frozenset()


def test_a_neighbour_on_the_lan_has_not_come_through_the_nat() -> None:
    knowledge = NatKnowledge(BASE.port)
    knowledge.received(BASE, Address("192.168.1.20", 1), 0.0)
    assert knowledge.filtering(BASE, 0.0) is Filtering.UNKNOWN


def test_what_was_sent_to_and_had_to_be_forgotten_is_not_taken_for_uninvited() -> None:
    knowledge = NatKnowledge(BASE.port)
    knowledge.sent(BASE, A, 0.0)
    for n in range(MAX_REMOTES):
        knowledge.sent(BASE, Address(f"203.0.{n >> 8}.{n & 255}", 1), 1.0)
    knowledge.received(BASE, A, 2.0)
    assert knowledge.filtering(BASE, 2.0) is Filtering.UNKNOWN


def test_of_servers_without_end_those_that_were_heard_last_are_remembered() -> None:
    knowledge = NatKnowledge(BASE.port)
    for now in range(100):
        knowledge.observe(BASE, Address(f"198.51.100.{now}", 3478), Address(OUTSIDE, 1), float(now))
    assert {server.ip for server in knowledge._bases[BASE].seen} == {
        f"198.51.100.{now}" for now in range(100 - MAX_SERVERS, 100)
    }


@settings(max_examples=examples(40))
@given(st.lists(st.tuples(st.integers(1, 250), st.integers(1, 9), st.integers(0, 9)), max_size=60))
def test_memory_is_bounded_whatever_is_seen(seen: list[tuple[int, int, int]]) -> None:
    knowledge = NatKnowledge(BASE.port)
    for now, (host, port, mapped) in enumerate(seen):
        knowledge.observe(BASE, Address(f"198.51.100.{host}", port), Address(OUTSIDE, mapped), float(now))
        knowledge.mapping(BASE, float(now))
    if seen:
        assert (
            len(knowledge._bases[BASE].seen) == min(MAX_SERVERS, len({s[:2] for s in seen})) or len(seen) > MAX_SERVERS
        )
        assert len(knowledge._bases[BASE].seen) <= MAX_SERVERS


def test_two_that_are_seen_under_one_address_are_behind_one_nat() -> None:
    assert same_nat([OUTSIDE, "2001:db8::1"], [OUTSIDE])
    assert not same_nat([OUTSIDE], ["203.0.113.8"])
    assert not same_nat([], [])


def test_packets_of_a_splices_ports_are_not_counted_and_not_remembered() -> None:
    knowledge = NatKnowledge(BASE.port)
    for port in range(20000, 20300):
        knowledge.sent(Address(BASE.ip, port), Address("203.0.113.9", 51820), 1.0)
        knowledge.received(Address(BASE.ip, port), Address("203.0.113.8", 51820), 1.0)
    assert knowledge._bases == {}
    assert knowledge.filtering(Address(BASE.ip, 20000), 2.0) is Filtering.UNKNOWN
