"""Port mappings against a router of every kind. Hunted: a mapping that ends unnoticed, one that is left behind, and a
router that is asked without end. Takes two seconds."""

from __future__ import annotations

import struct

import pytest
from agentcore_portmap_gateway import CONTROL, GATEWAY, GATEWAY_6, OUTSIDE, OWN, OWN_6, PORT, Host, Router

from meshctl.core.agent.address import Address
from meshctl.core.agent.events import HttpReply, HttpRequest, MappingDatagram, SendMapping
from meshctl.core.agent.portmap_igd import MAX_REQUESTS
from meshctl.core.agent.portmap_values import LIFETIME_S

PCP, NATPMP, UPNP = (frozenset({name}) for name in ("pcp", "nat-pmp", "upnp"))
HERE = Address(OUTSIDE, PORT)
DAY = 86400.0


def protocol(host: Host) -> str:
    """By which the one mapping is held."""
    (mapped,) = host.mapper.mapped()
    return mapped.held.protocol


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_a_router_is_asked_in_the_way_that_it_speaks_and_the_mapping_never_lapses(speaks: frozenset[str]) -> None:
    host = Host(Router(speaks))
    host.run(10)
    assert [(m.external, m.held.internal) for m in host.mapper.mapped()] == [(HERE, Address(OWN, PORT))]
    assert {protocol(host)} == speaks
    for _ in range(48):
        host.run(1800)
        (mapped,) = host.mapper.mapped()
        assert mapped.expires_at > host.now
    assert len(host.router.seen) < 24 * 20


def test_upnp_is_not_asked_when_pcp_answers_at_once() -> None:
    host = Host(Router(PCP | UPNP))
    host.run(DAY)
    assert protocol(host) == "pcp"
    assert {what for _, what in host.router.seen} == {"pcp"}


def test_renewals_are_between_a_half_and_five_eighths_and_differ() -> None:
    host = Host(Router(PCP))
    host.run(10 * DAY)
    times = [at for at, _ in host.router.seen]
    gaps = {times[n + 1] - times[n] for n in range(len(times) - 1)}
    assert len(gaps) > 10
    assert all(LIFETIME_S / 2 <= gap <= LIFETIME_S * 5 / 8 for gap in gaps)


def test_a_silent_router_is_asked_seldom() -> None:
    host = Host(Router(frozenset()))
    host.run(60)
    assert 4 <= len([s for s in host.sent if isinstance(s, SendMapping) and s.gateway.port == 5351]) <= 10
    before = len(host.sent)
    host.run(DAY)
    assert (len(host.sent) - before) / 24 < 90
    assert host.mapper.mapped() == ()
    assert host.mapper.why()[0][2] == "the router does not answer PCP or NAT-PMP; no router answers UPnP"


@pytest.mark.parametrize("outside", ["10.1.2.3", "100.64.3.4", "0.0.0.0", "192.168.1.1"])  # noqa: S104
@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_a_router_behind_another_nat_maps_nothing_and_keeps_nothing(speaks: frozenset[str], outside: str) -> None:
    host = Host(Router(speaks, outside=outside))
    host.run(600)
    assert host.mapper.mapped() == ()
    assert host.router.table == {}
    host.router.outside = OUTSIDE
    host.run(2 * 3600)
    assert host.mapper.mapped()


@pytest.mark.parametrize("speaks", [PCP, NATPMP], ids=lambda s: "".join(s))
def test_a_router_that_announces_a_restart_is_asked_again_at_once(speaks: frozenset[str]) -> None:
    router = Router(speaks)
    host = Host(router)
    host.run(1000)
    router.table, router.booted_at = {}, host.now
    pcp = struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, 0)
    natpmp = struct.pack("!BBHI4B", 0, 0x80, 0, 0, 198, 51, 100, 7)
    host.give(MappingDatagram(Address(GATEWAY, 5351), pcp if speaks is PCP else natpmp))
    host.run(0)
    assert router.table
    (mapped,) = host.mapper.mapped()
    assert mapped.expires_at > host.now + 3600


