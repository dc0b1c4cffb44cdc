"""Candidates and what is kept of them. Hunted: an endpoint inside the mesh, a priority that is not RFC 8445's, a peer
that makes us remember without end, a candidate that outlives its time, and an offer that changes without need."""

from __future__ import annotations

from math import inf

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_strategies import addresses, offered

from meshctl.core.agent.address import Address, LocalAddress, canonical, is_private, within
from meshctl.core.agent.bodies import MAX_OFFERED, Offer, Offered
from meshctl.core.agent.candidate import (
    MAX_CANDIDATES,
    MAX_HOSTS,
    TYPE_PREFERENCE,
    foundation,
    local_preferences,
    priority,
    public_ips,
)
from meshctl.core.agent.candidates import MAX_OFFERED_HOSTS, LocalCandidates, RemoteCandidates

MESH = ("10.42.0.0/16", "fd42:42::/48")
PORT = 51820
HOSTS = (LocalAddress("192.168.1.10", 24, "eth0"), LocalAddress("2001:db8:1::10", 64, "eth0"))
V4, V6 = Address("192.168.1.10", PORT), Address("2001:db8:1::10", PORT)
OUTSIDE = Address("203.0.113.7", 40001)


def local(*hosts: LocalAddress) -> LocalCandidates:
    made = LocalCandidates(MESH)
    made.set_hosts(hosts or HOSTS, PORT)
    return made


def offer(generation: int, *places: Address, kind: str = "host") -> Offer:
    return Offer(generation, tuple(Offered(kind, a, "00000000", priority(kind, 65535)) for a in places))


def test_priorities_are_those_of_rfc_8445() -> None:
    assert priority("host", 65535) == 2130706431
    assert priority("srflx", 65535) == 1694498815
    assert priority("relay", 0) == 255
    order = sorted(TYPE_PREFERENCE, key=lambda kind: -priority(kind, 1))
    assert order == ["host", "static", "mapped", "prflx", "srflx", "told", "observed", "relay"]


def test_foundations_are_the_same_for_one_kind_base_and_server_alone() -> None:
    one = foundation("srflx", "192.0.2.1", "198.51.100.1")
    assert one == foundation("srflx", "192.0.2.1", "198.51.100.1")
    others = {
        foundation("host", "192.0.2.1", "198.51.100.1"),
        foundation("srflx", "192.0.2.2", "198.51.100.1"),
        foundation("srflx", "192.0.2.1", "198.51.100.2"),
    }
    assert len(others | {one}) == 4
    assert len(bytes.fromhex(one)) == 4


@pytest.mark.parametrize(
    ("ips", "order"),
    [
        (["192.0.2.1", "2001:db8::1"], ["2001:db8::1", "192.0.2.1"]),
        (["10.0.0.1", "192.0.2.1"], ["192.0.2.1", "10.0.0.1"]),
        (["fd00::1", "2001:db8::1", "192.0.2.1"], ["2001:db8::1", "fd00::1", "192.0.2.1"]),
        (
            ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::3", "2001:db8::4", "192.0.2.2"],
        ),
        (
            ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"],
            ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ),
    ],
)
def test_ipv6_comes_first_and_the_families_take_turns(ips: list[str], order: list[str]) -> None:
    preferences = local_preferences(ips)
    assert sorted(preferences, key=lambda ip: -preferences[ip]) == order


@settings(max_examples=examples(25))
@given(st.sets(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str).map(canonical), max_size=30))
def test_local_preferences_are_unique_and_of_16_bits_and_no_family_waits_for_all_of_the_other(ips: set[str]) -> None:
    preferences = local_preferences(ips)
    assert set(preferences) == ips
    assert len(set(preferences.values())) == len(ips)
    assert all(0 <= value <= 65535 for value in preferences.values())
    ranked = sorted(ips, key=lambda ip: -preferences[ip])
    families = [6 if ":" in ip else 4 for ip in ranked]
    if 4 in families and 6 in families:
        assert families[0] == 6
        assert families.index(4) <= len(families) / families.count(4)


