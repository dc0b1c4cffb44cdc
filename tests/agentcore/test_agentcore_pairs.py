"""Pairs of candidates. Hunted: two families in one pair, a pair that is sent to this host itself, one network taken for
another, a useful pair that a crowd keeps out, and progress that is lost when a candidate trickles in."""

from __future__ import annotations

from dataclasses import replace

from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.candidate import Candidate, priority
from meshctl.core.agent.checklist import MAX_PAIRS
from meshctl.core.agent.pairs import CandidatePair, Tier, pair_priority, pair_up

PORT = 51820


def candidate(kind: str, ip: str, base: str = "", port: int = PORT, local_preference: int = 65535) -> Candidate:
    address = Address(ip, port)
    own = Address(base, PORT) if base else address
    return Candidate(kind, address, own, kind.ljust(8, "0"), priority(kind, local_preference))


def hosts(*prefixes: str) -> list[LocalAddress]:
    """Of `192.168.1.10/24` and the like."""
    return [LocalAddress(text.split("/")[0], int(text.split("/")[1]), f"eth{n}") for n, text in enumerate(prefixes)]


HOME = hosts("192.168.1.10/24")
OURS = [candidate("host", "192.168.1.10"), candidate("srflx", "203.0.113.7", "192.168.1.10", 40001)]


def tiers(pairs: tuple[CandidatePair, ...]) -> dict[str, Tier]:
    """By remote address, of the best pair to it."""
    found: dict[str, Tier] = {}
    for pair in pairs:
        found.setdefault(pair.remote.ip, pair.tier)
    return found


def up(
    theirs: list[Candidate], ours: list[Candidate] = OURS, here: list[LocalAddress] = HOME
) -> tuple[CandidatePair, ...]:
    return pair_up(ours, theirs, here, controlling=True)


