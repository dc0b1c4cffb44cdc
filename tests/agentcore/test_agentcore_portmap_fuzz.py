"""Port mappings against a hostile gateway, and against neighbours that speak in its name. Hunted: an exception, a spin,
and a mapping that the gateway did not answer for. Takes some five seconds."""

from __future__ import annotations

import random
from collections.abc import Callable

from agentcore_portmap_gateway import GATEWAY, GATEWAY_6, OWN, OWN_6, PORT, Host, Router
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, MappingDatagram
from meshctl.core.agent.portmap import PortMapper
from meshctl.core.agent.portmap_state import load
from meshctl.core.agent.portmap_values import LIFETIME_S
from meshctl.core.wire.specialranges import Reach, reach

ROUTERS = st.builds(
    Router,
    speaks=st.frozensets(st.sampled_from(["pcp", "nat-pmp", "upnp", "pinhole"])),
    outside=st.sampled_from(["198.51.100.7", "203.0.113.1", "10.0.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255"]),  # noqa: S104
    lifetime_s=st.none() | st.sampled_from([0, 1, 60, 120, 2**31, 2**32 - 1]),
    pcp_result=st.sampled_from([0, 0, 0, 2, 4, 8, 12, 200]),
    upnp_version=st.sampled_from([1, 2]),
    leads_to=st.none() | st.just("192.168.1.66"),
    faults=st.fixed_dictionaries({
        name: st.lists(st.sampled_from([0, 401, 501, 718, 724, 725, 728, 9999]), max_size=5)
        for name in ("AddPortMapping", "AddAnyPortMapping", "GetExternalIPAddress", "AddPinhole")
    }),
)  # fmt: skip


def tampering(seed: int, rate: float, heard: list[object]) -> Callable[[object], list[object]]:
    """Changes answers, repeats and drops them, plays back older ones, and tells others' lies in others' names."""
    dice = random.Random(seed)  # noqa: S311 - a simulation

    def tamper(answer: object) -> list[object]:
        heard.append(answer)
        if dice.random() >= rate:
            return [answer]
        how = dice.randrange(5)
        if how == 0:
            return []
        if how == 1:
            return [answer] * 3
        if how == 2:
            return [dice.choice(heard), answer]
        if isinstance(answer, MappingDatagram):
            if how == 3:
                return [MappingDatagram(Address("192.168.1.66", answer.gateway.port), answer.data)]
            return [MappingDatagram(answer.gateway, _damaged(answer.data, dice)), answer]
        assert isinstance(answer, HttpReply)
        if how == 3:
            return [HttpReply(answer.request_id, dice.choice([0, 200, 302, 404, 500]), _damaged(answer.body, dice))]
        return [HttpReply(answer.request_id + dice.randrange(-3, 4), answer.status, answer.body)]

    return tamper


def _damaged(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.3 else changed)


@settings(max_examples=examples(30), deadline=None)
@given(ROUTERS, st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 3), st.booleans())
def test_a_hostile_gateway_does_not_make_it_raise_or_spin_or_claim_what_cannot_be(
    router: Router, seed: int, rate: float, ports: int, ipv6: bool
) -> None:
    numbers = tuple(range(PORT, PORT + ports))
    host = Host(router, seed=seed, tamper=tampering(seed, rate, []), ports=numbers, ipv6=ipv6)
    for turn in range(6):
        for datagram in router.announce(["alive", "byebye", "update"][(seed + turn) % 3], str(turn % 4)):
            host.give(datagram)
        # 40 sendings and requests in a round of one lease, and a round in half a minute at most.
        assert host.run(1200, most=1200 * ports) >= 0
        assert host.mapper.due() is None or host.mapper.due() > host.now - 1e-6  # type: ignore[operator]
        for mapped in host.mapper.mapped():
            assert host.now < mapped.expires_at <= host.now + LIFETIME_S
            assert (mapped.held.gateway, mapped.held.internal.ip) in ((GATEWAY, OWN), (GATEWAY_6, OWN_6))
            assert reach(mapped.external.ip) is Reach.GLOBAL
            assert mapped.external.port
    held = {m.held for m in host.mapper.mapped()}
    assert held <= set(load(host.mapper.state()))
    host.leave()
    assert host.mapper.due() is None


@settings(max_examples=examples(15), deadline=None)
@given(ROUTERS, st.integers(0, 2**32), st.sampled_from(["192.168.1.66", "203.0.113.5", "fe80::66"]))
def test_nothing_counts_that_does_not_come_from_the_gateway(router: Router, seed: int, sender: str) -> None:
    def forged(answer: object) -> list[object]:
        if isinstance(answer, MappingDatagram):
            return [MappingDatagram(Address(sender, answer.gateway.port), answer.data)]
        assert isinstance(answer, HttpReply)
        return [HttpReply(answer.request_id + 1000, answer.status, answer.body)]

    host = Host(router, seed=seed, tamper=forged)
    for _ in range(10):
        host.run(60)
        assert host.mapper.mapped() == ()


@settings(max_examples=examples(30))
@given(st.binary(max_size=400), st.binary(max_size=400), st.integers(0, 5), st.integers(0, 599))
def test_any_bytes_from_the_gateway_are_taken(datagram: bytes, body: bytes, number: int, status: int) -> None:
    host = Host(Router(frozenset()))
    for port in (5351, 1900, 0):
        host.give(MappingDatagram(Address(GATEWAY, port), datagram))
        host.give(HttpReply(number, status, body))
        host.run(3)
    assert host.mapper.mapped() == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(OWN),
    lambda inside: st.lists(inside, max_size=10), max_leaves=20,
)  # fmt: skip


@settings(max_examples=examples(30))
@given(st.binary(max_size=200) | JSON.map(lambda value: repr(value).replace("'", '"').encode()))
def test_any_state_is_taken(state: bytes) -> None:
    mapper = PortMapper(random.Random(0), state)  # noqa: S311 - a simulation
    mapper.set_network([], [GATEWAY], [PORT], 0.0)
    assert mapper.mapped() == ()
    assert load(mapper.state()) is not None
