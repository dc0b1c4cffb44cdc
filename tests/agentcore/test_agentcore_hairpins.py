"""What checks say of a NAT that both ends are behind. Hunted: a NAT that is said to keep its hosts apart where they
could not have met, and one that is said to let them where nothing was led back."""

from __future__ import annotations

import pytest

from meshctl.core.agent.address import Address
from meshctl.core.agent.bodies import NatSummary, Offer, Offered
from meshctl.core.agent.candidates import RemoteCandidates
from meshctl.core.agent.checklist import Pair
from meshctl.core.agent.hairpins import Hairpins
from meshctl.core.agent.nat import Filtering, Mapping, NatKnowledge

PORT, OUTSIDE = 51820, "198.51.100.7"
BASE = Address("192.168.1.2", PORT)
SERVERS = [Address(f"203.0.113.{n}", 3478) for n in (1, 2)]
THROUGH, INSIDE = Pair(BASE, Address(OUTSIDE, 4242)), Pair(BASE, Address("192.168.2.2", PORT))
EASY, HARD = Mapping.ENDPOINT_INDEPENDENT, Mapping.ADDRESS_DEPENDENT


def home(mapping: Mapping = EASY) -> tuple[NatKnowledge, Hairpins]:
    """What is known of our own NAT, which the peer is behind too."""
    nat, remote = NatKnowledge(PORT), RemoteCandidates(())
    for n, server in enumerate(SERVERS):
        nat.observe(BASE, server, Address(OUTSIDE, 4000 + (n if mapping is HARD else 0)), 0.0)
    remote.offer(Offer(1, (Offered("host", INSIDE.remote, "0", 2), Offered("srflx", THROUGH.remote, "1", 1))))
    return nat, Hairpins(nat, remote)


@pytest.mark.parametrize(
    ("ours", "theirs", "failed", "hairpins"),
    [
        (EASY, EASY, {THROUGH: True, INSIDE: True}, False),
        (EASY, EASY, {THROUGH: True, INSIDE: False}, False),
        (EASY, EASY, {THROUGH: False}, None),  # it has answered, and was noted then
        (EASY, EASY, {INSIDE: True}, None),  # nobody has tried
        (HARD, EASY, {THROUGH: True}, None),  # where we are, the peer cannot know
        (EASY, HARD, {THROUGH: True}, None),
    ],
)
def test_that_a_nat_does_not_hairpin_is_known_when_both_knew_where_to_ask_and_had_no_answer(
    ours: Mapping, theirs: Mapping, failed: dict[Pair, bool], hairpins: bool | None
) -> None:
    nat, it = home(ours)
    it.tried((BASE,), (NatSummary(4, theirs, Filtering.UNKNOWN),), failed, 0.0)
    assert nat.hairpins(BASE, 0.0) is hairpins


def test_what_is_known_of_the_peers_nat_in_another_family_counts_for_nothing() -> None:
    nat, it = home()
    it.tried((BASE,), (NatSummary(6, EASY, Filtering.UNKNOWN),), {THROUGH: True}, 0.0)
    assert nat.hairpins(BASE, 0.0) is None


@pytest.mark.parametrize(("pair", "hairpins"), [(THROUGH, True), (INSIDE, None)])
def test_what_comes_by_the_outer_address_was_led_back(pair: Pair, hairpins: bool | None) -> None:
    nat, it = home()
    it.received(pair, 0.0)
    assert nat.hairpins(BASE, 0.0) is hairpins
