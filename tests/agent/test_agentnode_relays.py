"""Relays on a real kernel, and the userspace path beside it: what is forwarded, what is not, what is counted."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
from agentnode_anchor import ENDS, PORT, RELAY, Anchor, install, place, remove, to
from agentnode_hosts import ARRIVAL_S, data, received, stun

from meshctl.agent.node import nfnetlink, relayforward
from meshctl.agent.node.relays import RelayCount
from meshctl.agent.node.ruletable import SWEEP_AFTER_S
from meshctl.agent.process import ENVIRONMENT
from meshctl.core.agent.address import Address
from meshctl.core.agent.events import InstallRelay, RelayFailed, RemoveRelay
from meshctl.core.psk import PskRing
from meshctl.inventory import read
from meshctl.model.keys import Secret
from meshctl.model.places import RELAYS_TABLE
from meshctl.model.resources import Nftables
from meshctl.policy import compile_mesh
from meshctl.render import Renderer

SECRET = Secret("tests of relays need a mesh secret of some length, 0123456789")
INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16]}
nodes:
  hub: {roles: [anchor], endpoint: "203.0.113.9:51820"}
  one: {}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""
# What an administrator's own firewall must let pass on an anchor when it forbids the rest: the mesh's table knows
# nothing of it, and neither table can accept what the other one drops.
STRICT = """
table inet strict {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		meta l4proto ipv6-icmp accept
		udp dport 40000-49999 accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct status dnat accept
	}
}
"""
MASQUERADE = """
table ip other {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.77.0.0/16 masquerade
	}
}
"""
IPV6_CHECKSUM = 7  # linux/in6.h
FAMILIES = pytest.mark.parametrize("family", [4, 6])
# Which family each end's address has, and who forwards.
WAYS = pytest.mark.parametrize(
    ("families", "kernel"), [((4, 4), True), ((6, 6), True), ((4, 6), False), ((4, 4), False), ((6, 6), False)]
)
MAIN_WAYS = pytest.mark.parametrize(("families", "kernel"), [((4, 4), True), ((6, 6), True), ((6, 4), False)])


@pytest.fixture
def anchor(ends: ExitStack) -> Anchor:
    return Anchor(ends)


def relay(anchor: Anchor, a: socket.socket, b: socket.socket, *, kernel: bool) -> None:
    """Have the pair relayed by the kernel, or by the agent, as on a machine on which nft is not installed."""
    with nullcontext() if kernel else patch.dict(ENVIRONMENT, PATH="/nonexistent"):
        anchor.do(install(a, b))


@WAYS
def test_each_end_gets_what_the_other_sends_and_sees_it_come_from_the_relay(
    anchor: Anchor, families: tuple[int, int], kernel: bool
) -> None:
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    relay(anchor, a, b, kernel=kernel)
    for number in range(3):
        a.sendto(data(number), to(a))
        assert received(b) == (data(number), Address(*to(b)))
        b.sendto(data(number + 100), to(b))
        assert received(a) == (data(number + 100), Address(*to(a)))
    counts = [RelayCount(PORT, place(sock), 3, 3 * (32 + (28 if f == 4 else 48) * kernel), kernel)
              for sock, f in ((a, families[0]), (b, families[1]))]  # fmt: skip
    assert sorted(anchor.counted()) == sorted(counts)
    anchor.do(remove(a, b))
    a.sendto(data(), to(a))
    assert received(b) is None
    assert anchor.counted() == []


def test_a_strangers_packets_are_not_forwarded_and_nobody_hears_that_the_port_is_closed(anchor: Anchor) -> None:
    """Neither are those of an end from another port of its own, or to another pair's port."""
    a, b, stranger = anchor.end("a"), anchor.end("b"), anchor.end("a")
    c = anchor.end("b", 6)
    anchor.do(install(a, b), install(stranger, c, PORT + 1))
    for port in (PORT, PORT + 2):
        stranger.connect(to(a, port))
        stranger.send(data())
        assert received(stranger) is None
    a.sendto(data(), to(a, PORT + 1))
    assert [received(sock) for sock in (a, b, c)] == [None] * 3


@MAIN_WAYS
def test_a_relay_forwards_for_its_two_ends_alone(
    anchor: Anchor, families: tuple[int, int], kernel: bool
) -> None:
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    strangers = [anchor.end(name, family) for name in ENDS for family in families]
    relay(anchor, a, b, kernel=kernel)
    for stranger in strangers:
        stranger.sendto(data(), to(stranger))
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))
    b.sendto(data(2), to(b))
    assert received(a) == (data(2), Address(*to(a)))
    assert sum(count.packets for count in anchor.counted()) == 2