def test_host_candidates_are_the_addresses_that_may_be_endpoints() -> None:
    made = local(*HOSTS, LocalAddress("10.42.0.3", 16, "wg1"), LocalAddress("127.0.0.1", 8, "lo"))
    assert [c.address for c in made.all()] == [V6, V4]
    assert {c.base for c in made.all()} == {V4, V6}
    assert made.base(4) == V4
    assert local(HOSTS[0]).base(6) is None


@settings(max_examples=examples(25))
@given(st.sampled_from(["srflx", "observed", "mapped", "static", "prflx", "relay"]), st.integers(0, 2**16 - 1))
def test_an_endpoint_inside_a_mesh_range_is_never_a_candidate(kind: str, low: int) -> None:
    four, six = f"10.42.{low >> 8}.{low & 255}", f"fd42:42::{low:x}"
    ours, theirs = local(), RemoteCandidates(MESH)
    for ip in (four, six, f"::ffff:{four}"):
        assert not ours.put(kind, Address(ip, 1), V4)
        assert not theirs.learn(kind, Address(ip, 1))
        assert not theirs.offer(offer(1, Address(ip, 1), kind=kind))
        assert theirs.refused == {Address(ip, 1): "mesh range"}
    assert {c.kind for c in ours.all()} == {"host"}
    assert theirs.all() == ()


def test_peers_should_hear_of_an_address_that_the_mesh_has_got_or_given_back() -> None:
    addresses = (LocalAddress(V4.ip, 24, "eth0"),)
    ours = LocalCandidates(MESH)
    assert ours.set_hosts(addresses, V4.port)
    for ranges in ((*MESH, f"{V4.ip}/32"), MESH):
        ours.set_ranges(ranges)
        assert ours.set_hosts(addresses, V4.port)


def test_peers_should_hear_of_what_they_are_told_and_of_nothing_else() -> None:
    made = local()
    assert not made.set_hosts(HOSTS, PORT)
    assert made.put("srflx", OUTSIDE, V4, 100.0, "198.51.100.1")
    assert not made.put("srflx", OUTSIDE, V4, 200.0, "198.51.100.1")
    assert not made.put("observed", OUTSIDE, V4, 300.0)  # the same address, less well known
    assert not made.expire(150.0)


def test_a_candidate_lives_until_its_last_sighting_has_aged_and_an_address_until_nobody_sees_it() -> None:
    made = local()
    made.put("srflx", OUTSIDE, V4, 100.0)
    made.put("observed", OUTSIDE, V4, 150.0)
    made.put("srflx", OUTSIDE, V4, 50.0)
    assert made.next_expiry() == 100.0
    assert made.expire(100.0)  # now told as observed
    assert [o.kind for o in made.offered() if o.address == OUTSIDE] == ["observed"]
    assert made.expire(150.0)
    assert OUTSIDE not in {o.address for o in made.offered()}
    assert made.next_expiry() is None


def test_when_an_address_goes_what_hung_on_it_goes_too() -> None:
    made = local()
    made.put("mapped", OUTSIDE, V4)
    made.put("srflx", V6, V6)
    assert made.set_hosts([HOSTS[1]], PORT)
    assert {c.base for c in made.all()} == {V6}
    assert not made.put("srflx", OUTSIDE, V4)
    assert made.set_hosts([HOSTS[1]], PORT + 1)
    assert {c.base.port for c in made.all()} == {PORT + 1}


def test_of_one_address_and_base_the_best_kind_stands_alone() -> None:
    made = local(LocalAddress("203.0.113.7", 24, "eth0"))
    here = Address("203.0.113.7", PORT)
    made.put("srflx", here, here)
    assert [c.kind for c in made.all()] == ["host"]


def test_a_kind_can_be_dropped_but_for_those_that_are_named() -> None:
    made = local()
    other = Address("203.0.113.8", 1)
    made.put("mapped", OUTSIDE, V4)
    made.put("mapped", other, V4)
    assert made.drop("mapped", keep=[other])
    assert not made.drop("mapped", keep=[other])
    assert {c.address for c in made.all() if c.kind == "mapped"} == {other}


