"""The oracle against a little model of two NATs that really map and filter."""

from __future__ import annotations

import itertools
import random

import pytest

from meshctl.core.reachability import (
    ADDRESS,
    ADDRESS_AND_PORT,
    BLOCKED,
    DIRECT,
    INDEPENDENT,
    KINDS,
    RELAYED,
    SPLICED,
    TABLE,
    UNKNOWN,
    UNREACHABLE,
    End,
    Helpers,
    Nat,
    hardest,
    predict,
)
from meshctl.lab.draft import NAT_KINDS

ALL = Helpers(introducer=True, relay=True, tls=True)
NOBODY = Helpers(introducer=False, relay=False, tls=False)
ENDS = [End(nat, endpoint, agent) for nat in (None, *KINDS) for endpoint in (False, True) for agent in (False, True)]
Place = tuple[str, int]


class Box:
    """A NAT with one host behind it, as RFC 4787 describes mapping and filtering."""

    def __init__(self, address: str, nat: Nat, chance: random.Random) -> None:
        self.address, self.nat, self.chance = address, nat, chance
        self.ports: dict[object, int] = {}
        self.sent: set[tuple[int, Place]] = set()

    def send(self, to: Place) -> Place:
        """The outer source of a packet to that place."""
        key = None if self.nat.mapping == INDEPENDENT else to
        port = self.ports.setdefault(key, self.chance.randrange(1024, 65536))
        self.sent.add((port, to))
        return self.address, port

    def hears(self, source: Place, port: int) -> bool:
        """Whether a packet from outside to that port comes through."""
        if port not in self.ports.values():
            return False
        peers = {to for mapped, to in self.sent if mapped == port}
        if self.nat.filtering == INDEPENDENT:
            return True
        return any(to[0] == source[0] for to in peers) if self.nat.filtering == ADDRESS else source in peers


def punches(one: Nat, other: Nat) -> bool:
    """Whether two ends that know what a STUN server saw, and answer to where they were heard from, meet both ways."""
    chance = random.Random(1)  # noqa: S311
    a, b = Box("192.0.2.1", one, chance), Box("192.0.2.2", other, chance)
    targets = {a: b.send(("198.51.100.1", 3478)), b: a.send(("198.51.100.1", 3478))}
    heard: set[Box] = set()
    for sender, receiver in ((a, b), (b, a)) * 4:
        source = sender.send(targets[sender])
        if receiver.hears(source, targets[sender][1]):
            heard.add(receiver)
            targets[receiver] = source
    return heard == {a, b}


@pytest.mark.parametrize(("one", "other"), [pair for pair in TABLE if BLOCKED not in pair])
def test_the_table_says_direct_exactly_where_packets_of_two_modelled_nats_meet(one: Nat, other: Nat) -> None:
    assert (TABLE[one, other][0] == DIRECT) == punches(one, other) == punches(other, one)


def test_the_table_has_every_unordered_pair_of_behaviours_once() -> None:
    behaviours = set(KINDS.values())
    assert {frozenset(pair) for pair in TABLE} == {
        frozenset(pair) for pair in itertools.combinations_with_replacement(behaviours, 2)
    }
    assert len(TABLE) == len({frozenset(pair) for pair in TABLE})


def test_the_kinds_are_those_that_the_lab_builds() -> None:
    assert set(KINDS) == set(NAT_KINDS)


@pytest.mark.parametrize("helpers", [Helpers(*h) for h in itertools.product((False, True), repeat=3)])
def test_the_outcome_does_not_depend_on_which_end_is_named_first(helpers: Helpers) -> None:
    for one, other in itertools.combinations_with_replacement(ENDS, 2):
        assert predict(one, other, helpers) == predict(other, one, helpers)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("easy", "easy", DIRECT),
        ("cgnat", "easy", DIRECT),
        ("symmetric", "full-cone", DIRECT),
        ("symmetric", "address-dependent", DIRECT),
        ("symmetric", "easy", SPLICED),
        ("symmetric-sequential", "cgnat", SPLICED),
        ("symmetric", "symmetric-sequential", RELAYED),
        ("udp-blocked", "none", RELAYED),
    ],
)
def test_declared_nats_have_the_outcome_that_the_design_names(one: str, other: str, expected: str) -> None:
    assert predict(End(one), End(other), ALL).kind == expected


def test_an_undeclared_nat_is_unknown_only_where_it_matters() -> None:
    assert predict(End(None), End("easy"), ALL).kind == UNKNOWN
    assert predict(End(None), End("symmetric"), ALL).reason == "one NAT is not declared: direct or spliced or relayed"
    assert predict(End(None), End("full-cone"), ALL).kind == DIRECT
    assert predict(End(None), End("symmetric", endpoint=True), ALL).kind == DIRECT
    assert predict(End(None), End("udp-blocked"), ALL).kind == RELAYED


def test_without_an_introducer_two_hidden_ends_are_unreachable_and_an_endpoint_suffices() -> None:
    assert predict(End("none"), End("none"), NOBODY).kind == UNREACHABLE
    assert predict(End("symmetric"), End("none", endpoint=True), NOBODY).kind == DIRECT


def test_what_needs_a_relay_is_unreachable_without_one() -> None:
    alone = Helpers(introducer=True, relay=False, tls=False)
    assert predict(End("symmetric"), End("symmetric"), alone).kind == UNREACHABLE
    assert predict(End("udp-blocked"), End("none", endpoint=True), alone).kind == UNREACHABLE
    assert predict(End("symmetric"), End("easy"), alone).kind == SPLICED


def test_without_udp_a_relay_that_speaks_udp_alone_is_no_help() -> None:
    udp_alone = Helpers(introducer=True, relay=True, tls=False)
    assert predict(End("symmetric"), End("symmetric"), udp_alone).kind == RELAYED
    for other in ("none", "easy", "symmetric", "udp-blocked"):
        found = predict(End("udp-blocked"), End(other), udp_alone)
        assert (found.kind, found.tls) == (UNREACHABLE, False)
        assert predict(End("udp-blocked"), End(other), ALL).tls


def test_outcomes_that_an_undeclared_nat_leaves_are_those_that_the_help_at_hand_gives() -> None:
    found = predict(End(None), End("symmetric"), Helpers(introducer=True, relay=False, tls=False))
    assert found == (UNKNOWN, "one NAT is not declared: direct or spliced or unreachable", False)


def test_nats_in_a_row_behave_as_the_hardest_of_them() -> None:
    for kinds in itertools.product(KINDS, repeat=2):
        mapping, filtering = KINDS[hardest(kinds)]
        nats = [KINDS[kind] for kind in kinds]
        if BLOCKED in nats:
            assert (mapping, filtering) == BLOCKED
            continue
        order = (INDEPENDENT, ADDRESS, ADDRESS_AND_PORT)
        assert order.index(mapping) == max(order.index(nat.mapping) for nat in nats)
        assert order.index(filtering) == max(order.index(nat.filtering) for nat in nats)


def test_a_stock_client_reaches_endpoints_and_nothing_else() -> None:
    client = End("easy", agent=False)
    assert predict(client, End("symmetric", endpoint=True), NOBODY).kind == DIRECT
    assert predict(client, End("full-cone"), ALL).kind == UNREACHABLE
    assert predict(End("udp-blocked", agent=False), End("none", endpoint=True), ALL).kind == UNREACHABLE


def test_more_help_never_makes_a_pair_worse() -> None:
    for one, other in itertools.combinations_with_replacement(ENDS, 2):
        without, having = predict(one, other, NOBODY).kind, predict(one, other, ALL).kind
        assert without in (UNREACHABLE, having)