@MAIN_WAYS
def test_stun_to_the_port_is_left_to_the_agent_while_the_pair_talks(
    anchor: Anchor, families: tuple[int, int], kernel: bool
) -> None:
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    relay(anchor, a, b, kernel=kernel)
    a.sendto(data(), to(a))
    assert received(b) is not None
    with anchor.space.inside(lambda: raw(families[0])) as agent:
        a.sendto(stun(b"bind"), to(a))
        assert stun(b"bind") in agent.recv(2048)
        # The answer, as the agent's raw socket sends it.
        header = PORT.to_bytes(2, "big") + place(a).port.to_bytes(2, "big") + (8 + 20).to_bytes(2, "big") + bytes(2)
        agent.sendto(header + stun(), (place(a).ip, 0))
    assert received(a) == (stun(), Address(*to(a)))
    assert received(b) is None
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))


def raw(family: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    if family == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 6)
    sock.bind((RELAY[family], 0))
    sock.settimeout(ARRIVAL_S)
    return sock


@FAMILIES
def test_an_end_that_moves_is_forwarded_to_where_it_is_now(anchor: Anchor, family: int) -> None:
    a, b, moved = anchor.end("a", family), anchor.end("b", family), anchor.end("a", family)
    anchor.do(install(a, b))
    a.sendto(data(), to(a))
    assert received(b) is not None
    moved.sendto(data(), to(moved))  # too early: conntrack knows it from now on as a connection to the anchor
    assert received(b) is None
    anchor.do(remove(a, b), install(moved, b))
    b.sendto(data(1), to(b))
    assert received(moved) == (data(1), Address(*to(moved)))
    moved.sendto(data(2), to(moved))
    assert received(b) == (data(2), Address(*to(b)))
    a.sendto(data(3), to(a))
    assert received(b) is None


@FAMILIES
def test_a_host_that_does_not_forward_a_family_relays_it_all_the_same(anchor: Anchor, family: int) -> None:
    """As an anchor of a mesh that has IPv4 alone."""
    name = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}[family]
    anchor.space.run("sysctl", "-qw", f"{name}=0")
    a, b = anchor.end("a", family), anchor.end("b", family)
    anchor.do(install(a, b))
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))
    assert {count.kernel for count in anchor.counted()} == {False}


def test_a_kernel_without_netfilter_leaves_it_to_the_agent(
    anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfnetlink, "NETLINK_NETFILTER", 31)  # the last of netlink's protocols, and nobody's
    anchor.start()
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))
    assert list(anchor.relays.sockets()) == []


def test_two_pairs_of_one_end_are_not_mixed_up(anchor: Anchor) -> None:
    hub, one, two = anchor.end("a"), anchor.end("b"), anchor.end("b")
    anchor.do(install(hub, one), install(hub, two, PORT + 1))
    for sock, port in ((one, PORT), (two, PORT + 1)):
        sock.sendto(data(port), to(sock, port))
        assert received(hub) == (data(port), Address(*to(hub, port)))
        hub.sendto(data(port), to(hub, port))
        assert received(sock) == (data(port), Address(*to(sock, port)))


@MAIN_WAYS
def test_a_pair_gets_no_more_than_its_rate(
    anchor: Anchor, families: tuple[int, int], kernel: bool
) -> None:
    anchor.start(rate_bytes_s=20_000)
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    relay(anchor, a, b, kernel=kernel)
    for number in range(50):
        a.sendto(data(number, 1000), to(a))
    assert received(b) is not None
    assert len(list(iter(lambda: received(b), None))) < 20, "what a second allows"
    b.sendto(data(), to(b))
    assert received(a) is not None, "the other direction has a rate of its own"


@MAIN_WAYS
def test_another_rate_holds_for_pairs_that_are_relayed_already_and_so_does_none(
    anchor: Anchor, families: tuple[int, int], kernel: bool
) -> None:
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    relay(anchor, a, b, kernel=kernel)

    def passed() -> int:
        for number in range(50):
            a.sendto(data(number, 1000), to(a))
        return len(list(iter(lambda: received(b), None)))

    assert passed() == 50
    anchor.limit(20_000)
    assert 0 < passed() < 25, "what a second allows"
    b.sendto(data(), to(b))
    assert received(a) is not None, "the other direction has a rate of its own"
    anchor.limit(0)
    assert passed() == 50


def test_relays_outlive_the_agent_and_those_that_the_next_one_does_not_know_end(anchor: Anchor) -> None:
    a, b, c = anchor.end("a"), anchor.end("b"), anchor.end("b", 6)
    d = anchor.end("a", 6)
    anchor.do(install(a, b), install(d, c, PORT + 1))
    anchor.stop()
    for number, sender, receiver, port in ((1, a, b, PORT), (2, c, d, PORT + 1)):
        sender.sendto(data(number), to(sender, port))
        assert received(receiver) == (data(number), Address(*to(receiver, port)))
    anchor.start()
    anchor.do(install(a, b))
    anchor.pass_time(SWEEP_AFTER_S)
    a.sendto(data(3), to(a))
    assert received(b) == (data(3), Address(*to(b)))
    c.sendto(data(4), to(c, PORT + 1))
    assert received(d) is None, "conntrack has decided otherwise for this connection before"
    assert str(PORT + 1) not in anchor.rules()
    anchor.do(remove(a, b))
    anchor.pass_time(SWEEP_AFTER_S)
    assert RELAYS_TABLE not in anchor.space.run("nft", "list", "tables")


