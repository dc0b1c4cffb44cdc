"""The simulated networks do what real ones do: NATs as RFC 4787 names them, and what the oracle says of two of them."""

from __future__ import annotations

import itertools
import random

import pytest
from simclock import Clock
from simnat import PRESERVING, RANDOM, SEQUENTIAL, Behaviour, Nat
from simnet import Cable, Host, Packet, Router, Segment

from meshctl.core.reachability import (
    ADDRESS,
    ADDRESS_AND_PORT,
    DIRECT,
    INDEPENDENT,
    KINDS,
    End,
    Helpers,
    predict,
)

PORT = 51820


class World:
    """An internet with two servers, and hosts that note what they hear."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = Clock()
        self.dice = random.Random(seed)  # noqa: S311
        self.internet = Segment(self.clock, self.dice)
        self.heard: dict[str, list[Packet]] = {}
        self.servers = [self.host(f"s{i}", self.internet, f"203.0.113.{i}") for i in (1, 2)]

    def host(self, name: str, segment: Segment, ip: str, cable: Cable | None = None) -> Host:
        host = Host()
        host.join(segment, ip, cable)
        self.heard[name] = []
        host.bind(PORT, self.heard[name].append)
        return host

    def router(self, outer: str, behaviour: Behaviour, outside: Segment | None = None) -> Router:
        return Router(self.clock, outside or self.internet, outer, behaviour, self.dice)

    def settle(self) -> None:
        self.clock.run(self.clock.now + 1.0)

    def mapped(self, host: Host, ip: str, server: int = 0) -> tuple[str, int]:
        """The host's address and port as a server sees them."""
        name = f"s{server + 1}"
        before = len(self.heard[name])
        host.send((ip, PORT), (f"203.0.113.{server + 1}", PORT), b"?")
        self.settle()
        assert len(self.heard[name]) == before + 1
        return self.heard[name][-1].source


def behaviour(kind: str) -> Behaviour:
    nat = KINDS[kind]
    blocked = kind == "udp-blocked"
    allocation = {"symmetric": RANDOM, "symmetric-sequential": SEQUENTIAL}.get(kind, PRESERVING)
    return Behaviour(nat.mapping or INDEPENDENT, nat.filtering or INDEPENDENT, allocation, blocked=blocked)


@pytest.mark.parametrize("mapping", [INDEPENDENT, ADDRESS, ADDRESS_AND_PORT])
def test_a_mapping_depends_on_what_its_name_says(mapping: str) -> None:
    world = World()
    router = world.router("198.51.100.7", Behaviour(mapping, INDEPENDENT, RANDOM))
    host = world.host("a", router.inside, "192.168.1.2")
    world.servers[0].bind(PORT + 1, world.heard["s1"].append)
    first = world.mapped(host, "192.168.1.2")
    host.send(("192.168.1.2", PORT), ("203.0.113.1", PORT + 1), b"?")
    world.settle()
    other_port = world.heard["s1"][-1].source
    other_address = world.mapped(host, "192.168.1.2", 1)
    assert (first == other_port) == (mapping != ADDRESS_AND_PORT)
    assert (first == other_address) == (mapping == INDEPENDENT)
    assert world.mapped(host, "192.168.1.2") == first


@pytest.mark.parametrize("filtering", [INDEPENDENT, ADDRESS, ADDRESS_AND_PORT])
def test_a_filter_lets_in_whom_its_name_says(filtering: str) -> None:
    world = World()
    router = world.router("198.51.100.7", Behaviour(INDEPENDENT, filtering))
    host = world.host("a", router.inside, "192.168.1.2")
    outer = world.mapped(host, "192.168.1.2")
    heard = []
    for server, port in ((0, PORT), (0, PORT + 1), (1, PORT)):
        world.servers[server].send((f"203.0.113.{server + 1}", port), outer, b"!")
        world.settle()
        heard.append(len(world.heard["a"]))
    passed = [b > a for a, b in itertools.pairwise([0, *heard])]
    assert passed == [True, filtering != ADDRESS_AND_PORT, filtering == INDEPENDENT]


def test_ports_are_kept_or_random_or_in_sequence() -> None:
    def ports(allocation: str) -> list[int]:
        world = World()
        router = world.router("198.51.100.7", Behaviour(ADDRESS_AND_PORT, INDEPENDENT, allocation))
        host = world.host("a", router.inside, "192.168.1.2")
        return [world.mapped(host, "192.168.1.2", server)[1] for server in (0, 1)]

    assert ports(PRESERVING) == [PORT, PORT + 1]  # the second one finds it taken
    one, other = ports(SEQUENTIAL)
    assert other == one + 1
    one, other = ports(RANDOM)
    assert other != one + 1


def test_a_mapping_that_was_silent_too_long_is_gone_and_one_in_use_is_not() -> None:
    world = World()
    router = world.router("198.51.100.7", Behaviour(allocation=RANDOM, expiry_s=30.0))
    host = world.host("a", router.inside, "192.168.1.2")
    first = world.mapped(host, "192.168.1.2")
    for _ in range(3):
        world.clock.run(world.clock.now + 20.0)
        assert world.mapped(host, "192.168.1.2") == first
    world.clock.run(world.clock.now + 31.0)
    world.servers[0].send(("203.0.113.1", PORT), first, b"!")
    world.settle()
    assert world.heard["a"] == []
    assert world.mapped(host, "192.168.1.2") != first


