"""Where a node can be reached, as servers see it. Hunted: an address that is offered though it is gone, a change that
peers never hear of, and questions without an end."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from agentcore_values import SESSION, interface, key, shared

from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.candidate import MAX_HOSTS
from meshctl.core.agent.candidates import LocalCandidates
from meshctl.core.agent.config import node_id
from meshctl.core.agent.events import SendProbe
from meshctl.core.agent.gatherer import MAX_BASES, MAX_STRANGERS, REFRESH_S, TRICKLE_S, WIDEN_S, Gatherer
from meshctl.core.agent.nat import OBSERVATION_S, NatKnowledge
from meshctl.core.agent.probes import Transactions
from meshctl.core.agent.stunclient import SCHEDULE_S, Server, anchor_server
from meshctl.core.wire import stun
from meshctl.core.wire.address import TransportAddress
from meshctl.core.wire.stun_attributes import MESSAGE_INTEGRITY_SHA256

PORT, RTT_S = 51820, 0.02
HERE, THERE = LocalAddress("192.168.1.5", 24, "eth0"), LocalAddress("192.168.7.5", 24, "wlan0")
OUTSIDE = Address("198.51.100.7", 40000)
HUB0, HUB1 = (
    anchor_server(Address(f"203.0.113.{n}", PORT), node_id(key("a")), SESSION, shared("a", f"hub{n}")) for n in (1, 2)
)
STRANGER = Server(Address("203.0.113.9", 3478))


class Node:
    """A node's gatherer, and servers that see it where `sees` says; None: they do not answer."""

    def __init__(self, *servers: Server, hosts: tuple[LocalAddress, ...] = (HERE,)) -> None:
        self.own, self.nat = LocalCandidates(interface("a", 10).mesh_ranges), NatKnowledge(PORT)
        self.gatherer = Gatherer(self.own, self.nat, Transactions(random.Random(1)))  # noqa: S311
        self.now = 500.0
        self.sees: Callable[[Address, Address], Address | None] = lambda _base, _server: OUTSIDE
        self.asked: list[tuple[float, SendProbe]] = []
        self.changes: list[tuple[float, bool]] = []  # when peers were to hear, and whether the node had moved
        self._known = {server.address: server for server in servers}
        self._answers: list[tuple[float, SendProbe, Address]] = []
        self.gatherer.set_hosts(hosts, PORT, self.now)
        self.gatherer.set_servers(servers, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            changed = self.gatherer.take_change(self.now)
            if changed[0]:
                self.changes.append((self.now, changed[1]))
            due = [t for t in (self.gatherer.due, self.gatherer.changed_at) if t is not None]
            when = min([*due, *(at for at, _, _ in self._answers)], default=end)
            if when > end:
                break
            self.now = max(self.now, when)
            self._hear()
            probe = self.gatherer.poll(self.now)
            if probe is not None:
                self._send(probe)
            list(self.gatherer.silent(self.now))
            assert self.gatherer.due is None or self.gatherer.due > self.now, "polled, and still due"
        self.now = end

    def _send(self, probe: SendProbe) -> None:
        self.asked.append((self.now, probe))
        mapped = self.sees(probe.local, probe.remote)
        if mapped is not None:
            self._answers.append((self.now + RTT_S, probe, mapped))

    def _hear(self) -> None:
        arriving = [a for a in self._answers if a[0] <= self.now]
        self._answers = [a for a in self._answers if a[0] > self.now]
        for _, probe, mapped in arriving:
            request = stun.decode(probe.data).message
            answer = stun.success_response(request, TransportAddress(*mapped))
            data = stun.encode(answer, self._known[probe.remote].key or None, integrity=(MESSAGE_INTEGRITY_SHA256,))
            self.gatherer.answered(stun.decode(data), probe.local, probe.remote, self.now)

    def offered(self, kind: str) -> list[Address]:
        return [c.address for c in self.own.offered() if c.kind == kind]

    def asked_since(self, start: float) -> list[Address]:
        return [probe.remote for at, probe in self.asked if at >= start]


def settled(*servers: Server) -> Node:
    node = Node(*(servers or (HUB0, HUB1)))
    node.run(5.0)
    node.changes.clear()
    return node


def test_own_addresses_are_offered_at_once_and_so_is_what_servers_see_when_they_answer() -> None:
    node = Node(HUB0)
    node.run(0.0)
    assert node.changes == [(500.0, True)]
    assert node.offered("host") == [Address(HERE.ip, PORT)]
    node.run(1.0)
    assert node.offered("srflx") == [OUTSIDE]


def test_what_comes_in_one_moment_is_told_at_once_together() -> None:
    node = Node(HUB0, HUB1)
    node.sees = lambda _, server: Address("198.51.100.7", 40000 + server.port % 7 + int(server.ip[-1]))
    node.run(1.0)
    told = [(round(at - 500.0, 6), moved) for at, moved in node.changes]
    assert told == [(0.0, True), (RTT_S + TRICKLE_S, False)]
    assert len(node.offered("srflx")) == 2


def test_a_change_is_told_once() -> None:
    node = settled()
    assert node.gatherer.take_change(node.now) == (False, False)
    node.gatherer.doubt(node.now)
    assert node.gatherer.take_change(node.now - 0.01) == (False, False)
    assert node.gatherer.take_change(node.now) == (True, True)
    assert node.gatherer.take_change(node.now) == (False, False)


def test_the_same_addresses_again_are_no_change_and_a_question_to_each_server() -> None:
    node = settled()
    start = node.now
    node.gatherer.set_hosts((HERE,), PORT, node.now)
    node.run(1.0)
    assert node.changes == []
    assert node.asked_since(start) == [HUB0.address, HUB1.address]


def test_on_another_network_everybody_is_asked_from_there_and_what_was_seen_is_forgotten() -> None:
    node = settled()
    start = node.now
    node.sees = lambda _base, _server: None
    node.gatherer.set_hosts((THERE,), PORT, node.now)
    assert node.offered("srflx") == []
    node.run(0.01)
    assert {(p.local.ip, p.remote) for at, p in node.asked if at >= start} == {
        (THERE.ip, HUB0.address), (THERE.ip, HUB1.address),
    }  # fmt: skip
    assert node.changes == [(start, True)]
    assert node.nat.summary(node.own.bases(), node.now)[0].mapping == 0, "nothing is known of the NAT there"


def test_an_answer_to_an_address_that_has_gone_meanwhile_counts_for_nothing() -> None:
    node = Node(HUB0)
    node.run(RTT_S / 2)
    node.gatherer.set_hosts((THERE,), PORT, node.now)
    node.sees = lambda _base, _server: None
    node.run(1.0)
    assert node.offered("srflx") == []


def test_questions_from_an_address_that_has_gone_are_not_asked_on() -> None:
    node = Node(HUB0)
    node.sees = lambda _base, _server: None
    node.run(0.01)
    node.gatherer.set_hosts((THERE,), PORT, node.now)
    start = node.now
    node.run(10.0)
    assert {probe.local.ip for at, probe in node.asked if at > start} == {THERE.ip}


def test_back_on_the_network_of_before_its_nat_is_another_one() -> None:
    node = settled()
    for host in (THERE, HERE):
        node.gatherer.set_hosts((host,), PORT, node.now)
    assert node.nat.preserves_port(Address(HERE.ip, PORT), node.now) is None


def test_a_second_own_address_does_not_make_what_is_known_of_the_first_unknown() -> None:
    node = settled()
    node.gatherer.set_hosts((HERE, THERE), PORT, node.now)
    assert node.offered("srflx") == [OUTSIDE]
    assert node.nat.preserves_port(Address(HERE.ip, PORT), node.now) is False


def test_a_bridge_that_comes_and_goes_is_no_move_and_a_network_is_one_once_it_answers() -> None:
    node, bridge = Node(HUB0), LocalAddress("172.18.0.1", 16, "br0")
    node.sees = lambda base, _server: None if base.ip == bridge.ip else OUTSIDE
    node.run(60)
    node.changes.clear()
    for hosts in ((HERE, bridge), (HERE,)) * 3:
        node.gatherer.set_hosts(hosts, PORT, node.now)
        node.run(60)
    assert [moved for _, moved in node.changes] == [False] * 6
    node.changes.clear()
    began = node.now
    node.gatherer.set_hosts((HERE, THERE), PORT, node.now)
    node.run(60)
    assert [at - began < 1 for at, moved in node.changes if moved] == [True]
    node.gatherer.set_hosts((HERE,), PORT, node.now)
    assert node.gatherer.moved, "answers came to it"


def test_a_host_with_many_addresses_asks_from_a_few() -> None:
    hosts = tuple(LocalAddress(f"192.168.{n}.5", 24, f"eth{n}") for n in range(10))
    node = Node(HUB0, hosts=hosts)
    node.run(1.0)
    assert len({probe.local for _, probe in node.asked}) == MAX_BASES


@pytest.mark.parametrize("others", [3, 12, MAX_HOSTS - 1])
def test_bases_that_lead_nowhere_give_way_to_the_others_within_seconds_and_in_few_packets(others: int) -> None:
    inside = tuple(LocalAddress(f"10.0.{n}.1", 24, f"vlan{n}") for n in range(others))
    node = Node(HUB0, HUB1, hosts=(*inside, HERE))
    node.sees = lambda base, _: OUTSIDE if base.ip == HERE.ip else None
    began = node.now
    node.run(others / MAX_BASES * WIDEN_S + 0.1)
    assert node.offered("srflx") == [OUTSIDE]
    assert node.own.base(4) == Address(HERE.ip, PORT)
    node.run(5.0)
    seconds = Counter(int(at - began) for at, _ in node.asked)
    assert max(seconds.values()) <= 2 * len(SCHEDULE_S) * MAX_BASES * 2, "of which two servers have their share"
    since = node.now
    node.run(10 * REFRESH_S)
    dead = Counter(probe.local.ip for at, probe in node.asked if at >= since and probe.local.ip != HERE.ip)
    assert sum(dead.values()) <= 11 * (MAX_BASES - 1) * len(SCHEDULE_S) * 2, "in passing"


def test_where_nobody_answers_each_base_is_asked_from_once_and_then_few_at_a_time_in_turn() -> None:
    hosts = tuple(LocalAddress(f"10.0.{n}.1", 24, f"vlan{n}") for n in range(12))
    node = Node(HUB0, hosts=hosts)
    node.sees = lambda _base, _server: None
    node.run(60.0)
    assert Counter(probe.local.ip for _, probe in node.asked) == {host.ip: len(SCHEDULE_S) for host in hosts}
    for _ in range(4):
        start = node.now
        node.gatherer.ask_again(HUB0, node.now)
        node.run(10.0)
        assert len({probe.local.ip for at, probe in node.asked if at >= start}) == MAX_BASES
    assert Counter(probe.local.ip for _, probe in node.asked) == {host.ip: 2 * len(SCHEDULE_S) for host in hosts}
    node.sees = lambda base, _: OUTSIDE if base.ip == hosts[-1].ip else None
    node.gatherer.ask_anew(HUB0, node.now)
    node.run(3.0)
    assert node.offered("srflx") == [OUTSIDE], "an anchor that is there now is asked from all of them"


def test_a_new_server_is_asked_at_once_and_one_that_is_known_is_not_asked_again() -> None:
    node = settled(HUB0)
    start = node.now
    node.gatherer.set_servers((HUB0,), node.now)
    node.run(1.0)
    assert node.asked_since(start) == []
    node.sees = lambda _base, _server: None
    node.gatherer.set_servers((HUB0, HUB1), node.now)
    node.run(0.01)
    assert node.asked_since(start) == [HUB1.address]


def test_everybody_is_asked_again_before_what_they_said_is_too_old_and_then_for_ever() -> None:
    node = settled()
    start = node.now
    node.run(10 * REFRESH_S)
    rounds = len(node.asked_since(start)) / 2
    assert 9 <= rounds <= 11
    assert node.offered("srflx") == [OUTSIDE]
    assert node.changes == []


def test_what_no_server_sees_any_more_is_offered_no_more_after_its_time() -> None:
    node = settled()
    node.sees = lambda _base, _server: None
    node.run(OBSERVATION_S + 1.0)
    assert node.offered("srflx") == []
    assert not any(moved for _, moved in node.changes)


def test_a_nat_that_has_rebound_is_noticed_all_are_asked_and_peers_try_everything_with_the_new_address() -> None:
    node = settled()
    moved_to = Address(OUTSIDE.ip, OUTSIDE.port + 5)
    node.sees = lambda _base, _server: moved_to
    node.gatherer.ask(HUB0, node.now)
    start = node.now
    node.run(1.0)
    assert node.offered("srflx") == [moved_to]
    assert node.changes[0][1] is True
    assert HUB1.address in node.asked_since(start)
    assert node.asked_since(start + 0.2) == [], "and that is that"


def behind_a_hard_nat(ports: dict[Server, int]) -> Node:
    """A node that each server sees at another port, which the caller may change."""
    node = Node(*ports)
    node.sees = lambda _, to: Address(OUTSIDE.ip, next(port for server, port in ports.items() if server.address == to))
    node.run(5.0)
    node.changes.clear()
    return node


def test_one_mapping_of_a_hard_nat_that_has_ended_does_not_put_all_paths_in_doubt_but_everybody_is_asked() -> None:
    ports = {HUB0: 1024, HUB1: 2048, STRANGER: 4096}
    node = behind_a_hard_nat(ports)
    ports[HUB0], began = 1025, node.now
    node.gatherer.ask(HUB0, node.now)
    node.run(5.0)
    assert set(node.asked_since(began)) == {server.address for server in ports}
    assert not any(moved for _, moved in node.changes)
    assert Address(OUTSIDE.ip, 1025) in node.offered("srflx")


def test_a_hard_nat_that_has_forgotten_all_its_mappings_is_noticed_by_the_second_of_them() -> None:
    ports = {HUB0: 1024, HUB1: 2048}
    node = behind_a_hard_nat(ports)
    ports.update({HUB0: 1025, HUB1: 2049})
    node.gatherer.ask(HUB0, node.now)
    node.run(5.0)
    assert [moved for _, moved in node.changes].count(True) == 1


def test_a_hard_nat_with_another_outer_address_is_noticed_at_once() -> None:
    ports = {HUB0: 1024, HUB1: 2048}
    node = behind_a_hard_nat(ports)
    node.gatherer.seen("observed", Address(HERE.ip, PORT), HUB0.address, Address("198.51.100.8", 1024), node.now)
    assert node.gatherer.take_change(node.now) == (True, True)


def test_doubt_asks_everybody_and_has_peers_try_everything() -> None:
    node = settled()
    start = node.now
    node.gatherer.doubt(node.now)
    node.run(1.0)
    assert sorted(node.asked_since(start)) == [HUB0.address, HUB1.address]
    assert node.changes == [(start, True)]


def test_a_word_of_an_anchor_is_an_address_too() -> None:
    node = settled(HUB0)
    seen = Address("198.51.100.99", 6)
    node.gatherer.seen("observed", Address(HERE.ip, PORT), HUB1.address, seen, node.now)
    assert node.offered("observed") == [seen]


def test_mappings_that_routers_have_promised_are_offered_as_long_as_they_are() -> None:
    node = settled(HUB0)
    base, external = Address(HERE.ip, PORT), Address("198.51.100.7", 51820)
    node.gatherer.mapped([(external, base, node.now + 100.0)], node.now)
    node.run(1.0)
    assert node.offered("mapped") == [external]
    assert not any(moved for _, moved in node.changes)
    node.run(100.0)
    assert node.offered("mapped") == []
    node.gatherer.mapped([(external, base, node.now + 100.0)], node.now)
    node.gatherer.mapped([], node.now)
    assert node.offered("mapped") == []


def test_a_server_that_lies_adds_one_address_and_takes_none_away() -> None:
    node = Node(HUB0, HUB1, STRANGER)
    lie = Address("192.0.2.66", 6)
    node.sees = lambda _, server: lie if server == STRANGER.address else OUTSIDE
    node.run(2 * REFRESH_S)
    assert (node.offered("srflx"), node.offered("told")) == ([OUTSIDE], [lie])
    assert [moved for _, moved in node.changes].count(True) == 1, "which was the start"


def test_what_a_server_without_a_key_says_is_told_as_such_unless_an_anchor_sees_it_too() -> None:
    alone, confirmed = Node(STRANGER), Node(STRANGER, HUB0)
    for node in (alone, confirmed):
        node.run(1.0)
    assert (alone.offered("srflx"), alone.offered("told")) == ([], [OUTSIDE])
    assert (confirmed.offered("srflx"), confirmed.offered("told")) == ([OUTSIDE], [])


def test_a_node_that_has_the_same_address_in_another_network_finds_out_that_it_has_moved() -> None:
    node = settled()
    node.sees = lambda _base, _server: Address("192.0.2.77", 40000)
    node.gatherer.set_hosts((HERE,), PORT, node.now)
    node.run(1.0)
    assert True in [moved for _, moved in node.changes]
    assert node.offered("srflx") == [Address("192.0.2.77", 40000)]


def test_a_server_is_asked_again_from_where_answers_come_to_and_from_everywhere_where_none_do() -> None:
    bridge = LocalAddress("172.17.0.1", 16, "docker0")
    for answers, asked in ((True, {HERE.ip}), (False, {HERE.ip, bridge.ip})):
        node = Node(HUB0, hosts=(HERE, bridge))
        node.sees = lambda base, _, answers=answers: OUTSIDE if answers and base.ip == HERE.ip else None
        node.run(10.0)
        start = node.now
        node.gatherer.ask_again(HUB0, node.now)
        node.run(10.0)
        assert {probe.local.ip for at, probe in node.asked if at >= start} == asked


def test_a_server_that_does_not_answer_is_given_up_until_the_next_time() -> None:
    node = Node(STRANGER)
    node.sees = lambda _base, _server: None
    node.run(REFRESH_S - 1.0)
    assert 2 <= len(node.asked) <= 4
    assert node.offered("told") == []


def test_a_server_that_says_something_else_each_time_is_not_believed_and_not_asked_again_and_again() -> None:
    node, ports = Node(HUB0, HUB1, STRANGER), itertools.count(1024)
    node.sees = lambda _, server: Address("192.0.2.66", next(ports)) if server == STRANGER.address else OUTSIDE
    node.run(4 * REFRESH_S)
    assert len(node.asked) <= 5 * 3
    assert [moved for _, moved in node.changes].count(True) == 1
    assert node.offered("srflx") == [OUTSIDE]
    assert len(node.offered("told")) <= 2


def test_servers_whose_names_lead_to_another_address_each_time_take_no_more_room_than_so_many() -> None:
    strangers = [Server(Address(f"203.0.{n // 250}.{n % 250 + 1}", 3478)) for n in range(2 * MAX_STRANGERS)]
    node = Node(HUB0, *strangers)
    for server in strangers:
        node.gatherer.set_servers([HUB0, server], node.now)
        node.run(1.0)
    assert len(node.gatherer._strangers) == MAX_STRANGERS
