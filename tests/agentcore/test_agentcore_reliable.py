"""Offers that arrive. Hunted: a peer that keeps an older offer, and an agent that sends what nobody waits for."""

from __future__ import annotations

from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.backoff import TRIES
from meshctl.core.agent.bodies import NO_OFFER, Ack, AnchorDistance, Offer, Offered, Wish
from meshctl.core.agent.reliable import OfferReceiver, OfferSender


def candidates(n: int) -> tuple[Offered, ...]:
    return (Offered("host", Address("192.0.2.1", n), "00000000", 1),)


def sender() -> OfferSender:
    made = OfferSender()
    made.renewed(0.0)
    return made


def test_an_offer_waits_for_a_session_and_is_due_at_once_in_it() -> None:
    out = OfferSender()
    out.put(candidates(1), (), 0.0)
    assert out.due is None
    out.renewed(5.0)
    assert out.due == 5.0
    assert out.poll(5.0) == Offer(1, candidates(1))
    assert out.poll(5.0) is None


def test_the_same_offer_again_is_no_new_one() -> None:
    out = sender()
    out.put(candidates(1), (), 0.0)
    out.poll(0.0)
    out.put(candidates(1), (), 0.05)
    assert out.due == 0.1


def test_another_distance_or_wish_is_another_offer() -> None:
    out, near = sender(), (AnchorDistance(bytes(8), 20),)
    out.put(candidates(1), (), 0.0)
    out.put(candidates(1), (), 0.0, relays=near)
    for _ in range(2):
        out.put(candidates(1), (), 0.0, relays=near, wish=Wish.RELAY)
    assert out.poll(0.0) == Offer(3, candidates(1), relays=near, wish=Wish.RELAY)


def test_an_offer_is_sent_until_its_own_acknowledgement_comes() -> None:
    out = sender()
    out.put(candidates(1), (), 0.0)
    out.put(candidates(2), (), 0.0)
    out.poll(0.0)
    out.acknowledged(Ack(1), 0.05)
    assert out.poll(0.1) == Offer(2, candidates(2))
    out.acknowledged(Ack(2), 0.1)
    assert out.due is None
    assert not out.unacknowledged


def test_a_peer_that_is_silent_is_sent_eight_offers_and_then_none() -> None:
    out, sent = sender(), 0
    out.put(candidates(1), (), 0.0)
    while out.due is not None:
        sent += out.poll(out.due) is not None
    assert sent == TRIES
    assert out.unacknowledged


def test_a_peer_that_says_it_has_no_offer_gets_it_again_unless_it_is_under_way() -> None:
    out = sender()
    out.acknowledged(Ack(NO_OFFER), 0.0)
    assert out.due is None
    out.put(candidates(1), (), 0.0)
    out.poll(0.0)
    due = out.due
    out.acknowledged(Ack(NO_OFFER), 0.1)
    assert out.due == due
    out.acknowledged(Ack(1), 0.2)
    out.acknowledged(Ack(NO_OFFER), 9.0)
    assert out.poll(9.0) == Offer(1, candidates(1))


def test_a_new_session_gets_the_offer_that_the_old_one_had_acknowledged() -> None:
    out = sender()
    out.put(candidates(1), (), 0.0)
    out.acknowledged(Ack(1), 0.1)
    out.renewed(9.0)
    assert out.poll(9.0) == Offer(1, candidates(1))


@settings(max_examples=examples(50))
@given(st.lists(st.integers(1, 20)))
def test_whatever_the_order_the_newest_generation_stays_and_is_what_is_acknowledged(order: list[int]) -> None:
    receiver, newest = OfferReceiver(), 0
    for generation in order:
        newer, ack = receiver.receive(Offer(generation, candidates(generation)))
        assert newer is (generation > newest)
        newest = max(newest, generation)
        assert ack == Ack(newest)
        assert receiver.offer == Offer(newest, candidates(newest))


def test_a_peer_that_restarted_counts_from_one_again_and_its_old_offer_stays_until_then() -> None:
    receiver = OfferReceiver()
    receiver.receive(Offer(7, candidates(7)))
    receiver.renewed()
    assert receiver.offer == Offer(7, candidates(7))
    assert receiver.receive(Offer(1, candidates(1))) == (True, Ack(1))
    assert receiver.offer == Offer(1, candidates(1))


@settings(max_examples=examples(50))
@given(st.lists(st.sampled_from(["put", "lose", "deliver", "lose ack", "restart"]), max_size=40))
def test_over_any_loss_the_peer_has_the_newest_offer_once_messages_arrive(steps: list[str]) -> None:
    out, receiver, now, number = sender(), OfferReceiver(), 0.0, 1
    out.put(candidates(1), (), now)
    for step in [*steps, "restart", "deliver"]:
        now += 0.05
        if step == "put":
            number += 1
            out.put(candidates(number), (), now)
        elif step == "restart":
            receiver.renewed()
            out.renewed(now)
        offer = out.poll(now)
        if offer is not None and step in ("deliver", "lose ack"):
            _, ack = receiver.receive(offer)
            if step == "deliver":
                out.acknowledged(ack, now)
    while out.due is not None:
        offer = out.poll(out.due)
        if offer is not None:
            out.acknowledged(receiver.receive(offer)[1], now)
    assert receiver.offer is not None
    assert receiver.offer.candidates == candidates(number)
