"""Scenarios: how sessions begin, or do not. Standard library alone, as `wgstage`."""

from __future__ import annotations

from wgstage import ALL, DATA, OUTER, Stage


def handshake(stage: Stage) -> None:
    """The first packet; two that are not answered but by keepalives, ten seconds after the first and again."""
    stage.send("a", 128)
    stage.until(1)
    stage.show_both()
    stage.send("b", 65)
    stage.until(3)
    stage.send("b", 64)
    stage.until(23)
    stage.show_both()


def crossing(stage: Stage) -> None:
    """Both begin at once: both fail, and who is tried again first succeeds."""
    stage.set_endpoint("b", OUTER["a"])
    stage.send("a", 128)
    stage.send("b", 128)
    stage.until(8)
    stage.show_both()
    stage.send("a", 200)
    stage.until(15)
    stage.show_both()


def no_answer(stage: Stage) -> None:
    """Initiations are lost: one every five seconds, and what was sent meanwhile arrives after the one that is not."""
    stage.lose("a", *ALL)
    stage.send("a", 100)
    stage.until(1)
    stage.send("a", 101)
    stage.until(12)
    stage.show_both()
    stage.lose("a")
    stage.until(17)
    stage.show_both()


def staged_overflow(stage: Stage) -> None:
    """More is sent while there is no key than a peer's queue holds: the oldest are gone."""
    stage.lose("a", *ALL)
    for size in range(100, 240):
        stage.send("a", size)
    stage.until(1)
    stage.lose("a")
    stage.until(7)
    stage.show_both()


def unconfirmed(stage: Stage) -> None:
    """Who has answered a handshake begins none for five seconds, even when it was never confirmed."""
    stage.lose("a", DATA)
    stage.send("a", 100)
    stage.until(1)
    stage.send("b", 101)
    stage.until(4)
    stage.show_both()
    stage.lose("a")
    stage.until(6)
    stage.send("b", 102)
    stage.until(7)
    stage.show_both()


def late_endpoint(stage: Stage) -> None:
    """With nowhere to send to, a handshake begins all the same, and its next try finds the endpoint."""
    stage.set_keepalive("a", 10)
    stage.until(1)
    stage.show_both()
    stage.set_endpoint("a", OUTER["b"])
    stage.until(4)
    stage.show_both()
    stage.until(7)
    stage.show_both()


def sent_before_endpoint(stage: Stage) -> None:
    """What is sent while there is nowhere to send to is dropped, and no handshake is tried for it."""
    stage.send("a", 100)
    stage.until(1)
    stage.show_both()
    stage.set_endpoint("a", OUTER["b"])
    stage.until(2)
    stage.send("a", 101)
    stage.until(4)
    stage.show_both()
    stage.until(7)
    stage.show_both()


def given_up(stage: Stage) -> None:
    """Twenty initiations without an answer, then none, and what waited is gone."""
    stage.lose("a", *ALL)
    stage.send("a", 100)
    stage.until(1)
    stage.send("a", 101)
    stage.until(115)
    stage.show_both()
    stage.lose("a")
    stage.send("a", 102)
    stage.until(117)
    stage.show_both()
