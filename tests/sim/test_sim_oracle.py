"""The oracle says of two nodes what `core.reachability` says of their NATs, and knows what that does not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from simnat import RANDOM, Behaviour
from simoracle import Oracle, Situation
from simspec import INTERNET, NodeSpec, SiteSpec
from test_sim_net import behaviour

from meshctl.core.reachability import (
    ADDRESS,
    ADDRESS_AND_PORT,
    DIRECT,
    INDEPENDENT,
    KINDS,
    RELAYED,
    SPLICED,
    UNREACHABLE,
    End,
    Helpers,
    predict,
)

ANCHORS = (NodeSpec("a0", 0, kind="anchor", v6=True), NodeSpec("a1", 1, kind="anchor", v6=True))
HARD = Behaviour(ADDRESS_AND_PORT, ADDRESS_AND_PORT, RANDOM)


def ask(sites: list[SiteSpec], one: NodeSpec, other: NodeSpec) -> str:
    """The outcome, which is the same from both ends."""
    situation = Situation(tuple(sites), tuple((n.name, n.site) for n in (one, other)), (*ANCHORS, one, other))
    outcomes = {Oracle().outcome(situation, *names) for names in (("n0", "n1"), ("n1", "n0"))}
    (outcome,) = outcomes
    return outcome


def behind(first: Behaviour | None, second: Behaviour | None) -> str:
    """The outcome of two nodes that have these in front of them, None: nothing."""
    sites = [SiteSpec(n, nat, "192.168.1") for n, nat in enumerate((first, second)) if nat is not None]
    names = iter(s.name for s in sites)
    nodes = [
        NodeSpec(f"n{n}", 2 + n, INTERNET if nat is None else next(names)) for n, nat in enumerate((first, second))
    ]
    return ask(sites, *nodes)


KNOWN = [kind for kind in sorted(KINDS) if kind != "symmetric-sequential"]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(KNOWN, 2)))
def test_it_says_of_each_pair_of_kinds_what_the_table_says(one: str, other: str) -> None:
    expected = predict(End(one), End(other), Helpers(introducer=True, relay=True, tls=False)).kind
    assert behind(*(None if kind == "none" else behaviour(kind) for kind in (one, other))) == expected


def test_two_hard_nats_may_be_spliced_when_the_ports_of_one_are_in_a_row() -> None:
    assert behind(HARD, behaviour("symmetric-sequential")) == SPLICED
    assert behind(HARD, HARD) == RELAYED


def test_nats_that_map_by_address_and_filter_nobody_meet_and_others_that_map_so_do_not() -> None:
    soft = Behaviour(ADDRESS, INDEPENDENT, RANDOM)
    assert behind(soft, soft) == DIRECT
    assert behind(*[Behaviour(ADDRESS, ADDRESS, RANDOM)] * 2) == RELAYED
    assert behind(soft, HARD) == RELAYED


def test_two_nats_whose_mappings_run_away_from_each_other_have_no_direct_path() -> None:
    """Each answers from another port than was asked."""
    by_address = Behaviour(ADDRESS_AND_PORT, ADDRESS, RANDOM)
    assert behind(by_address, Behaviour(ADDRESS_AND_PORT, INDEPENDENT, RANDOM)) == RELAYED


def test_a_lan_is_direct_and_one_nat_needs_a_hairpin_when_a_carrier_hides_two_homes() -> None:
    site = SiteSpec(0, HARD, "192.168.1")
    assert ask([site], NodeSpec("n0", 2, "site0"), NodeSpec("n1", 3, "site0")) == DIRECT
    for hairpin, expected in ((True, DIRECT), (False, RELAYED)):
        carrier = SiteSpec(0, Behaviour(hairpin=hairpin), "100.64.200")
        homes = [SiteSpec(n, Behaviour(), "192.168.1", carrier="site0") for n in (1, 2)]
        assert ask([carrier, *homes], NodeSpec("n0", 2, "site1"), NodeSpec("n1", 3, "site2")) == expected


def test_a_host_in_the_carriers_own_network_is_reached_without_its_nat() -> None:
    carrier, home = SiteSpec(0, HARD, "100.64.200"), SiteSpec(1, Behaviour(), "192.168.1", carrier="site0")
    assert ask([carrier, home], NodeSpec("n0", 2, "site0"), NodeSpec("n1", 3, "site1")) == DIRECT


def test_a_mapped_port_opens_a_hard_nat_unless_the_router_lies() -> None:
    other = SiteSpec(1, Behaviour(), "192.168.1")
    for speaks, lie, expected in ((("pcp",), "", DIRECT), (("pcp",), "foreign", SPLICED), ((), "", SPLICED)):
        hard = SiteSpec(0, HARD, "192.168.1", speaks=speaks, lie=lie)
        assert ask([hard, other], NodeSpec("n0", 2, "site0"), NodeSpec("n1", 3, "site1")) == expected


def test_ipv6_needs_no_mapping_and_two_families_meet_at_an_anchor_alone() -> None:
    sites = [SiteSpec(n, HARD, "192.168.1", v6=True) for n in (0, 1)]
    one, other = NodeSpec("n0", 2, "site0", v6=True), NodeSpec("n1", 3, "site1", v6=True)
    assert ask(sites, one, other) == DIRECT
    assert ask(sites, replace(one, v6=False), other) == RELAYED
    assert ask(sites, replace(one, v6=False), replace(other, v4=False)) == RELAYED


def test_who_has_no_udp_reaches_nobody() -> None:
    assert behind(Behaviour(blocked=True), None) == UNREACHABLE


def test_filters_alone_never_stand_between_two_independent_mappings() -> None:
    filters = (INDEPENDENT, ADDRESS, ADDRESS_AND_PORT)
    for one, other in itertools.product(filters, filters):
        assert behind(Behaviour(filtering=one), Behaviour(filtering=other)) == DIRECT
