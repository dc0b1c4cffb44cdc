"""Relays on a host that lacks something, or refuses. Hunted: a pair that is silent though its relay was granted, and a
rule that outlives its relay."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from agentnode_anchor import PORT, Anchor, install, remove, to
from agentnode_hosts import REFUSES, data, nft, received

from meshctl.agent.node import nfnetlink
from meshctl.agent.node.relays import REFUSED_S
from meshctl.agent.node.ruletable import AGAIN_S, SWEEP_AFTER_S
from meshctl.agent.process import ENVIRONMENT
from meshctl.model.places import RELAYS_TABLE

pytestmark = pytest.mark.lab
RATE_BYTES_S = 20_000
# Of PACKETS of 1,000 bytes, what a second allows and as much again while they are read.
PACKETS, ALLOWED = 50, range(1, 25)


@pytest.fixture
def anchor(ends: ExitStack) -> Anchor:
    return Anchor(ends)


def passed(a: socket.socket, b: socket.socket, port: int = PORT) -> int:
    """How many of PACKETS come through."""
    for number in range(PACKETS):
        a.sendto(data(number, 1000), to(a, port))
    return len(list(iter(lambda: received(b), None)))


def talk(a: socket.socket, b: socket.socket, port: int = PORT) -> bool:
    """Whether each hears the other."""
    for one, other in ((a, b), (b, a)):
        one.sendto(data(7), to(one, port))
        if (received(other) or (b"",))[0] != data(7):
            return False
    return True


def test_a_rate_that_nft_refuses_holds_once_it_does_not_and_new_pairs_are_relayed_meanwhile(
    anchor: Anchor, tmp_path: Path
) -> None:
    a, b, c, d = anchor.end("a"), anchor.end("b"), anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    anchor.pass_time(0.0)
    with nft(tmp_path, REFUSES), pytest.raises(RuntimeError, match="nft refused"):
        anchor.limit(RATE_BYTES_S)
    assert passed(a, b) == PACKETS, "the rules are as they were"
    anchor.do(install(c, d, PORT + 1))
    assert talk(c, d, PORT + 1)
    assert anchor.relays.due() <= AGAIN_S
    anchor.pass_time(AGAIN_S)
    assert passed(a, b) in ALLOWED
    assert passed(c, d, PORT + 1) in ALLOWED
    anchor.do(remove(a, b), remove(c, d, PORT + 1))
    assert anchor.counted() == []


def test_the_rate_of_before_may_come_back_while_another_is_refused(anchor: Anchor, tmp_path: Path) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    with nft(tmp_path, REFUSES), pytest.raises(RuntimeError, match="nft refused"):
        anchor.limit(RATE_BYTES_S)
    anchor.limit(0)
    anchor.pass_time(AGAIN_S)
    assert passed(a, b) == PACKETS


def test_a_kernel_whose_conntrack_cannot_be_told_to_forget_leaves_relays_to_the_agent(
    anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one without nf_conntrack_netlink: what conntrack has decided before a relay would hold on, and after it."""
    monkeypatch.setattr(nfnetlink, "CONNTRACK", 15)  # the last of nfnetlink's subsystems, and nobody's
    a, b, moved = anchor.end("a"), anchor.end("b"), anchor.end("a")
    for early in (a, moved):  # conntrack knows both as connections to the anchor from now on
        early.sendto(data(), to(early))
    anchor.do(install(a, b))
    assert talk(a, b)
    with pytest.raises(RuntimeError, match=r"conntrack cannot be told to forget: Invalid argument \(.* modprobe"):
        anchor.relays.poll(0.0)
    anchor.do(install(moved, b))
    assert talk(moved, b)
    assert {count.kernel for count in anchor.counted()} == {False}
    anchor.do(remove(moved, b))
    moved.sendto(data(), to(moved))
    assert received(b) is None