def test_this_node_has_at_most_a_hundred_candidates() -> None:
    made = local()
    added = sum(made.put("prflx", Address("203.0.113.7", 1000 + n), V4) for n in range(200))
    assert added < MAX_CANDIDATES == len(made.all())


def test_an_offer_holds_the_best_that_fit_in_a_message() -> None:
    made = local()
    for n in range(MAX_CANDIDATES):
        made.put("srflx", Address(OUTSIDE.ip, 1024 + n), V4)
    assert len(made.all()) == MAX_CANDIDATES
    told = made.offered()
    assert len(told) == MAX_OFFERED
    assert [o.address for o in told] == [c.address for c in made.all()][:MAX_OFFERED]


@pytest.mark.parametrize("count", [MAX_HOSTS, 2 * MAX_CANDIDATES])
def test_a_host_with_many_addresses_has_room_for_what_servers_see_of_it_and_tells_it(count: int) -> None:
    many = [LocalAddress(f"10.0.{n}.1", 24, f"vlan{n}") for n in range(count)]
    six = [LocalAddress(f"2001:db8::{n:x}", 64, "eth0") for n in range(1, count + 1)]
    made = local(*six, *many)
    assert [base.family for base in made.bases()].count(4) == MAX_HOSTS
    last = next(base for base in reversed(made.bases()) if base.family == 4)
    assert made.put("srflx", OUTSIDE, last)
    assert made.base(4) == last
    told = {o.address for o in made.offered()}
    assert {OUTSIDE, last} <= told, "and the own address that it hangs on"
    kinds = [o.kind for o in made.offered()]
    assert kinds.count("host") == MAX_OFFERED_HOSTS < MAX_OFFERED
    made.set_hosts([*six, *many], PORT)
    assert made.base(4) == last, "which stays when the same is said again"


def test_the_way_out_comes_before_other_private_addresses_and_is_kept_among_too_many() -> None:
    many = [LocalAddress(f"10.{n // 200}.{n % 200}.1", 24, f"vlan{n}") for n in range(300)]
    wan, six = LocalAddress("192.168.1.5", 24, "wan0"), LocalAddress("fd00:9::5", 64, "wan0")
    inside = LocalAddress("fd00:1::5", 64, "vlan1")
    made = LocalCandidates(MESH)
    made.set_hosts([*many, wan, inside, six], PORT, ("192.168.1.1", "fe80::1%wan0"))
    assert [made.base(family) for family in (4, 6)] == [Address(wan.ip, PORT), Address(six.ip, PORT)]
    public = LocalAddress("198.51.100.7", 24, "dsl0")
    made.set_hosts([*many, wan, public], PORT, ("192.168.1.1",))
    assert [base.ip for base in made.bases()[:2]] == [public.ip, wan.ip]


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(st.sampled_from(sorted(TYPE_PREFERENCE)), addresses, st.integers(0, 300)), max_size=150))
def test_whatever_is_seen_of_this_node_its_candidates_are_bounded_and_offered_in_order(
    seen: list[tuple[str, Address, int]],
) -> None:
    made, now = local(), 0.0
    for kind, address, lifetime in seen:
        now += 1.0
        told = made.offered()
        assert made.put(kind, address, V4, now + lifetime) == (made.offered() != told)
        made.expire(now)
    assert len(made.all()) <= MAX_CANDIDATES
    told = made.offered()
    assert len({o.address for o in told}) == len(told) <= MAX_OFFERED
    assert [o.priority for o in told] == sorted((o.priority for o in told), reverse=True)
    assert not any(within(o.address.ip, MESH) for o in told)


def test_a_newer_offer_takes_the_place_of_the_older_one() -> None:
    theirs = RemoteCandidates(MESH)
    one, two, three = (Address("198.51.100.1", port) for port in (1, 2, 3))
    assert theirs.offer(offer(1, one, two))
    assert theirs.offer(offer(2, two, three))
    assert {c.address for c in theirs.all()} == {two, three}
    assert not theirs.offer(offer(3, two, three))