@settings(max_examples=examples(25))
@given(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_pair_priorities_are_those_of_rfc_8445(g: int, d: int) -> None:
    assert pair_priority(g, d) == 2**32 * min(g, d) + 2 * max(g, d) + (1 if g > d else 0)
    assert pair_priority(g, d) < 2**63


def test_a_pair_leaves_from_the_base_once_whatever_leads_to_it() -> None:
    pairs = up([candidate("host", "198.51.100.1")])
    assert [p.key for p in pairs] == [(Address("192.168.1.10", PORT), Address("198.51.100.1", PORT))]


def test_of_several_ways_to_one_pair_the_best_gives_its_priority() -> None:
    ours, theirs = [*OURS[::-1]], [candidate("srflx", "198.51.100.1"), candidate("host", "198.51.100.1")]
    (pair,) = up(theirs, ours)
    assert pair.priority == pair_priority(priority("host", 65535), priority("host", 65535))
    assert pair.prflx_priority == priority("prflx", 65535)


def test_a_relay_is_where_to_send_and_never_where_from() -> None:
    relay = candidate("relay", "198.51.100.99", "192.168.1.10", 40100)
    assert [p.remote for p in up([relay], [*OURS, relay])] == [relay.address]
    assert up([candidate("host", "198.51.100.1")], [relay]) == ()


def test_both_sides_give_a_pair_the_same_priority() -> None:
    theirs = [candidate("host", "198.51.100.1"), candidate("srflx", "198.51.100.2", "198.51.100.1", 9)]
    here = {p.remote: p.priority for p in up(theirs, [candidate("host", "192.0.2.1")])}
    there = pair_up(theirs[:1], [candidate("host", "192.0.2.1")], [], controlling=False)
    assert there[0].priority == here[theirs[0].address]


def test_on_one_lan_the_private_address_is_tried_first() -> None:
    theirs = [candidate("host", "192.168.1.20"), candidate("srflx", "203.0.113.7", "192.168.1.20", 40002)]
    pairs = up(theirs)
    assert (pairs[0].remote.ip, pairs[0].tier) == ("192.168.1.20", Tier.LAN)
    assert tiers(pairs)["203.0.113.7"] is Tier.ORDINARY


def test_on_one_lan_nothing_need_be_known_of_the_outside() -> None:
    assert tiers(up([candidate("host", "192.168.1.20")], OURS[:1])) == {"192.168.1.20": Tier.LAN}


def test_the_same_private_range_in_two_places_is_tried_last() -> None:
    theirs = [candidate("host", "192.168.1.20"), candidate("srflx", "198.51.100.2", "192.168.1.20", 40002)]
    pairs = up(theirs)
    assert tiers(pairs) == {"198.51.100.2": Tier.ORDINARY, "192.168.1.20": Tier.DOUBTFUL}
    assert pairs[-1].remote.ip == "192.168.1.20"


def test_a_private_address_behind_the_same_nat_is_an_ordinary_one() -> None:
    theirs = [candidate("host", "192.168.77.20"), candidate("srflx", "203.0.113.7", "192.168.77.20", 40002)]
    assert tiers(up(theirs))["192.168.77.20"] is Tier.ORDINARY
    assert tiers(up(theirs[:1]))["192.168.77.20"] is Tier.DOUBTFUL


def test_an_address_that_this_host_has_itself_is_not_tried() -> None:
    theirs = [candidate("host", "192.168.1.10"), candidate("srflx", "198.51.100.2", "192.168.1.10", 40002)]
    assert {p.remote.ip for p in up(theirs)} == {"198.51.100.2"}


def test_one_lan_by_ipv6_needs_no_nat_to_tell() -> None:
    ours = [*OURS, candidate("host", "2001:db8:1::10"), candidate("host", "fd00:1::10")]
    here = hosts("192.168.1.10/24", "2001:db8:1::10/64", "fd00:1::10/64")
    theirs = [candidate("host", "2001:db8:1::20"), candidate("host", "fd00:1::20"), candidate("host", "2001:db8:2::1")]
    found = tiers(up(theirs, ours, here))
    assert found == {"2001:db8:1::20": Tier.LAN, "fd00:1::20": Tier.LAN, "2001:db8:2::1": Tier.ORDINARY}


def test_only_the_address_that_stands_in_the_prefix_is_on_the_lan() -> None:
    ours = [candidate("host", "192.168.1.10"), candidate("host", "192.0.2.10")]
    pairs = up([candidate("host", "192.168.1.20")], ours, hosts("192.168.1.10/24", "192.0.2.10/24"))
    assert {p.local.ip: p.tier for p in pairs} == {"192.168.1.10": Tier.LAN, "192.0.2.10": Tier.DOUBTFUL}


ips4 = st.sampled_from(["192.168.1.10", "192.168.1.20", "10.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.7"])
ips6 = st.sampled_from(["2001:db8:1::10", "2001:db8:2::1", "fd00:1::10"])
kinds = st.sampled_from(["host", "srflx", "told", "observed", "mapped", "prflx", "static", "relay"])


@st.composite
def candidates(draw: st.DrawFn, size: int = 40) -> list[Candidate]:
    found = []
    for _ in range(draw(st.integers(0, size))):
        ips = draw(st.sampled_from([ips4, ips6]))
        found.append(
            candidate(draw(kinds), draw(ips), draw(ips), draw(st.integers(1, 99)), draw(st.integers(65500, 65535)))
        )
    return found


HERE = hosts("192.168.1.10/24", "2001:db8:1::10/64")


@settings(max_examples=examples(25))
@given(candidates(), candidates(100), st.booleans())
def test_pairs_are_of_one_family_bounded_unique_ordered_and_never_to_this_host(
    ours: list[Candidate], theirs: list[Candidate], controlling: bool
) -> None:
    pairs = pair_up(ours, theirs, HERE, controlling=controlling)
    assert len(pairs) <= MAX_PAIRS
    assert len({p.key for p in pairs}) == len(pairs)
    assert all(p.local.family == p.remote.family for p in pairs)
    assert {p.local for p in pairs} <= {c.base for c in ours}
    assert {p.remote for p in pairs} <= {c.address for c in theirs}
    assert not {p.remote.ip for p in pairs} & {h.ip for h in HERE}
    assert list(pairs) == sorted(pairs, key=lambda p: (p.tier, -p.priority, p.key))
    assert [p.rank for p in pairs] == sorted((p.rank for p in pairs), reverse=True)
    assert pairs == pair_up(ours[::-1], theirs[::-1], HERE[::-1], controlling=controlling)


@settings(max_examples=examples(25))
@given(candidates(), candidates())
def test_both_sides_find_the_same_pairs_with_the_same_priorities(
    ours: list[Candidate], theirs: list[Candidate]
) -> None:
    """But for translation: here every candidate is its own base, so that there is none."""
    a, b = (
        [Candidate(c.kind, c.address, c.address, c.foundation, c.priority) for c in side if c.kind != "relay"]
        for side in (ours, theirs)
    )
    here, there = pair_up(a, b, [], controlling=True), pair_up(b, a, [], controlling=False)
    if len(here) < MAX_PAIRS:
        assert {(p.local, p.remote, p.priority) for p in here} == {(p.remote, p.local, p.priority) for p in there}


def crowd(count: int) -> list[Candidate]:
    """A peer with many addresses on bridges of its own, behind the NAT that we are behind too."""
    return [candidate("host", f"172.16.{n}.1") for n in range(count)]


def test_a_crowd_of_host_candidates_does_not_keep_out_the_public_address_the_relay_or_what_works() -> None:
    public = candidate("srflx", "203.0.113.7", "172.16.0.1", 40002)
    relay = candidate("relay", "198.51.100.99", port=40100)
    bridges = [f"172.17.{n}.1" for n in range(20)]
    ours = [*OURS, *(candidate("host", ip) for ip in bridges)]
    theirs = [*crowd(60), public, relay]
    here = hosts("192.168.1.10/24", *(f"{ip}/16" for ip in bridges))
    pairs = up(theirs, ours, here)
    assert len(pairs) == MAX_PAIRS
    assert {p.remote for p in pairs} == {c.address for c in theirs}
    works = (Address("172.17.19.1", PORT), Address("172.16.59.1", PORT))
    assert works not in {p.key for p in pairs}
    assert works in {p.key for p in pair_up(ours, theirs, here, controlling=True, keep={works})}


def test_a_crowd_of_own_addresses_does_not_keep_out_the_one_that_leads_out() -> None:
    inside = [f"10.0.{n}.1" for n in range(31)]
    wan = candidate("host", "192.168.1.5")
    ours = [*(candidate("host", ip) for ip in inside), wan, candidate("srflx", "198.51.100.7", "192.168.1.5", 40001)]
    ours = [replace(c, priority=priority(c.kind, 65535 - n)) for n, c in enumerate(ours)]
    theirs = [candidate("host", f"172.16.{n}.1") for n in range(4)] + [candidate("srflx", "203.0.113.7", port=40002)]
    here = hosts("192.168.1.5/24", *(f"{ip}/24" for ip in inside))
    pairs = up(theirs, ours, here)
    assert {p.remote for p in pairs if p.local == wan.base} == {c.address for c in theirs}


@settings(max_examples=examples(25))
@given(candidates(), candidates(), candidates(5))
def test_a_candidate_that_trickles_in_takes_no_pair_away_while_there_is_room(
    ours: list[Candidate], theirs: list[Candidate], more: list[Candidate]
) -> None:
    old = {p.key for p in pair_up(ours, theirs, HERE, controlling=True)}
    new = {p.key for p in pair_up(ours, [*theirs, *more], HERE, controlling=True, keep=old)}
    assert old <= new
    assert {remote for _, remote in new - old} <= {c.address for c in more}
