"""A link to an anchor, with its counters and questions in hand. Hunted: an anchor that lives and counts as dead, one
that is dead and is counted upon, and an address that works and is left."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import pytest
from agentcore_values import peer

from meshctl.core.agent.address import Address
from meshctl.core.agent.anchorlink import ASK_FIRST_S, ASK_JITTER, ASK_LONGEST_S, SMOOTHING, AnchorLink
from meshctl.core.agent.events import PeerStatus
from meshctl.core.agent.lifetime import LATE, LONGEST_S
from meshctl.core.agent.liveness import IDLE_HANDSHAKE_MAX_S, STOPPED_S, STREAM, UNANSWERED_S
from meshctl.core.agent.relayserver import PORTS

FOUR, SIX, NEW = Address("203.0.113.1", 51820), Address("2001:db8::1", 51820), Address("203.0.113.7", 51820)


class Anchor:
    """The link, and the counters that it is shown."""

    def __init__(self) -> None:
        self.link = AnchorLink(peer("a", "hub", 1, kind="anchor"))
        self.link.set_endpoints((FOUR, SIX))
        self.now, self.rx, self.tx = 10.0, 0, 0
        self.age: float | None = 1.0
        self.endpoint = FOUR
        self.drawn, self.draws = 0.0, 0
        self.sample()

    def draw(self) -> float:
        self.draws += 1
        return self.drawn

    def ask(self, now: float | None = None, families: Collection[int] = (4, 6)) -> tuple[Address, ...]:
        return self.link.ask(self.now if now is None else now, self.draw, families)

    def sample(self, *, after: float = 0.0, received: int = 0, sent: int = 0) -> None:
        self.now += after
        self.rx, self.tx = self.rx + received, self.tx + sent
        status = PeerStatus(self.link.peer.public_key, self.endpoint, self.age, self.rx, self.tx, 25)
        self.link.sample(status, self.now)

    def doubt(self) -> tuple[Address, ...]:
        """Something was sent, and nothing came; what is then asked."""
        self.sample(after=0.25, sent=500)
        self.sample(after=UNANSWERED_S)
        return self.ask()

    def die(self) -> None:
        for server in self.doubt():
            assert self.link.silent(server, self.now) is None


@pytest.mark.parametrize(("age", "up"), [(None, False), (0.0, True), (IDLE_HANDSHAKE_MAX_S, False)])
def test_a_link_is_up_while_the_last_handshake_is_young(age: float | None, up: bool) -> None:
    anchor = Anchor()
    anchor.age = age
    anchor.sample()
    assert anchor.link.up is up


def test_an_idle_link_with_the_longest_keepalive_is_up_until_wireguard_makes_new_keys() -> None:
    rekey_after_s = 120.0  # WireGuard's REKEY_AFTER_TIME: the first keepalive after it begins a handshake
    anchor = Anchor()
    anchor.age = rekey_after_s + LONGEST_S * LATE
    anchor.sample()
    assert anchor.link.up


def test_a_link_of_which_nothing_was_read_is_down() -> None:
    assert not AnchorLink(peer("a", "hub", 1, kind="anchor")).up


@pytest.mark.parametrize("told", [True, False])
def test_messages_of_agents_that_come_no_more_are_no_doubt_of_an_anchor_and_other_packets_are(told: bool) -> None:
    anchor = Anchor()
    for _ in range(2 * STREAM):
        if told:
            anchor.link.told(200)
        anchor.sample(after=0.5, received=288)
    anchor.sample(after=2 * STOPPED_S)
    assert (anchor.link.due is None) is told


def test_since_when_it_is_up_is_when_it_came_up_last() -> None:
    anchor = Anchor()
    anchor.sample(after=5.0, received=1)
    assert anchor.link.since == 10.0
    anchor.age = None
    anchor.sample(after=5.0)
    anchor.age = 0.0
    anchor.sample(after=5.0)
    assert anchor.link.since == 25.0


def test_while_the_counters_say_that_it_lives_nothing_is_asked() -> None:
    anchor = Anchor()
    for _ in range(50):
        anchor.sample(after=0.25, sent=500, received=500)
        assert anchor.link.due is None
        assert anchor.ask() == ()


def test_an_anchor_in_doubt_is_asked_at_all_its_addresses_at_once() -> None:
    anchor = Anchor()
    assert anchor.doubt() == (FOUR, SIX)
    assert anchor.link.up, "it is not dead yet"


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_it_is_asked_again_after_ever_longer_pauses_with_a_share_of_them_drawn(drawn: float) -> None:
    anchor = Anchor()
    anchor.drawn = drawn
    anchor.doubt()
    dues = [anchor.now]
    for _ in range(8):
        due = anchor.link.due
        assert due is not None
        assert anchor.ask(due - 0.01) == ()
        assert anchor.ask(due) == (FOUR, SIX)
        dues.append(due)
    pauses = [later - earlier for earlier, later in pairwise(dues)]
    longest = [min(ASK_FIRST_S * 2**n, ASK_LONGEST_S) for n in range(8)]
    assert pauses == pytest.approx([pause_s * (1.0 - ASK_JITTER * drawn) for pause_s in longest])
    assert anchor.draws == len(dues), "one for each time that it is asked, and none for a time that is not due"


def test_a_doubt_that_goes_on_does_not_have_it_asked_sooner() -> None:
    anchor = Anchor()
    anchor.doubt()
    due = anchor.link.due
    for _ in range(4):
        anchor.sample(after=0.25, sent=500)
        assert anchor.link.due == due


def test_an_answer_to_an_earlier_series_of_questions_says_nothing_of_now() -> None:
    anchor = Anchor()
    anchor.doubt()
    anchor.link.answered(SIX, 0.02, anchor.now)  # and the one in use may answer still
    anchor.ask(anchor.link.due or 0.0)
    for server in (FOUR, SIX):
        assert anchor.link.silent(server, anchor.now) is None
    assert not anchor.link.up


def test_it_is_dead_when_it_is_silent_at_every_address_and_not_before() -> None:
    anchor = Anchor()
    anchor.doubt()
    anchor.link.silent(FOUR, anchor.now)
    assert anchor.link.up
    anchor.link.silent(SIX, anchor.now)
    assert not anchor.link.up
    assert anchor.link.due is not None, "it is asked on"


def test_an_address_of_a_family_that_this_node_does_not_have_is_neither_asked_nor_waited_for() -> None:
    anchor = Anchor()
    anchor.sample(after=0.25, sent=500)
    anchor.sample(after=UNANSWERED_S)
    assert anchor.ask(families={4}) == (FOUR,)
    anchor.link.silent(FOUR, anchor.now)
    assert not anchor.link.up


def test_an_anchor_without_a_handshake_is_asked_until_there_is_one_and_taken_where_it_answers() -> None:
    anchor = Anchor()
    anchor.age, anchor.endpoint = None, SIX  # a name that did not resolve, or a family that leads nowhere
    anchor.sample(after=0.25)
    assert anchor.ask(families={4}) == (FOUR,)
    assert anchor.link.answered(FOUR, 0.02, anchor.now) == FOUR
    assert not anchor.link.up
    assert anchor.link.due == anchor.now + ASK_FIRST_S
    anchor.age, anchor.endpoint = 0.0, FOUR
    anchor.sample(after=0.25, received=100)
    assert anchor.link.up
    assert anchor.link.due is None


def test_the_address_in_use_is_kept_when_it_answers_whichever_is_first() -> None:
    for order in ((FOUR, SIX), (SIX, FOUR)):
        anchor = Anchor()
        anchor.doubt()
        assert [anchor.link.answered(server, 0.02, anchor.now) for server in order] == [None, None]
        assert anchor.link.up
        assert anchor.link.due is None


def test_another_address_is_taken_when_the_one_in_use_does_not_answer() -> None:
    for other_first in (True, False):
        anchor = Anchor()
        anchor.doubt()
        if other_first:
            assert anchor.link.answered(SIX, 0.02, anchor.now) is None, "the one in use may answer still"
            assert anchor.link.silent(FOUR, anchor.now) == SIX
        else:
            assert anchor.link.silent(FOUR, anchor.now) is None
            assert anchor.link.answered(SIX, 0.02, anchor.now) == SIX
        assert anchor.link.up
        assert anchor.link.due is None


def test_an_anchor_that_has_moved_is_taken_where_it_answers() -> None:
    anchor = Anchor()
    anchor.link.set_endpoints((NEW,))
    assert anchor.doubt() == (NEW,)
    assert anchor.link.answered(NEW, 0.02, anchor.now) == NEW


def test_an_answer_while_nothing_is_in_doubt_changes_no_endpoint() -> None:
    anchor = Anchor()
    assert anchor.link.answered(SIX, 0.02, anchor.now) is None
    assert anchor.link.silent(FOUR, anchor.now) is None
    assert anchor.link.up


def test_a_dead_anchor_that_sends_something_lives() -> None:
    anchor = Anchor()
    anchor.die()
    assert not anchor.link.up
    anchor.sample(after=1.0, received=100)
    assert anchor.link.up
    assert anchor.link.due is None


def test_a_dead_anchor_that_answers_lives_and_the_next_doubt_is_asked_about_at_once() -> None:
    anchor = Anchor()
    anchor.die()
    for _ in range(5):
        anchor.now = anchor.link.due or 0.0
        anchor.ask()
        for server in (FOUR, SIX):
            anchor.link.silent(server, anchor.now)
    anchor.now = anchor.link.due or 0.0
    anchor.ask()
    anchor.link.answered(FOUR, 0.02, anchor.now)
    assert anchor.link.up
    assert anchor.doubt() == (FOUR, SIX)
    assert anchor.link.due == anchor.now + ASK_FIRST_S


def test_after_an_answer_what_was_sent_before_says_nothing_any_more() -> None:
    anchor = Anchor()
    anchor.doubt()
    anchor.link.answered(FOUR, 0.02, anchor.now)
    anchor.sample(after=0.25)
    assert anchor.link.due is None


def test_a_change_of_network_asks_a_dead_anchor_at_once_and_leaves_one_alone_that_is_not_in_doubt() -> None:
    anchor = Anchor()
    anchor.link.hurry(anchor.now)
    assert anchor.link.due is None
    anchor.die()
    anchor.ask(anchor.link.due or 0.0)
    anchor.link.hurry(anchor.now)
    assert anchor.link.due == anchor.now
    assert anchor.ask() == (FOUR, SIX)
    assert anchor.link.due == anchor.now + ASK_FIRST_S


def test_an_anchor_whose_address_is_of_a_family_that_this_node_has_no_more_is_taken_at_another_one_at_once() -> None:
    anchor = Anchor()
    anchor.link.hurry(anchor.now, {4})
    assert anchor.link.due is None, "its address can be reached"
    anchor.link.hurry(anchor.now, {6})
    assert anchor.link.due == anchor.now
    assert anchor.ask(families={6}) == (SIX,)
    assert anchor.link.answered(SIX, 0.02, anchor.now) == SIX
    assert anchor.link.up


@pytest.mark.parametrize(("families", "due"), [({4, 6}, None), ({4}, None), ({6}, 10.0), (set(), None)])
def test_so_is_one_whose_address_was_of_such_a_family_when_the_agent_began_or_becomes_one(
    families: set[int], due: float | None
) -> None:
    anchor = Anchor()
    link = AnchorLink(anchor.link.peer)
    assert anchor.link.status is not None
    link.sample(anchor.link.status, anchor.now, families)
    assert link.due == due
    if due is not None:
        link.ask(due, anchor.draw, families)
        asked_again = link.due
        link.sample(anchor.link.status, anchor.now + 0.25, families)
        assert link.due == asked_again, "no sooner"
    link = anchor.link
    link.sample(link.status._replace(endpoint=SIX), anchor.now, {6})
    assert link.due is None
    link.sample(link.status._replace(endpoint=FOUR), anchor.now, families)
    assert link.due == due


def test_the_distance_is_the_round_trip_smoothed_and_far_while_it_is_not_known() -> None:
    anchor = Anchor()
    assert anchor.link.distance_s == 1.0
    anchor.link.answered(FOUR, 0.1, anchor.now)
    assert anchor.link.distance_s == 0.1
    anchor.link.answered(FOUR, 0.2, anchor.now)
    assert anchor.link.distance_s == pytest.approx(0.1 + SMOOTHING * 0.1)


def test_an_anchor_that_is_far_away_has_more_time_before_it_is_doubted() -> None:
    anchor = Anchor()
    anchor.link.answered(FOUR, 2.0, anchor.now)
    anchor.sample(after=0.25, sent=500)
    anchor.sample(after=UNANSWERED_S)
    assert anchor.link.due is None
    anchor.sample(after=4.0)
    assert anchor.link.due is not None


def test_a_relay_is_known_where_the_anchor_is_and_where_it_was_until_it_has_moved_often() -> None:
    anchor = Anchor()
    link, relay = anchor.link, Address(FOUR.ip, PORTS.start)
    assert link.relays_at(relay)
    assert not link.relays_at(FOUR)
    assert not link.relays_at(Address(NEW.ip, PORTS.start))
    link.set_endpoints((NEW,))
    assert link.relays_at(relay)
    assert link.relays_at(Address(NEW.ip, PORTS.start))
    link.set_endpoints(())  # its name does not resolve for a moment
    link.set_endpoints((NEW,))
    assert link.relays_at(relay)
    for last in range(10, 20):
        link.set_endpoints((Address(f"203.0.113.{last}", 51820),))
    assert link.relays_at(relay), "WireGuard still sends there"
    anchor.endpoint = NEW
    anchor.sample()
    assert not link.relays_at(relay)