def test_what_was_learned_stays_beside_the_offer_until_its_time_is_over() -> None:
    theirs = RemoteCandidates(MESH)
    one, two = Address("198.51.100.1", 1), Address("198.51.100.1", 2)
    assert theirs.learn("prflx", one, 60.0, told=priority("prflx", 65535))
    assert not theirs.learn("prflx", one, 90.0)
    assert theirs.offer(offer(1, two))
    assert {c.kind for c in theirs.all()} == {"prflx", "host"}
    assert theirs.next_expiry() == 90.0
    assert not theirs.expire(60.0)
    assert theirs.expire(90.0)
    assert [c.address for c in theirs.all()] == [two]


def test_what_was_learned_of_an_address_that_the_peer_offers_itself_changes_nothing() -> None:
    theirs = RemoteCandidates(MESH)
    one = Address("198.51.100.1", 1)
    theirs.offer(offer(1, one))
    assert not theirs.learn("observed", one, 60.0)
    assert not theirs.expire(60.0)
    assert [c.kind for c in theirs.all()] == ["host"]


def test_of_one_address_the_better_kind_is_remembered_and_a_kind_can_be_forgotten() -> None:
    theirs = RemoteCandidates(MESH)
    one, two = Address("198.51.100.1", 1), Address("198.51.100.1", 2)
    theirs.learn("observed", one, 60.0)
    assert theirs.learn("static", one)
    assert not theirs.learn("observed", one, 60.0)
    assert [(c.kind, c.expires_at) for c in theirs.all()] == [("static", inf)]
    theirs.learn("static", two)
    assert theirs.forget("static", keep=[two])
    assert [c.address for c in theirs.all()] == [two]


def test_an_address_that_is_offered_twice_counts_once_with_its_better_priority() -> None:
    for priorities in ((5, 9), (9, 5)):
        theirs = RemoteCandidates(MESH)
        theirs.offer(Offer(1, tuple(Offered("host", OUTSIDE, "00000000", p) for p in priorities)))
        assert [c.priority for c in theirs.all()] == [9]


@settings(max_examples=examples(25))
@given(st.lists(st.lists(offered, max_size=120), max_size=3), st.lists(addresses, max_size=250))
def test_a_hostile_peer_costs_a_hundred_candidates_and_no_more(
    offers: list[list[Offered]], checks: list[Address]
) -> None:
    theirs = RemoteCandidates(MESH)
    for generation, candidates in enumerate(offers, 1):
        theirs.offer(Offer(generation, tuple(candidates)))
    for n, address in enumerate(checks):
        theirs.learn("prflx", address, 60.0 + n)
    assert len(theirs.all()) <= MAX_CANDIDATES
    assert len(theirs._learned) <= MAX_CANDIDATES
    assert len(theirs._offered) + len(theirs.refused) <= 2 * MAX_CANDIDATES
    assert [c.priority for c in theirs.all()] == sorted((c.priority for c in theirs.all()), reverse=True)


def test_of_too_many_learned_addresses_those_that_end_first_make_room_and_the_inventorys_stay() -> None:
    theirs = RemoteCandidates(MESH)
    fixed = Address("198.51.100.1", 1)
    theirs.learn("static", fixed)
    for n in range(300):
        theirs.learn("prflx", Address("198.51.100.9", 1000 + n), 60.0 + n)
    ports = {c.address.port for c in theirs.all() if c.kind == "prflx"}
    assert ports == set(range(1300 - MAX_CANDIDATES + 1, 1300))
    assert fixed in {c.address for c in theirs.all()}
    assert not theirs.learn("prflx", Address("198.51.100.9", 999), 1.0)


def test_the_public_addresses_are_those_that_others_see_and_that_mean_the_same_everywhere() -> None:
    made = local()
    made.put("srflx", OUTSIDE, V4)
    made.put("mapped", Address("100.64.3.3", 9), V4)
    made.put("prflx", Address("198.51.100.77", 9), V4)
    assert public_ips(made.all()) == {"203.0.113.7"}
    assert is_private("100.64.3.3")