def test_an_end_that_moves_is_relayed_though_what_was_cannot_be_removed(anchor: Anchor, tmp_path: Path) -> None:
    a, b, moved = anchor.end("a"), anchor.end("b"), anchor.end("a")
    anchor.do(install(a, b), install(anchor.end("a"), anchor.end("b"), PORT + 1))
    anchor.space.run("nft", "flush", "ruleset")
    with nft(tmp_path, REFUSES):
        anchor.do(install(moved, b))
        assert talk(moved, b)
        with pytest.raises(RuntimeError, match="nft refused"):
            anchor.relays.poll(0.0)


def test_a_removal_that_fails_keeps_no_relay_from_the_kernel(anchor: Anchor, tmp_path: Path) -> None:
    a, b, moved = anchor.end("a"), anchor.end("b"), anchor.end("a")
    anchor.do(install(a, b), install(anchor.end("a"), anchor.end("b"), PORT + 1))
    anchor.space.run("nft", "flush", "ruleset")
    refuses_once = f"[ -e {tmp_path}/asked ] && exec /usr/sbin/nft \"$@\"; touch {tmp_path}/asked; {REFUSES}"
    with nft(tmp_path, refuses_once):
        anchor.do(install(moved, b))
        with pytest.raises(RuntimeError, match="nft refused"):
            anchor.relays.poll(0.0)
    assert talk(moved, b)
    assert {count.kernel for count in anchor.counted()} == {True}


def without_nft(folder: Path, why: str) -> AbstractContextManager[object]:
    """As where nft's package is gone; or nft cannot do what is asked of it."""
    return patch.dict(ENVIRONMENT, PATH="/nonexistent") if why == "missing" else nft(folder, REFUSES)


MISSING = pytest.mark.parametrize(
    ("why", "words"), [("missing", "nft is not installed"), ("refusing", "nft refused")], ids=["missing", "refusing"]
)


@MISSING
@pytest.mark.parametrize("family", [4, 6])
def test_where_nft_is_no_more_a_relay_of_before_is_the_agents_and_can_be_moved_and_ended(
    anchor: Anchor, tmp_path: Path, why: str, words: str, family: int
) -> None:
    a, b, moved = anchor.end("a", family), anchor.end("b", family), anchor.end("a", family)
    anchor.do(install(a, b))
    assert talk(a, b)
    with without_nft(tmp_path, why):
        anchor.start()
        anchor.do(install(a, b))
        with pytest.raises((OSError, RuntimeError), match=words):
            anchor.relays.poll(0.0)
        assert RELAYS_TABLE not in anchor.space.run("nft", "list", "tables")
        assert talk(a, b)
        assert {count.kernel for count in anchor.counted()} == {False}
        anchor.do(install(moved, b))
        assert talk(moved, b)
        assert not talk(a, b), "it is forwarded for the pair alone"
        anchor.do(remove(moved, b))
        assert not talk(moved, b)
        assert not talk(b, a)
        anchor.do(install(a, b))
    anchor.pass_time(0.0)
    anchor.pass_time(REFUSED_S)
    assert talk(a, b)
    assert {count.kernel for count in anchor.counted()} == {True}


@MISSING
def test_where_nft_is_no_more_one_relay_of_before_ends_and_another_is_the_agents(
    anchor: Anchor, tmp_path: Path, why: str, words: str
) -> None:
    a, b, c, d = anchor.end("a"), anchor.end("b"), anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b), install(c, d, PORT + 1))
    assert talk(a, b)
    assert talk(c, d, PORT + 1)
    with without_nft(tmp_path, why):
        anchor.start()
        with pytest.raises((OSError, RuntimeError), match=words):
            anchor.do(remove(a, b))
        assert not talk(a, b)
        assert not talk(b, a)
        anchor.do(install(c, d, PORT + 1))
        assert talk(c, d, PORT + 1)


def test_where_nft_is_no_more_relays_of_before_that_nobody_wants_end(anchor: Anchor) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    assert talk(a, b)
    with patch.dict(ENVIRONMENT, PATH="/nonexistent"):
        anchor.start()
        anchor.pass_time(SWEEP_AFTER_S)
        assert RELAYS_TABLE not in anchor.space.run("nft", "list", "tables")
        assert not talk(a, b)
        assert not talk(b, a)
