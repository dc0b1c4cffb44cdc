"""Scenarios: what timers and the age of a session do. Standard library alone, as `wgstage`."""

from __future__ import annotations

from wgstage import ALL, Stage


def deaf(stage: Stage) -> None:
    """Nothing is heard for 15 s after data was sent: a new handshake, and again, though nothing waits to be sent."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(2)
    stage.lose("b", *ALL)
    stage.send("a", 100)
    stage.until(3)
    stage.send("a", 100)
    stage.until(19)
    stage.show_both()
    stage.lose("b")
    stage.until(25)
    stage.show_both()


def persistent(stage: Stage) -> None:
    """A persistent keepalive begins at once; it counts on both sides, and is not answered."""
    stage.set_keepalive("a", 4)
    stage.until(1)
    stage.show_both()
    stage.until(11)
    stage.show_both()


def persistent_25(stage: Stage) -> None:
    """The interval that everybody uses."""
    stage.set_keepalive("a", 25)
    stage.until(110)
    stage.show_both()


def rekey(stage: Stage) -> None:
    """Under traffic, the initiator's first packet after 120 s brings a new session."""
    for turn in range(16):
        stage.until(turn * 10)
        stage.send("a", 100)
        stage.until(turn * 10 + 5)
        stage.send("b", 100)
    stage.until(158)
    stage.show_both()


def reject(stage: Stage) -> None:
    """Keys are not used after 180 s: who was the responder begins the next session."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(182)
    stage.show_both()
    stage.send("b", 100)
    stage.until(184)
    stage.show_both()


def last_minute(stage: Stage) -> None:
    """What the initiator hears after 165 s makes it begin a new session."""
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 100)
    stage.until(163)
    stage.send("b", 100)
    stage.until(164)
    stage.show_both()
    stage.until(167)
    stage.send("b", 100)
    stage.until(170)
    stage.show_both()