def test_relays_of_before_end_all_together_though_another_program_has_rules_of_nat(anchor: Anchor) -> None:
    """As an anchor whose state is lost: what it does not know, policy may have denied since."""
    anchor.space.run("nft", "-f", "-", text=MASQUERADE)
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))
    anchor.start()
    anchor.pass_time(SWEEP_AFTER_S)
    assert RELAYS_TABLE not in anchor.space.run("nft", "list", "tables")
    a.sendto(data(2), to(a))
    assert received(b) is None, "conntrack has decided otherwise for this connection before"


def test_hundreds_of_relays_of_before_end_together_and_the_one_that_is_wanted_stays(anchor: Anchor) -> None:
    ends = [(Address(ENDS["a"][4], n), Address(ENDS["b"][4], n)) for n in range(1, 401)]
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b), *(InstallRelay(40200 + n, one, other) for n, (one, other) in enumerate(ends)))
    anchor.start()
    anchor.do(install(a, b))
    started = time.monotonic()
    anchor.pass_time(SWEEP_AFTER_S)
    assert time.monotonic() - started < 1.0
    assert [count.port for count in anchor.counted()] == [PORT, PORT]
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))


def test_an_agent_that_begins_can_end_a_relay_of_before_though_the_pair_goes_on_talking(anchor: Anchor) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    a.sendto(data(1), to(a))
    assert received(b) == (data(1), Address(*to(b)))
    anchor.stop()
    anchor.start()
    anchor.do(remove(a, b))
    a.sendto(data(2), to(a))
    assert received(b) is None, "conntrack has decided otherwise for this connection before"


def test_a_relay_that_was_lost_with_the_whole_ruleset_is_back_at_once(anchor: Anchor) -> None:
    a, b = anchor.end("a"), anchor.end("b")
    anchor.do(install(a, b))
    anchor.space.run("nft", "flush", "ruleset")
    for _, readable in anchor.relays.sockets():
        anchor.space.inside(lambda readable=readable: readable(0.0))
    a.sendto(data(), to(a))
    assert received(b) == (data(), Address(*to(b)))


@MAIN_WAYS
def test_relays_work_beside_the_meshs_firewall_and_a_strict_one(
    anchor: Anchor, families: tuple[int, int], kernel: bool, tmp_path: Path
) -> None:
    (tmp_path / "inventory.yml").write_text(INVENTORY, encoding="utf-8")
    document = Renderer(compile_mesh(read(tmp_path / "inventory.yml").mesh), PskRing(SECRET)).node("hub")
    for table in (STRICT, next(r.text for r in document.resources if isinstance(r, Nftables))):
        anchor.space.run("nft", "-f", "-", text=table)
    a, b = anchor.end("a", families[0]), anchor.end("b", families[1])
    relay(anchor, a, b, kernel=kernel)
    with anchor.space.inside(lambda: raw(families[0])) as agent:
        a.sendto(stun(b"bind"), to(a))
        assert stun(b"bind") in agent.recv(2048)
    for number in range(2):
        b.sendto(data(number), to(b))
        assert received(a) == (data(number), Address(*to(a)))
        a.sendto(data(number), to(a))
        assert received(b) == (data(number), Address(*to(b)))


def test_the_agent_itself_forwards_no_more_pairs_than_it_has_descriptors_for(
    anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relayforward, "MAX_PAIRS", 2)
    with patch.dict(ENVIRONMENT, PATH="/nonexistent"):
        pairs = [InstallRelay(PORT + n, Address(ENDS["a"][4], n), Address(ENDS["b"][4], n)) for n in (1, 2, 3)]
        anchor.do(*pairs[:2])
        with pytest.raises(RuntimeError, match="the agent itself forwards 2 relays already"):
            anchor.do(pairs[2])
        with pytest.raises(FileNotFoundError, match="nft is not installed"):
            anchor.relays.poll(0.0)
        assert anchor.relays.due() == 0.0
        assert anchor.relays.poll(0.0) == [RelayFailed(pairs[2].port)]
        assert anchor.relays.poll(0.0) == []
        anchor.do(RemoveRelay(pairs[0].port, pairs[0].a, pairs[0].b), pairs[2])
    assert {count.port for count in anchor.counted()} == {PORT + 2, PORT + 3}


def test_a_hundred_relays_are_there_before_a_packet_of_theirs_could_be(anchor: Anchor) -> None:
    """An anchor that starts with many pairs must not keep them waiting."""
    ends = [(Address(ENDS["a"][4], n), Address(ENDS["b"][4], n)) for n in range(1, 101)]
    pairs = [InstallRelay(40000 + n, a, b) for n, (a, b) in enumerate(ends)]
    started = time.monotonic()
    anchor.space.inside(lambda: [anchor.relays.do(pair) for pair in pairs])
    assert time.monotonic() - started < 1.0
    assert len(anchor.counted()) == 200