@pytest.mark.parametrize("hairpin", [True, False])
def test_hairpinning_is_what_brings_a_packet_back_in(hairpin: bool) -> None:
    world = World()
    router = world.router("198.51.100.7", Behaviour(hairpin=hairpin, filtering=INDEPENDENT))
    one = world.host("a", router.inside, "192.168.1.2")
    other = world.host("b", router.inside, "192.168.1.3")
    outer = world.mapped(other, "192.168.1.3")
    one.send(("192.168.1.2", PORT), outer, b"!")
    world.settle()
    assert [p.source[0] for p in world.heard["b"]] == (["198.51.100.7"] if hairpin else [])


def test_a_nat_behind_a_nat_maps_twice() -> None:
    world = World()
    carrier = world.router("198.51.100.7", Behaviour())
    home = world.router("100.64.0.9", Behaviour(), carrier.inside)
    host = world.host("a", home.inside, "192.168.1.2")
    assert world.mapped(host, "192.168.1.2")[0] == "198.51.100.7"
    world.servers[0].send(("203.0.113.1", PORT), ("198.51.100.7", PORT), b"!")
    world.settle()
    assert len(world.heard["a"]) == 1


def test_what_is_too_large_for_a_cable_or_unlucky_is_lost_and_the_unlucky_are_as_many_as_said() -> None:
    world = World()
    sender = world.host("a", world.internet, "203.0.113.9", Cable(mtu=1000, loss=0.25))
    sender.send(("203.0.113.9", PORT), ("203.0.113.1", PORT), bytes(1001))
    for _ in range(2000):
        sender.send(("203.0.113.9", PORT), ("203.0.113.1", PORT), bytes(900))
    world.settle()
    assert 1400 < len(world.heard["s1"]) < 1600


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(sorted(KINDS), 2)))
def test_two_ends_meet_where_the_oracle_says_direct_and_nowhere_else(one: str, other: str) -> None:
    """Both send to the other's mapping, as a server saw it, a few times; and to where they heard the other."""
    world = World(seed=1)
    ends = []
    for index, kind in enumerate((one, other)):
        name, ip = "ab"[index], f"192.168.{index}.2"
        if kind == "none":
            ip = f"203.0.113.{10 + index}"
            host = world.host(name, world.internet, ip)
        else:
            router = world.router(f"198.51.100.{index}", behaviour(kind))
            host = world.host(name, router.inside, ip)
        blocked = kind == "udp-blocked"
        ends.append((name, host, ip, None if blocked else world.mapped(host, ip)))
    for _ in range(3):
        for (name, host, ip, _), (_, _, _, mapped) in (ends, ends[::-1]):
            targets = [mapped, *(p.source for p in world.heard[name])]
            for target in dict.fromkeys(t for t in targets if t):
                host.send((ip, PORT), target, b"!")
        world.settle()
    met = bool(world.heard["a"]) and bool(world.heard["b"])
    expected = predict(End(one), End(other), Helpers(introducer=True, relay=True, tls=False)).kind == DIRECT
    assert met == expected


def test_ipv6_is_not_translated_but_let_in_only_where_it_went_out() -> None:
    world = World()
    router = Router(world.clock, world.internet, "198.51.100.7", Behaviour(), world.dice, prefix_v6="2a01:7:")
    host = world.host("a", router.inside, "2a01:7::2")
    world.servers[0].join(world.internet, "2001:db8::1")
    world.servers[0].send(("2001:db8::1", PORT), ("2a01:7::2", PORT), b"!")
    world.settle()
    assert world.heard["a"] == []
    host.send(("2a01:7::2", PORT), ("2001:db8::1", PORT), b"?")
    world.settle()
    assert world.heard["s1"][-1].source == ("2a01:7::2", PORT)
    world.servers[0].send(("2001:db8::1", PORT), ("2a01:7::2", PORT), b"!")
    world.settle()
    assert len(world.heard["a"]) == 1


def test_the_same_seed_gives_the_same_world() -> None:
    def trace(seed: int) -> list[tuple[str, int]]:
        world = World(seed)
        router = world.router("198.51.100.7", Behaviour(ADDRESS_AND_PORT, allocation=RANDOM))
        host = world.host("a", router.inside, "192.168.1.2", Cable(jitter_s=0.01, duplication=0.2, loss=0.2))
        for server in (1, 2) * 20:
            host.send(("192.168.1.2", PORT), (f"203.0.113.{server}", PORT), b"?")
        world.settle()
        return [p.source for name in ("s1", "s2") for p in world.heard[name]]

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)


def test_a_flow_that_came_in_by_an_opened_port_lasts_when_the_port_is_closed_and_no_other_comes_in() -> None:
    nat = Nat(Behaviour(), "81.0.0.1", random.Random(0))  # noqa: S311
    inside, peer = ("10.0.0.2", 51820), ("80.0.0.1", 51820)
    nat.forward(5000, inside)
    assert nat.inward(peer, 5000, 0.0) == inside
    nat.forward(5000, None)
    assert nat.outward(inside, peer, 1.0) == ("81.0.0.1", 5000)
    assert nat.inward(peer, 5000, 2.0) == inside
    assert nat.inward(("80.0.1.1", 51820), 5000, 2.0) is None
    assert nat.inward(peer, 5000, 2.0 + nat.behaviour.expiry_s) is None