def test_an_announcement_in_each_second_does_not_make_a_request_in_each() -> None:
    host = Host(Router(PCP))
    host.run(100)
    before = len(host.sent)
    for epoch in range(300):
        announcement = struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, epoch % 2 * 9999)
        host.give(MappingDatagram(Address(GATEWAY, 5351), announcement))
        host.run(1)
    assert len(host.sent) - before <= 11


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_what_is_mapped_is_deleted_when_no_port_is_wanted_any_more(speaks: frozenset[str]) -> None:
    host = Host(Router(speaks))
    host.run(10)
    assert host.router.table
    host.leave()
    host.carry()
    assert host.router.table == {}
    assert host.mapper.due() is None
    assert host.mapper.state() == b"[]"


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_after_a_crash_the_mapping_is_taken_over(speaks: frozenset[str]) -> None:
    first = Host(Router(speaks, lifetime_s=LIFETIME_S))
    first.run(10)
    second = Host(first.router, first.mapper.state(), now=first.now, seed=2)
    second.run(10)
    assert [m.held for m in second.mapper.mapped()] == [m.held for m in first.mapper.mapped()]
    assert len(second.router.table) == 1


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_after_a_crash_the_mapping_of_another_port_is_deleted(speaks: frozenset[str]) -> None:
    first = Host(Router(speaks))
    first.run(10)
    second = Host(first.router, first.mapper.state(), now=first.now, seed=2, ports=(51999,))
    second.run(10)
    assert [to[:2] for to in second.router.table.values()] == [(OWN, 51999)]


def test_a_mapping_of_before_that_is_another_hosts_by_now_is_left_alone() -> None:
    first = Host(Router(UPNP))
    first.run(10)
    first.router.table = {PORT: ("192.168.1.99", PORT, 0)}
    second = Host(first.router, first.mapper.state(), ports=(51999,))
    second.run(10)
    assert second.router.table[PORT] == ("192.168.1.99", PORT, 0)


def test_a_port_that_is_taken_is_not_asked_for_again() -> None:
    host = Host(Router(UPNP, table={PORT: ("192.168.1.99", PORT, 0)}))
    host.run(10)
    (mapped,) = host.mapper.mapped()
    assert mapped.external.port != PORT
    assert host.router.table[mapped.external.port][:2] == (OWN, PORT)


def test_a_permanent_mapping_is_remembered_until_the_router_is_there_again() -> None:
    host = Host(Router(UPNP, faults={"AddPortMapping": [725]}))
    host.run(10)
    assert host.router.table == {PORT: (OWN, PORT, 0)}
    host.network(gateways=())
    assert host.mapper.due() is None
    later = Host(host.router, host.mapper.state(), ports=())
    assert later.router.table == {}
    assert later.mapper.state() == b"[]"


def test_a_router_that_has_no_action_of_its_version_is_asked_by_the_older_one() -> None:
    host = Host(Router(UPNP, upnp_version=2, faults={"AddAnyPortMapping": [401]}))
    host.run(10)
    assert [m.external for m in host.mapper.mapped()] == [HERE]


def test_a_router_that_maps_to_another_host_is_not_believed() -> None:
    host = Host(Router(UPNP, leads_to="192.168.1.66"))
    host.run(3600)
    assert host.mapper.mapped() == ()
    assert "the router maps the port to another host" in host.mapper.why()[0][2]


@pytest.mark.parametrize("lifetime_s", [0, 1, 59, 2**32 - 1])
@pytest.mark.parametrize("speaks", [PCP, NATPMP], ids=lambda s: "".join(s))
def test_an_absurd_lifetime_is_bounded(speaks: frozenset[str], lifetime_s: int) -> None:
    host = Host(Router(speaks, lifetime_s=lifetime_s))
    host.run(10)
    assert all(m.expires_at <= host.now + LIFETIME_S for m in host.mapper.mapped())
    assert bool(host.mapper.mapped()) == (lifetime_s > 59)
    assert host.run(DAY) < 800


def test_a_refusal_of_pcp_leaves_upnp_to_try() -> None:
    host = Host(Router(PCP | UPNP, pcp_result=2))
    host.run(10)
    assert protocol(host) == "upnp"
    assert [what for _, what in host.router.seen].count("pcp") == 1


def test_a_pinhole_is_asked_for_from_the_address_that_it_is_for() -> None:
    host = Host(Router(PCP), ipv6=True)
    host.run(10)
    assert [m.external for m in host.mapper.mapped()] == [Address(OWN_6, PORT)]
    assert {(s.gateway.ip, s.source) for s in host.sent if isinstance(s, SendMapping)} == {(GATEWAY_6, OWN_6)}


