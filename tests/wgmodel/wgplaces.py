"""Scenarios: where a peer is, and what is believed of it. Standard library alone, as `wgstage`."""

from __future__ import annotations

from wgstage import ALL, DATA, INITIATION, NOT_ALLOWED, RESPONSE, Stage

ROAMED = "203.0.113.11"
NOBODY = "203.0.113.99"
STRANGER = "203.0.113.66"


def roaming(stage: Stage) -> None:
    """A peer is where its newest authentic packet came from, even when that one was sent earlier than another."""
    stage.send("a", 100)
    stage.until(1)
    stage.hold_next("a")
    stage.send("a", 110)
    stage.until(1.5)
    stage.rebind("a", ROAMED)
    stage.send("a", 120)
    stage.until(2)
    stage.show_both()
    stage.release("a")
    stage.until(2.5)
    stage.show_both()
    stage.send("b", 130)
    stage.until(3)
    stage.send("a", 140)
    stage.until(3.5)
    stage.send("b", 150)
    stage.until(4)
    stage.show_both()


def set_endpoint(stage: Stage) -> None:
    """An endpoint that is set holds until the next authentic packet, which may have been under way already."""
    stage.send("a", 100)
    stage.until(1)
    stage.hold_next("a")
    stage.send("a", 110)
    stage.until(1.5)
    stage.set_endpoint("b", NOBODY)
    stage.send("b", 120)
    stage.until(2)
    stage.show_both()
    stage.release("a")
    stage.until(2.5)
    stage.send("b", 130)
    stage.until(3)
    stage.show_both()


def not_allowed(stage: Stage) -> None:
    """A packet with a foreign inner source is dropped; its sender is where it came from, and is owed a keepalive."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(2)
    stage.rebind("a", ROAMED)
    stage.send("a", 111, NOT_ALLOWED)
    stage.until(3)
    stage.show_both()
    stage.until(14)
    stage.show_both()


def replayed(stage: Stage) -> None:
    """What was recorded and is sent again, from elsewhere, changes nothing."""
    stage.send("a", 100)
    stage.until(1)
    stage.replay("a", INITIATION, STRANGER)
    stage.replay("b", RESPONSE, STRANGER)
    stage.replay("a", DATA, STRANGER)
    stage.until(2)
    stage.show_both()
    stage.send("b", 101)
    stage.until(2.5)
    stage.show_both()


def renumbered(stage: Stage) -> None:
    """The next packet of a host that has another address leaves from there."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(2)
    stage.move("a", ROAMED)
    stage.send("a", 101)
    stage.until(3)
    stage.show_both()


def two_addresses(stage: Stage) -> None:
    """Answers leave from the address that was written to; after 15 s of silence, from the one that routing chooses."""
    stage.add_address("a", ROAMED)
    stage.send("a", 100)
    stage.until(1)
    stage.set_endpoint("b", ROAMED)
    stage.send("b", 100)
    stage.until(2)
    stage.lose("b", *ALL)
    stage.send("a", 100)
    stage.until(3)
    stage.show_both()
    stage.until(19)
    stage.show_both()


def no_way(stage: Stage) -> None:
    """What cannot leave the host is not counted as sent."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(2)
    stage.move("a", "")
    stage.send("a", 101)
    stage.until(3)
    stage.show_both()


def no_way_and_deaf(stage: Stage) -> None:
    """The 15 s are counted from the first data that left the host."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(2)
    stage.lose("b", *ALL)
    stage.move("a", "")
    stage.send("a", 101)
    stage.until(5)
    stage.move("a", ROAMED)
    stage.send("a", 102)
    stage.until(22)
    stage.show_both()
