"""Relays on a host whose administrator loads rulesets: the one of an earlier moment, or one that knows of no relays.
Hunted: a pair that stays silent though it is relayed, and one that goes on talking though it is not."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack

import pytest
from agentnode_anchor import PORT, Anchor, install, remove, to
from agentnode_hosts import data, received

pytestmark = pytest.mark.lab
# With this, too, the kernel decides once for a connection whether its addresses are changed.
OTHER = """
table ip other {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.77.0.0/16 masquerade
	}
}
"""


@pytest.fixture
def anchor(ends: ExitStack) -> Anchor:
    return Anchor(ends)


def talk(a: socket.socket, b: socket.socket, port: int = PORT) -> list[bool]:
    """Which of the two the other one hears."""
    heard = []
    for one, other in ((a, b), (b, a)):
        one.sendto(data(7), to(one, port))
        heard.append((received(other) or (b"",))[0] == data(7))
    return heard


def hear(anchor: Anchor) -> None:
    """The agent hears what the kernel has told, a while after it heard something last."""
    anchor.pass_time(10.0)
    for sock, readable in list(anchor.relays.sockets()):
        if select.select([sock], [], [], 0)[0]:
            anchor.space.inside(lambda readable=readable: readable(anchor.now))
    anchor.pass_time(0.0)


def saved(anchor: Anchor) -> str:
    """As in /etc/nftables.conf."""
    return f"flush ruleset\n{anchor.space.run('nft', 'list', 'ruleset')}"


def load(anchor: Anchor, ruleset: str) -> None:
    anchor.space.run("nft", "-f", "-", text=ruleset)


@pytest.mark.parametrize("earlier", ["without the table", "without the pair"])
def test_a_relayed_pair_talks_on_after_a_ruleset_without_it_though_it_talked_meanwhile(
    anchor: Anchor, earlier: str
) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    load(anchor, OTHER)
    if "pair" in earlier:
        anchor.do(install(anchor.end("a"), anchor.end("b"), PORT + 1))
    ruleset = saved(anchor)
    anchor.do(install(a, b))
    assert talk(a, b) == [True, True]
    load(anchor, ruleset)
    anchor.space.run("conntrack", "-F")  # as when the connection was over, or is another one now
    assert talk(a, b) == [False, False]
    hear(anchor)
    assert talk(a, b) == [True, True]


@pytest.mark.parametrize("others", [False, True], ids=["no other pair", "another pair"])
def test_a_pair_that_is_relayed_no_more_is_silent_after_a_ruleset_with_it_though_it_goes_on_talking(
    anchor: Anchor, others: bool
) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    if others:
        c, d = anchor.end("a"), anchor.end("b")
        anchor.do(install(c, d, PORT + 1))
    ruleset = saved(anchor)
    anchor.do(remove(a, b))
    hear(anchor)
    hear(anchor)
    load(anchor, ruleset)
    assert talk(a, b) == [True, True], "or else this would show nothing"
    hear(anchor)
    assert talk(a, b) == [False, False]
    if others:
        assert talk(c, d, PORT + 1) == [True, True]
