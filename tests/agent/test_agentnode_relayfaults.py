"""Relays on a host that lacks something, or refuses. Hunted: a pair that is silent though its relay was granted, and a
rule that outlives its relay."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from agentnode_anchor import PORT, Anchor, install, remove, to
from agentnode_hosts import REFUSES, data, nft, received

from meshctl.agent.node import nfnetlink
from meshctl.agent.node.ruletable import AGAIN_S

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
