"""A host with many addresses of which one leads out, as a router with VLANs. Hunted: one that nobody can reach because
it asks, binds and checks from addresses that lead nowhere."""

from __future__ import annotations

import pytest
from agentcore_pair import IPS, PairWorld

from meshctl.core.agent import events as ev
from meshctl.core.agent.address import Address, LocalAddress
from meshctl.core.agent.candidate import MAX_HOSTS

WAN, OUTER = "192.168.1.5", "198.51.100.1"


def router(
    monkeypatch: pytest.MonkeyPatch, others: int, *, real: str = WAN, apart: bool = True, gateways: tuple[str, ...] = ()
) -> PairWorld:
    """Node a has so many more addresses, which sort before its own and lead nowhere, and starts now; `apart`: no packet
    passes between the two nodes."""
    monkeypatch.setitem(IPS, "a", real)
    world = PairWorld(hubs=2, outside={real: (OUTER, 0)} if real == WAN else None, agents="b")
    inside = [LocalAddress(f"10.0.{n}.1", 24, f"vlan{n}") for n in range(others)]
    own = (LocalAddress(real, 24, "wan0"), *inside)
    nowhere = {address.ip for address in inside} | ({WAN} if real == WAN else set())

    def cut(source: Address, destination: Address) -> bool:
        dead = source.ip in nowhere or destination.ip in nowhere
        return dead or (apart and {source.ip, destination.ip} == {OUTER, IPS["b"]})

    world.cut = cut
    host = world.hosts["a"]
    monkeypatch.setattr(host, "tell_addresses", lambda: host.give(ev.LocalAddresses(own, gateways)))
    host.start()
    return world


def ready(world: PairWorld, states: tuple[str, str], within: float) -> float:
    """After how long both ends say that, while they talk."""
    start = world.now
    while world.states() != states:
        assert world.now - start < within, world.states()
        world.talk(0.1)
    return world.now - start


@pytest.mark.parametrize(("others", "within"), [(3, 3.0), (12, 6.0), (MAX_HOSTS - 1, 12.0)])
def test_a_host_with_other_addresses_is_relayed_within_seconds_of_its_start(
    monkeypatch: pytest.MonkeyPatch, others: int, within: float
) -> None:
    world = router(monkeypatch, others)
    ready(world, ("relayed", "relayed"), within)
    world.talk(5.0)
    assert len(world.hosts["a"].heard) > 40


def test_where_the_gateway_is_known_it_is_relayed_as_soon_as_one_with_a_single_address(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ready(router(monkeypatch, 0), ("relayed", "relayed"), 3.0)
    assert ready(router(monkeypatch, 200, gateways=("192.168.1.1",)), ("relayed", "relayed"), 3.0) <= plain + 0.1


@pytest.mark.parametrize("others", [MAX_HOSTS - 1, 99, 100, 300])
def test_a_host_with_a_hundred_addresses_has_direct_paths_and_offers_what_servers_see(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    ready(router(monkeypatch, others, real=OUTER, apart=False), ("direct", "direct"), 3.0)


def test_a_host_behind_a_nat_with_other_addresses_goes_direct_where_that_is_possible(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(router(monkeypatch, MAX_HOSTS - 1, apart=False), ("direct", "direct"), 15.0)