def test_a_description_elsewhere_is_not_fetched() -> None:
    host = Host(Router(frozenset()))
    host.run(3)
    for url in ("http://192.168.1.66:80/", "http://203.0.113.9/x", "https://192.168.1.1/", "file:///etc/passwd"):
        host.give(MappingDatagram(Address(GATEWAY, 1900), f"HTTP/1.1 200 OK\r\nLOCATION: {url}\r\n\r\n".encode()))
    host.run(60)
    assert not [s for s in host.sent if isinstance(s, HttpRequest)]


def test_each_port_and_each_router_has_a_mapping_of_its_own_and_what_stays_is_left_alone() -> None:
    host = Host(Router(PCP), ports=(51820, 51821))
    host.run(10)
    assert [m.external.port for m in host.mapper.mapped()] == [51820, 51821]
    before = len(host.sent)
    host.network((51821,))
    assert [m.external.port for m in host.mapper.mapped()] == [51821]
    assert len(host.sent) - before == 1
    assert list(host.router.table) == [51821]


def test_a_state_with_a_port_that_is_no_whole_number_is_nothing() -> None:
    row = '["192.168.1.1","192.168.1.10",51820.5,"198.51.100.7",51820,"nat-pmp","","","",false]'
    host = Host(Router(NATPMP), f"[{row}]".encode(), ports=(51999,))
    host.run(10)
    assert [m.external.port for m in host.mapper.mapped()] == [51999]


def test_after_a_sleep_every_mapping_is_asked_for_again() -> None:
    host = Host(Router(PCP | UPNP))
    host.run(100)
    host.router.table = {}
    host.mapper.doubt(host.now)
    host.run(0)
    assert host.router.table


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
@pytest.mark.parametrize("after_s", [0.5, 30.0, 50.0])  # it is asked by PCP; for the fourth time; by NAT-PMP
def test_another_router_with_the_address_of_a_silent_one_is_asked_from_the_beginning(
    after_s: float, speaks: frozenset[str]
) -> None:
    host = Host(Router(frozenset()))
    host.run(after_s)
    host.router.speaks = speaks
    host.mapper.doubt(host.now)
    host.run(4)
    assert host.mapper.mapped()


def test_a_router_that_refuses_a_version_while_it_is_doubted_is_asked_by_the_other() -> None:
    host = Host(Router(NATPMP))
    host.mapper.doubt(host.now)
    host.run(1)
    assert protocol(host) == "nat-pmp"


def test_a_router_that_refuses_each_port_is_asked_for_four() -> None:
    host = Host(Router(UPNP, faults={"AddPortMapping": [718] * 1000}))
    host.run(100)
    assert [what for _, what in host.router.seen].count("AddPortMapping") == 4
    assert "the port is mapped for another host" in host.mapper.why()[0][2]


def test_a_router_with_services_without_end_gets_no_more_than_so_many_requests() -> None:
    services = "".join(
        f"<service><serviceType>{CONTROL}1</serviceType><controlURL>/{n}</controlURL></service>" for n in range(100)
    )

    def many(answer: object) -> list[object]:
        if isinstance(answer, HttpReply) and b"<root>" in answer.body:
            return [HttpReply(answer.request_id, 200, services.encode())]
        return [answer]

    host = Host(Router(UPNP, faults={"AddPortMapping": [718] * 1000}), tamper=many)
    host.run(100)
    assert len([s for s in host.sent if isinstance(s, HttpRequest)]) == MAX_REQUESTS


def test_a_renewal_that_is_refused_is_not_asked_for_ever_faster_towards_the_end() -> None:
    host = Host(Router(PCP, lifetime_s=61))
    host.run(1)
    host.router.pcp_result, before = 8, len(host.router.seen)
    host.run(60)
    assert host.mapper.mapped() == ()
    assert len([at for at, what in host.router.seen[before:] if what == "pcp"]) <= 2


@pytest.mark.parametrize("speaks", [PCP, NATPMP, UPNP], ids=lambda s: "".join(s))
def test_a_gateway_that_vanishes_takes_its_mapping_along_and_is_asked_anew_when_it_is_back(
    speaks: frozenset[str],
) -> None:
    host = Host(Router(speaks))
    host.run(10)
    host.network(gateways=())
    assert host.mapper.mapped() == ()
    assert host.mapper.due() is None
    host.run(60)
    host.network()
    host.run(10)
    assert [m.external for m in host.mapper.mapped()] == [HERE]
